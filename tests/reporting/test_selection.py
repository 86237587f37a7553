"""`--where`: typed comparison by canonical value."""

import pytest

from gridsearch.errors import UsageError
from gridsearch.reporting import filter_data
from gridsearch.reporting.selection import same_value


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
    ],
)
def test_a_value_equals_every_way_to_write_it(held, asked):
    assert same_value(held, asked)


@pytest.mark.parametrize(
    ("held", "asked"),
    [(10, "100"), (10, "ten"), (True, 1), (1, True), (True, "1"), ("1", 1), (None, "0"), ("Adam", "adam")],
)
def test_values_of_another_kind_differ(held, asked):
    assert not same_value(held, asked)


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
