"""Which settings are params of trials, in Optuna's tables and in ours: typed, alike in all rows, of later axes too."""

from __future__ import annotations

import dataclasses
import json
import warnings

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from sqlalchemy import select, update

from gridsearch.records import LATER, ImageSettings
from gridsearch.store import ledger_tables
from gridsearch.store.params import StudyAxes, grow, params_of, rows_of
from tests.store.adding import add, run, trials


def test_params_are_typed_float_int_and_categorical(store, make):
    add(store, make, {"lr": [0.1], "batch": [10], "norm": ["none"], "momentum": [0.0], "nesterov": [False]})
    trial = trials(store)[0]
    assert trial.params == {"lr": 0.1, "batch": 10, "norm": "none", "momentum": 0.0, "nesterov": False}
    kinds = {name: type(d) for name, d in trial.distributions.items()}
    assert kinds == {
        "lr": FloatDistribution,
        "batch": IntDistribution,
        "norm": CategoricalDistribution,
        "momentum": FloatDistribution,
        "nesterov": CategoricalDistribution,
    }
    assert trial.distributions["lr"].log
    assert not trial.distributions["momentum"].log
    assert trial.params["nesterov"] is False


def test_a_categorical_grows_and_every_trial_reads_its_value_as_before(store, make):
    add(store, make, {"norm": ["none"]})
    add(store, make, {"norm": ["standard", "none"]})
    there = trials(store)
    assert [t.params["norm"] for t in there] == ["none", "standard"]
    assert {t.distributions["norm"].choices for t in there} == {("none", "standard")}
    add(store, make, {"optimizer": ["sgd", "adam"]})
    assert {t.distributions["optimizer"].choices for t in trials(store)} == {("adam", "sgd")}


def test_an_axis_that_a_later_grid_brings_is_shown_for_the_older_trials_too(store, make):
    first = add(store, make, {"lr": [0.1, 0.01]})
    run(store, first.ids[:1], lambda t: store.finish(make.finished(t)))
    run(store, first.ids[1:], lambda t: store.fail(make.failed(t)))
    later = add(store, make, {"batch": [64, 128]}, lr=0.1)
    assert later.new == 1
    there = trials(store)
    assert [t.params for t in there] == [
        {"lr": 0.1, "batch": 64},
        {"lr": 0.01, "batch": 64},
        {"lr": 0.1, "batch": 128},
    ]
    assert store.study_data("digits").axes == ("lr", "batch")
    add(store, make, {"lr": [0.01]})  # offers the failed one again
    add(store, make, {"norm": ["standard", "none"]})
    assert [set(t.params) for t in trials(store)] == [{"lr", "batch", "norm"}] * 6, (
        "replaced trials have it too"
    )


def test_points_of_another_recipe_are_reported_and_shown(store, make):
    first = add(store, make, {"lr": [0.1]}, epochs=2)
    assert first.varied == ()
    second = add(store, make, {"lr": [0.1]}, epochs=10, split_seed=3)
    assert set(second.varied) == {"epochs", "split_seed"}
    assert [t.params for t in trials(store)] == [
        {"lr": 0.1, "epochs": 2, "split_seed": 0},
        {"lr": 0.1, "epochs": 10, "split_seed": 3},
    ]
    assert add(store, make, {"lr": [0.2]}, epochs=30).varied == (), "it is known to vary already"


def test_a_store_of_before_a_setting_came_finds_its_trials_and_shows_what_new_ones_differ_in(
    store, make, home
):
    first = add(store, make, {"lr": [0.1, 0.2]})
    with store._database.write() as connection:
        studies, rows = ledger_tables.studies, ledger_tables.trials
        shown = connection.scalar(select(studies.c.shown))
        shown = json.loads(shown)
        for name in LATER:
            assert shown["common"].pop(name, LATER[name]) == LATER[name]
        connection.execute(update(studies).values(shown=json.dumps(shown)))
        for number, text in connection.execute(select(rows.c.id, rows.c.settings)).all():
            settings = {k: v for k, v in json.loads(text).items() if k not in LATER}
            connection.execute(update(rows).where(rows.c.id == number).values(settings=json.dumps(settings)))
    again = add(store, make, {"lr": [0.1, 0.2]})
    assert (again.new, again.ids) == (0, first.ids)
    assert add(store, make, {"lr": [0.1]}, ema=0.9).varied == ("ema",)
    expected = [{"lr": 0.1, "ema": 0.0}, {"lr": 0.2, "ema": 0.0}, {"lr": 0.1, "ema": 0.9}]
    assert [t.params for t in trials(store)] == expected
    assert [t.params for t in store.study_data("digits").trials] == expected


def test_a_model_that_was_edited_is_shown_as_a_version_and_two_models_are_not(store, make):
    one, two, edited = "a" * 64, "b" * 64, "c" * 64
    add(store, make, {"lr": [0.1]}, model="net.py:A", model_source=one)
    add(store, make, {"lr": [0.1]}, model="net.py:B", model_source=two)
    assert store.study_data("digits").axes == ("lr", "model")
    assert add(store, make, {"lr": [0.1]}, model="net.py:A", model_source=edited).varied == ("model_version",)
    assert [t.params["model_version"] for t in trials(store)] == ["a" * 8, "b" * 8, "c" * 8]


def test_data_that_changed_is_shown_as_a_version(store, make):
    add(store, make, {"lr": [0.1]})
    assert add(store, make, {"lr": [0.1]}, data_fingerprint="e" * 64).varied == ("data_version",)
    assert [t.params["data_version"] for t in trials(store)] == ["d" * 8, "e" * 8]


def test_an_option_that_only_one_model_has_does_not_vary(store, make):
    add(store, make, {"model": ["lenet"]}, **{"model.width": 2})
    add(store, make, {"model": ["mlp"]}, **{"model.hidden": 30})
    assert store.study_data("digits").axes == ("model",)
    add(store, make, {"model.hidden": [30, 40]}, model="mlp")
    assert [t.params for t in trials(store)] == [
        {"model": "lenet"},
        {"model": "mlp", "model.hidden": 30},
        {"model": "mlp", "model.hidden": 40},
    ]


@pytest.mark.parametrize(
    ("first", "later", "kind"),
    [
        ([1, 2], [3], IntDistribution),
        ([1, 2], [2.5], FloatDistribution),
        ([1, 2], ["auto"], CategoricalDistribution),
        ([0.5], [True], CategoricalDistribution),
        (["a"], [1, None], CategoricalDistribution),
        ([True], [1], CategoricalDistribution),
    ],
)
def test_a_free_option_keeps_its_values_and_one_kind_in_all_rows(store, make, first, later, kind):
    for values in (first, later):
        add(store, make, {"model.size": values})
    there = trials(store)
    assert [t.params["model.size"] for t in there] == [*first, *later]
    if kind is CategoricalDistribution:
        assert [type(t.params["model.size"]) for t in there] == [type(v) for v in [*first, *later]]
    assert len({repr(t.distributions["model.size"]) for t in there}) == 1
    assert isinstance(there[0].distributions["model.size"], kind)


def test_none_in_an_axis_of_numbers_leaves_the_param_out_of_optuna_but_not_out_of_ours(store, make):
    add(store, make, {"dropout": [None, 0.5]})
    assert [t.params for t in trials(store)] == [{}, {"dropout": 0.5}]
    assert [t.params for t in store.study_data("digits").trials] == [{"dropout": None}, {"dropout": 0.5}]


def test_a_value_beyond_the_usual_bounds_is_stored_as_it_is(store, make):
    add(store, make, {"lr": [1e-300, 1e200], "model.n": [10**12]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        there = trials(store)
    assert [t.params["lr"] for t in there] == [1e-300, 1e200]
    assert there[0].params["model.n"] == 10**12


def test_an_inactive_axis_is_not_shown_until_a_grid_asks_for_it(store, make):
    drafts = make.drafts({"optimizer": ["sgd", "adam"], "momentum": [0.0]})
    conditional = [
        d
        if d.settings.optimizer == "sgd"
        else dataclasses.replace(d, axes=("optimizer",), inactive=("momentum",))
        for d in drafts
    ]
    store.add(make.study(axes=("optimizer", "momentum")), conditional)
    shown = [{"optimizer": "sgd", "momentum": 0.0}, {"optimizer": "adam"}]
    assert [t.params for t in trials(store)] == shown
    assert [t.params for t in store.study_data("digits").trials] == shown
    store.add(make.study(axes=("optimizer", "momentum")), drafts)
    assert [t.params.get("momentum") for t in trials(store)] == [0.0, 0.0]
    assert [t.params.get("momentum") for t in store.study_data("digits").trials] == [0.0, 0.0]


def test_the_metric_that_compares_epochs_is_shown_of_no_trial_that_compares_none(store, make):
    add(store, make, {"patience": [None]})
    add(store, make, {"patience": [2]}, select_metric="macro_f1")
    assert [set(t.params) for t in trials(store)] == [set(), {"patience"}]  # none is left out


values = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.floats(-2, 2), st.sampled_from(["a", "b"])
)


@given(
    st.lists(
        st.lists(st.dictionaries(st.sampled_from(["p", "q"]), values), max_size=3), min_size=1, max_size=4
    )
)
def test_growing_in_steps_keeps_every_value_readable_through_its_distribution(steps):
    """Whatever comes in whatever order: what Optuna reads back is what was put in."""
    shown, everything = StudyAxes(), []
    for step in steps:
        batch = [ImageSettings(dataset="d", model_options=options) for options in step]
        grown = grow(StudyAxes.from_json(shown.to_json()), axes=("model.p",), settings=batch)
        assert set(shown.names) <= set(grown.shown.names), "an axis that is shown stays shown"
        shown, everything = grown.shown, [*everything, *batch]
    of_all = [(s, params_of(s, (), shown.names)) for s in everything]
    numbers: dict[str, list[float]] = {}
    for _, params in of_all:
        for _, name, number in rows_of(1, params, shown.axes):
            numbers.setdefault(name, []).append(number)
    axes = {axis.name: axis for axis in shown.axes}
    for _, params in of_all:
        for _, name, number in rows_of(1, params, shown.axes):
            text = axes[name].distribution(min(numbers[name]), max(numbers[name]))
            distribution = optuna.distributions.json_to_distribution(text)
            assert distribution._contains(number)
            assert distribution.to_external_repr(number) == params[name]
    for option in ("p", "q"):
        distinct = {repr(s.model_options[option]) for s in everything if option in s.model_options}
        if len(distinct - {"0.0", "-0.0", "0"}) > 1:
            assert f"model.{option}" in shown.names, "what varies is shown"
