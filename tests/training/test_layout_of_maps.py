"""Models that care how maps lie in memory: views of them, and changes in place."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gridsearch.records import TrialState


class ViewNet(nn.Module):
    """Flattens with `view`, as tutorials do, which channels_last maps refuse."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3)
        self.last = nn.Linear(4 * 36, 3)

    def forward(self, x):
        x = self.conv(x).relu()
        return self.last(x.view(-1, 4 * 36))


def test_a_model_that_flattens_with_view_trains(train, make_settings, make_images):
    run = train(make_settings(), data=make_images(channels=3), build=lambda _, d: ViewNet(d.channels))
    assert run.finished().state is TrialState.COMPLETE


class HalvedInPlace(ViewNet):
    """Changes its maps by way of a view of them, which `flatten` gives only of some layouts of memory."""

    def forward(self, x):
        x = self.conv(x)
        x.flatten(1).mul_(0.5)
        return self.last(x.flatten(1))


def test_a_change_in_place_changes_the_same_whatever_the_layout_of_maps(train, make_settings, make_images):
    def losses(dtype):
        settings = make_settings(dtype=dtype, norm="none")
        run = train(settings, data=make_images(channels=3), build=lambda _, d: HalvedInPlace(d.channels))
        return [epoch.train_loss for epoch in run.epochs()]

    assert losses("float32") == pytest.approx(losses("float64"), rel=1e-3)


class ViewBackward(torch.autograd.Function):
    @staticmethod
    def forward(_, x):
        return x.clone()

    @staticmethod
    def backward(_, gradient):
        return gradient.view(-1).view(gradient.shape)


class ViewBackwardNet(ViewNet):
    def forward(self, x):
        x = ViewBackward.apply(self.conv(x)).relu()
        return self.last(x.flatten(1))


def test_a_model_whose_own_gradient_uses_view_trains(train, make_settings, make_images):
    run = train(make_settings(), data=make_images(channels=3), build=lambda _, d: ViewBackwardNet(d.channels))
    assert run.finished().state is TrialState.COMPLETE
