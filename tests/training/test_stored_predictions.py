"""What is stored of a trial's predictions says exactly what the trial's metrics say."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gridsearch.errors import ArtifactError
from gridsearch.reporting.stats.ensemble import probabilities
from gridsearch.reporting.stats.predictions import (
    Predictions,
    balanced_accuracy,
    confusion_matrix,
    macro_f1,
    require_agreement,
)
from gridsearch.service.queries.reports import as_predictions
from gridsearch.training import outputs
from gridsearch.training.metrics import Evaluation, class_scores, confusion


@settings(max_examples=150, deadline=None)
@given(
    st.integers(2, 40),
    st.sampled_from([2, 3, 10, 300]),
    st.sampled_from([1e-3, 1.0, 10.0, 300.0, 1e5, 1e30]),
    st.sampled_from([0.0, 1000.0, -7e4]),
    st.booleans(),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(0, 1000),
)
def test_stored_predictions_give_the_trials_accuracy_f1_and_loss(
    images, classes, size, shift, barred, dtype, seed
):
    draw = torch.Generator().manual_seed(seed)
    logits = size * torch.randn(images, classes, generator=draw).to(dtype) + shift
    labels = torch.randint(classes, (images,), generator=draw)
    if barred:  # a network may rule classes out; never the right one of an image, or its loss is no number
        logits[torch.arange(images), (labels + 1) % classes] = -math.inf
    found = Evaluation.of(logits, labels)
    assume(math.isfinite(found.loss))
    with tempfile.TemporaryDirectory() as folder:
        ref = outputs.write_predictions(Path(folder), found=found, labels_N=labels, indices_N=labels + 0)
        told = as_predictions((Path(folder) / ref.name).read_bytes())
    assert told.right.mean() == found.accuracy
    matrix = confusion_matrix(told)
    counts = confusion(found.logits.argmax(1), labels, classes)
    assert np.array_equal(matrix, counts.numpy())
    scores = class_scores(counts)
    assert macro_f1(matrix) == pytest.approx(scores["macro_f1"], rel=1e-12)
    assert balanced_accuracy(matrix) == pytest.approx(scores["balanced_accuracy"], rel=1e-12)
    share = probabilities(told.logits)[np.arange(images), told.labels]
    with np.errstate(divide="ignore"):
        loss = -np.log(share).mean()
    if math.isfinite(loss):  # of a probability that is a float at all
        assert loss == pytest.approx(found.loss, rel=outputs.LOSS_ROUNDING, abs=1e-6)


def test_predictions_are_kept_in_16_bits_where_these_hold_them(tmp_path: Path):
    labels = torch.tensor([2, 0])
    for row, dtype in (([1.0, -3.0, 1.5], torch.float16), ([1e6, -1e6, 1.5], torch.float32)):
        found = Evaluation.of(torch.tensor([row, [5.0, 0.0, 0.0]]), labels)
        folder = tmp_path / "deep" / str(dtype)
        ref = outputs.write_predictions(folder, found=found, labels_N=labels, indices_N=torch.tensor([40, 7]))
        assert ref.name == "predictions.safetensors"
        told = safetensors.torch.load_file(folder / ref.name)
        assert told["logits"].dtype == dtype
        assert told["logits"].tolist() == [row, [5.0, 0.0, 0.0]]
        assert told["predicted"].tolist() == [row.index(max(row)), 0]
        assert (told["labels"].tolist(), told["indices"].tolist()) == ([2, 0], [40, 7])


def test_an_accuracy_that_its_own_predictions_deny_is_no_result(tmp_path: Path):
    labels = torch.tensor([1, 0])
    found = Evaluation(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), loss=0.8132617, accuracy=1.0)
    with pytest.raises(ArithmeticError, match="do not give the accuracy"):
        outputs.write_predictions(tmp_path, found=found, labels_N=labels, indices_N=labels + 0)


def test_predictions_of_an_earlier_version_are_used_but_for_those_that_cut_logits_spoiled():
    labels = np.arange(1000) % 4
    logits = np.eye(4, dtype=np.float32)[labels]
    logits[:3] = 7.0  # three images whose largest logits became equal: two of them are told wrongly now
    close = Predictions(logits, labels)
    assert int(close.right.sum()) == 998
    require_agreement(close, 1.0, trial=3)
    for accuracy in (0.9, 0.99, 0.5):
        with pytest.raises(ArtifactError, match="trial 3 have 998 of 1,000 images right"):
            require_agreement(close, accuracy, trial=3)
    exact = Predictions(logits, labels, predicted=close.guesses)
    require_agreement(exact, 0.998, trial=3)
    with pytest.raises(ArtifactError, match="they are not used"):
        require_agreement(exact, 1.0, trial=3)


@pytest.mark.parametrize("lr", [0.01, 10.0, 1000.0])
def test_a_trial_of_large_logits_stores_what_it_was_scored_by(train, make_settings, lr):
    run = train(make_settings(epochs=3, optimizer="rmsprop", lr=lr))
    end = run.finished()
    told = as_predictions((run.scratch[0] / "predictions.safetensors").read_bytes())
    if lr == 1000.0:
        assert np.abs(told.logits).max() > 65504
    require_agreement(told, end.metrics["val_accuracy"], trial=0)
    assert told.right.mean() == end.metrics["val_accuracy"]
    assert macro_f1(confusion_matrix(told)) == pytest.approx(end.metrics["macro_f1"])
