"""The ranking: which trials make a point, what counts, and in which order points stand."""

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gridsearch.records import TrialState
from gridsearch.reporting.ranking.points import metric_value
from gridsearch.reporting.ranking.ranking import rank

S = TrialState


def ranks(ranking):
    return [(p.rank, p.params["lr"]) for p in ranking.points]


def test_trials_that_differ_in_seed_alone_are_one_point(study):
    ranking = rank(study({"lr": [0.01, 0.001], "batch": [10, 20, 50]}, seeds=3).data())
    assert len(ranking.points) == 6
    assert [p.n for p in ranking.points] == [3] * 6
    assert all([t.seed for t in p.trials] == [0, 1, 2] for p in ranking.points)


def test_trials_of_another_recipe_are_another_point_though_their_params_agree(study):
    builder = study({"lr": [0.01]}, seeds=2)
    longer = study({"lr": [0.01]}, epochs=20).records[0]
    builder.change(1, settings=longer.settings)
    assert len(rank(builder.data()).points) == 2


def test_the_mean_over_complete_seeds_decides_not_the_luckiest_seed(study):
    builder = study({"lr": [0.1, 0.2]}, seeds=2, noise=0.0)
    for number, value in enumerate([0.99, 0.70, 0.86, 0.85]):
        builder.score(number, value)
    ranking = rank(builder.data())
    assert ranks(ranking) == [(1, 0.2), (2, 0.1)]
    assert ranking.points[0].mean == pytest.approx(0.855)
    assert ranking.points[0].spread == pytest.approx(0.005 * 2**0.5)


def test_a_point_with_a_diverged_seed_ranks_below_all_without_one(study):
    builder = study({"lr": [0.1, 0.2, 0.3]}, seeds=2, noise=0.0)
    for number, value in enumerate([0.99, 0.99, 0.50, 0.50, 0.60, 0.60]):
        builder.score(number, value)
    builder.lose(1, S.DIVERGED, "loss is nan")
    ranking = rank(builder.data())
    assert ranks(ranking) == [(1, 0.3), (2, 0.2), (3, 0.1)]
    assert (ranking.points[2].n, ranking.points[2].mean) == (1, 0.99)


def test_a_point_that_diverged_at_every_seed_is_ranked_last_and_never_best(study):
    builder = study({"lr": [0.1, 0.2]}).lose(0, S.DIVERGED, "loss is inf")
    ranking = rank(builder.data())
    assert ranks(ranking) == [(1, 0.2), (2, 0.1)]
    assert ranking.points[1].mean is None
    builder.lose(1, S.DIVERGED)
    assert rank(builder.data()).best is None


@pytest.mark.parametrize("state", [S.FAILED, S.PRUNED, S.RUNNING, S.WAITING])
def test_a_point_without_a_result_has_no_rank_and_comes_last(study, state):
    ranking = rank(study({"lr": [0.1, 0.2]}).lose(0, state).data())
    assert ranks(ranking) == [(1, 0.2), (None, 0.1)]


def test_a_failed_seed_does_not_count_but_the_others_do(study):
    builder = study({"lr": [0.1]}, seeds=3, noise=0.0).score(0, 0.8).score(1, 0.9).lose(2, S.FAILED, "boom")
    point = rank(builder.data()).points[0]
    assert (point.rank, point.n) == (1, 2)
    assert point.mean == pytest.approx(0.85)


def test_equal_means_share_a_rank_and_the_next_rank_is_skipped(study):
    builder = study({"lr": [0.1, 0.2, 0.3]}).score(0, 0.9).score(1, 0.9).score(2, 0.8)
    ranking = rank(builder.data())
    assert ranks(ranking) == [(1, 0.1), (1, 0.2), (3, 0.3)]
    assert [p.tied_with_best for p in ranking.points] == [True, True, False]


def test_train_accuracy_never_ranks_a_study_that_holds_images_out(study):
    builder = study({"lr": [0.1, 0.2]})
    builder.score(0, 0.80, train_accuracy=0.999).score(1, 0.81, train_accuracy=0.82)
    assert ranks(rank(builder.data()))[0] == (1, 0.2)


def test_a_trial_without_held_out_images_gets_no_value_in_a_study_ranked_by_validation(study):
    trial = study({"lr": [0.1]}, val=0.0).records[0]
    assert trial.value is not None
    assert metric_value(trial, "val_accuracy") is None
    assert metric_value(trial, "train_accuracy") == trial.value


def test_a_metric_to_minimize_ranks_the_smallest_first(study):
    builder = study({"lr": [0.1, 0.2]}).score(0, 0.9, val_loss=0.5).score(1, 0.8, val_loss=0.4)
    ranking = rank(builder.data(metric="val_loss", direction="minimize"))
    assert ranks(ranking) == [(1, 0.2), (2, 0.1)]


def test_the_winning_trial_is_the_first_seed_not_the_best_one(study):
    builder = study({"lr": [0.1]}, seeds=3).score(0, 0.8).score(1, 0.95).score(2, 0.9)
    assert rank(builder.data()).best_trial.seed == 0
    assert rank(builder.lose(0, S.FAILED, "x").data()).best_trial.seed == 1


def test_a_value_that_is_not_finite_is_no_value(study):
    builder = study({"lr": [0.1]}).score(0, float("nan"))
    assert rank(builder.data()).points[0].mean is None


def test_a_study_without_trials_has_an_empty_ranking(study):
    ranking = rank(study({"lr": [0.1]}).without(0).data())
    assert (ranking.points, ranking.best, ranking.best_trial, ranking.runner_up) == ((), None, None, None)


def test_only_axes_with_several_values_vary_and_one_is_not_true(study):
    data = study({"lr": [0.1], "batch": [1, 2], "model.deep": [True, 1]}).data()
    assert rank(data).varying == ("batch", "model.deep")


@settings(max_examples=30, deadline=None)
@example(order=random.Random(0), values=[0.0, 0.0, 0.0, 1e-137])
@given(order=st.randoms(use_true_random=False), values=st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_the_ranking_does_not_depend_on_the_order_of_the_trials(study, order: random.Random, values):
    builder = study({"lr": [0.1, 0.2]}, seeds=2)
    for number, value in enumerate(values):
        builder.score(number, value)
    straight = rank(builder.data())
    order.shuffle(builder.records)
    assert rank(builder.data()) == straight
