"""Networks that compare activations and choose by what they find, which are planned whole."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import fx, nn

from tests.training.lanes.compile.patch_net import Net


class OwnActivations(Net):
    """Activations as people write them: of pieces, of parameters, and of constants."""

    def more(self):
        self.slope = nn.Parameter(torch.full((8, 1, 1), 0.25))

    def body(self, x):
        x = torch.where(x > 0, x, 0.5 * (x.exp() - 1)) + x * (x > 0.1)
        x = torch.where(x < 1, x, self.slope * x) + (x >= -0.5).float() * x
        x = x.masked_fill(x <= -0.25, -0.25) + (x.abs() < 0.5).to(x.dtype)
        return torch.where(x > 0, 1.0, -1.0) * x + torch.where(x == 0, self.slope, 0.125)


class Winners(Net):
    """What is largest of its map or its pixel stays, and activations are compared with each other."""

    def more(self):
        self.other = nn.Conv2d(8, 8, 1)

    def body(self, x):
        y = self.other(x)
        x = x * (x == x.amax((2, 3), keepdim=True)) + y * (y >= y.amax(1, keepdim=True)).type_as(y)
        x = torch.where(x > y, x, y) + torch.where(y.mean((2, 3), keepdim=True) > 0, x, -x)
        first = (x[:, :1] > 0).expand(-1, 4, -1, -1)
        return x * torch.cat([first, ~first], 1) + (x > y).sum(1, keepdim=True) / 8


class Logic(Net):
    """Masks made of masks, of activations and of a buffer."""

    def more(self):
        self.register_buffer("level", torch.linspace(-1, 1, 8).view(1, 8, 1, 1))
        self.register_buffer("chequered", (torch.arange(16).view(4, 4) % 2).bool())

    def body(self, x):
        high, low = x > self.level, x < 0.5
        both, either = high & low, torch.logical_or(high, low)
        x = torch.where(both, x, x / 2) * either - x * (high ^ low) + x * torch.logical_not(low)
        y = x * torch.where(self.chequered, high, low)
        return y.masked_fill(~(x != 0) | (high & self.chequered), 0.5) + x * (high * low)


@fx.wrap
def _gated(x, scale):
    gate = (x > 0) & ~(x.abs() >= 2)
    return torch.where(gate | (x == 0), x * scale, x) * gate.float() + gate.to(x.dtype) * (x < 1)


class WithinFunctions(Net):
    """Comparisons in a function that torch.fx does not look into."""

    def more(self):
        self.scale = nn.Parameter(torch.tensor(0.5))

    def body(self, x):
        return _gated(F.silu(x), self.scale)


NETWORKS = (OwnActivations, Winners, Logic, WithinFunctions)
