"""Layers over maps and features, drawn at random as recipes, and made of these; see `random_plans`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence


_CHANNELS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 13, 16, 17, 24, 33)
_KERNELS = (1, 1, 2, 3, 3, 3, 3, 4, 5, 7, (3, 1), (1, 3), (5, 2))
_ACTIVATIONS = ("relu", "relu", "relu", "in place", "function", "leaky", "relu6", "hardswish", "hardsigmoid")


def layer(r: random.Random) -> tuple[Any, ...]:
    """Return the recipe of a layer over maps."""
    kind = r.choice(
        ["conv"] * 5
        + ["block"] * 4
        + ["usual", "usual"]
        + ["residual"] * 2
        + ["norm", "act", "pool", "pool", "drop"]
    )
    match kind:
        case "conv":
            return kind, _conv(r)
        case "block":
            parts = [("norm", *_norm(r))] * r.randint(0, 1) + [("act", r.choice(_ACTIVATIONS))] * r.randint(
                0, 1
            )
            parts += [("pool", *_pool(r))] * r.choice([0, 0, 1])
            r.shuffle(parts)
            return kind, _conv(r), *parts
        case "usual":
            conv = (
                r.choice(_CHANNELS),
                r.choice([1, 2, 3, 3, 5]),
                1,
                r.choice([0, 1, 2]),
                1,
                "one",
                r.random() < 0.7,
            )
            parts = [("act", "relu")] * r.randint(0, 1) + [
                ("pool", "max", r.choice([2, 2, 3]), None, 0, False)
            ]
            r.shuffle(parts)
            return "block", conv, *parts
        case "residual":
            width = r.choice([1, 2, 5, 8, 16, 17])
            how = r.choice(["plain", "in place", "projected", "single", "first", "twice", "joined", "gated"])
            return kind, width, r.choice([1, 3, (3, 1)]), how, *_norm(r)
        case "norm":
            return kind, *_norm(r)
        case "act":
            return kind, r.choice(_ACTIVATIONS)
        case "pool":
            return kind, *_pool(r)
    return "drop", r.choice([0.1, 0.5]), r.random() < 0.5


def feature_layer(r: random.Random) -> tuple[Any, ...]:
    """Return the recipe of a layer over features."""
    match r.choice(["linear", "linear", "act", "norm", "drop"]):
        case "linear":
            return "linear", r.choice([1, 3, 8, 16, 17, 40, 130]), r.random() < 0.8
        case "act":
            return "act", r.choice(_ACTIVATIONS)
        case "norm":
            return "norm", *_norm(r)
    return "drop", r.choice([0.1, 0.5])


def _conv(r: random.Random) -> tuple[Any, ...]:
    out, groups = r.choice(_CHANNELS), r.choice(["one"] * 6 + ["depthwise", "depthwise", "two", "multiplied"])
    stride, dilation = r.choice([1, 1, 1, 2, 3, (2, 1)]), r.choice([1, 1, 1, 1, 2, 3])
    return out, r.choice(_KERNELS), stride, r.choice([0, 0, 1, 1, 2, 3]), dilation, groups, r.random() < 0.7


def _norm(r: random.Random) -> tuple[Any, ...]:
    return r.random() < 0.8, r.random() < 0.97, r.choice([0.1] * 15 + [0.01] * 8 + [1.0] * 6 + [None])


def _pool(r: random.Random) -> tuple[Any, ...]:
    kernel = r.choice([2, 2, 2, 3, 3, 4, 5, (1, 2), (3, 2)])
    least = kernel if isinstance(kernel, int) else min(kernel)
    padding = r.choice([0, 0, 0, min(1, least // 2)])
    return (
        r.choice(["max", "max", "mean"]),
        kernel,
        r.choice([None, None, 1, 2, 3]),
        padding,
        r.random() < 0.15,
    )


def _activation(name: str) -> nn.Module:
    match name:
        case "in place":
            return nn.ReLU(inplace=True)
        case "function":
            return Rectified()
        case "leaky":
            return nn.LeakyReLU(0.1)
        case "relu6":
            return nn.ReLU6()
        case "hardswish":
            return nn.Hardswish()
        case "hardsigmoid":
            return nn.Hardsigmoid()
    return nn.ReLU()


class Rectified(nn.Module):
    """ReLU as a function."""

    def forward(self, x):
        return F.relu(x)


class Residual(nn.Module):
    """Maps with what a layer or two make of them: summed, side by side, or times a number for each channel."""

    def __init__(self, channels, width, kernel, how, norm):
        super().__init__()
        height, across = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        padding = height // 2, across // 2
        self.first = nn.Conv2d(channels, width, kernel, padding=padding, bias=False)
        self.norm = norm(width)
        last = width if how == "projected" else channels
        entered = channels if how in ("single", "first") else width
        self.second = nn.Conv2d(entered, last, kernel, padding=padding)
        self.short = nn.Conv2d(channels, width, 1) if how == "projected" else nn.Identity()
        self.down, self.up, self.how = nn.Conv2d(channels, width, 1), nn.Conv2d(width, channels, 1), how

    def forward(self, x):
        if self.how == "single":
            return F.relu(self.second(x) + x)
        if self.how == "first":
            return x + self.second(x)
        if self.how == "gated":
            return F.hardsigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1))))) * x
        y = self.second(F.relu(self.norm(self.first(x))))
        if self.how == "joined":
            return torch.cat([F.hardswish(y), x, y], 1)
        if self.how == "twice":
            return F.relu(y + y) + x
        if self.how == "in place":
            y += self.short(x)
            return F.relu(y, inplace=True)
        return F.relu(self.short(x) + y)


def _norm_of(kind: Any, how: Sequence[Any]) -> Any:
    affine, tracked, momentum = how
    return lambda width: kind(width, momentum=momentum, affine=affine, track_running_stats=tracked)


def layer_of(recipe: Sequence[Any], channels: int) -> list[nn.Module]:
    """Return the layers of a recipe over maps of so many channels."""
    kind, *how = recipe
    match kind:
        case "conv":
            return [_conv_of(how[0], channels)]
        case "block":
            conv = _conv_of(how[0], channels)
            return [conv, *(m for part in how[1:] for m in layer_of(part, conv.out_channels))]
        case "residual":
            width, kernel, wiring, *norm = how
            return [Residual(channels, width, kernel, wiring, _norm_of(nn.BatchNorm2d, norm))]
        case "norm":
            return [_norm_of(nn.BatchNorm2d, how)(channels)]
        case "act":
            return [_activation(how[0])]
        case "pool":
            what, kernel, stride, padding, ceil = how
            kinds = {"max": nn.MaxPool2d, "mean": nn.AvgPool2d}
            return [kinds[what](kernel, stride, padding, ceil_mode=ceil)]
    return [nn.Dropout2d(how[0]) if how[1] else nn.Dropout(how[0])]


def _conv_of(how: Sequence[Any], channels: int) -> nn.Conv2d:
    out, kernel, stride, padding, dilation, groups, bias = how
    match groups:
        case "depthwise":
            out, groups = channels, channels
        case "multiplied":
            out, groups = 2 * channels, channels
        case "two" if channels % 2 == out % 2 == 0:
            groups = 2
        case _:
            groups = 1
    return nn.Conv2d(channels, out, kernel, stride, padding, dilation, groups, bias)


def feature_layer_of(recipe: Sequence[Any], width: int) -> list[nn.Module]:
    """Return the layers of a recipe over so many features."""
    kind, *how = recipe
    match kind:
        case "linear":
            return [nn.Linear(width, how[0], bias=how[1])]
        case "act":
            return [_activation(how[0])]
        case "norm":
            return [_norm_of(nn.BatchNorm1d, how)(width)]
    return [nn.Dropout(how[0])]
