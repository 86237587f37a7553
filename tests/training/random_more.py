"""Further layers drawn at random: maxima, pooling in all forms, curves, masks, layers used twice; see `random_plans`.

Shapes: B batch, T tokens, D channels of a token, C/H/W channels, height, width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

CURVES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "softplus": lambda x: F.softplus(x, 2.0), "celu": lambda x: F.celu(x, 0.5), "softsign": F.softsign,
    "log sigmoid": F.logsigmoid, "tanhshrink": F.tanhshrink, "hardshrink": F.hardshrink, "softshrink": F.softshrink,
    "threshold": lambda x: F.threshold(x, 0.1, -0.2), "clamp": lambda x: x.clamp(-0.5, 1.0), "abs": torch.abs,
    "exp": lambda x: torch.exp(-x * x), "log": lambda x: torch.log(x.abs() + 1), "square": lambda x: 0.3 * x**2,
    "root": lambda x: torch.sqrt(x * x + 0.1), "quotient": lambda x: x / (1 + x.abs()), "cube": lambda x: 0.1 * x**3,
}  # fmt: skip

_MAPS = (
    *(
        "curve",
        "curve",
        "maxout",
        "ceil",
        "dilated",
        "uncounted",
        "adaptive",
        "largest",
        "upsampled",
        "padded",
    ),
    *("again", "prelu", "glu", "spread", "attention of channels", "fixed", "bounded"),
)
_TOKENS = (
    "causal",
    "masked",
    "bias",
    "other",
    "sequence first",
    "windows",
    "conv1d",
    "normalized",
    "again",
    "curve",
)


def map_layer(r: random.Random) -> tuple[Any, ...]:
    """Return the recipe of a layer over maps."""
    return r.choice(_MAPS), r.choice(list(CURVES)), r.choice([1, 2, 3]), r.random() < 0.5


def token_layer(r: random.Random) -> tuple[Any, ...]:
    """Return the recipe of a layer over tokens."""
    return r.choice(_TOKENS), r.choice(list(CURVES)), r.choice([1, 2, 4]), r.random() < 0.5


def end(r: random.Random) -> str:
    """Return what comes after the last layer."""
    return r.choice(["", "", "", "log softmax", "softmax", "normalized"])


class Applied(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Again(nn.Module):
    """A layer that is used twice."""

    def __init__(self, layer: nn.Module, *, between: bool) -> None:
        super().__init__()
        self.layer, self.act, self.between = layer, nn.ReLU(), between

    def forward(self, x):
        x = self.act(self.layer(x))
        return self.act(self.layer(F.relu(x) if self.between else x)) + x


class Attended(nn.Module):
    """Maps times what a shared dense part makes of their means and maxima."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(channels, 2), nn.Linear(2, channels)
        self.place = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x):
        mean, most = (self.two(F.relu(self.one(y))) for y in (x.mean((2, 3)), x.amax((2, 3))))
        x = x * torch.sigmoid(mean + most)[:, :, None, None]
        place = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True).values], 1)
        return x * torch.sigmoid(self.place(place))


class Fixed(nn.Module):
    """Normalization by buffers, and a layer that is not trained."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.linspace(0, 1, channels).view(1, -1, 1, 1))
        self.register_buffer("std", torch.linspace(1, 2, channels).view(1, -1, 1, 1))
        self.conv = nn.Conv2d(channels, channels, 1).requires_grad_(False)

    def forward(self, x):
        return self.conv((x - self.mean) / self.std)


class Attention(nn.Module):
    """Attention with a mask, in one of the usual forms."""

    def __init__(self, tokens: int, dim: int, heads: int, how: str, *, by_hand: bool) -> None:
        super().__init__()
        self.heads, self.how, self.by_hand = heads, how, by_hand
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.register_buffer("past", torch.tril(torch.ones(tokens, tokens)))
        self.register_buffer("seen", (torch.arange(tokens) % 3 != 1).expand(tokens, -1).clone())
        self.table = nn.Parameter(torch.randn(2 * tokens - 1, heads)) if how == "bias" else None
        self.register_buffer("index", torch.arange(tokens)[:, None] - torch.arange(tokens) + tokens - 1)

    def forward(self, x):
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) * 0.4
        if self.how == "bias":
            scores = scores + self.table[self.index.view(-1)].view(tokens, tokens, -1).permute(2, 0, 1)
        elif self.how == "causal" and not self.by_hand:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return x + self.out(y.transpose(1, 2).reshape(batch, tokens, dim))
        elif self.how == "causal":
            scores = scores.masked_fill(self.past == 0, float("-inf"))
        elif self.by_hand:
            scores = torch.where(self.seen, scores, -1e4)
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.seen)
            return x + self.out(y.transpose(1, 2).reshape(batch, tokens, dim))
        return x + self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, dim))


class Other(nn.Module):
    """Attention from a few learned tokens, or with the images in the second dimension."""

    def __init__(self, dim: int, heads: int, *, first: bool) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(dim, heads, batch_first=first)
        self.asked = nn.Parameter(torch.randn(1, 3, dim)) if first else None
        self.norm = nn.LayerNorm(dim)

    def forward(self, x):
        if self.asked is not None:
            return torch.cat([self.attend(self.asked.expand(x.shape[0], -1, -1), x, x)[0], x[:, 3:]], 1)
        x = x.permute(1, 0, 2)
        return self.norm(x + self.attend(x, x, x, need_weights=False)[0]).permute(1, 0, 2)


class Windows(nn.Module):
    """Attention within halves of the tokens, which are images of their own meanwhile."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dense = nn.Linear(dim, dim)

    def forward(self, x):
        batch, tokens, dim = x.shape
        y = self.dense(x.reshape(batch * 2, tokens // 2, dim))
        return x + F.scaled_dot_product_attention(y, y, y).view(batch, tokens, dim)


def map_layer_of(recipe: tuple[Any, ...], channels: int) -> list[nn.Module]:
    """Return the layers of a recipe over maps of so many channels."""
    kind, curve, side, flag = recipe
    pool = {"kernel_size": side + 1, "stride": 2, "padding": int(flag)}
    sides, mode = (side, side + 2), ("reflect", "replicate", "circular")[side - 1]
    more = nn.Conv2d(channels, 2 * channels, 1)
    makers: dict[str, Callable[[], list[nn.Module]]] = {
        "maxout": lambda: [more, Applied(_larger if flag else _smaller)],
        "ceil": lambda: [nn.MaxPool2d(3, 2, ceil_mode=True) if flag else nn.AvgPool2d(3, 2, ceil_mode=True)],
        "dilated": lambda: [nn.MaxPool2d(2, 1, dilation=side)],
        "uncounted": lambda: [nn.AvgPool2d(**pool, count_include_pad=False)],
        "adaptive": lambda: [nn.AdaptiveAvgPool2d(sides) if flag else nn.AdaptiveMaxPool2d(sides)],
        "largest": lambda: [Applied(lambda x: x + x.amax((2, 3), keepdim=True) - x.amin(1, keepdim=True))],
        "upsampled": lambda: [nn.Upsample(scale_factor=2), nn.AvgPool2d(2)] if flag else [Applied(_resized)],
        "padded": lambda: [nn.Conv2d(channels, channels, 3, padding=1, padding_mode=mode)],
        "again": lambda: [Again(nn.Conv2d(channels, channels, 3, padding=1), between=flag)],
        "prelu": lambda: [nn.PReLU(channels if flag else 1)],
        "glu": lambda: [more, nn.GLU(1)],
        "spread": lambda: [Applied(_standard)],
        "attention of channels": lambda: [Attended(channels)],
        "fixed": lambda: [Fixed(channels)],
        "bounded": lambda: [Applied(_padded if flag else _bounded)],
        "curve": lambda: [Applied(CURVES[curve])],
    }
    return makers[kind]()


def _larger(x: torch.Tensor) -> torch.Tensor:
    return torch.maximum(*x.chunk(2, 1))


def _smaller(x: torch.Tensor) -> torch.Tensor:
    return -torch.min(*x.chunk(2, 1))


def _standard(x: torch.Tensor) -> torch.Tensor:
    return (x - x.mean((2, 3), keepdim=True)) / (1 + x.std((2, 3), keepdim=True))


def _padded(x: torch.Tensor) -> torch.Tensor:
    return F.pad(x, (0, 1, 1, 0))


def _bounded(x: torch.Tensor) -> torch.Tensor:
    return x / (1 + x.norm(dim=1, keepdim=True))


def _resized(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, size=(5, 4), mode="bilinear", align_corners=False)


def token_layer_of(recipe: tuple[Any, ...], tokens: int, dim: int) -> list[nn.Module]:
    """Return the layers of a recipe over tokens [B, tokens, dim]."""
    kind, curve, heads, flag = recipe
    heads = heads if dim % heads == 0 else 1
    match kind:
        case "causal" | "masked" | "bias":
            return [Attention(tokens, dim, heads, kind, by_hand=flag)]
        case "other" | "sequence first":
            return [Other(dim, heads, first=kind == "other")]
        case "windows":
            return [Windows(dim)] if tokens % 2 == 0 else []
        case "conv1d":
            turned = Applied(lambda x: x.transpose(1, 2))
            return [turned, nn.Conv1d(dim, dim, 3, padding=1), nn.MaxPool1d(3, 1, 1), turned]
        case "normalized":
            return [Applied(lambda x: F.normalize(x, dim=-1) + x.max(dim=1, keepdim=True)[0])]
        case "again":
            return [Again(nn.Linear(dim, dim), between=flag)]
    return [Applied(CURVES[curve])]


def end_of(how: str) -> list[nn.Module]:
    """Return the layers after the last one."""
    return {
        "log softmax": [nn.LogSoftmax(dim=1)],
        "softmax": [nn.Softmax(dim=-1)],
        "normalized": [Applied(lambda x: 4 * F.normalize(x))],
    }.get(how, [])
