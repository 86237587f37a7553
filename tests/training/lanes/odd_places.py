"""Odd networks: state that is in no module of theirs, but in classes, other modules, backward passes and torch itself."""

# ruff: noqa: ARG004  (signatures of torch)

from __future__ import annotations

from typing import ClassVar

import torch

from tests.training.lanes import odd_networks
from tests.training.lanes.odd_networks import LATE, Net, oddity


class Shared:
    """What several modules of a user's refer to."""

    calls: ClassVar = {}


class CountsInAClass(Net):
    def __init__(self):
        super().__init__()
        self.number = len(Shared.calls)  # a network has a count of its own
        Shared.calls[self.number] = 0

    def forward(self, x):
        Shared.calls[self.number] += self.training
        return super().forward(x) * (1 if Shared.calls[self.number] < LATE else 0.5)


oddity("solo", "Shared.calls")(CountsInAClass)


class CountsInTheClassOfAnObject(CountsInAClass):
    def __init__(self):
        super().__init__()
        self.shared = Shared()

    def forward(self, x):
        self.shared.calls[self.number] += self.training
        return Net.forward(self, x) * (1 if self.shared.calls[self.number] < LATE else 0.5)


oddity("solo", "state")(CountsInTheClassOfAnObject)


class CountsInAnotherModule(Net):
    """In a table of a module that is imported, as one with a study's configuration is."""

    def __init__(self):
        super().__init__()
        self.number = len(odd_networks.SHARED)
        odd_networks.SHARED[self.number] = 0

    def forward(self, x):
        odd_networks.SHARED[self.number] += self.training
        return super().forward(x) * (1 if odd_networks.SHARED[self.number] < LATE else 0.5)


oddity("solo", "odd_networks.SHARED")(CountsInAnotherModule)


class Tire(torch.autograd.Function):
    """Its backward pass counts what no forward pass sees."""

    generate_vmap_rule = True
    calls: ClassVar = {}

    @staticmethod
    def forward(x):
        return x * 1

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        Tire.calls["of backward"] = Tire.calls.get("of backward", 0) + 1
        return gradient * (1 if Tire.calls["of backward"] < LATE else 0.5)


class TiresOfGradients(Net):
    def __init__(self):
        super().__init__()
        Tire.calls.clear()

    def forward(self, x):
        return self.two(Tire.apply(self.hidden(x)))


oddity("solo", "keeps state")(TiresOfGradients)


class AsksForTheSeed(Net):
    """A number of torch's that is another one in each step."""

    def forward(self, x):
        return super().forward(x) * (1 + torch.initial_seed() % 7)


oddity("solo", "initial_seed")(AsksForTheSeed)
