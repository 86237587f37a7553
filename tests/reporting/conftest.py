"""Synthetic studies whose answers are known: one to five axes, seeds, losses, hostile names, many classes."""

from __future__ import annotations

import itertools
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gridsearch.records import (
    EpochRow,
    FunctionSettings,
    ImageSettings,
    StepRow,
    StudyData,
    TrialRecord,
    TrialState,
    Value,
    trial_key,
)
from gridsearch.reporting.stats.predictions import Predictions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
HOSTILE = (
    '<script>alert("x")</script>',
    '"><img src=x onerror=alert(1)>',
    "=HYPERLINK('http://evil')",
    "{{ 7*7 }}",
    "$\\frac{1}{0$",
    "a\x1b[31mred\x00\nline",
    "日本語のクラス名",
    "\u202egnp.exe",
    "</style></svg>",
    "lone \ud800 surrogate",
)


def settings_of(params: Mapping[str, Value], **fixed: Any) -> ImageSettings:
    """Return settings that hold the params; unknown names become options of the model."""
    known = ImageSettings.__dataclass_fields__
    own = {k: v for k, v in params.items() if k in known}
    options = {k.removeprefix("model."): v for k, v in params.items() if k not in known}
    defaults = {"dataset": "fmnist", "data_fingerprint": "ab" * 32, "model_options": options}
    return ImageSettings(**defaults | fixed | own)


def quality(params: Mapping[str, Value]) -> float:
    """Return the accuracy that a point would have without luck: best near lr=.001, small batch, standard."""
    score = 0.91
    lr, batch = params.get("lr", 0.001), params.get("batch", 20)
    if isinstance(lr, float):
        score -= 0.03 * abs(np.log10(lr) + 3) ** 1.5
    if isinstance(batch, int):
        score -= 0.012 * np.log10(batch / 10)
    for name, value in params.items():
        if name not in ("lr", "batch"):
            score += 0.004 * (zlib.crc32(f"{name}={value}".encode()) % 100) / 100
    return float(score)


def make_epochs(
    count: int, *, val: float, train: float, rng: np.random.Generator, held_out: bool
) -> tuple[EpochRow, ...]:
    """Return learning curves that end at the given accuracies."""
    rows = []
    for epoch in range(1, count + 1):
        done = 1 - np.exp(-3 * epoch / count)
        last = epoch == count
        wiggle = 0.0 if last else float(rng.normal(0, 0.004))
        train_now = train if last else 0.3 + (train - 0.3) * done
        val_now = val if last else 0.32 + (val - 0.32) * done + wiggle
        rows.append(
            EpochRow(
                epoch=epoch,
                train_loss=2.3 - 2.0 * train_now,
                train_accuracy=train_now,
                val_loss=2.3 - 2.0 * val_now + 0.05 if held_out else None,
                val_accuracy=val_now if held_out else None,
                lr=0.001,
                seconds=1.5,
                images_per_second=33000.0,
            )
        )
    return tuple(rows)


class StudyBuilder:
    """Builds a StudyData: the product of axes times seeds, then whatever a test changes about trials."""

    def __init__(
        self,
        axes: Mapping[str, Sequence[Value]],
        *,
        seeds: int = 1,
        name: str = "fmnist",
        class_names: Sequence[str] = FASHION,
        epochs: int = 10,
        noise: float = 0.002,
        **fixed: Any,
    ) -> None:
        self.axes, self.name, self.class_names = dict(axes), name, tuple(class_names)
        self.held_out = fixed.get("val", 1 / 6) != 0
        self.records: list[TrialRecord] = []
        self.epochs: dict[int, tuple[EpochRow, ...]] = {}
        self.commands = ("gridsearch run --grid lr=.01,.001 batch=10,20,50 --seeds 3",)
        rng = np.random.default_rng(0)
        for combination in itertools.product(*self.axes.values()):
            params = dict(zip(self.axes, combination, strict=True))
            for seed in range(seeds):
                self._add(params, seed, settings_of(params, epochs=epochs, **fixed), noise=noise, rng=rng)

    def _add(
        self, params: Any, seed: int, settings: ImageSettings, *, noise: float, rng: np.random.Generator
    ) -> None:
        number = len(self.records)
        val = min(0.999, quality(params) + float(rng.normal(0, noise)) if noise else quality(params))
        train = min(0.9999, val + 0.035)
        rows = make_epochs(settings.epochs, val=val, train=train, rng=rng, held_out=self.held_out)
        self.epochs[number] = rows
        metrics = {"train_accuracy": train, "train_loss": rows[-1].train_loss}
        if self.held_out:
            metrics |= {"val_accuracy": val, "val_loss": rows[-1].val_loss}
        self.records.append(
            TrialRecord(
                number=number,
                key=trial_key(settings, seed),
                seed=seed,
                state=TrialState.COMPLETE,
                params=params,
                settings=settings,
                value=val if self.held_out else train,
                metrics=metrics,
                epochs=settings.epochs,
                seconds=1.5 * settings.epochs,
                attempts=1,
                error=None,
            )
        )

    def change(self, number: int, **values: Any) -> StudyBuilder:
        """Replace fields of one trial."""
        fields = {f: getattr(self.records[number], f) for f in TrialRecord.__dataclass_fields__}
        self.records[number] = TrialRecord(**fields | values)
        return self

    def score(self, number: int, value: float, **more: float) -> StudyBuilder:
        """Give one trial a validation accuracy."""
        return self.change(
            number, value=value, metrics=dict(self.records[number].metrics) | {"val_accuracy": value} | more
        )

    def lose(self, number: int, state: TrialState, error: str | None = None) -> StudyBuilder:
        """Take one trial's result away: diverged, failed, pruned, running or waiting."""
        metrics = {"train_loss": float("nan")} if state is TrialState.DIVERGED else {}
        self.epochs[number] = self.epochs[number][:2] if state is TrialState.DIVERGED else ()
        seconds = None if state in (TrialState.WAITING, TrialState.RUNNING) else 2.0
        epochs = len(self.epochs[number])
        return self.change(
            number, state=state, value=None, metrics=metrics, error=error, seconds=seconds, epochs=epochs
        )

    def prune(self, number: int, epoch: int, by: str = "asha") -> StudyBuilder:
        """End one trial early, by a pruner, with the metrics that it had."""
        self.epochs[number] = self.epochs[number][:epoch]
        assert len(self.epochs[number]) == epoch
        message = f"pruned by {by} after epoch {epoch} of {self.records[number].settings.epochs}"
        return self.change(number, state=TrialState.PRUNED, pruner=by, epochs=epoch, error=message)

    def without(self, *numbers: int) -> StudyBuilder:
        """Remove trials, as an exclusion does."""
        self.records = [r for r in self.records if r.number not in numbers]
        return self

    def data(self, **changes: Any) -> StudyData:
        """Return the study."""
        values: dict[str, Any] = {
            "name": self.name,
            "dataset": "fmnist",
            "metric": "val_accuracy" if self.held_out else "train_accuracy",
            "direction": "maximize",
            "axes": tuple(self.axes),
            "trials": tuple(self.records),
            "class_names": self.class_names,
            "commands": self.commands,
            "environment": {"gridsearch": "0.1.0", "torch": "2.13.0", "python": "3.11.9", "cpu": "2 cores"},
            "epochs": self.epochs,
        }
        return StudyData(**values | changes)


def make_predictions(classes: int, *, images: int = 2000, missing: int | None = None) -> Predictions:
    """Return predictions of which most are right; class 6, where there is one, is often taken for class 0."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, classes, images)
    if missing is not None:
        labels[labels == missing] = (missing + 1) % classes
    logits = rng.normal(0, 1, (images, classes)).astype(np.float32)
    logits[np.arange(images), labels] += 4.0
    if classes > 6:
        mistaken = (labels == 6) & (rng.random(images) < 0.2)
        logits[mistaken, 0] += 8.0
    return Predictions(logits, labels.astype(np.int64))


def make_function_study(
    grid: Sequence[Mapping[str, Value]],
    metrics: Callable[[Any], Mapping[str, float]],
    steps: Callable[[str, float], Sequence[float]] = lambda *_: (),
) -> StudyData:
    """Return a study of a function with a trial a point, ranked by its first metric, of which less is better.

    Args:
        grid: the params of each point.
        metrics: what the function returns for them.
        steps: what it yields of a metric, given its name and what it returns of it.
    """
    trials, rows = [], {}
    for number, params in enumerate(grid):
        settings = FunctionSettings(objective="f", objective_source="ab" * 32, params=params)
        found = dict(metrics(params))
        ranking = next(iter(found))
        yielded = {name: values for name, value in found.items() if (values := steps(name, value))}
        count = len(yielded.get(ranking, ()))
        trials.append(
            TrialRecord(
                number=number, key=trial_key(settings, 0), seed=0, state=TrialState.COMPLETE, params=params,
                settings=settings, value=found[ranking], metrics=found, epochs=count, seconds=0.5 + number, attempts=1,
                error=None,
            )
        )  # fmt: skip
        rows[number] = tuple(
            StepRow(step=i + 1, metrics={n: v[i] for n, v in yielded.items()}, seconds=0.1)
            for i in range(count)
        )
    return StudyData(
        name="f", dataset="f", metric=ranking, direction="minimize", axes=tuple(grid[0]), trials=tuple(trials),
        class_names=(), commands=(), environment={}, epochs={}, steps=rows,
    )  # fmt: skip


@pytest.fixture(scope="session")
def of_a_function() -> Callable[..., StudyData]:
    return make_function_study


@pytest.fixture(scope="session")
def study() -> type[StudyBuilder]:
    return StudyBuilder


@pytest.fixture(scope="session")
def predictions() -> Callable[..., Predictions]:
    return make_predictions


@pytest.fixture(scope="session")
def fashion() -> tuple[str, ...]:
    return FASHION


@pytest.fixture(scope="session")
def hostile() -> tuple[str, ...]:
    return HOSTILE
