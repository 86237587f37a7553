"""`--where`: one word means one value; any two values of an axis are told apart."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsearch.errors import UsageError
from gridsearch.records import TrialState
from gridsearch.records.axis import identity
from gridsearch.reporting import filter_data
from gridsearch.reporting.ranking.selection import part_words
from gridsearch.reporting.words.text import show_params
from gridsearch.reporting.words.typed import ABSENT, as_typed, matching


@pytest.mark.parametrize(
    ("held", "asked"),
    [
        (10, "10"),
        (10, "1e1"),
        (10, 10.0),
        (0.001, ".001"),
        (0.001, "1e-3"),
        (True, "true"),
        (None, "none"),
        ("adam", "adam"),
        ("none", "none"),
        ("3", "3"),
        ("3", '"3"'),
        (ABSENT, "absent"),
        (0.1 + 0.2, ".3"),
        (0.00464158883361, "0.004642"),
    ],
)
def test_a_value_equals_every_way_to_write_it(held, asked):
    assert matching(asked, [held]) == [held]


@pytest.mark.parametrize(
    ("held", "asked"),
    [
        *(
            (10, "100"),
            (10, "ten"),
            (True, 1),
            (1, True),
            (True, "1"),
            ("1", 1),
            (None, "0"),
            ("Adam", "adam"),
        ),
        *((3, '"3"'), (None, '"none"'), (ABSENT, "none"), (None, "absent"), (0.00464158883361, "0.005")),
        (2**60 + 1, str(2**60)),
    ],
)
def test_values_of_another_kind_differ(held, asked):
    assert matching(asked, [held]) == []


WORDS = st.sampled_from(
    ["3", "none", "None", "true", "absent", "1e5", "", " 3", '"3"', "-", "nan", "inf", "a b"]
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63),
    st.sampled_from([0.3, 0.1 + 0.2, 0.1, 0.10000000149011612, 1e-300, 0.00464158883361, 3.5]),
    st.floats(allow_nan=False, allow_infinity=False),
    WORDS,
    st.text(max_size=6),
    st.just(ABSENT),
)


@given(st.lists(VALUES, min_size=1, max_size=6, unique_by=identity))
def test_every_value_of_an_axis_can_be_asked_for_alone(values):
    for held in (values, None):
        typed = [as_typed(v, held) for v in values]
        assert len(set(typed)) == len(values)
        for value, word in zip(values, typed, strict=True):
            assert [identity(v) for v in matching(word, values)] == [identity(value)]


@pytest.fixture
def mixed(study):
    """A study whose axis has 3, "3", none, .3, .1+.2, and a point that lacks the axis."""
    builder = study({"model.x": [3, "3", None, 0.3, 0.1 + 0.2, "gone"]})
    lacking = {"params": {}, "settings": dataclasses.replace(builder.records[5].settings, model_options={})}
    return builder.change(5, **lacking).data()


@pytest.mark.parametrize(
    ("word", "number"),
    [("3", 0), ('"3"', 1), ("none", 2), (".3", 3), ("0.30000000000000004", 4), ("absent", 5)],
)
def test_values_that_look_alike_are_selected_each_by_its_own_word(mixed, word, number):
    found = filter_data(mixed, {"model.x": word})
    assert [t.number for t in found.trials] == [number]
    again = filter_data(mixed, {"model.x": found.part.words.partition("=")[2]})
    assert [t.number for t in again.trials] == [number]


def test_tables_and_sentences_show_a_word_that_looks_like_a_number_in_quotes(mixed, study):
    shown = [show_params(t.params) for t in mixed.trials]
    assert shown[:3] == ["model.x=3", 'model.x="3"', "model.x=none"]
    assert len(set(shown)) == len(shown)
    assert (
        show_params({"norm": "none", "model.act": "relu", "model.b": ""})
        == 'norm=none model.act=relu model.b=""'
    )


def test_parts_of_different_values_have_folders_of_their_own_and_those_of_one_value_share_it(study, mixed):
    folders = [
        filter_data(mixed, {"model.x": v}).part.folder for v in (3, '"3"', None, 0.3, 0.1 + 0.2, ABSENT)
    ]
    assert len({f.lower() for f in folders}) == 6
    data = study({"lr": [0.1, 0.2], "model.act": ["Relu", "relu", "../../x", "x" * 300]}).data()
    one, other = (filter_data(data, w).part.folder for w in ({"lr": ".1"}, {"learning_rate": 0.1}))
    assert one == other == "lr=0.1"
    names = [filter_data(data, {"model.act": v}).part.folder for v in ("Relu", "relu", "../../x", "x" * 300)]
    assert len({n.lower() for n in names}) == 4
    assert not any("/" in n or len(n) > 80 for n in names)


def test_a_rounded_number_that_fits_two_values_is_an_error_that_says_how_to_tell_them(study):
    data = study({"lr": [0.00464158883361, 0.00464158883365]}).data()
    with pytest.raises(UsageError, match="stands for 2 values") as error:
        filter_data(data, {"lr": "0.004642"})
    assert error.value.hint == "say lr=0.00464158883361 or lr=0.00464158883365"


def test_a_part_says_that_it_is_one_and_of_how_many(study):
    data = study({"lr": [0.01, 0.1], "batch": [1, 2]}, seeds=2).data()
    part = filter_data(filter_data(data, {"lr": ".1"}), {"batch": "2"})
    assert part_words(part) == "Only trials with lr=0.1 batch=2: 2 of 8."
    assert part_words(data) == ""
    assert part.counts()[TrialState.COMPLETE] == 2


def test_trials_and_their_epochs_are_filtered_by_an_axis(study):
    data = study({"lr": [0.01, 0.001], "batch": [10, 20]}).data()
    kept = filter_data(data, {"lr": "1e-2"})
    assert [t.params["lr"] for t in kept.trials] == [0.01, 0.01]
    assert set(kept.epochs) == {t.number for t in kept.trials}


def test_settings_that_are_no_axis_and_seeds_filter_too(study):
    data = study({"lr": [0.01]}, seeds=3, epochs=5).data()
    assert len(filter_data(data, {"epochs": 5, "seed": "2"}).trials) == 1


def test_a_long_name_of_an_axis_is_understood(study):
    data = study({"lr": [0.01, 0.1]}).data()
    assert len(filter_data(data, {"learning_rate": 0.1}).trials) == 1


def test_an_unknown_name_is_an_error_that_names_the_nearest(study):
    with pytest.raises(UsageError, match=r"epoch: no such setting.*did you mean 'epochs'"):
        filter_data(study({"lr": [0.01]}).data(), {"epoch": 10})


def test_a_value_that_no_trial_has_is_an_error_that_lists_those_there(study):
    with pytest.raises(UsageError, match=r"lr=0\.5: no trial") as error:
        filter_data(study({"lr": [0.01, 0.1]}).data(), {"lr": 0.5})
    assert "lr is 0.01, 0.1" in error.value.hint


def test_no_filter_is_the_study_itself(study):
    data = study({"lr": [0.01]}).data()
    assert filter_data(data, {}) is data
