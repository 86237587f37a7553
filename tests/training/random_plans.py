"""Networks of the layers that compiled steps are made of, drawn at random with images and recipes to train them by.

A number gives the same case each time.  `hold` trains a case's lanes as a pack and each by a plain loop, and compares.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from gridsearch.plugins import ImageData
from gridsearch.training.lanes.compile.lane_values import NotPackable
from gridsearch.training.lanes.runtime import built_plan
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.metrics import Diverged
from gridsearch.training.model_setup import build_network
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache
from gridsearch.training.solo import SoloProgram
from tests.training import random_tokens
from tests.training.conftest import settings_of
from tests.training.plain_loop import Plain, train_plainly

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gridsearch.records import ImageSettings

CPU = torch.device("cpu")
CLASSES = 3
EPOCHS = 2
_MOST_NUMBERS = 12_000  # of a map: larger ones take time and show no more
_MOST_TOKENS = 3_000  # numbers of all tokens of an image
_SIDES = (1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 17, 21, 28, 33)
_CHANNELS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 13, 16, 17, 24, 33)
_KERNELS = (1, 1, 2, 3, 3, 3, 3, 4, 5, 7, (3, 1), (1, 3), (5, 2))
_ALLOWED = {"float64": (30.0, 1e-9), "float32": (30.0, 1e-4), "bfloat16": (8.0, 0.05)}
"""How far a lane may be from a plain loop in float64: times what rounding to its type does to one, and besides."""
_NUDGES = 3


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
    return Case(
        number=number,
        image=(r.choice([1, 1, 2, 3, 4]), r.choice(_SIDES), r.choice(_SIDES)),
        layers=tuple(_layer(r) for _ in range(r.randint(1, 7))),
        features=tuple(_feature_layer(r) for _ in range(r.randint(0, 4))),
        pooled=r.choice(["flat"] * 6 + ["mean"] * 6 + ["adaptive"] * 3 + ["amax"]),
        tokens=tokens,
        more=tuple(more),
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


def _layer(r: random.Random) -> tuple[Any, ...]:
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


def _feature_layer(r: random.Random) -> tuple[Any, ...]:
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


_ACTIVATIONS = ("relu", "relu", "relu", "in place", "function", "leaky", "relu6", "hardswish", "hardsigmoid")


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
            x = _grow(layers, layer_of(recipe, x.shape[1]), x)
            x = x if more is None else _grow(layers, random_tokens.map_layer_of(more, x.shape[1]), x)
        pooled: nn.Module = Pooled(case.pooled)
        if case.tokens and x[0, 0].numel() * x.shape[1] <= _MOST_TOKENS:
            how, *recipes = case.tokens
            x = _grow(layers, [random_tokens.Tokens(x.shape, how)], x)
            for recipe in recipes:
                x = _grow(layers, random_tokens.token_layer_of(recipe, *x.shape[1:]), x)
            pooled = random_tokens.Read(how[-1])
        x = _grow(layers, [pooled], x)
        for recipe in case.features:
            x = _grow(layers, feature_layer_of(recipe, x.shape[1]), x)
        if case.odd == "twice":
            x = _grow(layers, [nn.Linear(x.shape[1], 5)], x)
            again = nn.Linear(5, 5)
            for _ in range(2):
                x = _grow(layers, [again], x)
        self.layers = nn.Sequential(*layers).train()
        self.out = nn.Linear(x.shape[1], CLASSES)
        if case.odd == "frozen":
            next(iter(self.parameters())).requires_grad_(False)
        self.tied = nn.Linear(x.shape[1], CLASSES) if case.odd == "tied" else None
        if self.tied is not None:
            self.tied.weight = self.out.weight

    def forward(self, x):
        x = self.layers(x)
        return self.out(x) if self.tied is None else self.out(x) + self.tied(F.relu(x))


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


# Training, and what is held against what


@dataclass
class Trained:
    """What came of a case's lanes, each by its number.

    Attributes:
        method: how they trained; "planned" where by compiled calls.
        losses: mean training losses by epoch, fewer for a lane that left early.
        logits: of the validation images after its last epoch; None for a lane that diverged.
        weights: its tensors then.
        warnings: why compiled code was left out.
    """

    method: str
    losses: dict[int, list[float]]
    logits: dict[int, torch.Tensor | None]
    weights: dict[int, dict[str, torch.Tensor]]
    warnings: list[str]


def train(case: Case, lanes: Sequence[int], *, leaves: bool) -> Trained:
    """Train some lanes of a case.

    Args:
        case: the case.
        lanes: the numbers of those that train together.
        leaves: every other lane leaves after the first epoch.

    Raises:
        Exception: whatever the network raises.
    """
    data = ResidentCache(case.images(), device="cpu")(case.settings[0])
    precision = Precision.of(case.settings[0].dtype, CPU)
    models = [build_network(case.settings[k], case.seeds[k], data, case.make, precision) for k in lanes]
    found = Trained("", {k: [] for k in lanes}, {}, {}, [])
    try:
        with mock.patch.object(built_plan, "_aligned", _full_of_nan), _listening(found.warnings):
            members = [Member(case.settings[k], case.seeds[k]) for k in lanes]
            pack = PackProgram(members, models, data, precision)
    except NotPackable:
        return _train_alone(case, lanes, found, data, precision, leaves=leaves)
    found.method = "planned" if pack.planned else pack.network.method
    there = list(lanes)
    for epoch in range(EPOCHS):
        results, scores = pack.train_epoch(), pack.evaluate()
        for slot, (k, result, score) in enumerate(zip(there, results, scores, strict=True)):
            if isinstance(result, Diverged):
                found.losses[k].append(float("nan"))
                found.logits[k] = None
                continue
            found.losses[k].append(result.loss)
            assert score is not None
            found.logits[k], found.weights[k] = score.logits.clone(), pack.lane_state(slot).weights
        if leaves and epoch == 0 and len(there) > 1:
            stay = list(range(1, len(there), 2))
            pack.compact(stay)
            there = [there[slot] for slot in stay]
    pack.close()
    return found


@contextlib.contextmanager
def _listening(heard: list[str]) -> Iterator[None]:
    """Take note of the warnings of the product's log."""
    handler, log = logging.Handler(logging.WARNING), logging.getLogger("gridsearch")
    handler.emit = lambda record: heard.append(record.getMessage())
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _full_of_nan(size: int, own: Any = built_plan._aligned) -> torch.Tensor:
    """Return memory for a plan of which nothing may be read that was not written."""
    return own(size).fill_(255)


def _train_alone(
    case: Case, lanes: Sequence[int], found: Trained, data: Any, precision: Precision, *, leaves: bool
) -> Trained:
    """Train lanes one after the other."""
    found.method = "solo"
    for place, k in enumerate(lanes):
        solo = SoloProgram(case.settings[k], case.seeds[k], data, case.make, precision)
        for epoch in range(1, EPOCHS + 1):
            if leaves and epoch > 1 and len(lanes) > 1 and place % 2 == 0:
                break
            try:
                found.losses[k].append(solo.train_epoch(epoch).loss)
            except Diverged:
                found.losses[k].append(float("nan"))
                found.logits[k] = None
                break
            score = solo.evaluate(epoch)
            assert score is not None
            found.logits[k] = score.logits
    return found


def hold(case: Case) -> str:
    """Train a case and compare each lane with plain loops; return in a word how it went.

    Returns:
        the lanes' method; with "refused" where a plain loop fails likewise, with "unstable" where rounding decides.

    Raises:
        AssertionError: a lane differs.
        Exception: whatever the product raises that a plain loop does not.
    """
    lanes, images = range(len(case.settings)), case.images()
    leaves = case.number % 3 == 0
    refused = ""
    plain: list[Plain | None] = []
    for k in lanes:
        try:
            plain.append(_plain(case, k, images, leaves=leaves))
        except (RuntimeError, ValueError) as error:  # a batch norm of one value
            refused = str(error)
            plain.append(None)
    if refused:
        try:
            train(case, lanes, leaves=leaves)
        except (RuntimeError, ValueError) as error:
            return f"refused: {error}"[:60]
        raise AssertionError(f"trains what a plain loop refuses: {refused}")
    try:
        found = train(case, lanes, leaves=leaves)
    except RuntimeError as error:
        if _trains_contiguous(case, images):
            raise
        return f"refused: {error}"[:60]
    words = found.method
    if found.warnings:
        assert case.settings[0].dtype == "bfloat16", found.warnings
        words += f" warned: {found.warnings[0]}"
    for k in lanes:
        words += _hold_lane(case, k, images, found, plain[k])
    if found.method == "planned":
        k = case.number % len(lanes)
        alone = train(case, [k], leaves=False)
        if len(alone.losses[k]) == len(found.losses[k]) and alone.method == "planned" and k in found.weights:
            for name, tensor in found.weights[k].items():
                assert torch.equal(alone.weights[k][name], tensor), f"{name} of lane {k} alone is another"
    return words


def _trains_contiguous(case: Case, images: ImageData) -> bool:
    """Whether a plain loop trains with contiguous maps too, of which views show what is then changed in place."""
    try:
        train_plainly(case.make, case.settings[0], case.seeds[0], images)
    except RuntimeError:
        return False
    return True


def _plain(case: Case, k: int, images: ImageData, *, leaves: bool, **how: Any) -> Plain:
    """Train a lane by a plain loop, for as many epochs as it trains in its pack."""
    short = leaves and len(case.settings) > 1 and k % 2 == 0
    settings = dataclasses.replace(case.settings[k], epochs=1 if short else EPOCHS)
    convolves = any(isinstance(m, nn.Conv2d) for m in case.make().modules())
    how["channels_last"] = convolves and settings.dtype != "float64"
    return train_plainly(case.make, settings, case.seeds[k], images, **how)


def _hold_lane(case: Case, k: int, images: ImageData, found: Trained, plain: Plain | None) -> str:
    """Compare a lane with plain loops; return a word where nothing can be said.

    Raises:
        AssertionError: it differs.
    """
    assert plain is not None
    dtype, logits = case.settings[k].dtype, found.logits[k]
    if logits is None or not bool(torch.isfinite(plain.logits).all()) or plain.logits.abs().max() > 1e4:
        return " unstable"
    gap = _distance(found.losses[k], logits.double(), plain)
    times, besides = _ALLOWED[dtype]
    if gap <= besides:
        return ""
    theirs = _rounding(case, k, images, plain)
    assert gap <= besides + times * theirs, (
        f"lane {k} ({found.method}, {dtype}) is {gap:.1e} from a plain loop, rounding takes one {theirs:.1e} away"
    )
    return " unstable" if dtype == "float64" else ""


def _rounding(case: Case, k: int, images: ImageData, plain: Plain) -> float:
    """How far rounding takes a lane's plain loop from itself: one of its type, and ones in float64 that are nudged."""
    dtype, leaves = case.settings[k].dtype, case.number % 3 == 0
    own = torch.float64 if dtype == "float64" else torch.float32
    how: list[dict[str, Any]] = [
        {"nudge": torch.finfo(own).eps, "nudge_seed": seed} for seed in range(_NUDGES)
    ]
    if dtype != "float64":
        how.append({"dtype": torch.float32, "rounds": dtype == "bfloat16"})
    others = [_plain(case, k, images, leaves=leaves, **kwargs) for kwargs in how]
    return max(_distance(other.losses, other.logits.double(), plain) for other in others)


def _distance(losses: Sequence[float], logits: torch.Tensor, plain: Plain) -> float:
    """How far losses and logits are from a plain loop's, as a share of the largest."""
    apart = max(abs(a - b) / (1 + abs(b)) for a, b in zip(losses, plain.losses, strict=True))
    largest = max(1.0, plain.logits.abs().max().item())
    return max(apart, (logits - plain.logits).abs().max().item() / largest)
