"""Layers drawn at random that have no compiled operation: torch computes them within a plan; see `random_plans`.

Shapes: B batch, T tokens, D channels of a token, C/H/W channels, height, width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

if TYPE_CHECKING:
    import random

_KINDS = ("spectrum", "turned", "ranked", "projected", "curve", "chosen", "wide", "several")


def layer(r: random.Random) -> tuple[str, int, bool]:
    """Return the recipe of a layer over maps, or over tokens as maps of one row."""
    return r.choice(_KINDS), r.choice([1, 2, 3]), r.random() < 0.5


def layers_of(recipe: tuple[str, int, bool] | None, *shape: int) -> list[nn.Module]:
    """Return the layers of a recipe, if there is one, for maps [C, H, W] or tokens [T, D]."""
    return [] if recipe is None else [Called(recipe, shape)]


class Called(nn.Module):
    """A layer of a recipe, beside what comes in or instead of it."""

    def __init__(self, recipe: tuple[str, int, bool], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.kind, self.number, self.beside = recipe
        channels = shape[0] if len(shape) == 3 else shape[1]
        if self.kind == "spectrum":
            self.weight = nn.Parameter(0.3 * torch.randn(channels, 2))
        if self.kind == "turned":
            self.where = nn.Linear(channels, 6)
            self.register_buffer("still", torch.tensor([1.0, 0, 0, 0, 1, 0]))
        if self.kind == "projected":
            self.read = nn.LSTM(channels, channels + 2, proj_size=channels, bidirectional=self.beside)
        if self.kind == "wide":
            self.scale = nn.Parameter(torch.rand(channels))

    def forward(self, x):
        maps = x if x.dim() == 4 else x.mT.unsqueeze(2)
        y = getattr(self, self.kind)(maps)
        y = y if x.dim() == 4 else y.flatten(2).mT
        return x + y if self.beside and x.shape == y.shape else y

    def spectrum(self, x):
        """Weights of frequencies, of which torch has none in bfloat16."""
        x = x.to(self.weight.dtype)
        weight = torch.view_as_complex(self.weight)[:, None, None]
        return torch.fft.irfft2(torch.fft.rfft2(x, norm="ortho") * weight, s=x.shape[2:], norm="ortho")

    def turned(self, x):
        """Maps read at other places."""
        theta = (self.still + 0.1 * torch.tanh(self.where(x.mean((2, 3))))).view(-1, 2, 3)
        return F.grid_sample(x, F.affine_grid(theta, x.size(), align_corners=False), align_corners=False)

    def ranked(self, x):
        """The largest numbers, and what lies where they lie, backwards."""
        found, places = untied(x.flatten(2)).topk(min(self.number, x[0, 0].numel()), 2)
        other = x.flip(2).flatten(2).gather(2, places) if self.beside else found.sort(2).values
        return (found + other).unsqueeze(2)

    def projected(self, x):
        """A recurrent layer over all places."""
        states = self.read(x.flatten(2).permute(2, 0, 1))[0].permute(1, 2, 0)
        return states.reshape(len(x), -1, *x.shape[2:])

    def curve(self, x):
        """A curve that nobody compiles."""
        return torch.special.i0e(x) if self.beside else torch.lgamma(x.abs() + 1)

    def chosen(self, x):
        """Rows that an image chooses, as often as there are images."""
        best = untied(x.detach().mean((1, 3))).argmax(1)
        taken = torch.zeros(x.shape[0], x.shape[2], dtype=x.dtype).scatter(1, best[:, None], 1)
        return x * (taken + 0.5)[:, None, :, None]

    def wide(self, x):
        """Double precision in the midst of it."""
        return (x.double() * self.scale.double()[:, None, None]).erf().to(x.dtype)

    def several(self, x):
        """Of many activations."""
        return torch.stack([x * i for i in range(1, 3 + self.number)]).logcumsumexp(0)[-1]


def untied(x: torch.Tensor) -> torch.Tensor:
    """Return numbers of which no two are equal but for rounding, which would choose among them."""
    return x + torch.linspace(0, 1, x.shape[-1], dtype=x.dtype)
