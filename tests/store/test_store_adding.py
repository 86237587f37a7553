"""How points come into the ledger and into Optuna's tables, and how a study grows."""

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

from gridsearch.errors import StoreError, UsageError
from gridsearch.records import LATER, ImageSettings, TrialState
from gridsearch.store import RunnerIdentity, ledger_tables, open_store
from gridsearch.store.params import StudyAxes, grow, params_of, rows_of
from tests.store.readers import only_sqlite, reader


def trials(store, name="digits"):
    return optuna.load_study(study_name=name, storage=reader(store)).trials


def add(store, make, axes, study=None, prune=False, **options):
    drafts = make.drafts(axes, **options)
    return store.add(make.study(axes=tuple(axes), **(study or {})), drafts, prune=prune)


def run(store, ids, finish):
    taken = store.claim(ids, owner=RunnerIdentity.current(), pack="p", lease=60)
    for trial in taken:
        finish(trial)
    return taken


def test_every_point_waits_in_optuna_right_after_it_was_added(store, make):
    added = add(store, make, {"lr": [0.1, 0.01], "batch": [10, 20]}, seeds=(0, 1))
    assert (added.new, added.reused, added.offered_again, added.in_flight) == (8, 0, 0, 0)
    assert [t.state.name for t in trials(store)] == ["WAITING"] * 8
    assert [t.number for t in trials(store)] == list(range(8))


def test_the_same_grid_again_adds_nothing_and_gives_the_same_ids(store, make):
    first = add(store, make, {"lr": [0.1, 0.01], "batch": [10, 20]})
    again = add(store, make, {"batch": [20, 10], "lr": [0.01, 0.1]})
    assert (again.new, again.in_flight) == (0, 4)
    assert sorted(again.ids) == sorted(first.ids)
    assert len(trials(store)) == 4


def test_a_larger_grid_adds_only_what_is_new(store, make):
    first = add(store, make, {"lr": [0.1]})
    run(store, first.ids, lambda t: store.finish(make.finished(t)))
    larger = add(store, make, {"lr": [0.01, 0.1, 1.0]})
    assert (larger.new, larger.reused) == (2, 1)
    assert larger.ids[1] == first.ids[0]
    assert larger.varied == ()


def test_a_draft_that_comes_twice_is_one_trial(store, make):
    drafts = make.drafts({"lr": [0.1]})
    added = store.add(make.study(), [*drafts, *drafts])
    assert added.new == 1
    assert len(added.ids) == 2
    assert len(set(added.ids)) == 1


def test_a_failed_point_is_offered_again_as_a_new_optuna_trial(store, make):
    first = add(store, make, {"lr": [0.1, 0.01]})
    run(store, first.ids[:1], lambda t: store.fail(make.failed(t)))
    again = add(store, make, {"lr": [0.1, 0.01]})
    assert (again.new, again.offered_again, again.in_flight) == (0, 1, 1)
    assert again.ids == first.ids
    there = trials(store)
    assert [t.state.name for t in there] == ["FAIL", "WAITING", "WAITING"]
    assert there[0].user_attrs["key"] == there[2].user_attrs["key"]
    assert there[2].params == there[0].params
    retry = store.waiting(again.study_id, again.ids[:1])
    assert [t.number for t in retry] == [2]
    taken = run(store, again.ids[:1], lambda t: store.finish(make.finished(t)))
    assert taken[0].attempt == 2, "the token goes on growing"
    assert [t.number for t in store.study_data("digits").trials] == [1, 2]
    with pytest.raises(StoreError, match="trial 0 of study 'digits' failed and was offered again as trial 2"):
        store.trial_record("digits", 0)


def test_a_diverged_point_is_a_result_and_not_offered_again(store, make):
    first = add(store, make, {"lr": [0.1]})
    run(store, first.ids, lambda t: store.finish(make.finished(t, state=TrialState.DIVERGED, message="NaN")))
    again = add(store, make, {"lr": [0.1]})
    assert (again.reused, again.offered_again) == (1, 0)


def test_a_pruned_point_is_done_while_pruning_is_on_and_offered_again_without(store, make):
    first = add(store, make, {"lr": [0.1]}, prune=True)
    run(store, first.ids, lambda t: store.finish(make.finished(t, state=TrialState.PRUNED)))
    assert trials(store)[0].state.name == "PRUNED"
    assert add(store, make, {"lr": [0.1]}, prune=True).reused == 1
    assert add(store, make, {"lr": [0.1]}, prune=False).offered_again == 1


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


def test_points_of_another_recipe_are_told_and_shown(store, make):
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


def test_another_dataset_or_another_metric_is_refused_and_changes_nothing(store, make):
    add(store, make, {"lr": [0.1]})
    with pytest.raises(UsageError, match="is of digits, not of fmnist"):
        add(store, make, {"lr": [0.2]}, study={"dataset": "fmnist"})
    with pytest.raises(UsageError, match="is ranked by val_accuracy"):
        add(store, make, {"lr": [0.2]}, study={"metric": "train_accuracy"})
    assert len(trials(store)) == 1


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        ".hidden",
        "-x",
        "a" * 65,
        "a b",
        "ü",
        "gridsearch.db",
        "gridsearch.db-wal",
        "a\n",
    ],
)
def test_a_name_that_could_be_a_path_or_the_store_is_refused(store, make, name):
    with pytest.raises(UsageError, match="not allowed"):
        store.add(make.study(name), [])
    assert store.studies() == []


def test_a_study_that_somebody_made_with_optuna_is_left_alone(store, make):
    optuna.create_study(storage=reader(store), study_name="digits")
    with pytest.raises(StoreError, match="that gridsearch did not make"):
        add(store, make, {"lr": [0.1]})
    assert trials(store) == []


def test_the_study_bears_direction_metric_command_and_note(store, make):
    from optuna_dashboard import get_note, save_note

    add(store, make, {"lr": [0.1]}, study={"spec": {"dataset": "digits", "grid": {"axes": ["lr=0.1,0.2"]}}})
    study = optuna.load_study(study_name="digits", storage=reader(store))
    assert study.direction.name == "MAXIMIZE"
    assert study.metric_names == ["val_accuracy"]
    assert study.user_attrs["command"] == "gridsearch run"
    assert "| lr | 0.1, 0.2 |" in get_note(study)
    assert "`gridsearch report --study digits" in get_note(study)
    assert "PED-ANOVA" in get_note(study), "why the importance there is not the report's effects"
    assert "{" not in get_note(study), "a page to read, no JSON"
    long = {"spec": {"text": "x" * 5000}}
    add(store, make, {"lr": [0.1]}, study=long)
    assert "x" * 5000 in get_note(study)
    add(store, make, {"lr": [0.1]}, study={"spec": {"text": "short again"}})
    assert "x" * 50 not in get_note(study)
    save_note(study, "my own words")
    add(store, make, {"lr": [0.1]}, study=long)
    assert get_note(study) == "my own words", "what a user wrote stays"


def test_the_metric_that_compares_epochs_is_shown_of_no_trial_that_compares_none(store, make):
    add(store, make, {"patience": [None]})
    add(store, make, {"patience": [2]}, select_metric="macro_f1")
    assert [set(t.params) for t in trials(store)] == [set(), {"patience"}]  # none is left out


def test_a_command_whose_file_asks_for_another_recipe_is_kept_twice(store, make):
    for epochs in (2, 2, 10):
        add(store, make, {"lr": [0.1]}, epochs=epochs, study={"command": "run study.toml"})
    assert store.study_data("digits").commands == ("run study.toml",) * 2


def test_commands_are_kept_in_order_and_the_newest_environment_and_spec_count(store, make):
    for command, version in (("run 1", "1"), ("run 1", "2"), ("run 2", "3")):
        study = {
            "command": command,
            "environment": {"torch": version},
            "class_names": ("0", "1"),
            "spec": {"n": version},
        }
        add(store, make, {"lr": [0.1]}, study=study)
    data = store.study_data("digits")
    assert data.commands == ("run 1", "run 2")
    assert data.environment == {"torch": "3"}
    assert data.class_names == ("0", "1")
    assert store.spec("digits") == {"n": "3"}


def test_a_trial_deleted_through_optuna_is_added_anew(store, make):
    first = add(store, make, {"lr": [0.1, 0.01]})
    run(store, first.ids, lambda t: store.finish(make.finished(t)))
    delete_trial(store, 1)
    assert [trial.state for trial in store.ledger("digits")] == [TrialState.COMPLETE]
    assert [t.number for t in store.study_data("digits").trials] == [0]
    again = add(store, make, {"lr": [0.1, 0.01]})
    assert (again.new, again.reused) == (1, 1)
    assert [t.number for t in trials(store)] == [0, 2], "a number, and so a folder, is never used twice"


@only_sqlite
def test_an_id_that_sqlite_gave_to_another_trial_is_not_taken_for_the_old_one(store, make):
    first = add(store, make, {"lr": [0.1, 0.01]})
    run(store, first.ids[:1], lambda t: store.finish(make.finished(t)))
    late = store.claim(first.ids[1:], owner=RunnerIdentity.current(), pack="p", lease=60)[0]
    gone = trials(store)[1]
    delete_trial(store, 1)
    study = optuna.load_study(study_name="digits", storage=reader(store))
    study.add_trial(optuna.trial.create_trial(value=0.99, user_attrs={"key": "f" * 64}))
    theirs = trials(store)[1]
    assert theirs._trial_id == gone._trial_id, "SQLite reuses the id"
    assert [trial.state for trial in store.ledger("digits")] == [TrialState.COMPLETE]
    assert store.finish(make.finished(late, 0.1)) is False
    assert add(store, make, {"lr": [0.1, 0.01]}).new == 1
    assert [(t.number, t.value) for t in trials(store)] == [(0, 0.5), (1, 0.99), (2, None)]


def test_a_study_deleted_through_optuna_is_begun_anew(store, make):
    first = add(store, make, {"lr": [0.1]})
    optuna.delete_study(study_name="digits", storage=reader(store))
    assert store.ledger("digits") == []
    assert store.studies() == []
    again = add(store, make, {"lr": [0.1]})
    assert again.new == 1
    assert again.study_id != first.study_id
    assert store.problems() == ()


def test_a_store_holds_many_studies(store, make):
    for name in ("b", "a"):
        add(store, make, {"lr": [0.1, 0.2]}, study={"name": name})
    assert [s.name for s in store.studies()] == ["b", "a"]
    assert store.studies()[0].counts["waiting"] == 2
    assert store.studies()[0].created.tzinfo is not None


def test_two_stores_on_one_file_see_each_others_trials(store, url, home, make):
    with open_store(url, home=home, create=False) as other:
        first = add(store, make, {"lr": [0.1]})
        assert add(other, make, {"lr": [0.1, 0.2]}).in_flight == 1
        assert len(store.waiting(first.study_id)) == 2


def delete_trial(store, number):
    """Delete a trial as another program does: with no regard to our tables."""
    storage = reader(store)
    with storage.scoped_session() as session:
        models = optuna.storages._rdb.models
        session.delete(
            session.query(models.TrialModel)
            .filter_by(number=number)
            .join(models.StudyModel)
            .filter_by(study_name="digits")
            .one()
        )
        session.commit()
    storage.engine.dispose()


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
