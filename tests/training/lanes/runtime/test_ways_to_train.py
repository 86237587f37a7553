"""Every model trains by the best way that it has, and what may differ in a pack is each lane's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gridsearch.spec.axes import FUSIBLE
from gridsearch.training import method_of
from gridsearch.training.resident_data import ResidentCache
from tests.training.lanes.runtime.compared_runs import UserNet, assert_same


class CumulativeNet(nn.Module):
    """No rule knows `torch.cumsum`; it is mapped over the lanes."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 3)

    def forward(self, x):
        return self.layer(torch.cumsum(x.flatten(1), 1) / 8)


class NoiseNet(CumulativeNet):
    def forward(self, x):
        return super().forward(x * torch.rand_like(x)) if self.training else super().forward(x)


class CountingNet(CumulativeNet):
    calls = 0

    def forward(self, x):
        self.calls = self.calls + 1
        return super().forward(x)


class BranchNet(CumulativeNet):
    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else self.layer(x.flatten(1))


class HiddenTensorNet(CumulativeNet):
    def __init__(self):
        super().__init__()
        self.scale = torch.rand(64)

    def forward(self, x):
        return self.layer(x.flatten(1) * self.scale)


class AliasNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(64, 9), nn.Linear(9, 3)

    def forward(self, x):
        x = self.first(x.flatten(1))
        y = torch.relu_(x)
        return self.last(x + y)


METHODS = [
    (UserNet, "stacked", ""),
    (CumulativeNet, "stacked", ""),
    (AliasNet, "stacked", ""),
    (NoiseNet, "stacked", ""),
    (CountingNet, "solo", "state"),
    (BranchNet, "solo", ""),
    (HiddenTensorNet, "stacked", ""),
]


@pytest.mark.parametrize(("net", "method", "reason"), METHODS, ids=[m[0].__name__ for m in METHODS])
def test_every_model_trains_by_the_best_way_that_it_has_and_as_alone(
    net, method, reason, train, alone, make_settings, make_images
):
    build = lambda *_: net()  # noqa: E731
    cache = ResidentCache(make_images(), device="cpu")
    found = method_of(make_settings(), data=cache, build=build, device="cpu")
    assert found[0] == method, found
    assert reason in found[1]
    trials = [(make_settings(dtype="float64"), 0), (make_settings(dtype="float64", lr=0.002), 1)]
    ours, theirs = train(*trials, build=build), alone(*trials, build=build)
    for lane in (0, 1):
        assert_same(ours, theirs, lane)


FUSED = {
    "lr": 0.05,
    "weight_decay": 0.02,
    "momentum": 0.9,
    "nesterov": True,
    "schedule": "cosine",
    "warmup": 1.0,
    "norm": "none",
    "dropout": 0.6,
    "label_smoothing": 0.2,
    "loss": "focal",
    "focal_gamma": 0.5,
    "class_weight": "balanced",
    "sampling": "balanced",
    "clip_norm": 0.1,
    "clip_value": 0.01,
    "operations": 1,
    "magnitude": 20,
    "mixup": 0.4,
    "cutmix": 1.0,
    "ema": 0.8,
    "epochs": 5,
    "patience": 1,
    "select": "best",
}
"""Another value of everything that may differ in a pack."""


BESIDE = {
    "dropout": {"dropout": 0.2},  # the model's own rate is for packs of its own
    "focal_gamma": {"loss": "focal"},
    "patience": {"epochs": 12, "lr": 0.3},
    "operations": {"augment": "randaugment"},
    "magnitude": {"augment": "randaugment"},
}
"""What else must be so for it to matter."""


@pytest.mark.parametrize("name", sorted(FUSIBLE - {"seed", "fold", "partition", "select_metric"}))
def test_what_the_planner_lets_differ_in_a_pack_is_each_lane_s_own(name, train, alone, make_settings):
    """Two lanes that differ in it alone: each gives what it gives alone, and they do not give the same."""
    common = {"dtype": "float64", "optimizer": "sgd", "epochs": 3, "momentum": 0.5, "lr": 0.1}
    common |= BESIDE.get(name, {})
    trials = [make_settings(**common), make_settings(**common | {name: FUSED[name]})]
    assert trials[0].shape() == trials[1].shape()
    ours, theirs = train(*trials), alone(*trials)
    for lane in (0, 1):
        assert_same(ours, theirs, lane)
    first, second = (ours.finished(lane).metrics for lane in (0, 1))
    assert first != second
