"""Networks of the layers that compiled steps are made of, drawn at random with images and recipes to train them by.

A number gives the same case each time.  `held_plans` trains a case's lanes and compares.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from gridsearch.plugins import ImageData
from tests.training import random_layers, random_more, random_parts, random_tokens
from tests.training.conftest import settings_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.records import ImageSettings

CPU = torch.device("cpu")
CLASSES = 3
EPOCHS = 2
_MOST_NUMBERS = 12_000  # of a map: larger ones take time and show no more
_MOST_TOKENS = 3_000  # numbers of all tokens of an image
OLD = (1, 6, 7, 8, 13, 18, 24, 28)
"""Cases without `random_more` and `random_parts`."""

_SIDES = (1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 17, 21, 28, 33)
"""How far a lane may be from a plain loop in float64: times what rounding to its type does to one, and besides."""


@dataclass(frozen=True)
class Case:
    """A network with lanes to train.

    Attributes:
        number: gives the case.
        image: [C, H, W] of an image.
        layers: recipes of the layers over maps, then of those over features.
        pooled: how maps become features.
        tokens: how maps become tokens, and recipes of the layers over these; () for features at once.
        more: a recipe for after each of the layers over maps, or None.
        further: recipes of `random_more` for after the layers over maps, and after those over tokens.
        parts: recipes of `random_parts` for after all layers over maps, and over tokens; or None.
        end: what comes after the last layer.
        odd: what is unusual about the network.
        settings: each lane's.
        seeds: likewise.
        count: of the images.
    """

    number: int
    image: tuple[int, int, int]
    layers: tuple[Any, ...]
    features: tuple[Any, ...]
    pooled: str
    tokens: tuple[Any, ...]
    more: tuple[Any, ...]
    further: tuple[tuple[Any, ...], ...]
    parts: tuple[Any, ...]
    end: str
    odd: str
    settings: tuple[ImageSettings, ...]
    seeds: tuple[int, ...]
    count: int

    def images(self) -> ImageData:
        """The dataset; its classes have unlike numbers of images."""
        rng = np.random.default_rng(self.number)
        labels = np.concatenate(
            [np.arange(CLASSES).repeat(3), rng.choice(CLASSES, self.count, p=[0.5, 0.3, 0.2])]
        )
        labels = labels[: self.count].astype(np.int64)
        pixels = rng.integers(0, 256, (self.count, *self.image), dtype=np.uint8)
        return ImageData(
            train_images=pixels,
            train_labels=labels,
            test_images=pixels[:CLASSES],
            test_labels=np.arange(CLASSES),
            class_names=tuple("abc"),
        )

    def make(self, *_: object) -> nn.Module:
        """A new network."""
        return Drawn(self)


def draw(number: int, dtype: str | None = None) -> Case:
    """Return the case of a number, in one type if that is given."""
    r = random.Random(number)
    batch, dtypes = r.choice([1, 2, 3, 5, 16, 17, 33]), ["float64"] * 5 + ["float32"] * 3 + ["bfloat16"] * 2
    own = r.choice(dtypes)
    common = {
        "batch": batch,
        "dtype": dtype or own,
        "epochs": EPOCHS,
        "optimizer": r.choice(["sgd", "sgd", "sgd", "adam", "adamw", "nadam", "rmsprop"]),
    }
    lanes = r.randint(1, 5)
    seed = r.randint(0, 3)
    t = random.Random(f"tokens {number}")  # of its own, so that the rest of a case stays as it was
    tokens = random_tokens.end(t), *(random_tokens.token_layer(t) for _ in range(t.randint(1, 4)))
    more = [random_tokens.map_layer(t) if t.random() < 0.4 else None for _ in range(7)]
    # of one image whose maps lie by pixels, torch 2.13's batch norm has other gradients than finite differences
    if batch == 1:
        tokens, more = (), [None] * 7
    elif t.random() < 0.5:
        tokens, more = (), [None] * 7 if t.random() < 0.5 else more
    f = random.Random(f"further {number}")  # likewise
    further = [
        [draw(f) for _ in range(f.randint(1, 3))] for draw in (random_more.map_layer, random_more.token_layer)
    ]
    end = random_more.end(f)
    if batch == 1 or number in OLD or f.random() < 0.4:
        further, end = [[], []], ""
    p = random.Random(f"parts {number}")  # likewise
    parts = [random_parts.layer(p) if number not in OLD and p.random() < 0.5 else None for _ in range(2)]
    return Case(
        number=number,
        image=(r.choice([1, 1, 2, 3, 4]), r.choice(_SIDES), r.choice(_SIDES)),
        layers=tuple(random_layers.layer(r) for _ in range(r.randint(1, 7))),
        features=tuple(random_layers.feature_layer(r) for _ in range(r.randint(0, 4))),
        pooled=r.choice(["flat"] * 6 + ["mean"] * 6 + ["adaptive"] * 3 + ["amax"]),
        tokens=tokens,
        more=tuple(more),
        further=tuple(tuple(recipes) for recipes in further),
        parts=tuple(parts),
        end=end,
        odd=r.choice(["none"] * 20 + ["frozen", "tied", "twice"]),
        settings=tuple(settings_of(**common, **_recipe(r)) for _ in range(lanes)),
        seeds=tuple(r.choice([seed, seed, r.randint(0, 99)]) for _ in range(lanes)),
        count=_count(r, batch),
    )


def _count(r: random.Random, batch: int) -> int:
    """Return how many images make a few steps of an epoch, the last one mostly incomplete."""
    trained = max(10, batch * r.randint(1, 3) + r.choice([0, 1, r.randrange(batch)]))
    return trained * 6 // 5 + 1


def _recipe(r: random.Random) -> dict[str, Any]:
    """Return what a lane has of its own."""
    return {
        "lr": 10 ** r.uniform(-3.5, -1.5),
        "weight_decay": r.choice([0.0, 0.0, 0.01, 0.1]),
        "momentum": r.choice([0.0, 0.9]),
        "norm": r.choice(["standard", "none"]),
        "clip_norm": r.choice([None, None, 0.1, 10.0]),
        "class_weight": r.choice(["none", "none", "balanced"]),
        "label_smoothing": r.choice([0.0, 0.1]),
        "ema": r.choice([0.0, 0.0, 0.5, 0.99]),
    }


class Pooled(nn.Module):
    """Maps as features."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, x):
        if self.how == "mean":
            return x.mean((2, 3))
        if self.how == "adaptive":
            return torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)
        return x.amax((2, 3)) if self.how == "amax" else x.flatten(1)


class Drawn(nn.Module):
    """The network of a case: layers for which its maps are too small, or too large, are left out."""

    def __init__(self, case: Case):
        super().__init__()
        channels, height, width = case.image
        x = torch.rand(2, channels, height, width, generator=torch.Generator().manual_seed(0))
        layers: list[nn.Module] = []
        for recipe, more in zip(case.layers, case.more, strict=False):
            x = _grow(layers, random_layers.layer_of(recipe, x.shape[1]), x)
            x = x if more is None else _grow(layers, random_tokens.map_layer_of(more, x.shape[1]), x)
        for recipe in case.further[0]:
            x = _grow(layers, random_more.map_layer_of(recipe, x.shape[1]), x)
        x = _grow(layers, random_parts.layers_of(case.parts[0], *x.shape[1:]), x)
        pooled: nn.Module = Pooled(case.pooled)
        if case.tokens and x[0, 0].numel() * x.shape[1] <= _MOST_TOKENS:
            how, *recipes = case.tokens
            x = _grow(layers, [random_tokens.Tokens(x.shape, how)], x)
            for recipe in recipes:
                x = _grow(layers, random_tokens.token_layer_of(recipe, *x.shape[1:]), x)
            for recipe in case.further[1]:
                x = _grow(layers, random_more.token_layer_of(recipe, *x.shape[1:]), x)
            x = _grow(layers, random_parts.layers_of(case.parts[1], *x.shape[1:]), x)
            pooled = random_tokens.Read(how[-1])
        x = _grow(layers, [pooled], x)
        for recipe in case.features:
            x = _grow(layers, random_layers.feature_layer_of(recipe, x.shape[1]), x)
        if case.odd == "twice":
            x = _grow(layers, [nn.Linear(x.shape[1], 5)], x)
            again = nn.Linear(5, 5)
            for _ in range(2):
                x = _grow(layers, [again], x)
        self.layers = nn.Sequential(*layers).train()
        self.out = nn.Linear(x.shape[1], CLASSES)
        if case.odd == "frozen":
            next(iter(self.parameters())).requires_grad_(False)
        self.end = nn.Sequential(*random_more.end_of(case.end))
        self.tied = nn.Linear(x.shape[1], CLASSES) if case.odd == "tied" else None
        if self.tied is not None:
            self.tied.weight = self.out.weight

    def forward(self, x):
        x = self.layers(x)
        return self.end(self.out(x) if self.tied is None else self.out(x) + self.tied(F.relu(x)))


def _grow(layers: list[nn.Module], made: Sequence[nn.Module], x: torch.Tensor) -> torch.Tensor:
    """Add what goes over maps as they are, and return what comes out."""
    for module in made:
        if isinstance(module, nn.Conv2d) and _reads_padding_alone(module, x):
            continue
        try:
            with torch.no_grad():
                y = module.eval()(x)
        except (RuntimeError, ValueError):  # a kernel that is larger than the map
            continue
        if 0 < y[0].numel() <= _MOST_NUMBERS:
            layers.append(module)
            x = y
    return x


def _reads_padding_alone(conv: nn.Conv2d, x: torch.Tensor) -> bool:
    """Whether no place of a kernel ever meets the maps, on which torch 2.13 crashes in channels_last, given a bias."""
    how = zip(x.shape[2:], conv.kernel_size, conv.stride, conv.padding, conv.dilation, strict=True)
    return any(
        not any(
            0 <= first + place * dilation < size
            for first in range(-int(padding), size + int(padding) - dilation * (kernel - 1), stride)
            for place in range(kernel)
        )
        for size, kernel, stride, padding, dilation in how
    )
