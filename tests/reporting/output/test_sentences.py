"""What is said stands by the table beside it: the same means, seeds, points and moments."""

from __future__ import annotations

import html
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsearch.records import DataFacts, TrialState
from gridsearch.reporting.output.document import export_json
from gridsearch.reporting.output.headline import headline
from gridsearch.reporting.output.page import render_page
from gridsearch.reporting.ranking.ranking import rank
from gridsearch.reporting.stats.predictions import Predictions
from tests.reporting.output.scored_points import losses, scored

S = TrialState


def words_of(data):
    return headline(data, rank(data))


NAN = float("nan")


def test_a_winner_that_lost_seeds_too_is_said_to_have_lost_them(study):
    data = scored(study, [[0.9, NAN, 0.91], [0.8, NAN, 0.7]]).prune(2, 3).data()
    assert "90.00 % validation accuracy (one seed; 1 more diverged; 1 more pruned)." in words_of(data).won


def test_a_point_that_ranks_below_for_a_lost_seed_is_not_said_to_be_behind_by_its_mean(study):
    words = words_of(scored(study, [[0.5, 0.501], [0.9, NAN]]).data())
    assert "ahead" not in words.margin
    assert (
        "The next, batch=2, has 90.00 % (one seed); though that is better, it ranks below because 1 of its 2 seeds diverged."
        in words.margin
    )


def test_a_lead_that_is_less_than_rounding_is_no_lead(study):
    words = words_of(scored(study, [[0.1 + 0.2], [0.3]]).data())
    assert "same mean up to rounding" in words.margin


def test_where_two_points_have_other_seeds_their_comparison_names_the_seeds_and_gives_their_means(study):
    data = scored(study, [[0.90, 0.80, 0.88, 0.89], [0.895, 0.79, None, None], [0.7, 0.6, 0.65, 0.66]]).data()
    words = words_of(data)
    assert "It is 2.50 percentage points ahead of the runner-up, batch=2." in words.margin
    assert (
        "Over the 2 seeds that both have, by which they are compared, it is 0.75 percentage points ahead (85.00 % against "
        "84.25 %)." in words.margin
    )


def test_points_that_are_equal_over_the_seeds_that_both_have_are_not_said_to_be_ahead_by_nothing(study):
    data = scored(study, [[0.80, 0.82, 0.90], [0.80, 0.82, None], [0.7, 0.71, 0.72]]).data()
    assert (
        "Over the 2 seeds that both have, by which they are compared, they have the same mean (81.00 %)."
        in words_of(data).margin
    )


def test_a_winner_that_lost_seeds_leads_with_a_caution(study):
    data = scored(study, [[0.95, None, None], [0.9, 0.91, 0.92], [0.8, 0.81, 0.82]]).data()
    cautions = " ".join(words_of(data).cautions)
    assert (
        "The winner's result is the mean of only 1 of its 3 seeds (2 failed), where other points have up to 3"
        in cautions
    )
    whole = scored(study, [[0.95, 0.95, 0.94], [0.9, 0.91, 0.92]]).data()
    assert "The winner's result is the mean of only" not in " ".join(words_of(whole).cautions)


def test_a_winner_with_fewer_seeds_than_others_leads_with_a_caution(study):
    data = scored(study, [[0.95, None], [0.9, 0.91]]).without(1).data()
    assert "The winner's result is the mean of only 1 seed, where other points have up to 2" in " ".join(
        words_of(data).cautions
    )


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([0.5, 0.6, 0.61, 0.9, None, NAN]), min_size=3, max_size=3),
        min_size=2,
        max_size=5,
    ),
    st.sampled_from(["maximize", "minimize"]),
)
def test_whoever_is_said_to_be_ahead_has_the_better_mean_in_the_table(study, table, direction):
    data = scored(study, table).data(direction=direction)
    ranking = rank(data)
    words = headline(data, ranking)
    best, second = ranking.best, ranking.runner_up
    if best is None or second is None:
        return
    better = second.mean > best.mean if direction == "maximize" else second.mean < best.mean
    if f"ahead of the runner-up, batch={second.params['batch']}" in words.margin:
        assert not better
        assert second.mean != best.mean
    if better:
        assert "though that is better, it ranks below" in words.margin
    if best.n < 3:
        assert "The winner's result is the mean of only" in " ".join(words.cautions)


# The test set.


def found_of(data, number, **changes):
    record = data.trials[number]
    return {
        "metric": "test_accuracy",
        "accuracy": 0.2511,
        "ci_low": 0.2,
        "ci_high": 0.3,
        "interval": "images",
        "images": 300,
        "seeds": [{"seed": 0, "accuracy": 0.2511}],
        "params": dict(record.params),
        "trial": record.number,
        "point": "key",
        "clean": True,
        "reading": 1,
        "when": "2030-01-02T03:04:05+00:00",
    } | changes


def test_the_test_names_its_point_and_says_when_another_one_wins_by_now(study):
    data = scored(study, [[0.5], [0.9]]).data()
    mine = words_of(scored(study, [[0.5], [0.9]]).data(test=found_of(data, 1))).test
    assert mine.startswith("On the test set (300 images) batch=2: 25.11 % accuracy")
    assert "Another point leads" not in mine
    other = scored(study, [[0.5], [0.9]]).data(test=found_of(data, 0))
    words = words_of(other).test
    assert words.startswith("On the test set (300 images) batch=1: 25.11 % accuracy")
    assert words.endswith("Another point leads now, batch=2: the test result is that of rank 2.")
    assert words in html.unescape(" ".join(render_page(other, rank(other)).split()))


def test_a_test_on_other_images_or_of_a_point_that_is_not_shown_says_so(study):
    builder = scored(study, [[0.5], [0.9]])
    builder.change(0, settings=study({"batch": [1]}, data_fingerprint="cd" * 32).records[0].settings)
    data = builder.data()
    words = words_of(builder.data(test=found_of(data, 0))).test
    assert "On the test set (300 images) batch=1:" in words
    assert words.endswith(
        "It was measured on other images than those of the winner, batch=2, which was not tested."
    )
    gone = words_of(builder.data(test=found_of(data, 0, trial=99))).test
    assert gone.endswith("It is not the result of any point ranked here.")


# Values out of all measure, and any unit.


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_finite_value_beyond_all_measure_ranks_last_and_is_named(study, direction):
    data = losses(study, [[0.3], [1e181], [0.1], [1.7e308], [0.2]], direction=direction)
    ranking = rank(data)
    assert {p.params["batch"] for p in ranking.points[-2:]} == {2, 4}
    words = headline(data, ranking)
    assert any(
        "too large to be averaged with the others" in c and "batch=2 (1e+181)" in c for c in words.cautions
    )
    export_json(data, ranking=ranking)
    render_page(data, ranking)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 9999), min_size=3, max_size=3), min_size=2, max_size=6),
    st.sampled_from([(1e-300, 0.0), (1e-14, 0.0), (1e160, 0.0), (1.0, 12345.0)]),
    st.sampled_from(["maximize", "minimize"]),
)
def test_unit_and_offset_change_nothing_but_the_numbers(study, numbers, change, direction):
    table = [[n / 10_000 for n in row] for row in numbers]
    factor, offset = change
    plain = rank(losses(study, table, direction=direction))
    data = losses(study, table, factor, offset, direction)
    moved = rank(data)
    gaps = sorted(abs(a.mean - b.mean) for a in plain.points for b in plain.points if a is not b)
    if gaps[0] < 1e-9:  # which of two equals comes first may be rounding
        return
    assert [p.params for p in moved.points] == [p.params for p in plain.points]
    assert [p.tied_with_best for p in moved.points] == [p.tied_with_best for p in plain.points]
    for one, other in zip(plain.points, moved.points, strict=True):
        assert (one.ci_low is None) == (other.ci_low is None)
        if one.ci_low is not None:
            assert (other.ci_low - offset) / factor == pytest.approx(one.ci_low, rel=1e-6, abs=1e-8)
            assert (other.ci_high - offset) / factor == pytest.approx(one.ci_high, rel=1e-6, abs=1e-8)
    assert moved.uncertainty.seeds_needed == plain.uncertainty.seeds_needed
    export_json(data, ranking=moved)
    headline(data, moved)


def test_points_whose_means_differ_in_the_last_digits_are_not_said_to_have_exactly_the_same(study):
    table = [[12345 + (2 * x + 0.3 * seed) * 1e-10 for seed in range(2)] for x in range(3)]
    builder = scored(study, [[0.5] * 2] * 3)
    for number, value in enumerate(v for row in table for v in row):
        builder.score(number, 0.5, val_loss=value)
    data = builder.data(metric="val_loss", direction="minimize")
    assert words_of(data).margin.endswith("has the same mean up to rounding. 1 more point has this mean too.")


def test_luck_is_not_said_to_explain_a_difference_where_there_is_none(study):
    data = scored(study, [[0.93, 0.95], [0.95, 0.93]]).data()
    ranking = rank(data)
    assert [p.tied_with_best for p in ranking.points] == [True, True]
    assert words_of(data).margin == "The runner-up, batch=2, has exactly the same mean."


def test_nobody_is_asked_to_complete_seeds_that_diverged(study):
    def said_of(state):
        data = scored(study, [[0.9, 0.8], [0.7, 0.6]]).lose(1, state).lose(3, state).data()
        return " ".join(words_of(data).cautions)

    assert "Complete them before you rely on its lead." in said_of(TrialState.FAILED)
    assert (
        said_of(TrialState.DIVERGED).count("with all of them it may be worse. Do not rely on its lead.") == 1
    )
    assert "Complete them" not in said_of(TrialState.DIVERGED)


def test_what_flatters_a_point_is_said_in_a_loss_as_in_an_accuracy(study):
    builder = scored(study, [[0.5, 0.4], [0.6, 0.7]]).lose(1, TrialState.FAILED).prune(3, 5)
    data = builder.data(metric="val_loss", direction="minimize")
    words = " ".join(words_of(data).cautions)
    assert "the mean of only 1 of its 2 seeds (1 failed): with all of them it may be worse." in words
    assert "the mean of its remaining seeds is too good." in words
    assert not any(wrong in words for wrong in ("lower it", "too high"))


def test_a_winner_that_was_given_fewer_seeds_than_others_is_to_get_as_many(study):
    builder = scored(study, [[0.9, 0.91, 0.92], [0.7, 0.6, 0.65]]).without(1, 2)
    assert (
        "The winner's result is the mean of only 1 seed, where other points have up to 3: with as many it may be "
        "worse. Give it as many before you rely on its lead."
    ) in words_of(builder.data()).cautions


@pytest.mark.parametrize(
    ("right", "read", "said"),
    [(200, False, True), (201, False, False), (201, True, True), (215, True, True), (400, True, False)],
)
def test_a_winner_that_is_not_clearly_better_than_a_constant_answer_is_named(study, right, read, said):
    data = scored(study, [[0.09], [right / 2000]]).data()
    facts = DataFacts(class_names=data.class_names, train=(500,) * 10)
    data = replace(data, facts={data.trials[0].settings.data_fingerprint: facts})
    labels = np.arange(2000) % 10
    guessed = np.where(np.arange(2000) < right, labels, (labels + 1) % 10)
    found = Predictions(np.eye(10, dtype=np.float32)[guessed], labels)
    cautions = headline(data, rank(data, predictions=(lambda _: found) if read else None)).cautions
    words = "always answering 'T-shirt/top', which is right for 10.00 % of the training images"
    assert (f"The winner is not clearly better than {words}" in " ".join(cautions)) is said


def test_of_one_point_nothing_is_said_of_the_best_of_many_and_of_differences(study):
    one = scored(study, [[0.9]]).data()
    several = scored(study, [[0.9], [0.8]]).data()
    for data, alone in ((one, True), (several, False)):
        said = " ".join(words_of(data).cautions)
        assert ("best of many" in said) is not alone
        assert ("small differences" in said) is not alone
        assert ("One point with one seed: how much another seed would change is unknown." in said) is alone
