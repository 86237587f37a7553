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

from gridsearch.training.metrics import Diverged, EpochMetrics, Evaluation, class_scores, confusion

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
    metrics = EpochMetrics(labels, epoch=1, first_step=0)
    for x, y in zip(logits.split(sizes), labels.split(sizes), strict=True):
        metrics.add(F.cross_entropy(x, y), x)
    totals = metrics.totals()
    whole = Evaluation.of(logits, labels)
    assert totals.images == sum(sizes)
    assert totals.loss == pytest.approx(whole.loss, rel=1e-9)
    assert totals.accuracy == pytest.approx(whole.accuracy)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("bad_step", [1, 2, 64, 65, 100])
def test_a_loss_that_is_not_finite_names_its_step(value, bad_step):
    metrics = EpochMetrics(torch.zeros(200, dtype=torch.int64), epoch=4, first_step=300)
    logits = torch.zeros(2, 3)
    with pytest.raises(Diverged, match=rf"at step {300 + bad_step} \(epoch 4\)"):
        for step in range(1, 101):
            metrics.add(torch.tensor(value if step == bad_step else 0.5), logits)


@pytest.mark.parametrize("bad_step", [1, 63, 64, 65, 100])
def test_where_losses_are_read_in_blocks_the_step_is_named_all_the_same(bad_step, monkeypatch):
    metrics = EpochMetrics(torch.zeros(200, dtype=torch.int64), epoch=1, first_step=0)
    metrics._immediate = False  # as on a GPU
    with pytest.raises(Diverged, match=rf"loss nan at step {bad_step} \(epoch 1\)"):
        for step in range(1, 101):
            metrics.add(torch.tensor(math.nan if step >= bad_step else 0.5), torch.zeros(2, 3))
        metrics.totals()
