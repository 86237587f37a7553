"""What a report costs: `gridsearch report` on 16 trials with Fashion-MNIST's predictions, and on 10,000 trials.

The studies are made through the store as a run makes them, with drawn accuracies and predictions of real size
(10,000 images, 10 classes); each measurement is a first report, in a fresh copy of the home.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import safetensors.numpy

from gridsearch.records import EpochEnded, FileRef, Trial, TrialFinished, TrialState
from gridsearch.service.prepare.options import Places
from gridsearch.spec import build, expand_study
from gridsearch.store import RunnerIdentity, Store, StudyDraft, open_store
from gridsearch.training.splits import split
from gridsearch.zoo import datasets
from tests.benchmarks.measure import Spread, write

if TYPE_CHECKING:
    from gridsearch.plugins import ImageData

SMALL = ["lr=.1,.01,.001,.0001", "batch=16,64", "norm=none,standard"]
LARGE = ["lr=1e-5..1e-1:100log", "batch=10..1000:10"]
EPOCHS = 10
PACK = 100
PREDICTED = 50
"""Trials of the large study, best first, that have predictions: 10,000 of them would be 2.8 GB."""


@dataclass(frozen=True)
class _Resolver:
    """Stands in for the catalog: any model, and the dataset's fingerprint."""

    fingerprint: str

    def model(self, name, options):
        return name, options, None

    def data(self, options):
        return "fmnist", options, self.fingerprint


def make_study(home: Path, words: list[str], *, data: ImageData | None, fingerprint: str) -> None:
    """Fill a store with a finished study of Fashion-MNIST; `data` gives labels and the split."""
    drafts = expand_study(build(words=words, options={"epochs": EPOCHS}), _Resolver(fingerprint)).drafts
    rng = np.random.default_rng(0)
    classes = 10
    labels = data.train_labels if data else rng.integers(0, classes, 60_000)
    held_out = split(labels, val=1 / 6, split_seed=0).val
    axes = tuple(word.partition("=")[0] for word in words)
    study = StudyDraft(
        name="bench",
        dataset="fmnist",
        metric="val_accuracy",
        axes=axes,
        class_names=data.class_names if data else tuple(map(str, range(classes))),
        command=f"gridsearch run --grid {' '.join(words)}",
        environment={"gridsearch": "benchmark"},
        spec={"dataset": "fmnist"},
    )
    with open_store(f"sqlite:///{home / 'gridsearch.db'}", home=home, create=True) as store:
        added = store.add(study, drafts)
        scores = [_score(draft.settings.lr, draft.settings.batch, rng) for draft in drafts]
        best = set(np.argsort(scores)[::-1][:PREDICTED].tolist())
        for start in range(0, len(drafts), PACK):
            ids = added.ids[start : start + PACK]
            for i, trial in enumerate(
                store.claim(ids, owner=RunnerIdentity.current(), pack="p", lease=60), start
            ):
                if i in best:
                    files = (_predict(store, trial, labels[held_out], held_out, scores[i], rng),)
                else:
                    files = ()
                store.finish(_finished(trial, scores[i], files), epochs=_epochs(trial, scores[i]))


def _score(lr: float, batch: int, rng: np.random.Generator) -> float:
    return (
        0.92 - 0.03 * abs(math.log10(lr) + 3) ** 1.5 - 0.01 * math.log10(batch) + float(rng.normal(0, 0.003))
    )


def _predict(
    store: Store,
    trial: Trial,
    labels: np.ndarray,
    indices: np.ndarray,
    score: float,
    rng: np.random.Generator,
) -> FileRef:
    """Leave predictions as a worker does, with as many right as the score says."""
    logits = rng.normal(0, 1, (len(labels), 10)).astype(np.float16)
    right = np.zeros(len(labels), dtype=bool)
    right[rng.permutation(len(labels))[: round(score * len(labels))]] = True
    aim = np.where(right, labels, (labels + 1 + rng.integers(0, 3, len(labels))) % 10)
    logits[np.arange(len(labels)), aim] += 8
    content = safetensors.numpy.save(
        {
            "logits": logits,
            "predicted": aim.astype(np.uint8),
            "labels": labels.astype(np.int64),
            "indices": indices.astype(np.int64),
        }
    )
    scratch = store.home.scratch("bench", trial.number, trial.attempt)
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "predictions.safetensors").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return FileRef(name="predictions.safetensors", sha256=digest, size=len(content))


def _epochs(trial: Trial, score: float) -> list[EpochEnded]:
    def reached(epoch: int) -> float:
        return score * (1 - math.exp(-epoch)) / (1 - math.exp(-EPOCHS))

    return [
        EpochEnded(
            trial=trial.id,
            attempt=trial.attempt,
            epoch=epoch,
            train_loss=2.3 - 2 * reached(epoch),
            train_accuracy=reached(epoch),
            val_loss=2.35 - 2 * reached(epoch),
            val_accuracy=reached(epoch),
            lr=trial.settings.lr,
            seconds=60 / trial.settings.batch,
            images_per_second=1e4,
        )
        for epoch in range(1, EPOCHS + 1)
    ]


def _finished(trial: Trial, score: float, files: tuple[FileRef, ...]) -> TrialFinished:
    metrics = {"val_accuracy": score, "val_loss": 2.35 - 2 * score, "train_accuracy": score}
    return TrialFinished(
        trial=trial.id,
        attempt=trial.attempt,
        state=TrialState.COMPLETE,
        epochs=EPOCHS,
        seconds=600 / trial.settings.batch,
        metrics={**metrics, "train_loss": 2.3 - 2 * score},
        files=files,
    )


def report(home: Path) -> tuple[float, float, float]:
    """Make the first report of a copy of a home; return wall seconds, processor seconds, the page's megabytes."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "home"
        shutil.copytree(home, copy)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        words = [sys.executable, "-m", "gridsearch", "report", "--study", "bench", "--home", str(copy), "-q"]
        subprocess.run(words, check=True, capture_output=True, env=os.environ)
        wall = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return wall, cpu, (copy / "bench" / "report" / "index.html").stat().st_size / 1e6


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=3, help="measurements of each")
    n = parser.parse_args(words).n
    root = Places.find().data
    plugin = datasets.open_dataset("fmnist")
    there = datasets.available(plugin, root)
    data = datasets.load(plugin, root, {}) if there else None
    fingerprint = datasets.fingerprint(plugin, root, {}) if there else "0" * 64
    figures: dict[str, object] = {"with Fashion-MNIST's images": there}
    for name, grid in (("16 trials", SMALL), ("10,000 trials", LARGE)):
        with tempfile.TemporaryDirectory() as home:
            make_study(Path(home), grid, data=data, fingerprint=fingerprint)
            walls, cpus, sizes = zip(*(report(Path(home)) for _ in range(n)), strict=True)
        figures[f"report of {name}"] = Spread.of(list(walls), "s")
        figures[f"report of {name}, processor time"] = Spread.of(list(cpus), "s")
        figures[f"page of {name}"] = Spread.of(list(sizes), "MB")
    write("report", figures)


if __name__ == "__main__":
    main()
