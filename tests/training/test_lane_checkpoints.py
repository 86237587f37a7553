"""What checkpoints promise: a lane that goes on from one ends with the bytes of a lane that was never stopped."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest

from gridsearch.records import (
    EpochEnded,
    Lane,
    Pack,
    Trial,
    TrialFailed,
    TrialFinished,
    TrialResumed,
    TrialState,
)
from gridsearch.training import loop
from gridsearch.training.lane_checkpoints import LaneCheckpoints
from gridsearch.training.lane_optimizer import OPTIMIZERS
from gridsearch.training.resident_data import ResidentCache
from gridsearch.training.solo import SoloEngine


class Killed(BaseException):
    """Stands for a worker's sudden end."""


class Trials:
    """A pack's trials over several attempts, each in the folder that the one before left."""

    def __init__(self, folder, settings, *, images, build, settled=True, interval=0.0):
        self.settings = [s if isinstance(s, tuple) else (s, 0) for s in settings]
        self.folder = folder
        self.data = ResidentCache(images, device="cpu", smallest_input=lambda _: None)
        self.build = build
        self.how = {"settled": settled, "interval": interval}
        self.attempt = 0
        self.trained: list[tuple[int, int]] = []

    def lanes(self):
        self.attempt += 1
        lanes = []
        for number, (settings, seed) in enumerate(self.settings):
            trial = Trial(
                id=number,
                number=number,
                key=f"key{number}",
                seed=seed,
                settings=settings,
                params={},
                state=TrialState.RUNNING,
                attempt=self.attempt,
            )
            lanes.append(Lane(trial, str(self.scratch(number))))
        return tuple(lanes)

    def scratch(self, number):
        """Move the last attempt's folder on, as the store does."""
        folder = self.folder / str(number) / f".attempt-{self.attempt}"
        before = folder.with_name(f".attempt-{self.attempt - 1}")
        before.rename(folder) if before.exists() else folder.mkdir(parents=True)
        return folder

    def run(self, *, kill=None, leave=lambda: False):
        """Train until the end, or until `kill` says of an event that the worker ends there."""
        events = []

        def take(event):
            if isinstance(event, EpochEnded):
                self.trained.append((event.trial, event.epoch))
            events.append(event)
            if kill is not None and kill(event):
                raise Killed

        with contextlib.suppress(Killed):
            loop.train_pack(
                Pack("pack", self.lanes()),
                data=self.data,
                build=self.build,
                device="cpu",
                emit=take,
                checkpoints=LaneCheckpoints(**self.how, leave=leave),
            )
        return events

    def results(self):
        """The files of all lanes, by name, but for checkpoints."""
        return {
            f"{path.parent.parent.name}/{path.name}": path.read_bytes()
            for path in sorted(self.folder.rglob("*.safetensors"))
            if not path.name.startswith("checkpoint")
        }


def outcome(events):
    """How lanes ended, clocks aside."""
    ends = [e for e in events if isinstance(e, TrialFinished | TrialFailed)]
    return {
        e.trial: dataclasses.replace(e, attempt=0, seconds=0.0) if isinstance(e, TrialFinished) else e.message
        for e in ends
    }


def rows(*runs):
    """What is on record of each epoch after some runs: those of a checkpoint, then those that were trained."""
    found = {}
    for events in runs:
        for event in events:
            if isinstance(event, TrialResumed):
                found = {k: v for k, v in found.items() if k[0] != event.trial or k[1] <= event.epoch}
                found |= {(row.trial, row.epoch): row for row in event.rows}
            elif isinstance(event, EpochEnded):
                found[event.trial, event.epoch] = event
    clocks = {"attempt": 0, "seconds": 0.0, "images_per_second": 0.0}
    return {key: dataclasses.replace(row, **clocks) for key, row in found.items()}


def epoch_of(trial, epoch):
    return lambda event: isinstance(event, EpochEnded) and (event.trial, event.epoch) == (trial, epoch)


@pytest.fixture
def trials(tmp_path, make_images, nets):
    """Make trials; those of one name share a folder."""
    made = iter(range(100))

    def make(*settings, build="conv", images=None, **how):
        return Trials(
            tmp_path / f"pack{next(made)}",
            settings,
            images=images or make_images(),
            build=nets.get(build, build),
            **how,
        )

    return make


def mixed(make_settings, **changes):
    """Lanes that end at different epochs, see other images, average their weights, keep their best epoch, diverge."""
    common = {"epochs": 5} | changes
    return [
        (make_settings(**common | {"select": "best"}), 0),
        (make_settings(**common | {"lr": 0.003, "epochs": 2, "label_smoothing": 0.1}), 1),
        (make_settings(**common | {"ema": 0.9, "schedule": "cosine", "weight_decay": 0.01}), 0),
        (make_settings(**common | {"lr": 1e30, "epochs": 4}), 2),
        (
            make_settings(
                **common | {"warmup": 1.0, "dropout": 0.5, "epochs": 7, "select": "best", "ema": 0.5}
            ),
            3,
        ),
    ]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("engine", ["lanes", "solo"])
def test_lanes_killed_at_several_epochs_end_with_the_bytes_of_an_unbroken_run(
    trials, make_settings, optimizer, engine, monkeypatch
):
    if engine == "solo":
        monkeypatch.setattr(loop, "ENGINES", (SoloEngine(),))
    recipe = mixed(make_settings, optimizer=optimizer)
    unbroken, broken = trials(*recipe), trials(*recipe)
    whole = unbroken.run()
    parts = [broken.run(kill=epoch_of(*moment)) for moment in ((0, 1), (2, 2), (4, 4), (4, 6))]
    parts.append(broken.run())
    assert outcome(parts[-1]) == outcome(whole)
    assert rows(*parts) == rows(whole)
    assert broken.results() == unbroken.results()
    assert len(broken.results()) == 2 * 4
