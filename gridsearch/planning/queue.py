"""The waiting trials of a run, handed out as packs: longest first, and small enough that no worker idles."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from gridsearch.planning.groups import group_trials
from gridsearch.spec.axes import shape_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gridsearch.planning.settled import SettledQueue
    from gridsearch.records import Settings
    from gridsearch.spec.axes import Shape


class Planned(Protocol):
    """A trial, or the draft of one."""

    @property
    def key(self) -> str:
        """Its content address."""
        ...

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
        self._groups: dict[Shape, deque[T]] = {}
        self._count = 0
        self._unseen: list[Shape] = []
        self._most: dict[Shape, int] = {}
        self._order = itertools.count()
        # Each group's next pack by cost, the dearest first.  An entry may be out of date: a group's next pack
        # only ever becomes cheaper, so it is priced again when it comes up.
        self._heap: list[tuple[float, int, Shape]] = []

    def __len__(self) -> int:
        return self._count

    def fill(self, trials: Iterable[T]) -> None:
        """Hold these trials and no others; of a group those that take longest come first."""
        groups = group_trials(trials, lambda trial: trial.settings)
        self._groups = {
            key: deque(sorted(group, key=lambda trial: -self._cost(trial))) for key, group in groups.items()
        }
        self._count = sum(map(len, self._groups.values()))
        self._unseen = list(reversed(self._groups))
        self._heap.clear()

    def next(self) -> tuple[T, ...] | Unsized[T] | None:
        """Take the pack that takes longest, or tell of a group that must be measured; None if there is neither.

        A group that was told of is passed over until `sized` is called for it.  The trials of a pack share
        their shaping settings, and are of like cost, so that its lanes end together.
        """
        while self._unseen:
            key = self._unseen.pop()
            group = self._groups[key]
            most = self._lanes(group[0], len(group))
            if most is None:
                return Unsized(group[0], len(group))
            self._most[key] = most
            self._offer(key)
        while self._heap:
            negative, _, key = heapq.heappop(self._heap)
            width, cost = self._price(key)
            if cost < -negative:
                self._offer(key)
                continue
            taken = self._take(key, width)
            self._offer(key)
            return taken
        return None

    def sized(self, settings: Settings) -> None:
        """Take note that the number of lanes of a group is known now."""
        key = shape_of(settings)
        if key in self._groups:
            self._unseen.append(key)

    def refill(self, settings: Settings, count: int) -> tuple[T, ...]:
        """Take up to so many trials of one group, for the free lanes of a pack that is under way."""
        key = shape_of(settings)
        return self._take(key, min(count, len(self._groups.get(key, ()))))

    def _offer(self, key: Shape) -> None:
        if key in self._groups:
            heapq.heappush(self._heap, (-self._price(key)[1], next(self._order), key))

    def _price(self, key: Shape) -> tuple[int, float]:
        """Return width and cost of a group's next pack; a group that is gone has none."""
        group = self._groups.get(key, ())
        share = math.ceil(self._count / self._workers)
        width = min(self._most[key], len(group), max(share, 1))
        return width, sum(self._cost(group[i]) for i in range(width))

    def _take(self, key: Shape, count: int) -> tuple[T, ...]:
        group = self._groups.get(key, deque())
        taken = tuple(group.popleft() for _ in range(count))
        self._count -= len(taken)
        if not group:
            self._groups.pop(key, None)
        return taken


def packs_of(queue: WorkQueue[T] | SettledQueue[T]) -> Sequence[tuple[T, ...]]:
    """Empty a queue whose groups all have a size, and return its packs in order."""
    packs = []
    while isinstance(pack := queue.next(), tuple):
        packs.append(pack)
    return packs
