"""Odd networks: state between calls."""

from __future__ import annotations

import collections
import itertools
import time
import types
import weakref

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from tests.training.lanes.odd_networks import LATE, Net, oddity

# State between calls


class CountsInPrivate(Net):
    def __init__(self):
        super().__init__()
        self._calls = 0

    def forward(self, x):
        self._calls += self.training
        return super().forward(x) * (1 if self._calls < LATE else 0.5)


oddity("solo", "state")(CountsInPrivate)


class CountsInAnObject(Net):
    def __init__(self):
        super().__init__()
        self.counter = itertools.count()

    def forward(self, x):
        late = self.training and next(self.counter) >= LATE
        return super().forward(x) * (0.5 if late else 1)


oddity("solo", "counter")(CountsInAnObject)


class CountsInAList(Net):
    def __init__(self):
        super().__init__()
        self.seen = collections.deque()

    def forward(self, x):
        if self.training:
            self.seen.append(len(x))
        return super().forward(x) * (1 if len(self.seen) < LATE else 0.5)


oddity("solo", "state")(CountsInAList)


class CountsInADefault(Net):
    def forward(self, x):
        return super().forward(x) * self.factor()

    def factor(self, calls=types.SimpleNamespace()):  # noqa: B008  (the oddity)
        calls.of = getattr(calls, "of", weakref.WeakKeyDictionary())
        calls.of[self] = calls.of.get(self, 0) + self.training
        return 1 if calls.of[self] < LATE else 0.5


oddity("solo", "state")(CountsInADefault)

CALLS = weakref.WeakKeyDictionary()


class CountsInAGlobal(Net):
    def forward(self, x):
        if self.training:
            CALLS[self] = CALLS.get(self, 0) + 1
        return super().forward(x) * (1 if CALLS.get(self, 0) < LATE else 0.5)


oddity("solo", "CALLS")(CountsInAGlobal)


@oddity("solo", "state")
def counts_in_a_closure():
    calls = 0

    class Closure(Net):
        def forward(self, x):
            nonlocal calls
            calls += self.training
            return super().forward(x) * (1 if calls < LATE else 0.5)

    return Closure()


class CountsInABuffer(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x):
        if self.training:
            self.calls.add_(1)
        return super().forward(x) * torch.where(self.calls < LATE, 1.0, 0.5)


oddity("vmap")(CountsInABuffer)


class CountsItsBatches(Net):
    """A batch norm of one's own, which counts in place what nobody reads."""

    def forward(self, x):
        norm, x = self.norm, self.one(x.flatten(1))
        if self.training:
            norm.num_batches_tracked.add_(1)
        how = norm.weight, norm.bias, self.training, norm.momentum, norm.eps
        return self.two(F.batch_norm(x, norm.running_mean, norm.running_var, *how).relu())


oddity("stacked")(CountsItsBatches)


class CentersByABuffer(Net):
    """A running mean of one's own, changed in place."""

    def __init__(self):
        super().__init__()
        self.register_buffer("center", torch.zeros(64))

    def forward(self, x):
        x = x.flatten(1)
        if self.training:
            self.center.mul_(0.9).add_(x.mean(0), alpha=0.1)
        return super().forward(x - self.center)


oddity("vmap")(CentersByABuffer)


class RebindsABuffer(CentersByABuffer):
    def forward(self, x):
        x = x.flatten(1)
        if self.training:
            self.center = 0.9 * self.center + 0.1 * x.mean(0)
        return Net.forward(self, x - self.center)


oddity("solo", "replaces its tensors")(RebindsABuffer)


class StartsFromItsFirstBatch(Net):
    """Scaled by its first batch, as activation normalization is."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(64))
        self.register_buffer("ready", torch.zeros((), dtype=torch.bool))

    def forward(self, x):
        x = x.flatten(1)
        if not self.ready:
            self.scale.copy_(x.std(0) + 0.1)
            self.ready.fill_(True)
        return super().forward(x / self.scale)


oddity("solo")(StartsFromItsFirstBatch)


class KeepsATensor(Net):
    def __init__(self):
        super().__init__()
        self._scales = [torch.rand(64).double()]

    def forward(self, x):
        return super().forward(x.flatten(1) * self._scales[0])


oddity("solo", "_scales")(KeepsATensor)


class KeepsPositions(Net):
    """A tensor that is an attribute, drawn anew for each network, as a fixed position embedding is."""

    def __init__(self):
        super().__init__()
        self.positions = torch.rand(64).double()

    def forward(self, x):
        return super().forward(x.flatten(1) + self.positions)


oddity("stacked")(KeepsPositions)


class MovesWhatItKeeps(KeepsPositions):
    """The attribute changes with every step."""

    def forward(self, x):
        if self.training:
            self.positions.mul_(0.5)
        return super().forward(x)


oddity("vmap")(MovesWhatItKeeps)


class KeepsItsWeights(Net):
    """An attribute that is a parameter's memory, and so moves with it."""

    def __init__(self):
        super().__init__()
        self.double()
        self.gate = self.two.weight.detach()

    def forward(self, x):
        return super().forward(x) * (1 + self.gate.mean(1))


oddity("solo", "part of another")(KeepsItsWeights)


class KeepsAGraph(Net):
    """An attribute that was computed from a parameter: its second backward pass fails, alone too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(3), persistent=False)
        self.kept = self.scale * 2

    def forward(self, x):
        return super().forward(x) * self.kept


oddity("stacked")(KeepsAGraph)


class KeepsAnArray(Net):
    def __init__(self):
        super().__init__()
        self.mask = np.random.default_rng(torch.initial_seed() % 2**32).random(64)

    def forward(self, x):
        return super().forward(x.flatten(1) * torch.from_numpy(self.mask))


oddity("any")(KeepsAnArray)


class HidesModules(Net):
    """Modules in a list: nobody trains them."""

    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(10, 10).double()]

    def forward(self, x):
        return self.two(self.layers[0](self.hidden(x)))


oddity("solo", "none of its sub-modules")(HidesModules)


class SparesABatchOfOne(Net):
    """As one guards a batch norm: the sample has more images than one, the last batch may not."""

    def forward(self, x):
        h = self.one(x.flatten(1))
        return self.two((self.norm(h) if len(x) > 1 or not self.training else h).relu())


oddity("vmap")(SparesABatchOfOne)


class MakesTensors(Net):
    """Constants that the forward makes, of known sizes and of the batch's."""

    def forward(self, x):
        x = x.flatten(1)
        places = torch.arange(64, dtype=x.dtype) / 64
        ones = torch.ones(x.shape[0], 1, dtype=x.dtype)
        return super().forward(x + places) * torch.cat([ones, 2 * ones, ones], 1)


oddity("stacked")(MakesTensors)


class WritesIntoItsHidden(Net):
    """Assignment to a part of a tensor, in place."""

    def forward(self, x):
        h = self.hidden(x) * 1
        h[:, 0] = 0.25
        return self.two(h)


oddity("any")(WritesIntoItsHidden)


class AddsNoise(Net):
    """Noise of each kind, in training alone."""

    def forward(self, x):
        h = self.hidden(x)
        if self.training:
            h = h + 0.1 * torch.randn_like(h) * torch.rand(h.shape[0], 1, dtype=h.dtype)
            h = h * torch.empty(h.shape[0], 1, dtype=h.dtype).bernoulli_(0.8) + F.dropout(h, 0.2)
        return self.two(h)


oddity("stacked")(AddsNoise)


class Attends(nn.Module):
    """Attention with dropout, as a layer and as a function, with a token and positions that are learned."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 4, stride=4)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 5, 8))
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.2, batch_first=True)
        self.norm, self.two = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        x = x + self.attention(self.norm(x), x, x)[0]
        q = x.unflatten(2, (2, 4)).transpose(1, 2)
        drop = 0.3 if self.training else 0.0
        x = x + F.scaled_dot_product_attention(q, q, q, dropout_p=drop).transpose(1, 2).flatten(2)
        return self.two(x[:, 0])


oddity("stacked")(Attends)


class AsksTheClock(Net):
    def forward(self, x):
        return super().forward(x) * (1 if time.monotonic() > 0 else 0.5)


oddity("solo", "time")(AsksTheClock)
