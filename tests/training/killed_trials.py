"""Trials of a pack that is killed and goes on, and networks that train in each way."""

from __future__ import annotations

import contextlib
import dataclasses

from torch import nn

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
from gridsearch.training.context import TrainContext
from gridsearch.training.lane_checkpoints import LaneCheckpoints
from gridsearch.training.own_code import OwnCode
from gridsearch.training.resident_data import ResidentCache


class Killed(BaseException):
    """Stands for a worker's sudden end."""


class Trials:
    """A pack's trials over several attempts, each in the folder that the one before left."""

    def __init__(self, folder, settings, *, images, build, settled=True, interval=0.0, own=OwnCode()):  # noqa: B008
        self.settings = [s if isinstance(s, tuple) else (s, 0) for s in settings]
        self.folder = folder
        self.data = ResidentCache(images, device="cpu", smallest_input=lambda _: None)
        self.build = build
        self.own = own
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

    def run(self, *, kill=None, leave=lambda: False, stop=lambda: False):
        """Train until the end, or until `kill` says of an event that the worker ends there, or `stop` raises."""
        events = []

        def take(event):
            if isinstance(event, EpochEnded):
                self.trained.append((event.trial, event.epoch))
            events.append(event)
            if kill is not None and kill(event):
                raise Killed

        with contextlib.suppress(Killed):
            context = TrainContext(
                data=self.data,
                build=self.build,
                device="cpu",
                own=lambda _: self.own,
                stop=stop,
                checkpoints=LaneCheckpoints(**self.how, leave=leave),
            )
            loop.train_pack(Pack("pack", self.lanes()), context, emit=take)
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


class Cumulative(nn.Module):
    """Has no stacked form, so that its lanes are vectorized; its buffers move."""

    def __init__(self):
        super().__init__()
        self.norm, self.fc = nn.BatchNorm2d(1), nn.Linear(64, 3)

    def forward(self, x):
        return self.fc(self.norm(x).flatten(1).cumsum(1))


class Hooked(nn.Module):
    """Trains lane after lane, since it has a hook, which keeps nothing."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop, self.fc = nn.BatchNorm2d(1), nn.Dropout(0.3), nn.Linear(64, 3)
        self.fc.register_forward_hook(double)

    def forward(self, x):
        return self.fc(self.drop(self.norm(x)).flatten(1))


def double(module, args, output):
    return output * 2


class Counting(nn.Module):
    """Keeps a count beside its tensors, which decides what it computes."""

    def __init__(self):
        super().__init__()
        self.fc, self.calls = nn.Linear(64, 3), 0

    def forward(self, x):
        self.calls += self.training
        return self.fc(x.flatten(1)) * (1 + 0.01 * self.calls)
