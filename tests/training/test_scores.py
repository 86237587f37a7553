"""Scores and totals equal scikit-learn's and plain sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, f1_score, recall_score

from gridsearch.training.metrics import EpochMetrics, Evaluation, LoneLane, class_scores, confusion

pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)


@given(pairs=pairs)
def test_class_scores_are_scikit_learn_s(pairs):
    labels, guesses = (np.array(side) for side in zip(*pairs, strict=True))
    counts = confusion(torch.from_numpy(guesses), torch.from_numpy(labels), 5)
    assert counts.tolist() == confusion_matrix(labels, guesses, labels=range(5)).tolist()
    scores = class_scores(counts)
    recalls = recall_score(labels, guesses, labels=np.unique(labels), average=None, zero_division=0.0)
    assert scores["balanced_accuracy"] == pytest.approx(recalls.mean())
    expected = f1_score(labels, guesses, average="macro", zero_division=0.0)
    assert scores["macro_f1"] == pytest.approx(expected)


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=150))
def test_totals_are_means_over_images_whatever_the_batches(sizes):
    generator = torch.Generator().manual_seed(len(sizes))
    logits = torch.randn(sum(sizes), 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (sum(sizes),), generator=generator)
    metrics = EpochMetrics(labels.unsqueeze(1), [LoneLane(0, 0)])
    for x, y in zip(logits.split(sizes), labels.split(sizes), strict=True):
        metrics.add(F.cross_entropy(x, y).unsqueeze(0), x.unsqueeze(0))
    (totals,) = metrics.results()
    whole = Evaluation.of(logits, labels)
    assert totals.images == sum(sizes)
    assert totals.loss == pytest.approx(whole.loss, rel=1e-9)
    assert totals.accuracy == pytest.approx(whole.accuracy)


def losses_of_two(metrics, bad_step, value):
    """Add 100 steps; the first lane's loss is bad from a step on."""
    for step in range(1, 101):
        first = value if step >= bad_step else 0.5
        metrics.add(torch.tensor([first, 0.5]), torch.zeros(2, 2, 3))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("bad_step", [1, 2, 64, 65, 100])
@pytest.mark.parametrize("immediate", [True, False], ids=["at once", "in blocks, as on a GPU"])
def test_a_loss_that_is_not_finite_names_its_lane_and_step_whenever_it_is_read(value, bad_step, immediate):
    lanes = [LoneLane(3, 300), LoneLane(0, 0)]
    metrics = EpochMetrics(torch.zeros(200, 1, dtype=torch.int64), lanes)
    metrics._immediate = immediate
    losses_of_two(metrics, bad_step, value)
    assert not metrics.all_diverged
    ended, totals = metrics.results()
    assert str(ended) == f"loss {value:g} at step {300 + bad_step} (epoch 4)"
    assert (totals.loss, totals.accuracy, totals.images) == (0.5, 1.0, 200)


def test_on_a_cpu_training_ends_at_the_step_where_the_last_lane_diverges():
    metrics = EpochMetrics(torch.zeros(8, 1, dtype=torch.int64), [LoneLane(0, 0), LoneLane(0, 0)])
    known = []
    for losses in ([math.nan, 0.5], [math.nan, 0.5], [math.nan, math.inf]):
        metrics.add(torch.tensor(losses), torch.zeros(2, 2, 3))
        known.append(metrics.all_diverged)
    assert known == [False, False, True]
    assert [str(end) for end in metrics.results()] == [
        "loss nan at step 1 (epoch 1)",
        "loss inf at step 3 (epoch 1)",
    ]
