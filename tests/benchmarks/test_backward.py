"""What the benchmark of backward passes compares trains alike."""

from __future__ import annotations

import pytest
import torch

from tests.benchmarks import backward


def test_both_forms_of_the_grid_train_alike(monkeypatch):
    monkeypatch.setattr(backward, "BATCHES", (50,))
    found = backward.programs("lenet", 100)
    (own,), (other,) = found["own"], found["autograd"]
    for ours, theirs in zip(own.train_epoch(), other.train_epoch(), strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
    torch.testing.assert_close(own.storage.flat, other.storage.flat, rtol=1e-3, atol=1e-4)
    assert own.network.kernels
    assert type(other.network.forward_pass(torch.zeros(2, 1, 28, 28), "shared")).__name__ == "AutogradPass"
