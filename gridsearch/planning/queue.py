"""The waiting trials of a run, handed out as packs: longest first, and small enough that no worker idles."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from gridsearch.planning.groups import group_key, group_trials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gridsearch.planning.groups import GroupKey
    from gridsearch.records import Settings


class Planned(Protocol):
    """A trial, or the draft of one."""

    @property
    def settings(self) -> Settings:
        """Everything that decides its result."""
        ...


T = TypeVar("T", bound=Planned)


@dataclass(frozen=True, slots=True)
class Unsized(Generic[T]):
    """A group whose best number of lanes nobody knows yet; `trial` stands for it."""

    trial: T
    count: int


class WorkQueue(Generic[T]):
    """Waiting trials by group.

    Args:
        workers: how many packs run side by side.
        lanes: gives the most lanes of a pack for a group (one of its trials, how many wait), or None where that
            has to be measured first.
        cost: relative cost of one trial.
    """

    def __init__(
        self,
        *,
        workers: int,
        lanes: Callable[[T, int], int | None],
        cost: Callable[[T], float],
    ) -> None:
        self._workers = workers
        self._lanes = lanes
        self._cost = cost
        self._groups: dict[GroupKey, deque[T]] = {}
        self._aside: set[GroupKey] = set()

    def __len__(self) -> int:
        return sum(map(len, self._groups.values()))

    def fill(self, trials: Iterable[T]) -> None:
        """Hold these trials and no others; of a group those that take longest come first."""
        groups = group_trials(trials, lambda trial: trial.settings)
        self._groups = {
            key: deque(sorted(group, key=lambda trial: -self._cost(trial))) for key, group in groups.items()
        }

    def next(self) -> tuple[T, ...] | Unsized[T] | None:
        """Take the pack that takes longest, or tell of a group that must be measured; None if there is neither.

        A group that was told of is passed over until `sized` is called for it.  The trials of a pack share
        their shaping settings, and are of like cost, so that its lanes end together.
        """
        best: tuple[float, GroupKey, int] | None = None
        for key, group in self._groups.items():
            if key in self._aside:
                continue
            lanes = self._lanes(group[0], len(group))
            if lanes is None:
                self._aside.add(key)
                return Unsized(group[0], len(group))
            width = self._width(lanes, len(group))
            cost = sum(self._cost(group[i]) for i in range(width))
            if best is None or cost > best[0]:
                best = (cost, key, width)
        return None if best is None else self._take(best[1], best[2])

    def sized(self, settings: Settings) -> None:
        """Take note that the number of lanes of a group is known now."""
        self._aside.discard(group_key(settings))

    def refill(self, settings: Settings, count: int) -> tuple[T, ...]:
        """Take up to so many trials of one group, for the free lanes of a pack that is under way."""
        key = group_key(settings)
        return self._take(key, min(count, len(self._groups.get(key, ()))))

    def _width(self, lanes: int, waiting: int) -> int:
        share = math.ceil(len(self) / self._workers)
        return max(1, min(lanes, waiting, share))

    def _take(self, key: GroupKey, count: int) -> tuple[T, ...]:
        group = self._groups.get(key, deque())
        taken = tuple(group.popleft() for _ in range(count))
        if not group:
            self._groups.pop(key, None)
        return taken


def packs_of(queue: WorkQueue[T]) -> Sequence[tuple[T, ...]]:
    """Empty a queue whose groups all have a size, and return its packs in order."""
    packs = []
    while isinstance(pack := queue.next(), tuple):
        packs.append(pack)
    return packs
