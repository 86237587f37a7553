"""What is said of studies beside each other stands by their tables: the same means, seeds and points."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from gridsearch.records import TrialState
from gridsearch.reporting.output.comparison_page import _winner_table, print_comparison
from gridsearch.reporting.ranking.comparison import compare
from gridsearch.reporting.ranking.ranking import rank
from gridsearch.reporting.ranking.winner_differences import Side
from tests.reporting.output.scored_points import losses, scored

S = TrialState


def seeds_of(study, name, values, lr, **more):
    builder = study({"lr": [lr]}, seeds=len(values), name=name, **more)
    for number, value in enumerate(values):
        builder.score(number, value)
    data = builder.data()
    return Side(data=data, ranking=rank(data), predictions=lambda _: None)


def said(*sides):
    out = io.StringIO()
    Console(file=out, width=300, no_color=True).print(print_comparison(compare(sides)))
    return " ".join(out.getvalue().split())


def test_studies_of_other_seeds_are_compared_by_the_means_that_are_shown(study):
    sides = seeds_of(study, "A", [0.5, 0.5, 0.9, 0.9, 0.9], 0.1), seeds_of(study, "B", [0.6, 0.61], 0.2)
    (found,) = compare(sides).differences
    assert found.behind == pytest.approx(0.74 - 0.605)
    assert "unpaired because they have other seeds" in found.method
    assert "The winner of A, lr=0.1, has the best" in said(*sides)
    assert "It is 13.50 percentage points ahead of that of B" in said(*sides)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([0.5, 0.6, 0.605, 0.9]), min_size=1, max_size=4), min_size=2, max_size=3
    )
)
def test_the_first_of_compared_studies_is_never_ahead_by_less_than_nothing(study, values):
    sides = [
        seeds_of(study, name, own, lr) for name, own, lr in zip("ABC", values, (0.1, 0.2, 0.3), strict=False)
    ]
    found = compare(sides)
    means = [side.winner.mean for side in found.sides]
    for gap, mean in zip(found.differences, means[1:], strict=True):
        assert gap.behind == pytest.approx(means[0] - mean, abs=1e-12)
        if gap.ci_low is not None:
            assert gap.ci_low < gap.ci_high
            assert gap.ci_low <= gap.behind <= gap.ci_high
    assert "ahead of that of" in said(*sides) or "is as good" in said(*sides)
    assert "is -" not in said(*sides)


def test_studies_whose_seeds_give_one_value_each_are_not_told_apart_by_luck_that_nobody_saw(study):
    sides = seeds_of(study, "A", [0.9, 0.9], 0.1), seeds_of(study, "B", [0.8, 0.8], 0.2)
    (found,) = compare(sides).differences
    assert (found.differs, found.ci_low) == (None, None)
    assert "more than chance" not in said(*sides)


# Values out of all measure, and any unit.


def test_studies_of_one_metric_and_two_directions_are_said_to_differ_in_these(study):
    one, two = (
        scored(study, [[0.9, 0.8]], name=name).data(metric="val_loss", direction=direction)
        for name, direction in (("a", "minimize"), ("b", "maximize"))
    )
    found = compare([Side(data=d, ranking=rank(d), predictions=lambda _: None) for d in (one, two)])
    assert "minimized and" in found.not_comparable and "maximized)" in found.not_comparable


def test_studies_of_a_function_whose_shares_are_in_percent_are_compared_in_these(study):
    one, two = (
        seeds_of(study, name, values, lr)
        for name, values, lr in (("A", [93.2, 93.4], 0.1), ("B", [92.9, 93.3], 0.2))
    )
    words = said(one, two)
    assert "has the best validation accuracy: 93.30 ± 0.14. It is 0.2 ahead of that of B" in words
    assert "%" not in words.replace("95 %", "")


def test_points_shared_by_studies_of_two_metrics_are_not_said_to_have_equal_values(study):
    by_accuracy, by_loss = (
        scored(study, [[0.9, 0.8]], name=metric).data(metric=metric)
        for metric in ("val_accuracy", "val_loss")
    )
    words = said(*(Side(data=d, ranking=rank(d), predictions=lambda _: None) for d in (by_accuracy, by_loss)))
    assert "each with the metric that ranks its study" in words
    assert "equal values" not in words


def test_a_shared_point_with_more_seeds_in_one_study_is_not_said_to_differ_for_that(study):
    few, more, other = (
        scored(study, [values], name=name).data()
        for name, values in (("few", [0.9, 0.8]), ("more", [0.9, 0.8, 0.7]), ("other", [0.9, 0.81]))
    )

    few, more, other = (Side(data=d, ranking=rank(d), predictions=lambda _: None) for d in (few, more, other))
    assert "all with equal values for a seed that both have" in said(few, more)
    assert "1 of them with different values" in said(few, other)


def test_two_winners_of_one_seed_each_are_both_said_to_have_one(study):
    one, two, several = (
        seeds_of(study, name, values, lr)
        for name, values, lr in (("A", [0.9], 0.1), ("B", [0.8], 0.2), ("C", [0.95, 0.93], 0.3))
    )
    assert "; each has one seed and there are no stored predictions to compare" in said(one, two)
    assert "; one of them has one seed and there are no" in said(one, several)


def test_of_functions_compared_no_predictions_and_no_intervals_are_missed(of_a_function):
    sides = []
    for number, name in enumerate("ABC"):
        data = replace(of_a_function([{"x": number}], lambda p: {"y": 1.0 + p["x"]}), name=name)
        sides.append(Side(data=data, ranking=rank(data), predictions=lambda _: None))
    words = said(*sides)
    assert "It is 1 ahead of that of B; each has one seed, so it may be chance." in words
    assert "predictions" not in words and "All intervals" not in words


def test_winners_that_cannot_be_compared_are_written_with_their_own_digits(study):
    """Both call their metric alike, and one is 1e15 times the other."""
    sides = []
    for name, scale, direction in (("a", 1e6, "minimize"), ("b", 1e-9, "maximize")):
        table = [[scale, scale * (1 + 1e-10), scale * (1 - 1e-10)], [1.1 * scale, 1.2 * scale, 1.3 * scale]]
        data = losses(study, table, name=name, direction=direction)
        sides.append(Side(data=data, ranking=rank(data), predictions=lambda _: None))
    found = compare(sides)
    assert found.not_comparable
    _, rows = _winner_table(found)
    assert [row.cells[3] for row in rows] == ["1000000.00000 ± 0.00010", "1.200e-09 ± 1e-10"]
