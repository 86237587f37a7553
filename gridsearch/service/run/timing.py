"""Measures what a run does beside its epochs, from the events that pass by, for the next plan."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gridsearch.records import EpochEnded, PackEnded, PackStarted, Probed, WorkerReady

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gridsearch.records import Event


@dataclass(slots=True)
class _Open:
    """A pack under way; `known` while all its trials' epochs are counted."""

    began: float
    trials: tuple[int, ...]
    first: bool
    trained: float = 0.0
    known: bool = True


@dataclass(slots=True)
class Timing:
    """A run's own overheads.

    Attributes:
        began: when the command began, by `clock`.
        parts: seconds measured, by the names of `Overheads`.
        clock: gives seconds.
    """

    began: float
    parts: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    clock: Callable[[], float] = time.monotonic
    _packs: dict[str, _Open] = field(default_factory=dict)
    _loaded: set[str] = field(default_factory=set)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure what the block takes, by a name of `Overheads`."""
        began = self.clock()
        yield
        self.parts[name].append(self.clock() - began)

    def observe(self, event: Event) -> None:
        """Take the time of an event as it comes."""
        now = self.clock()
        match event:
            case WorkerReady():
                if not self.parts["start"]:
                    self.parts["start"].append(now - self.began)
            case Probed():
                self._loaded.add(event.worker)
                self.parts["probe"].append(event.seconds)
            case PackStarted():
                first = event.worker not in self._loaded
                self._loaded.add(event.worker)
                self._packs[event.pack] = _Open(now, event.trials, first)
            case EpochEnded():
                self._epoch(event)
            case PackEnded():
                self._end(event, now)
            case _:
                pass

    def _epoch(self, event: EpochEnded) -> None:
        for pack in self._packs.values():
            if event.trial in pack.trials:
                pack.trained += event.seconds
                return
        for pack in self._packs.values():  # the lane of a refill, of one of them
            pack.known = False

    def _end(self, event: PackEnded, now: float) -> None:
        pack = self._packs.pop(event.pack, None)
        if pack is None or not pack.known or not pack.trained:
            return
        beside = max(0.0, now - pack.began - pack.trained)
        if pack.first:
            self.parts["load"].append(beside)
        else:
            self.parts["pack"].append(beside / len(pack.trials))
