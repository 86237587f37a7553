"""A thousand workers that compute nothing, for the coordinator to keep busy; used by `scale`.

``python -m tests.benchmarks.simulated --workers 1000 --seconds 10 --packs 4``

All is as in a run (the command's own way, its store, its coordinator and pool of workers, the lines of JSON) but for
what carries the lines: each pack is answered after a drawn time.  Where the coordinator waits, the clock jumps to what
comes next; while it works, the clock goes as fast as that takes, the disk's part included.  So a minute of a thousand
workers takes as long as the coordinator works in it.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import random
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any
from unittest import mock

from gridsearch.executors.pool import WorkerPool
from gridsearch.executors.transport import Lines
from gridsearch.records import (
    EpochEnded,
    LanesTraining,
    Pack,
    PackEnded,
    PackStarted,
    TrialFinished,
    TrialState,
    WorkerReady,
)
from gridsearch.records.wire import encode
from gridsearch.service.prepare.options import Places, RunOptions
from gridsearch.service.run import running, study_training
from gridsearch.spec import build

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gridsearch.executors.transport import Arrival
    from gridsearch.records import Event, WorkerSetup
    from gridsearch.records.wire import Command

EPOCHS = 10
"""Of each trial: so often its lanes are heard of before they end."""

_SPREAD = 0.3
"""Packs take between so much less and so much more than their mean, evenly drawn."""


class Clock:
    """Seconds as the coordinator sees them: its own work takes as long as it does, waiting takes none."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return time.perf_counter() + self.skipped

    def wait_until(self, moment: float) -> None:
        """Let time pass."""
        self.skipped += max(0.0, moment - self())

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Do what in truth others do meanwhile."""
        began = time.perf_counter()
        yield
        self.skipped -= time.perf_counter() - began


@dataclass(slots=True)
class Channel:
    """A worker that answers; see `transport.Channel`."""

    name: str
    transport: SimulatedTransport

    def send(self, command: Command) -> None:
        """Take a setup or a pack."""
        encode(command)  # as for any worker
        if isinstance(command, Pack):
            self.transport.train(self, command)
        else:
            self.transport.say(self, 0.0, [WorkerReady(worker=self.name, device="cpu")])

    def output(self) -> bytes:
        """Return nothing: it prints nothing."""
        return b""

    def end(self) -> None:
        """Do nothing: nothing is ended here."""


@dataclass(frozen=True, slots=True)
class HandedOut:
    """A pack that a worker got, and how long it takes."""

    start: float
    takes: float
    lanes: int

    @property
    def end(self) -> float:
        """When its results come."""
        return self.start + self.takes


@dataclass(slots=True)
class SimulatedTransport:
    """Workers that take a drawn time for a pack.

    Attributes:
        setups: one for each worker.
        clock: tells the time.
        seconds: of a lane, on average; a pack takes as long as its lanes together.
        packs: what was handed out.
    """

    setups: dict[str, WorkerSetup]
    clock: Clock
    seconds: float
    packs: list[HandedOut] = field(default_factory=list)
    _free: dict[str, WorkerSetup] = field(default_factory=dict)
    _due: list[tuple[float, int, Channel, list[bytes]]] = field(default_factory=list)
    _order: Iterator[int] = field(default_factory=itertools.count)
    _random: random.Random = field(default_factory=lambda: random.Random(16))

    def __post_init__(self) -> None:
        self._free = dict(self.setups)

    @property
    def startable(self) -> Sequence[WorkerSetup]:
        """The workers that do not run."""
        return list(self._free.values())

    def start(self, setup: WorkerSetup) -> Channel:
        """Start one."""
        channel = Channel(self._free.pop(setup.name).name, self)
        channel.send(setup)
        return channel

    def say(self, channel: Channel, delay: float, events: Sequence[Event]) -> None:
        """Have events arrive after a time."""
        with self.clock.stopped():
            lines = [encode(event) for event in events]
            heapq.heappush(self._due, (self.clock() + delay, next(self._order), channel, lines))

    def train(self, channel: Channel, pack: Pack) -> None:
        """Answer a pack: all its lanes train side by side and end together."""
        with self.clock.stopped():
            takes = self.seconds * len(pack.lanes) * self._random.uniform(1 - _SPREAD, 1 + _SPREAD)
            self.packs.append(HandedOut(self.clock(), takes, len(pack.lanes)))
            ids = pack.trial_ids
            begin = [
                PackStarted(worker=channel.name, pack=pack.id, trials=ids),
                LanesTraining(pack=pack.id, trials=ids),
            ]
            self.say(channel, 0.0, begin)
            for epoch in range(1, EPOCHS + 1):
                ended = [_epoch(lane.trial.id, lane.trial.attempt, epoch, takes) for lane in pack.lanes]
                self.say(channel, takes * epoch / EPOCHS, ended)
            results: list[Event] = [
                _finished(lane.trial.id, lane.trial.attempt, takes) for lane in pack.lanes
            ]
            self.say(channel, takes, [*results, PackEnded(worker=channel.name, pack=pack.id)])

    def poll(self, timeout: float) -> Iterator[Arrival]:
        """Give what has arrived, or let time pass until something does."""
        until = self.clock() + timeout
        if not self._due or self._due[0][0] > self.clock():
            self.clock.wait_until(min(until, self._due[0][0]) if self._due else until)
        now = self.clock()
        while self._due and self._due[0][0] <= now:
            _, _, channel, lines = heapq.heappop(self._due)
            yield Lines(channel, lines)

    def close(self) -> None:
        """Forget what is to come."""
        self._due.clear()


def _epoch(trial: int, attempt: int, epoch: int, seconds: float) -> EpochEnded:
    return EpochEnded(
        trial=trial,
        attempt=attempt,
        epoch=epoch,
        train_loss=1 / epoch,
        train_accuracy=0.8,
        val_loss=1 / epoch,
        val_accuracy=0.85,
        lr=0.01,
        seconds=seconds / EPOCHS,
        images_per_second=1e4,
    )


def _finished(trial: int, attempt: int, seconds: float) -> TrialFinished:
    value = (trial * 2654435761 % 2**32) / 2**32  # in no order
    return TrialFinished(
        trial=trial,
        attempt=attempt,
        state=TrialState.COMPLETE,
        epochs=EPOCHS,
        seconds=seconds,
        metrics={"val_accuracy": value, "val_loss": 0.4, "train_accuracy": 0.8, "train_loss": 0.5},
    )


@dataclass(frozen=True, slots=True)
class Simulated:
    """What a thousand workers did.

    Attributes:
        trials: how many ended.
        busy: share of the workers' time in which they trained, from when each has had its first pack until packs
            become narrower, since not enough is left for all.
        whole: the same over the whole run, its first and its last packs included.
        first: seconds until the last worker had its first pack.
        rate: trials a second that this share of the workers ends.
        work: seconds that the coordinator worked a trial.
    """

    trials: int
    busy: float
    whole: float
    first: float
    rate: float
    work: float


def simulate(*, workers: int, lanes: int, seconds: float, packs: int) -> Simulated:
    """Run a grid of a network on simulated workers.

    Args:
        workers: how many there are.
        lanes: of a pack.
        seconds: of a lane, on average.
        packs: for each worker, about.
    """
    clock, made = Clock(), []

    def starter(_catalog: Any, _options: Any, setups: Sequence[WorkerSetup], **_: Any) -> Any:
        def start(take: Any, _interrupted: Any) -> WorkerPool:
            made.append(SimulatedTransport({each.name: each for each in setups}, clock, seconds))
            return WorkerPool(made[0], take, resumable=True)

        return start

    trials = workers * lanes * packs
    spec = build(
        words=[f"lr=1e-5..1e-1:{trials}log"], options={"dataset": "digits", "model": "mlp", "epochs": EPOCHS}
    )
    with tempfile.TemporaryDirectory(prefix="simulated") as home, mock.patch("time.monotonic", clock):
        options = RunOptions(
            places=Places.find(home), lanes=lanes, workers=workers, report=False, device="cpu"
        )
        before = [0.0]
        run = study_training.Coordinator.run

        def timed(self: Any, start: Any) -> None:
            before[0] = clock.skipped - clock()
            run(self, start)
            before.append(clock.skipped - clock())

        with (
            mock.patch.object(study_training, "starter", starter),
            mock.patch.object(study_training.Coordinator, "run", timed),
        ):
            done = running.run(spec, options)
        assert done.open == done.failed == 0
    return _summary(made[0].packs, workers, lanes, work=before[0] - before[1])


def _summary(packs: Sequence[HandedOut], workers: int, lanes: int, *, work: float) -> Simulated:
    origin, full, end = packs[0].start, packs[workers - 1].start, max(pack.end for pack in packs)
    last = next((pack.start for pack in packs[workers:] if pack.lanes < lanes), packs[-1].start)

    def trained(since: float, until: float) -> float:
        return sum(max(0.0, min(pack.end, until) - max(pack.start, since)) for pack in packs)

    trials = sum(pack.lanes for pack in packs)
    return Simulated(
        trials=trials,
        busy=trained(full, last) / (workers * (last - full)),
        whole=trained(origin, end) / (workers * (end - origin)),
        first=full - origin,
        rate=trained(full, last) / (last - full) * trials / sum(pack.takes for pack in packs),
        work=work / trials,
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.simulated")
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--lanes", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0, help="of a lane, on average (default: 10)")
    parser.add_argument("--packs", type=int, default=4, help="for each worker, about (default: 4)")
    words = parser.parse_args(arguments)
    found = simulate(workers=words.workers, lanes=words.lanes, seconds=words.seconds, packs=words.packs)
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
