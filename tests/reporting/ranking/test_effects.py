"""Shares of variance: exact where the factorial is complete, by least squares where it has holes."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsearch.records import TrialState
from gridsearch.reporting.output.document import report_json
from gridsearch.reporting.output.page import render_page
from gridsearch.reporting.ranking.effects import decompose, strength
from gridsearch.reporting.ranking.least_squares import LeastSquares
from gridsearch.reporting.ranking.points import levels_of
from gridsearch.reporting.ranking.ranking import rank


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


def test_shares_of_values_that_differ_little_lose_no_digit(of_a_function):
    grid = [{"a": a, "b": b} for a in (1, 2) for b in (0.1, 0.2, 0.3)]
    values = iter([1e6 + 0.3, 1e6 + 0.3, 1e6 + 0.3, 1e6 + 0.71, 1e6 + 0.71, 1e6 + 0.71])
    found = decompose(rank(of_a_function(grid, lambda _: {"y": next(values)})))
    assert [e.share for e in found.effects if e.axis == "a"] == pytest.approx([1.0], abs=1e-15)


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


def holed(study, table, *, lose=(), leave_out=()):
    """Return a ranking over lr and batch of one seed, without some of its trials."""
    builder = study(
        {"lr": [10.0**-i for i in range(len(table))], "batch": [10 * (j + 1) for j in range(len(table[0]))]}
    )
    for number, value in enumerate(v for row in table for v in row):
        builder.score(number, value)
    for number in lose:
        builder.lose(number, TrialState.FAILED, "boom")
    return rank(builder.without(*leave_out).data())


@pytest.mark.parametrize("how", [{"lose": [3]}, {"leave_out": [3]}], ids=["failed", "excluded"])
def test_in_a_grid_with_a_hole_a_share_is_what_a_term_explains_beyond_the_others(study, how):
    # .5 .6 / .7 and a hole; total: .1**2 + 0 + .1**2 = .02
    # without lr the batches leave (.5, .7) and (.6): 2 * .1**2 = .02; without batch (.5, .6) and (.7): 2 * .05**2 = .005
    ranking = holed(study, [[0.5, 0.6], [0.7, 0.9]], **how)
    found = decompose(ranking)
    assert not found.exact
    assert shares(ranking) == pytest.approx({"lr": 1.0, "batch": 0.25, "batch,lr": 0.0}, abs=1e-9)
    assert found.residual_share == pytest.approx(0.0, abs=1e-9)


def test_seeds_that_are_missing_weigh_a_point_less_and_their_scatter_is_residual(study):
    builder = study({"lr": [0.1, 0.2]}, seeds=2)
    for number, value in enumerate([0.4, 0.6, 0.8]):
        builder.score(number, value)
    found = decompose(rank(builder.without(3).data()))
    # means .5 (twice) and .8 about .6: 2 * .1**2 + .2**2 = .06; within: 2 * .1**2 = .02
    assert not found.exact
    assert [(e.axis, e.share) for e in found.effects] == [("lr", pytest.approx(0.75))]
    assert found.residual_share == pytest.approx(0.25)


def test_a_level_that_was_lost_altogether_leaves_a_complete_grid(study):
    found = decompose(holed(study, [[0.5, 0.6], [0.7, 0.8], [0.1, 0.1]], lose=[4, 5]))
    assert found.exact
    assert {e.axis: e.share for e in found.effects}["lr"] == pytest.approx(0.8)


def test_holes_make_no_interaction_where_there_is_none(study):
    rng = np.random.default_rng(0)
    table = 0.5 + 0.2 * rng.random(8)[:, None] + 0.1 * rng.random(8)
    some = decompose(holed(study, table, leave_out=rng.choice(64, 20, replace=False)))
    found = {e.axis: e.share for e in some.effects}
    assert found["batch,lr"] == pytest.approx(0.0, abs=1e-6)
    assert some.residual_share == pytest.approx(0.0, abs=1e-6)
    assert found["lr"] > 3 * found["batch"] > 0.3


def test_axes_that_the_grid_ties_to_each_other_are_not_told_apart(study):
    found = decompose(holed(study, [[0.5, 0.6], [0.7, 0.9]], leave_out=[1, 2]))
    assert [e.share for e in found.effects] == pytest.approx([0.0, 0.0, 0.0])


def square(study, *leave_out):
    """Return a study of two axes of two values, .5 .6 / .7 .9, without some of its trials."""
    builder = study({"lr": [0.1, 0.01], "batch": [10, 20]})
    for number, value in enumerate([0.5, 0.6, 0.7, 0.9]):
        builder.score(number, value)
    return builder.without(*leave_out).data()


def effect_words(data):
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", render_page(data, rank(data))))
    return page[page.index("Share of the variance") :][:900]


def test_shares_that_overlap_are_called_confounded_and_never_shown_as_parts_of_a_whole(study):
    data = square(study, 3)
    assert decompose(rank(data)).confounded_share == pytest.approx(-0.25)
    words = effect_words(data)
    assert "these shares are confounded: they overlap" in words
    assert "lr up to 100.0 % batch up to 25.0 %" in words


def test_what_paired_axes_explain_only_together_is_called_confounded(study):
    data = square(study, 1, 2)
    assert decompose(rank(data)).confounded_share == pytest.approx(1.0)
    assert report_json(data)["confounded_share"] == pytest.approx(1.0)
    words = effect_words(data)
    assert "100.0 % of the variance is confounded" in words
    assert "confounded 100.0 % everything else 0.0 %" in words


@pytest.mark.parametrize("scale", [1e-300, 1e-14, 1e160])
@pytest.mark.parametrize("holes", [[], [3, 7]])
def test_the_shares_are_the_same_in_any_unit_and_from_any_zero(study, scale, holes):
    def found(change):
        builder = study({"lr": [0.1, 0.2], "batch": [1, 2, 3]}, seeds=2, noise=0.0)
        rng = np.random.default_rng(0)
        for number, value in enumerate(rng.random(12)):
            builder.score(number, 0.5, val_loss=change(value))
        return decompose(rank(builder.without(*holes).data(metric="val_loss", direction="minimize")))

    plain = {e.axis: e.share for e in found(lambda v: v).effects}
    for other in (found(lambda v: scale * v), found(lambda v: 12345 + v)):
        assert {e.axis: e.share for e in other.effects} == pytest.approx(plain, abs=1e-6)
        assert other.exact is (not holes)


def test_an_axis_that_exists_under_a_condition_does_not_take_the_share_of_its_condition(study):
    builder = study({"optimizer": ["adam", "sgd"], "momentum": [0.0, 0.9]})
    for number, value in enumerate([0.9, 0.9, 0.5, 0.6]):
        builder.score(number, value)
    builder.change(0, params={"optimizer": "adam"})
    found = shares(rank(builder.without(1).data()))
    # .9, .5, .6 about 2/3: .08667; sgd about .55: .005 of it is momentum's, the rest the optimizer's
    assert found["optimizer"] == pytest.approx(1 - 0.005 / 0.0866667, abs=1e-4)
    assert found["momentum"] == pytest.approx(0.005 / 0.0866667, abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.1, 0.9), min_size=24, max_size=24))
def test_least_squares_of_a_complete_grid_are_the_exact_shares(study, values):
    if np.ptp(values) < 1e-3:
        return
    builder = study({"lr": [0.1, 0.2], "batch": [1, 2, 3], "norm": ["none", "standard"]}, seeds=2)
    for number, value in enumerate(values):
        builder.score(number, value)
    ranking = rank(builder.data())
    exact, fit = decompose(ranking), LeastSquares(ranking.ranked, ranking.varying)
    assert exact.exact
    fitted = {",".join(sorted(ranking.varying[i] for i in t)): s for t, s in fit.shares().items()}
    assert fitted == pytest.approx({e.axis: e.share for e in exact.effects}, abs=1e-6)
    assert fit.residual_share() == pytest.approx(exact.residual_share, abs=1e-6)


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
