"""What tests of packs compare: a network as users write them, and two runs of the same lanes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn


class UserNet(nn.Module):
    """As users write them: convolutions, batch norm, a residual sum, a mean over the map, functional calls."""

    def __init__(self, channels=1, classes=3):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.fc = nn.Linear(6, classes)

    def forward(self, x):
        x = F.relu(self.bn(self.conv1(x)), inplace=True)
        x = F.max_pool2d(x, 2)
        x = x + F.relu(self.conv2(x))
        x = x.mean(dim=(2, 3))
        x = F.dropout(x, 0.25, training=self.training)
        return self.fc(x)


def assert_same(ours, theirs, lane, other=None, *, to=1e-7):
    """Same epochs, end, files and weights, to rounding; 1e-9 holds where no bias feeds a batch norm."""
    other = lane if other is None else other
    assert len(ours.epochs(lane)) == len(theirs.epochs(other))
    for a, b in zip(ours.epochs(lane), theirs.epochs(other), strict=True):
        for name in ("epoch", "train_accuracy", "val_accuracy", "lr"):
            assert getattr(a, name) == getattr(b, name), name
        assert a.train_loss == pytest.approx(b.train_loss, rel=1e-9)
        assert a.val_loss == pytest.approx(b.val_loss, rel=to)
    a, b = ours.finished(lane), theirs.finished(other)
    assert (a.state, a.epochs, a.message) == (b.state, b.epochs, b.message)
    assert a.metrics == pytest.approx(b.metrics, rel=to)
    assert [f.name for f in a.files] == [f.name for f in b.files]
    weights = theirs.weights(other)
    assert ours.weights(lane).keys() == weights.keys()
    for name, tensor in ours.weights(lane).items():
        torch.testing.assert_close(tensor, weights[name], rtol=to, atol=to / 10, msg=name)
