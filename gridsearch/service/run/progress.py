"""What a run is doing at this moment, for whoever watches: a terminal, a log, a notebook."""

from __future__ import annotations

import heapq
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from gridsearch.records import Advance, Trial, TrialFailed, TrialFinished, TrialState, Value
    from gridsearch.spec.words import Words


PICTURED = 20
"""Pictures are drawn of so many trials, the best: 21 ms and 170 KB each are too much for ten thousand."""


class Observer(Protocol):
    """Is notified of what happens; must neither raise nor block."""

    def say(self, message: str) -> None:
        """Take a message that is worth a line."""
        ...

    def warn(self, message: str) -> None:
        """Take a message about something that may not be as the user thinks."""
        ...

    def started(self, progress: Progress) -> None:
        """Training begins."""
        ...

    def updated(self, progress: Progress) -> None:
        """Something has moved, or a moment has passed."""
        ...

    def trial_ended(self, progress: Progress, trial: Trial, result: TrialFinished | TrialFailed) -> None:
        """A trial has ended."""
        ...

    def ended(self, progress: Progress) -> None:
        """Training is over."""
        ...


class Silent:
    """An observer that does nothing."""

    def say(self, message: str) -> None:
        """Do nothing."""

    def warn(self, message: str) -> None:
        """Do nothing."""

    def started(self, progress: Progress) -> None:
        """Do nothing."""

    def updated(self, progress: Progress) -> None:
        """Do nothing."""

    def trial_ended(self, progress: Progress, trial: Trial, result: TrialFinished | TrialFailed) -> None:
        """Do nothing."""

    def ended(self, progress: Progress) -> None:
        """Do nothing."""


@dataclass(slots=True)
class Running:
    """A trial that trains now.

    Attributes:
        epoch: epochs, or steps, that have ended.
        resumed: those of them that an earlier attempt trained.
        value: the ranking metric after the last of them, None before the first.
        units: the cost of one of its epochs; 0 for a function, whose steps nobody can count beforehand.
        since: when the last of them ended, or the trial was claimed; by the monotonic clock, like all times here.
        took: how long the last of them took, by the clock on the wall.
        began: when it began to train, None while it waits for other lanes of its pack.
        heard: when its worker last said anything of it.
    """

    trial: Trial
    worker: str
    epoch: int = 0
    resumed: int = 0
    value: float | None = None
    units: float = 0.0
    since: float = field(default_factory=time.monotonic)
    took: float = 0.0
    began: float | None = None
    heard: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class Progress:
    """A run's state; kept by the coordinator, read by observers.

    Attributes:
        metric: the ranking metric's name.
        direction: "maximize" or "minimize" it.
        counts: this run's trials by state; those that other runners work on count as running.
        total_units: the cost of all trials that were open when the run began, in the planner's units.
        done_units: the cost of what this run has trained of them, the trained epochs of started trials included.
        workers: how many work side by side.
        running: by ledger id.
        best: the best value so far and its params, over all trials of the grid.
        words: how the numbers of the trials are shown.
    """

    metric: str
    counts: dict[TrialState, int]
    total_units: float
    workers: int
    device: str
    direction: str = "maximize"
    done_units: float = 0.0
    running: dict[int, Running] = field(default_factory=dict)
    best: tuple[float, Mapping[str, Value]] | None = None
    began: float = field(default_factory=time.monotonic)
    words: Words = field(default_factory=dict)
    _highest: list[float] = field(default_factory=list)

    @property
    def total(self) -> int:
        """All trials of the grid."""
        return sum(self.counts.values())

    @property
    def ended(self) -> int:
        """Trials of the grid with a result, and failed ones."""
        return sum(n for state, n in self.counts.items() if state.ended)

    @property
    def seconds(self) -> float:
        """Seconds since training began."""
        return time.monotonic() - self.began

    @property
    def eta(self) -> float | None:
        """Seconds until the end at the speed so far; None until there is a speed."""
        if self.done_units <= 0:
            return None
        left = max(self.total_units - self.done_units, 0.0)
        return self.seconds * left / self.done_units

    def assign(self, trials: Iterable[int], worker: str) -> None:
        """Take note of the worker that trains these trials."""
        for trial in trials:
            if running := self.running.get(trial):
                running.worker = worker

    def training(self, pack: Iterable[int], trials: Collection[int]) -> None:
        """Take note of which trials of a pack train from now on."""
        for trial in pack:
            running = self.running[trial]
            if trial not in trials:
                running.began = None
            elif running.began is None:
                running.began = running.heard = time.monotonic()

    def heard(self, trials: Iterable[int]) -> None:
        """Take note of a sign of life from the worker of these trials."""
        now = time.monotonic()
        for trial in trials:
            if running := self.running.get(trial):
                running.heard = now

    def epoch_ended(self, event: Advance, units: float) -> None:
        """Take note of an epoch or a step that cost so many units."""
        self.done_units += units
        running = self.running.get(event.trial)
        if running is not None:
            running.epoch = event.epoch
            running.units = units
            now = time.monotonic()
            running.took, running.since, running.heard = now - running.since, now, now
            running.value = event.value(self.metric)

    def leave(self, trial: Trial) -> None:
        """Take note that a trial trains no more; epochs that it did not need are no work that is left."""
        running = self.running.pop(trial.id, None)
        if running is None:
            return
        if trial.settings.length is None:
            self.done_units += 1.0
        else:
            self.total_units -= running.units * (trial.settings.length - running.epoch)

    def consider(self, value: float | None, params: Mapping[str, Value]) -> None:
        """Take note of a result."""
        if value is None or not math.isfinite(value):
            return
        if self.best is None or self._signed(value) > self._signed(self.best[0]):
            self.best = (value, params)
        heapq.heappush(self._highest, self._signed(value))
        if len(self._highest) > PICTURED:
            heapq.heappop(self._highest)

    def among_best(self, value: float | None, *, considered: bool = False) -> bool:
        """Whether a result would be among the best so far of which pictures are drawn.

        Args:
            value: what ranks it.
            considered: it is one of those that `consider` has seen.
        """
        if value is None or not math.isfinite(value):
            return False
        if len(self._highest) < PICTURED or self._signed(value) > self._highest[0]:
            return True
        return considered and self._signed(value) == self._highest[0]

    def _signed(self, value: float) -> float:
        return -value if self.direction == "minimize" else value

    def move(self, before: TrialState, after: TrialState) -> None:
        """Move one trial from a state to another."""
        self.counts[before] -= 1
        self.counts[after] += 1
