"""How far rounding carries single-precision runs apart: a trial in a pack, alone, and alone in another memory layout.

    python -m tests.benchmarks.drift [--trials 64] [--json]

LeNet on a part of Fashion-MNIST, scored on 5,000 images that it does not train on.  Each trial is trained three
times from the same seed with the same images in the same order: as a lane of a pack, alone (channels_last), and
alone with its channels first.  In exact arithmetic all three are one.  Half of the packs hold eight learning rates
of one seed (the lanes share their images), half hold eight seeds (each lane has its own).

Claim: the signed mean of (pack - alone) is within 0.3 points of validation accuracy, so that packs neither gain nor
lose; and its spread is at most 1.5 times that of (alone - alone in another layout), so that they add no noise beside
what every run has.  The learning rate falls to nothing at the end, so that runs end near where they were going: with
64 trials the mean's standard error is then 0.01 points, and a bias of a tenth of the bound would show.  The ratio of
two equal spreads exceeds 1.5 about once in a thousand draws of 64; seeds and data are fixed besides.

    python -m tests.benchmarks.drift --dtype bfloat16 [--trials 64] [--model lenet ...]

The same packs, trained with `dtype=bfloat16` and in float32.  Claim: the signed mean of the difference in validation
accuracy is within 0.2 points.  Written to results/drift-bfloat16.json, a model beside the other.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

from gridsearch.records import ImageSettings
from gridsearch.training import model_setup as training_network
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.model_setup import build_network
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache
from gridsearch.training.solo import SoloProgram
from gridsearch.zoo import datasets, models
from tests.benchmarks import measure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

LANES = 8
RATES = (0.001, 0.0015, 0.002, 0.0025, 0.003, 0.004, 0.005, 0.006)
SLOWER = {"cnn": 0.5, "cnn3": 0.5}
"""By what the rates of a model are multiplied: at .006 a trial of it now and then stops learning, whatever the dtype."""

LONGER = {"cnn3": {"batch": 32, "subset": 6000, "epochs": 5}}
"""Recipes of models that the common one leaves far from where they go: there runs differ by points, whatever differs."""

COMMON = {
    "dataset": "fmnist",
    "model": "lenet",
    "batch": 10,
    "epochs": 3,
    "subset": 1200,
    "schedule": "cosine",
    "val": 1 / 12,
    "dtype": "float32",
}


@dataclass(frozen=True, slots=True)
class Drift:
    """What the three runs of each trial gave, as fractions of the validation images.

    Attributes:
        packed: validation accuracy as a lane.
        alone: of the plain engine.
        other: of the plain engine in another memory layout.
    """

    packed: Sequence[float]
    alone: Sequence[float]
    other: Sequence[float]

    @property
    def differences(self) -> tuple[list[float], list[float]]:
        """(pack - alone) and (other layout - alone), in points of accuracy."""
        return tuple(
            [100 * (a - b) for a, b in zip(these, self.alone, strict=True)]
            for these in (self.packed, self.other)
        )

    @property
    def mean(self) -> float:
        """Signed mean of (pack - alone), in points."""
        return statistics.fmean(self.differences[0])

    @property
    def ratio(self) -> float:
        """Spread of (pack - alone) as a multiple of that of (other layout - alone)."""
        ours, theirs = (statistics.stdev(each) for each in self.differences)
        return ours / theirs


def build(settings, data):
    return getattr(models, settings.model)(data.channels, data.num_classes, tuple(data.image_size))


def packs_of(trials: int, **changes: str) -> list[list[tuple[ImageSettings, int]]]:
    """Half of the packs of one seed and eight rates, half of eight seeds; each pack as (settings, seed)."""
    scale = SLOWER.get(changes.get("model", ""), 1)
    rates = [ImageSettings(**recipe_of(changes.get("model", "")) | changes, lr=lr * scale) for lr in RATES]
    same = [[(settings, seed) for settings in rates] for seed in range(trials // LANES // 2)]
    first = len(same)
    mixed = [
        [(rates[(lane + turn) % LANES], first + lane) for lane in range(LANES)]
        for turn in range(trials // LANES - first)
    ]
    return same + mixed


def recipe_of(model: str) -> dict[str, Any]:
    """The settings, beside the learning rate, that trials of a model have."""
    return COMMON | LONGER.get(model, {})


@contextmanager
def channels_first() -> Iterator[None]:
    """Let the plain engine leave its maps in torch's default layout."""
    with mock.patch.object(training_network, "pays_channels_last", lambda *_: False):
        yield


def compare(root: Path, trials: int = 64) -> Drift:
    """Train all trials, three times each.

    Args:
        root: folder of the datasets' files.
        trials: a multiple of 16.
    """
    torch.set_num_threads(1)
    images = datasets.load(datasets.open_dataset("fmnist"), root, {})
    precision = Precision.of("float32", torch.device("cpu"))
    data = ResidentCache(images, device="cpu")(ImageSettings(**COMMON))
    packed, alone, other = [], [], []
    for lanes in packs_of(trials):
        packed += run_packed(lanes, data, precision)
        for settings, seed in lanes:
            alone.append(run_alone(settings, seed, data, precision))
            with channels_first():
                other.append(run_alone(settings, seed, data, precision))
    return Drift(packed, alone, other)


def run_packed(lanes, data, precision) -> list[float]:
    built = [build_network(settings, seed, data, build, precision) for settings, seed in lanes]
    pack = PackProgram([Member(*lane) for lane in lanes], built, data, precision)
    assert pack.network.method == "stacked"
    for _ in range(lanes[0][0].epochs):
        pack.train_epoch()
    return [found.accuracy for found in pack.evaluate()]


def compare_dtypes(root: Path, model: str, trials: int = 64) -> list[float]:
    """Train packs in bfloat16 and in float32; return (bfloat16 - float32) of each trial, in points of accuracy.

    Args:
        root: folder of the datasets' files.
        model: of the zoo.
        trials: a multiple of 16.
    """
    torch.set_num_threads(1)
    images = datasets.load(datasets.open_dataset("fmnist"), root, {})
    data = ResidentCache(images, device="cpu")(ImageSettings(**recipe_of(model)))
    found = {}
    for dtype in ("bfloat16", "float32"):
        precision = Precision.of(dtype, torch.device("cpu"))
        packs = packs_of(trials, dtype=dtype, model=model)
        found[dtype] = [one for lanes in packs for one in run_packed(lanes, data, precision)]
    return [100 * (a - b) for a, b in zip(found["bfloat16"], found["float32"], strict=True)]


def run_alone(settings, seed, data, precision) -> float:
    program = SoloProgram(settings, seed, data, build, precision)
    for epoch in range(1, settings.epochs + 1):
        program.train_epoch(epoch)
    return program.evaluate(settings.epochs).accuracy


def drift_of_bfloat16(root: Path, names: Sequence[str], trials: int) -> dict[str, Any]:
    """Return the figures of some models in bfloat16 against float32, beside those that others have."""
    result = measure.RESULTS / "drift-bfloat16.json"
    figures: dict[str, Any] = json.loads(result.read_text())["figures"] if result.exists() else {}
    figures["recipe"] = COMMON | {"lr": RATES, "lanes": LANES}
    for name in names:
        found = compare_dtypes(root, name, trials)
        figures[name] = {
            "trials": trials,
            "recipe": {**LONGER.get(name, {}), "learning rates times": SLOWER.get(name, 1)},
            "signed mean of (bfloat16 - float32), points": statistics.fmean(found),
            "its standard error": statistics.stdev(found) / math.sqrt(trials),
            "spread, points": statistics.stdev(found),
            "largest, points": max(map(abs, found)),
        }
    return figures


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write results/drift.json."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument(
        "--model", nargs="+", default=["lenet", "tinyvgg", "cnn", "cnn3"], help="of the zoo, for bfloat16"
    )
    chosen = parser.parse_args(argv)
    from gridsearch.folders import cache_root

    if chosen.dtype == "bfloat16":
        measure.write(
            "drift-bfloat16", drift_of_bfloat16(cache_root() / "data", chosen.model, chosen.trials or 64)
        )
        return
    chosen.trials = chosen.trials or 64
    drift = compare(cache_root() / "data", chosen.trials)
    ours, theirs = drift.differences
    n = len(ours)
    figures: dict[str, Any] = {
        "trials": n,
        "signed mean of (pack - alone), points": drift.mean,
        "its standard error": statistics.stdev(ours) / math.sqrt(n),
        "spread of (pack - alone), points": statistics.stdev(ours),
        "spread of (other layout - alone), points": statistics.stdev(theirs),
        "ratio of the spreads": drift.ratio,
        "largest (pack - alone), points": max(map(abs, ours)),
        "largest (other layout - alone), points": max(map(abs, theirs)),
        "mean validation accuracy": {
            "pack": statistics.fmean(drift.packed),
            "alone": statistics.fmean(drift.alone),
            "other layout": statistics.fmean(drift.other),
        },
        "recipe": COMMON | {"lr": RATES, "lanes": LANES},
    }
    for name, value in figures.items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    measure.write("drift", figures)


if __name__ == "__main__":
    main()
