"""Layers of token networks, and of maps whose numbers are moved, drawn at random; see `random_plans`.

Shapes: B batch, T tokens, D channels of a token, C/H/W channels, height, width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

_CURVES: dict[str, Any] = {
    "gelu": nn.GELU, "tanh gelu": lambda: nn.GELU(approximate="tanh"), "silu": nn.SiLU, "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh, "elu": lambda: nn.ELU(0.7), "selu": nn.SELU, "mish": nn.Mish, "hardtanh": lambda: nn.Hardtanh(-0.5, 0.8),
    "relu": nn.ReLU, "hardswish": nn.Hardswish,
}  # fmt: skip


def token_layer(r: random.Random) -> tuple[Any, ...]:
    """Return the recipe of a layer over tokens."""
    kind = r.choice(
        [
            "norm",
            "mlp",
            "mlp",
            "attend",
            "attend",
            "mix",
            "encoder",
            "drop",
            "scale",
            "add",
            "glu",
            "curve",
            "roll",
        ]
    )
    drop, width = r.choice([0.0, 0.0, 0.2]), r.choice([3, 8, 16, 20, 33])
    how = r.choice(["sdpa", "by hand", "layer", "scaled"])
    return kind, width, drop, r.choice([1, 2, 4]), how, r.choice(list(_CURVES)), r.random() < 0.5


def map_layer(r: random.Random) -> tuple[Any, ...]:
    """Return the recipe of a layer over maps that `random_plans` does not draw."""
    kind = r.choice(
        [
            "group norm",
            "curve",
            "curve",
            "shuffle",
            "roll",
            "glu",
            "gate",
            "last norm",
            "scale",
            "depth to space",
            "halves",
        ]
    )
    return kind, r.choice([1, 2, 4]), r.choice(list(_CURVES)), r.random() < 0.5


def end(r: random.Random) -> tuple[Any, ...]:
    """Return how tokens begin and end: a token of the class, positions, dropout, a norm, and which are read."""
    return (
        r.random() < 0.5,
        r.random() < 0.7,
        r.choice([0.0, 0.1]),
        r.choice(["mean", "first", "flat", "max"]),
    )


class Tokens(nn.Module):
    """Maps [B, C, H, W] as tokens [B, T, D]."""

    def __init__(self, shape: Sequence[int], how: Sequence[Any]) -> None:
        super().__init__()
        _, channels, height, width = shape
        cls, positions, drop, _ = how
        self.cls = nn.Parameter(torch.randn(1, 1, channels)) if cls else None
        count = height * width + cls
        self.positions = nn.Parameter(0.1 * torch.randn(1, count, channels)) if positions else None
        self.drop = nn.Dropout(drop)

    def forward(self, x):
        x = x.flatten(2).transpose(1, 2)
        if self.cls is not None:
            x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1)
        return self.drop(x if self.positions is None else x + self.positions)


class Read(nn.Module):
    """Tokens as features."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x):
        if self.how == "mean":
            return x.mean(1)
        if self.how == "first":
            return x[:, 0]
        return x.flatten(1) if self.how == "flat" else x.amax(1)


class Mlp(nn.Module):
    def __init__(self, dim, width, drop, curve, normed):
        super().__init__()
        self.norm = nn.LayerNorm(dim) if normed else nn.Identity()
        self.one, self.curve, self.two, self.drop = (
            nn.Linear(dim, width),
            _CURVES[curve](),
            nn.Linear(width, dim),
            nn.Dropout(drop),
        )

    def forward(self, x):
        return x + self.drop(self.two(self.drop(self.curve(self.one(self.norm(x))))))


class Mix(Mlp):
    def __init__(self, tokens, width, drop, curve):
        super().__init__(tokens, width, drop, curve, False)

    def forward(self, x):
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class Attend(nn.Module):
    def __init__(self, dim, heads, how, drop, normed):
        super().__init__()
        self.heads, self.how = heads, how
        self.norm = nn.LayerNorm(dim, eps=1e-6) if normed else nn.Identity()
        self.layer = nn.MultiheadAttention(dim, heads, batch_first=True) if how == "layer" else None
        self.qkv, self.out, self.drop = (
            nn.Linear(dim, 3 * dim, bias=normed),
            nn.Linear(dim, dim),
            nn.Dropout(drop),
        )
        if how == "layer":
            del self.qkv, self.out

    def forward(self, x):
        y = self.norm(x)
        if self.layer is not None:
            return x + self.drop(self.layer(y, y, y, need_weights=False)[0])
        batch, tokens, dim = y.shape
        q, k, v = self.qkv(y).reshape(batch, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        if self.how == "sdpa":
            y = F.scaled_dot_product_attention(q, k, v)
        elif self.how == "scaled":
            y = ((q * 0.3) @ k.transpose(-2, -1)).softmax(-1) @ v
        else:
            y = self.drop(torch.softmax(torch.matmul(q, k.transpose(2, 3)) / 1.7, dim=-1)) @ v
        return x + self.drop(self.out(y.transpose(1, 2).reshape(batch, tokens, dim)))


class Scale(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.factor = nn.Parameter(torch.rand(shape) + 0.5)

    def forward(self, x):
        return x * self.factor


class Shift(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.term = nn.Parameter(torch.randn(shape) * 0.2)

    def forward(self, x):
        return 1.5 * x + self.term - 0.25


class Glu(nn.Module):
    def __init__(self, dim, curve, chunked):
        super().__init__()
        self.one, self.curve, self.chunked = nn.Linear(dim, 2 * dim), _CURVES[curve](), chunked

    def forward(self, x):
        y = self.one(x)
        a, b = y.chunk(2, -1) if self.chunked else (y[..., : y.shape[-1] // 2], y[..., y.shape[-1] // 2 :])
        return a * self.curve(b)


class Roll(nn.Module):
    def __init__(self, dims, steps):
        super().__init__()
        self.dims, self.steps = dims, steps

    def forward(self, x):
        return x.roll(self.steps, self.dims) + x


def token_layer_of(recipe: Sequence[Any], tokens: int, dim: int) -> list[nn.Module]:  # noqa: PLR0911  (a table)
    """Return the layers of a recipe over tokens [B, tokens, dim]."""
    kind, width, drop, heads, how, curve, flag = recipe
    heads = heads if dim % heads == 0 else 1
    match kind:
        case "norm":
            return [nn.LayerNorm(dim, elementwise_affine=flag)]
        case "mlp":
            return [Mlp(dim, width, drop, curve, flag)]
        case "attend":
            return [Attend(dim, heads, how, drop, flag)]
        case "mix":
            return [Mix(tokens, width, drop, curve)]
        case "encoder":
            kwargs = {"batch_first": True, "norm_first": flag, "activation": "gelu" if heads == 1 else "relu"}
            return [nn.TransformerEncoderLayer(dim, heads, width, drop, **kwargs)]
        case "drop":
            return [nn.Dropout(0.3)]
        case "scale":
            return [Scale(dim)]
        case "add":
            return [Shift(1, tokens, dim) if flag else Shift(dim)]
        case "glu":
            return [Glu(dim, curve, flag)]
        case "curve":
            return [_CURVES[curve]()]
    return [Roll((1,), (1,))]


class Gate(nn.Module):
    def __init__(self, channels, curve, conv):
        super().__init__()
        self.one = nn.Conv2d(channels, 3, 1) if conv else nn.Linear(channels, 3)
        self.two = nn.Conv2d(3, channels, 1) if conv else nn.Linear(3, channels)
        self.curve, self.conv = _CURVES[curve](), conv

    def forward(self, x):
        if self.conv:
            return x * torch.sigmoid(self.two(self.curve(self.one(x.mean((2, 3), keepdim=True)))))
        return x * torch.sigmoid(self.two(self.curve(self.one(x.mean((2, 3))))))[:, :, None, None]


class Shuffle(nn.Module):
    def __init__(self, groups):
        super().__init__()
        self.groups = groups

    def forward(self, x):
        batch, channels, height, width = x.shape
        x = x.view(batch, self.groups, channels // self.groups, height, width).transpose(1, 2)
        return x.reshape(batch, channels, height, width)


class MapGlu(nn.Module):
    def __init__(self, curve, joined):
        super().__init__()
        self.curve, self.joined = _CURVES[curve](), joined

    def forward(self, x):
        a, b = x.chunk(2, 1)
        return torch.cat([b, self.curve(a)], 1) if self.joined else a * torch.sigmoid(b)


class LastNorm(nn.Module):
    """As ConvNeXt has it."""

    def __init__(self, channels, factor):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.factor = nn.Parameter(torch.full((channels,), 0.3)) if factor else None

    def forward(self, x):
        y = self.norm(x.permute(0, 2, 3, 1))
        return (y if self.factor is None else self.factor * y).permute(0, 3, 1, 2) + x


class Halves(nn.Module):
    def forward(self, x):
        half = x.shape[2] // 2
        return torch.cat([x[:, :, half:], x[:, :, :half]], 2) - 0.5 * x.flip(3)


def map_layer_of(recipe: Sequence[Any], channels: int) -> list[nn.Module]:  # noqa: PLR0911  (a table)
    """Return the layers of a recipe over maps of so many channels."""
    kind, groups, curve, flag = recipe
    groups = groups if channels % groups == 0 else 1
    match kind:
        case "group norm":
            return [nn.GroupNorm(groups, channels, affine=flag)]
        case "curve":
            return [_CURVES[curve]()]
        case "shuffle":
            return [Shuffle(groups)]
        case "roll":
            return [Roll((2, 3), (1, -1)) if flag else Roll((1,), (1,))]
        case "glu":
            return [MapGlu(curve, flag)] if channels % 2 == 0 else []
        case "gate":
            return [Gate(channels, curve, flag)]
        case "last norm":
            return [LastNorm(channels, flag)]
        case "scale":
            return [Scale(channels, 1, 1) if flag else Shift(1, channels, 1, 1)]
        case "depth to space":
            return [nn.PixelShuffle(2)] if channels % 4 == 0 and flag else [nn.PixelUnshuffle(2)]
    return [Halves()]
