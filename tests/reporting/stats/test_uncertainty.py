"""How sure a ranking is: intervals, ties and advice for studies of every shape, gaps included."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from gridsearch.errors import ArtifactError
from gridsearch.records import TrialState
from gridsearch.reporting.findings.study_findings import find
from gridsearch.reporting.output.headline import headline
from gridsearch.reporting.ranking.inference import MOST_READ
from gridsearch.reporting.ranking.ranking import rank
from gridsearch.reporting.stats.over_seeds import seeds_needed
from gridsearch.reporting.stats.predictions import Predictions
from gridsearch.reporting.stats.uncertainty import Basis


def scored(study, table, **how):
    """Return a study of one axis whose trials have the table's values, by point and seed."""
    builder = study({"batch": list(range(1, len(table) + 1))}, seeds=len(table[0]), **how)
    for number, value in enumerate(v for row in table for v in row):
        if value is None:
            builder.lose(number, TrialState.FAILED, "boom")
        else:
            builder.score(number, value)
    return builder


def advice(data, ranking):
    """What is found about seeds, None where nothing is."""
    return next((f for f in find(data, ranking) if f.code == "GS104"), None)


def tied(ranking):
    return sorted(p.params["batch"] for p in ranking.points if p.tied_with_best)


def guesses(*right: np.ndarray):
    """Return the predictions of trials of which it is given which images they have right."""
    labels = np.arange(len(right[0])) % 3

    def found(number):
        guessed = np.where(right[number], labels, (labels + 1) % 3)
        return Predictions(np.eye(3, dtype=np.float32)[guessed], labels)

    return found


def with_images(study, *right):
    """Return a study of one seed a point, and its predictions."""
    return scored(study, [[float(r.mean())] for r in right]).data(), guesses(*right)


# Several seeds.


def test_the_interval_is_students_t_of_the_points_own_seeds(study):
    values = [0.90, 0.91, 0.93]
    point = rank(scored(study, [values, [0.5, 0.6, 0.7]]).data()).points[0]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert (point.ci_low, point.ci_high) == pytest.approx((low, high))


def test_two_points_of_shared_seeds_are_compared_by_the_paired_t_test(study):
    first, second = [0.95, 0.85, 0.75, 0.65], [0.94, 0.845, 0.738, 0.642]
    p = stats.ttest_rel(first, second, alternative="greater").pvalue
    assert p < 0.025
    assert stats.ttest_ind(first, second, alternative="greater").pvalue > 0.4
    ranking = rank(scored(study, [first, second]).data())
    assert tied(ranking) == [1]
    assert ranking.uncertainty.runner_up_differs
    noisier = [0.94, 0.845, 0.76, 0.642]
    assert stats.ttest_rel(first, noisier, alternative="greater").pvalue > 0.025
    assert tied(rank(scored(study, [first, noisier]).data())) == [1, 2]


def test_an_interval_of_accuracies_stays_within_0_and_100_percent(study):
    point = rank(scored(study, [[0.999, 0.99], [0.01, 0.001]]).data()).points
    assert point[0].ci_high == 1.0
    assert point[1].ci_low == 0.0


def test_an_interval_of_a_loss_may_be_any_number(study):
    builder = study({"lr": [0.1, 0.2]}, seeds=2)
    for number, loss in enumerate([1.0, 3.0, 5.0, 6.0]):
        builder.score(number, 0.5, val_loss=loss)
    ranking = rank(builder.data(metric="val_loss", direction="minimize"))
    assert ranking.points[0].ci_low < 0
    assert ranking.points[0].ci_high > 3


def test_points_without_a_second_seed_have_no_interval_but_may_be_tied(study):
    table = [[0.91, 0.90, 0.92], [0.912, None, None], [0.3, None, None]]
    ranking = rank(scored(study, table).data())
    lone = next(p for p in ranking.points if p.params["batch"] == 2)
    assert (lone.n, lone.ci_low, lone.ci_high) == (1, None, None)
    assert tied(ranking) == [1, 2]


def test_a_winner_of_one_seed_borrows_the_scatter_of_the_others(study):
    noisy = [[0.96, None, None], [0.80, 0.90, 1.00], [0.78, 0.88, 0.98]]
    assert tied(rank(scored(study, noisy).data())) == [1, 2, 3]
    quiet = [[0.96, None, None], [0.901, 0.9, 0.899], [0.88, 0.881, 0.882]]
    assert tied(rank(scored(study, quiet).data())) == [1]


def test_points_of_different_seeds_are_compared_all_the_same(study):
    builder = scored(study, [[0.95, 0.951, 0.949, None, None, None], [None, None, None, 0.90, 0.901, 0.899]])
    assert tied(rank(builder.data())) == [1]


def test_a_point_with_a_diverged_seed_is_never_tied_with_one_without(study):
    builder = scored(study, [[0.9, 0.8], [0.9, 0.8]]).lose(3, TrialState.DIVERGED, "nan")
    assert tied(rank(builder.data())) == [1]


def test_values_that_seeds_do_not_change_give_no_intervals_and_tell_all_points(study):
    ranking = rank(scored(study, [[0.9] * 3, [0.8] * 3, [0.9] * 3]).data())
    assert tied(ranking) == [1, 3]
    best = ranking.points[0]
    assert (best.ci_low, best.ci_high) == (None, None)
    words = " ".join(headline(scored(study, [[0.9] * 3, [0.8] * 3]).data(), ranking).cautions)
    assert "another seed may differ, and by how much cannot be estimated. So there is no interval." in words


@pytest.mark.parametrize("seeds", [2, 3])
def test_seeds_that_all_give_one_value_leave_the_interval_of_the_images(study, seeds):
    all_right, some = np.ones(60, bool), np.arange(60) % 3 > 0
    data = scored(study, [[1.0] * seeds, [float(some.mean())] * seeds]).data()
    ranking = rank(data, predictions=guesses(*[all_right] * seeds, *[some] * seeds))
    best = ranking.points[0]
    wilson = stats.binomtest(60, 60).proportion_ci(method="wilson")
    assert (best.ci_low, best.ci_high) == pytest.approx((wilson.low, 1.0))
    assert (best.n, best.spread) == (seeds, 0.0)
    assert ranking.uncertainty.basis is Basis.IMAGES
    assert tied(ranking) == [1]
    words = " ".join(headline(data, ranking).cautions)
    assert f"{seeds} seeds per point; " in words
    assert "All seeds of each point give the same value; another seed may differ" in words
    assert "Intervals and ties cover only the choice of the 60 validation images." in words
    assert "One seed per point" not in words


@pytest.mark.parametrize("seeds", [2, 3])
def test_a_point_of_equal_values_has_an_interval_as_wide_as_the_scatter_of_points_like_it(study, seeds):
    table = [[0.932] * seeds, [0.93, 0.92, 0.91][:seeds], [0.94, 0.925, 0.93][:seeds]]
    ranking = rank(scored(study, table).data())
    point = next(p for p in ranking.points if p.params["batch"] == 1)
    pooled = np.mean([np.var(row, ddof=1) for row in table]) / seeds
    assert (point.ci_high - point.ci_low) / 2 > 2 * pooled**0.5
    assert point.ci_low < 0.932 < point.ci_high
    assert ranking.uncertainty.pooled == 1
    assert "has the same value for each seed" in " ".join(
        headline(scored(study, table).data(), ranking).cautions
    )


def test_a_wild_point_lends_its_scatter_to_none_that_errs_half_as_much(study):
    table = [[0.95, 0.95], [0.948, 0.949], [0.93, 0.95], [0.79, 1.0], [0.6, 0.9]]
    point = rank(scored(study, table).data()).points[0]
    assert point.params["batch"] == 1
    assert 0.85 < point.ci_low < 0.95 < point.ci_high


@pytest.mark.parametrize("tiny", [0.0, 5e-324, 1e-300])
def test_what_is_lent_may_be_of_any_size_beside_the_point(study, tiny):
    points = rank(scored(study, [[tiny, tiny], [0.9, 1.0], [0.2, 0.9]]).data()).points
    still = next(p for p in points if p.params["batch"] == 1)
    assert still.spread == 0
    assert still.ci_low == 0.0
    assert 0.1 < still.ci_high <= 1.0


def test_a_point_that_scatters_wildly_is_not_tied_with_a_best_that_better_points_are_told_from(study):
    table = [[0.95, 0.951], [0.94, 0.9412], [0.939, 0.940], [0.66, 1.0]]
    data = scored(study, table).data()
    ranking = rank(data)
    assert tied(ranking) == [1]
    assert [ranking.points[i].params["batch"] for i in ranking.uncertainty.unsettled] == [4]
    words = " ".join(headline(data, ranking).cautions)
    assert "batch=4 (2 seeds, 66.00 to 100.00 %) varies so much between seeds" in words
    assert "Two seeds are too few" in words


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 8).flatmap(
        lambda m: st.lists(st.lists(st.floats(0, 1), min_size=2, max_size=2), min_size=m, max_size=m)
    )
)
def test_whoever_is_tied_all_points_that_rank_between_it_and_the_best_are_so_too(study, table):
    flags = [p.tied_with_best for p in rank(scored(study, table).data()).points]
    assert flags == sorted(flags, reverse=True)


@pytest.mark.parametrize("factor", [1e-150, 1e-5, 1e150])
def test_the_ties_do_not_depend_on_the_metrics_unit(study, factor):
    losses = [[1.0, 1.1, 1.2], [1.02, 1.13, 1.2], [2.0, 2.1, 2.2]]
    builder = study({"batch": [1, 2, 3]}, seeds=3)
    for number, loss in enumerate(v for row in losses for v in row):
        builder.score(number, 0.5, val_loss=factor * loss)
    assert tied(rank(builder.data(metric="val_loss", direction="minimize"))) == [1, 2]


def test_one_point_alone_has_an_interval_and_nobody_to_be_tied_with(study):
    data = scored(study, [[0.9, 0.91]]).data()
    ranking = rank(data)
    assert ranking.points[0].ci_low is not None
    assert (ranking.tied, headline(data, ranking).margin, advice(data, ranking)) == ((), "", None)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.one_of(st.none(), st.floats(0, 1), st.sampled_from([0.5, 1.0])), min_size=3, max_size=3),
        min_size=1,
        max_size=6,
    )
)
@example([[None, 0.0, 5.551925643027579e-292], [None, 1.0, 1.0]])
def test_whatever_is_missing_the_best_is_tied_with_itself_and_intervals_hold_their_means(study, table):
    data = scored(study, table).data()
    ranking = rank(data)
    for point in ranking.points:
        assert (point.ci_low is None) == (point.n < 2 or ranking.uncertainty.exact)
        if point.ci_low is not None:
            assert point.ci_low - 1e-9 <= point.mean <= point.ci_high + 1e-9
            assert point.ci_low < point.ci_high
        if point.tied_with_best:
            assert point.mean is not None
    if ranking.best is not None:
        assert ranking.best.tied_with_best
        assert all(p.tied_with_best for p in ranking.points if p.mean == ranking.best.mean and p.n == 3)
    assert headline(data, ranking).won


# One seed.


def half(count, images=300):
    return np.arange(images) < count


def test_with_one_seed_points_are_compared_image_by_image(study):
    data, predictions = with_images(study, half(280), half(250), ~half(21))
    ranking = rank(data, predictions=predictions)
    found = ranking.uncertainty
    assert (found.basis, found.images, found.compared) == (Basis.IMAGES, 300, 3)
    # 280 and 250 are nested: 30 images against none; 280 and 279 are right on different images
    assert tied(ranking) == [1, 3]
    low, high = stats.binomtest(280, 300).proportion_ci(method="wilson")
    assert (ranking.best.ci_low, ranking.best.ci_high) == pytest.approx((low, high))


def test_the_test_is_mcnemars_with_its_level_shared_among_the_points(study):
    for more, of, told in ((5, 2, False), (6, 2, True), (6, 3, True), (6, 4, False), (7, 6, True)):
        p = stats.binomtest(more, more, alternative="greater").pvalue
        assert bool(p <= 0.05 / of) is told
        data, predictions = with_images(study, half(200 + more), *[half(200)] * (of - 1))
        assert (len(tied(rank(data, predictions=predictions))) == 1) is told


def test_without_the_winners_predictions_there_is_no_interval_and_that_is_said(study):
    data, _ = with_images(study, half(280), half(250))
    ranking = rank(data, predictions=lambda number: None)
    assert [p.ci_low for p in ranking.points] == [None, None]
    assert "The winner's predictions are missing" in " ".join(headline(data, ranking).cautions)
    assert tied(ranking) == [1]


def test_a_point_whose_predictions_are_gone_has_no_interval_and_is_judged_by_its_accuracy_alone(study):
    data, found = with_images(study, half(280), half(278), half(60))

    def damaged(number):
        if number:
            raise ArtifactError("gone")
        return found(number)

    ranking = rank(data, predictions=damaged)
    assert [p.ci_low is None for p in ranking.points] == [False, True, True]
    assert tied(ranking) == [1, 2]
    assert "The predictions of 2 points are missing" in " ".join(headline(data, ranking).cautions)


def test_predictions_of_another_split_are_not_compared_image_by_image(study):
    data, found = with_images(study, half(280), half(270))

    def moved(number):
        told = found(number)
        return told if number == 0 else Predictions(np.roll(told.logits, 1, axis=1), (told.labels + 1) % 3)

    assert tied(rank(data, predictions=found)) == [1]
    assert tied(rank(data, predictions=moved)) == [1, 2]


def test_images_of_the_same_classes_are_not_the_same_images(study):
    """Where images lie class by class, every split has the same labels in the same order."""
    data, found = with_images(study, half(280), half(270))

    def placed(number):
        told = found(number)
        return Predictions(told.logits, told.labels, np.arange(len(told.labels)) + number)

    assert tied(rank(data, predictions=placed)) == [1, 2]
    same = {number: replace(placed(number), indices=placed(0).indices) for number in (0, 1)}
    assert tied(rank(data, predictions=same.get)) == [1]


def test_of_very_many_points_only_the_best_are_read(study):
    read = []
    many = MOST_READ + 50
    data = scored(study, [[0.5 + i / 10_000] for i in range(many)]).data()

    def found(number):
        read.append(number)
        return guesses(*[half(round(300 * (0.5 + i / 10_000))) for i in range(many)])(number)

    ranking = rank(data, predictions=found)
    assert len(set(read)) == MOST_READ
    assert ranking.uncertainty.beyond == 50
    assert f"Only the first {MOST_READ} points have an interval" in " ".join(headline(data, ranking).cautions)
    assert ranking.points[-1].ci_low is None


def test_a_ranking_by_train_accuracy_or_by_loss_takes_nothing_from_images(study):
    builder = study({"lr": [0.1, 0.2]}, val=0.0)
    assert rank(builder.data(), predictions=pytest.fail).uncertainty.basis is Basis.NOTHING


# Seeds still needed.


def test_seeds_needed_are_those_of_the_paired_t_tests_power():
    for ratio in (0.3, 0.5, 1.0, 2.0):
        needed = seeds_needed(ratio, variance=1.0, df=1, level=0.025)

        def power(n, ratio=ratio):
            return stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, ratio * n**0.5)

        assert power(needed) >= 0.8 > power(needed - 1)


def test_no_number_of_seeds_is_named_where_there_is_no_difference_or_too_many_are_needed():
    assert seeds_needed(0.0, variance=1.0, df=1, level=0.05) is None
    assert seeds_needed(0.01, variance=1.0, df=1, level=0.05) is None
    assert seeds_needed(0.01, variance=0.0, df=1, level=0.05) == 2


def test_the_advice_is_a_command_that_names_the_seeds_that_are_missing(study):
    data = scored(study, [[0.91, 0.92, 0.90], [0.90, 0.912, 0.898]], name="my-study").data()
    ranking = rank(data)
    more = ranking.uncertainty.more_seeds
    assert ranking.uncertainty.seeds_needed == more + 3
    assert advice(data, ranking).command == f"gridsearch run --study my-study --more-seeds {more} --top 2"


def test_points_that_no_number_of_seeds_tells_apart_are_said_to_be_so(study):
    data = scored(study, [[0.90, 0.92, 0.91], [0.92, 0.9099, 0.90]]).data()
    assert "Even 100 seeds would not separate the two best points" in advice(data, rank(data)).sentence


def test_where_the_first_two_are_told_apart_nothing_is_advised(study):
    data = scored(study, [[0.91, 0.911, 0.912], [0.5, 0.501, 0.502]]).data()
    words = headline(data, rank(data))
    assert advice(data, rank(data)) is None
    assert "No other point is tied with it" in words.margin


def test_the_headline_tells_the_interval_the_ties_and_whose_luck_it_is(study):
    data = scored(study, [[0.91, 0.92], [0.91, 0.90], [0.2, 0.2]]).data()
    words = headline(data, rank(data))
    assert "95 % interval [85.15, 97.85]" in words.won
    assert "tied with" in words.margin
    assert "chance variation between seeds may explain the difference" in words.margin
    assert words.method.count(". ") == 3  # four sentences


def test_of_one_point_more_seeds_are_advised_for_it_alone(study):
    data, predictions = with_images(study, np.arange(300) % 4 > 0)
    found = advice(data, rank(data, predictions=predictions))
    assert found.sentence == "More seeds would show how much the result varies by chance."
    assert found.command.endswith("--more-seeds 2 --top 1")
