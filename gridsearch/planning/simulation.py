"""When a run will end: its queue simulated with measured costs instead of workers.

Stands beside the queue, which it empties as a run would: packs to whoever is free, trials that wait into the
places of those that end, measuring where a run would measure.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from gridsearch.planning.queue import Planned, Unprobed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.planning.overheads import Overheads
    from gridsearch.planning.queue import PackQueue
    from gridsearch.records import Settings

T = TypeVar("T", bound=Planned)


@dataclass(frozen=True, slots=True)
class SimulatedPack(Generic[T]):
    """A pack of the simulated run.

    Attributes:
        trials: all that it trained.
        lanes: the most side by side.
        seconds: how long it kept its worker busy.
    """

    trials: tuple[T, ...]
    lanes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Forecast(Generic[T]):
    """How a run goes.

    Attributes:
        seconds: from the first worker's start to the last trial's end.
        programs: in the order of their beginnings.
    """

    seconds: float
    programs: tuple[SimulatedPack[T], ...]


@dataclass(slots=True)
class _Worker(Generic[T]):
    """Attributes: `lanes` are trials with the epochs that they still lack."""

    lanes: list[tuple[T, int]] = field(default_factory=list)
    trials: list[T] = field(default_factory=list)
    widest: int = 0
    began: float = 0.0
    ends: float = 0.0
    loaded: bool = False
    probing: T | None = None


class _Simulation(Generic[T]):
    def __init__(
        self,
        queue: PackQueue[T],
        *,
        workers: int,
        cost: Callable[[T, int], float],
        overheads: Overheads,
    ) -> None:
        self._queue = queue
        self._cost = cost
        self._overheads = overheads
        self._workers = [_Worker[T]() for _ in range(workers)]
        self._clock = [(0.0, i) for i in range(workers)]
        self._idle: list[int] = []
        self._programs: list[tuple[float, SimulatedPack[T]]] = []

    def run(self) -> Forecast[T]:
        last = 0.0
        while self._clock:
            now, i = heapq.heappop(self._clock)
            worker = self._workers[i]
            if worker.lanes or worker.probing is not None:
                last = now
            if worker.probing is not None:
                self._queue.sized(worker.probing.settings)
                worker.probing = None
                self._wake(now)
            if worker.lanes:
                self._lanes_end(worker, now)
            if not worker.lanes:
                self._start_pack(worker, now)
            if worker.lanes or worker.probing is not None:
                heapq.heappush(self._clock, (worker.ends, i))
            else:
                self._idle.append(i)
        self._programs.sort(key=lambda begun: begun[0])
        return Forecast(last, tuple(program for _, program in self._programs))

    def _wake(self, now: float) -> None:
        for i in self._idle:
            heapq.heappush(self._clock, (now, i))
        self._idle.clear()

    def _ahead(self, worker: _Worker[T], now: float) -> list[float]:
        return [
            max(0.0, self._left(other) + other.ends - now)
            for other in self._workers
            if other is not worker and other.lanes
        ]

    def _left(self, worker: _Worker[T]) -> float:
        """What its lanes take after the first of them ends, about."""
        first = min(left for _, left in worker.lanes)
        n = len(worker.lanes)
        return sum((left - first) * self._epoch(trial, n) for trial, left in worker.lanes)

    def _epoch(self, trial: T, lanes: int) -> float:
        return self._cost(trial, lanes) / _length(trial)

    def _lanes_end(self, worker: _Worker[T], now: float) -> None:
        ended = min(left for _, left in worker.lanes)
        settings: Settings = worker.lanes[0][0].settings
        before = len(worker.lanes)
        worker.lanes = [(trial, left - ended) for trial, left in worker.lanes if left > ended]
        free = before - len(worker.lanes)
        given = self._queue.refill(settings, free, lambda: self._ahead(worker, now))
        if given or worker.lanes:
            self._go_on(worker, given, now)
            return
        program = SimulatedPack(tuple(worker.trials), worker.widest, now - worker.began)
        self._programs.append((worker.began, program))

    def _start_pack(self, worker: _Worker[T], now: float) -> None:
        work = self._queue.next(lambda: self._ahead(worker, now))
        if work is None:
            return
        if isinstance(work, Unprobed):
            worker.probing = work.trial
            worker.ends = now + self._overheads.probe
            worker.loaded = True
            return
        worker.trials, worker.widest, worker.began = [], 0, now
        load = 0.0 if worker.loaded else self._overheads.load
        worker.loaded = True
        self._go_on(worker, work, now + load)

    def _go_on(self, worker: _Worker[T], given: Sequence[T], now: float) -> None:
        """Add lanes, and train until the first of all ends."""
        worker.lanes += [(trial, _length(trial)) for trial in given]
        worker.trials += given
        n = len(worker.lanes)
        worker.widest = max(worker.widest, n)
        epochs = min(left for _, left in worker.lanes)
        each = sum(self._epoch(trial, n) for trial, _ in worker.lanes)
        worker.ends = now + len(given) * self._overheads.pack + epochs * each


def _length(trial: Planned) -> int:
    """Return a trial's epochs; one step where nobody knows how many come."""
    return trial.settings.length or 1


def simulate(
    queue: PackQueue[T],
    *,
    workers: int,
    cost: Callable[[T, int], float],
    overheads: Overheads,
) -> Forecast[T]:
    """Simulate a run, which empties its queue.

    Args:
        queue: filled; once `sized` was called for a group it must give it a size.
        workers: how many train side by side.
        cost: seconds of a whole trial as a lane of a pack of so many.
        overheads: what comes on top.
    """
    return _Simulation(queue, workers=workers, cost=cost, overheads=overheads).run()
