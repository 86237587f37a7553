"""What the service costs beside training: expanding, planning, the store's SQL, the command line's start."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gridsearch.records import EpochEnded, TrialFinished, TrialState
from gridsearch.spec import build
from gridsearch.store import RunnerIdentity, StudyDraft, open_store
from tests.benchmarks.measure import Spread, timed, write

GRID = ["lr=1e-5..1e-1:100log", "batch=10..1000:10"]
"""10,000 points."""

EPOCHS = 10


class _Resolver:
    def model(self, name, options):
        return name, options, None

    def data(self, options):
        return "fmnist", options, "0" * 64


def _drafts():
    return build(words=GRID, options={"epochs": EPOCHS}).drafts(resolve=_Resolver())


def _program(*words: str, home: str) -> None:
    env = {**os.environ, "GRIDSEARCH_HOME": home}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # compiled once, as on a user's machine
    subprocess.run([sys.executable, "-m", "gridsearch", *words], env=env, check=True, capture_output=True)


def store_seconds(folder: Path, *, trials: int, pack: int) -> dict[str, float]:
    """Seconds of SQL in the life of some trials: added, claimed, 10 epochs, a result; in packs."""
    drafts = _drafts()[:trials]
    study = StudyDraft(name="bench", dataset="fmnist", metric="val_accuracy", axes=("lr", "batch"))
    with open_store(f"sqlite:///{folder / 'bench.db'}", home=folder, create=True) as store:
        began = time.perf_counter()
        added = store.add(study, drafts)
        adding = time.perf_counter() - began
        owner = RunnerIdentity.current()
        began = time.perf_counter()
        for start in range(0, trials, pack):
            claimed = store.claim(added.ids[start : start + pack], owner=owner, pack="p", lease=60)
            for epoch in range(1, EPOCHS):  # an epoch of a second or more has a transaction of its own
                store.record_epochs([_epoch(trial.id, epoch) for trial in claimed])
            last = [_epoch(trial.id, EPOCHS) for trial in claimed]
            store.finish_many([_finished(trial.id) for trial in claimed], epochs=last)
        life = time.perf_counter() - began
        began = time.perf_counter()
        data = store.study_data("bench")
        reading = time.perf_counter() - began
        assert data.counts()["complete"] == trials
    return {"add": adding, "life": adding + life, "read": reading}


def _epoch(trial: int, epoch: int) -> EpochEnded:
    return EpochEnded(
        trial=trial,
        attempt=1,
        epoch=epoch,
        train_loss=0.5,
        train_accuracy=0.8,
        val_loss=0.4,
        val_accuracy=0.85,
        lr=0.01,
        seconds=1.0,
        images_per_second=1e4,
    )


def _finished(trial: int) -> TrialFinished:
    return TrialFinished(
        trial=trial,
        attempt=1,
        state=TrialState.COMPLETE,
        epochs=EPOCHS,
        seconds=10.0,
        metrics={"val_accuracy": 0.85, "val_loss": 0.4, "train_accuracy": 0.8, "train_loss": 0.5},
    )


def main() -> None:
    figures: dict[str, object] = {"points": len(_drafts())}
    figures["expand 10,000 points"] = Spread.of(timed(_drafts, 7), "s")
    with tempfile.TemporaryDirectory() as home:
        plan = ("plan", "--dataset", "digits", "--grid", *GRID)
        figures["gridsearch plan on 10,000 points"] = Spread.of(
            timed(lambda: _program(*plan, home=home), 5), "s"
        )
        figures["gridsearch --help"] = Spread.of(timed(lambda: _program("--help", home=home), 11), "s")
    for pack in (1, 8):
        lives, adds, reads = [], [], []
        for _ in range(3):
            with tempfile.TemporaryDirectory() as folder:
                seconds = store_seconds(Path(folder), trials=1000, pack=pack)
            lives.append(1000 * seconds["life"] / 1000)
            adds.append(1000 * seconds["add"] / 1000)
            reads.append(seconds["read"])
        figures[f"SQL of a trial's life, packs of {pack}"] = Spread.of(lives, "ms")
        figures[f"of that, adding it ({pack})"] = Spread.of(adds, "ms")
        figures[f"reading 1,000 trials x 10 epochs ({pack})"] = Spread.of(reads, "s")
    write("service", figures)


if __name__ == "__main__":
    main()
