"""Shares of variance: exact where the factorial is complete, absent where it is not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsearch.records import TrialState
from gridsearch.reporting.effects import decompose, levels_of, strength
from gridsearch.reporting.ranking import rank


def scored(study, table, *, seeds=1, scatter=0.0):
    """Return a ranking over lr and batch whose means are the table's [lr, batch]."""
    builder = study(
        {"lr": [10.0**-i for i in range(len(table))], "batch": [10 * (j + 1) for j in range(len(table[0]))]},
        seeds=seeds,
    )
    values = [v + scatter * (1 if s % 2 else -1) for row in table for v in row for s in range(seeds)]
    for number, value in enumerate(values):
        builder.score(number, value)
    return rank(builder.data())


def shares(ranking):
    return {e.axis: e.share for e in decompose(ranking).effects}


def test_an_additive_table_has_no_interaction(study):
    # rows differ by 0.2, columns by 0.1: sums of squares 4 * 0.1**2 and 4 * 0.05**2
    found = shares(scored(study, [[0.5, 0.6], [0.7, 0.8]]))
    assert found["lr"] == pytest.approx(0.8)
    assert found["batch"] == pytest.approx(0.2)
    assert found["batch,lr"] == pytest.approx(0.0, abs=1e-9)


def test_a_crossed_table_is_all_interaction(study):
    found = shares(scored(study, [[0.5, 0.7], [0.7, 0.5]]))
    assert found["batch,lr"] == pytest.approx(1.0)


def test_what_seeds_scatter_is_residual(study):
    # between points: 4 points x 2 seeds x 0.1**2 = 0.08; within: 8 x 0.05**2 = 0.02
    ranking = scored(study, [[0.5, 0.5], [0.7, 0.7]], seeds=2, scatter=0.05)
    assert shares(ranking)["lr"] == pytest.approx(0.8)
    assert decompose(ranking).residual_share == pytest.approx(0.2)


@pytest.mark.parametrize("state", [TrialState.FAILED, TrialState.DIVERGED])
def test_a_factorial_with_a_lost_point_has_no_effects(study, state):
    builder = study({"lr": [0.1, 0.2], "batch": [1, 2]}).lose(0, state)
    found = decompose(rank(builder.data()))
    assert (found.effects, found.residual_share) == ((), None)


def test_an_excluded_point_or_uneven_seeds_leave_no_effects(study):
    axes = {"lr": [0.1, 0.2], "batch": [1, 2]}
    assert decompose(rank(study(axes).without(0).data())).effects == ()
    assert decompose(rank(study(axes, seeds=2).without(0).data())).effects == ()


def test_equal_values_everywhere_have_no_effects_rather_than_a_division_by_zero(study):
    ranking = scored(study, [[0.5, 0.5], [0.5, 0.5]])
    assert decompose(ranking).effects == ()
    assert strength(ranking) == {"lr": 0.0, "batch": 0.0}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.1, 0.9), min_size=12, max_size=12))
def test_shares_and_residual_are_a_partition_of_the_variance(study, values):
    builder = study({"lr": [0.1, 0.2], "batch": [1, 2, 3], "norm": ["none", "standard"]})
    for number, value in enumerate(values):
        builder.score(number, value)
    found = decompose(rank(builder.data()))
    if np.ptp(values) > 1e-6:
        assert sum(e.share for e in found.effects) + found.residual_share == pytest.approx(1.0)
        assert len(found.effects) == 6


def test_levels_are_numbers_ascending_after_words_as_they_came(study):
    data = study({"lr": [0.1, 0.001, 0.01], "norm": ["standard", "none"]}).data()
    points = rank(data).points
    assert levels_of(points, "lr") == (0.001, 0.01, 0.1)
    assert levels_of(points, "norm") == ("standard", "none")
