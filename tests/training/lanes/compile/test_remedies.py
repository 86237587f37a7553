"""Why a model's lanes do not train in the fastest way is told with what its author can change; each reason is met."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gridsearch.plugins import ImageData
from gridsearch.records import ImageSettings
from gridsearch.training import ResidentCache, method_of

COUNTS = {"calls": 0}


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(64, 3)

    def forward(self, x):
        return self.out(x.flatten(1))


class Hooked(Plain):
    def __init__(self):
        super().__init__()
        self.out.register_forward_hook(lambda module, given, found: found * 2)


class Kept(Plain):
    def __init__(self):
        super().__init__()
        self.scales = {"all": torch.tensor(2.0)}

    def forward(self, x):
        return super().forward(x * self.scales["all"])


class OwnTrain(Plain):
    def train(self, mode=True):
        return super().train(mode)


class Counting(Plain):
    def forward(self, x):
        COUNTS["calls"] += 1
        return super().forward(x)


class Branching(Plain):
    def forward(self, x):
        return super().forward(x) * (2 if len(x) else 1)


class Drawing(Plain):
    def forward(self, x):
        return super().forward(x + torch.rand_like(x))


class Switched(Plain):
    def forward(self, x):
        with torch.no_grad():
            x = x * 2
        return super().forward(x)


class Loose(Plain):
    def __init__(self):
        super().__init__()
        self.parts = (nn.Linear(64, 64),)

    def forward(self, x):
        return self.out(self.parts[0](x.flatten(1)))


class Selecting(Plain):
    def forward(self, x):
        large = self.out.weight[self.out.weight > 0]
        return super().forward(x) / large.numel()


class SharingMemory(Plain):
    def __init__(self):
        super().__init__()
        self.again = nn.Parameter(self.out.weight.t())

    def forward(self, x):
        return super().forward(x) + x.flatten(1) @ self.again


REASONS = {
    Selecting: ("decides how long the result of getitem is", "torch.where"),
    SharingMemory: ("has the memory of", "one parameter of two names"),
    Hooked: ("out has hooks", "do in forward()"),
    Kept: ("scales['all'] keeps a tensor", "self.register_buffer(NAME, tensor)"),
    OwnTrain: ("has its own train()", "self.training in forward()"),
    Counting: ("keeps state of its own", "compute it anew in each call"),
    Branching: ("size depends on the batch", "x.shape[1:]"),
    Drawing: ("draws random numbers in evaluation", "draw only `if self.training`"),
    Switched: ("gradients switched off in its forward", "requires_grad_(False)"),
    Loose: ("none of its sub-modules", "nn.ModuleList"),
}


def told(kind):
    images = np.random.default_rng(0).integers(0, 256, (24, 1, 8, 8), dtype=np.uint8)
    data = ImageData(
        train_images=images,
        train_labels=np.arange(24) % 3,
        test_images=None,
        test_labels=None,
        class_names=("a", "b", "c"),
    )
    cache = ResidentCache(data, device=torch.device("cpu"))
    return method_of(
        ImageSettings(batch=8, val=0.25), data=cache, build=lambda settings, data: kind(), device="cpu"
    )


def test_a_plain_network_needs_none():
    assert told(Plain) == ("stacked", "")


@pytest.mark.parametrize("kind", REASONS)
def test_a_reason_comes_with_what_changes_it(kind):
    method, reason = told(kind)
    what, remedy = REASONS[kind]
    assert method in ("vmap", "solo")
    assert what in reason
    assert remedy in reason.partition(". To change that: ")[2]
    assert "\n" not in reason
