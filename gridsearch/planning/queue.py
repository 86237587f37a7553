"""The waiting trials of a run, handed out as packs: longest first, or as asked, and so small that no worker idles."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from gridsearch.planning.groups import group_trials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gridsearch.records import Settings, Shape


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
class Unprobed(Generic[T]):
    """A group whose best number of lanes nobody knows yet; `trial` stands for it."""

    trial: T
    count: int


class PackQueue(Protocol[T]):
    """What says which of the waiting trials train together, and which go next."""

    def __len__(self) -> int:
        """How many trials wait."""
        ...

    def fill(self, trials: Iterable[T]) -> None:
        """Hold these trials and no others."""
        ...

    def next(self, ahead: Callable[[], Sequence[float]] = tuple) -> tuple[T, ...] | Unprobed[T] | None:
        """Take the next pack, or return a group that must be measured first; None if there is neither.

        Args:
            ahead: gives, for each worker that has a pack, how long it will still take; asked near the end alone.
        """
        ...

    def sized(self, settings: Settings) -> None:
        """Take note that the number of lanes of a group is known now."""
        ...

    def refill(
        self, settings: Settings, count: int, ahead: Callable[[], Sequence[float]] = tuple
    ) -> tuple[T, ...]:
        """Take up to so many trials of one group, for the free lanes of a pack that is under way."""
        ...


class WorkQueue(Generic[T]):
    """Waiting trials by group.

    Args:
        workers: how many packs run side by side.
        lanes: gives the most lanes of a pack for a group (one of its trials, how many wait), or None where that
            has to be measured first.
        cost: what one trial costs alone, in seconds or in any unit.
        share: what it costs as a lane of a pack of so many, as a share of that.
        rank: says which of two trials goes first, the one of lower rank; None for those that take longest.
    """

    def __init__(
        self,
        *,
        workers: int,
        lanes: Callable[[T, int], int | None],
        cost: Callable[[T], float],
        share: Callable[[T, int], float] = lambda _trial, _lanes: 1.0,
        rank: Callable[[T], float] | None = None,
    ) -> None:
        self._workers = workers
        self._lanes = lanes
        self._cost = cost
        self._share = share
        self._rank = rank
        self._groups: dict[Shape, deque[T]] = {}
        self._count = 0
        self._unseen: list[Shape] = []
        self._most: dict[Shape, int] = {}
        self._order = itertools.count()
        # Each group by the cost of its next pack, the dearest first, or by the rank of its next trial.  An entry may
        # be out of date: a group's next pack only ever becomes less urgent, so it is judged again when it comes up.
        self._heap: list[tuple[float, int, Shape]] = []

    def __len__(self) -> int:
        return self._count

    def fill(self, trials: Iterable[T]) -> None:
        """Hold these trials and no others; of a group those that take longest come first, or those of lowest rank."""
        rank = self._rank
        if rank is not None:
            trials = sorted(trials, key=rank)
        groups = group_trials(trials, lambda trial: trial.settings)
        self._groups = {
            key: deque(group if rank is not None else sorted(group, key=lambda trial: -self._cost(trial)))
            for key, group in groups.items()
        }
        self._count = sum(map(len, self._groups.values()))
        self._unseen = list(reversed(self._groups))
        self._heap.clear()

    def next(self, ahead: Callable[[], Sequence[float]] = tuple) -> tuple[T, ...] | Unprobed[T] | None:
        """Take the most urgent pack, or an unprobed group that must be measured first; None if there is neither.

        A group that was returned as unprobed is passed over until `sized` is called for it.  The trials of a pack share
        their shaping settings, and where no rank is asked for are of like cost, so that its lanes end together.

        Args:
            ahead: gives, for each worker that has a pack, how long it will still take, in the unit of `cost`;
                asked near the end alone.
        """
        while self._unseen:
            key = self._unseen.pop()
            group = self._groups[key]
            most = self._lanes(group[0], len(group))
            if most is None:
                return Unprobed(group[0], len(group))
            self._most[key] = most
            self._offer(key)
        while self._heap:
            urgency, _, key = heapq.heappop(self._heap)
            if self._urgency(key) > urgency:
                self._offer(key)
                continue
            width, _ = self._price(key)
            taken = self._take(key, self._width(key, width, self._most[key], ahead))
            self._offer(key)
            return taken
        return None

    def sized(self, settings: Settings) -> None:
        """Take note that the number of lanes of a group is known now."""
        key = settings.shape()
        if key in self._groups:
            self._unseen.append(key)

    def refill(
        self, settings: Settings, count: int, ahead: Callable[[], Sequence[float]] = tuple
    ) -> tuple[T, ...]:
        """Take up to so many trials of one group, for the free lanes of a pack that is under way.

        Near the end it takes no more than its share, so that the other workers have something to do too.

        Args:
            settings: of the group.
            count: how many lanes are free.
            ahead: see `next`, of the other workers.
        """
        key = settings.shape()
        if key not in self._groups:
            return ()
        even = min(count, len(self._groups[key]), math.ceil(self._count / self._workers))
        return self._take(key, self._width(key, even, count, ahead))

    def _width(self, key: Shape, even: int, most: int, ahead: Callable[[], Sequence[float]]) -> int:
        """Return how many trials of a group to take now, so that what is left ends soonest.

        Near the end an even share for each worker is too little where the others are busy for long: then they
        will take less of what is left, and a larger pack costs less a lane.

        Args:
            key: the group.
            even: the share of each worker.
            most: lanes of a pack at most.
            ahead: gives how long each of the other workers will be busy.
        """
        most = min(most, len(self._groups[key]))
        if even >= most or not (busy := ahead()):
            return even
        trial = self._groups[key][0]
        alone = self._cost(trial)
        pack = [0.0, *(n * alone * self._share(trial, n) for n in range(1, most + 1))]

        def end(width: int) -> float:
            free = [pack[width], *busy][: self._workers]
            free += [0.0] * (self._workers - len(free))
            heapq.heapify(free)
            left, last = self._count - width, pack[width]
            while left > 0:
                taken = min(most, math.ceil(left / self._workers))
                last = max(last, free[0] + pack[taken])
                heapq.heapreplace(free, free[0] + pack[taken])
                left -= taken
            return last

        return min(range(most, 0, -1), key=end)

    def _offer(self, key: Shape) -> None:
        if key in self._groups:
            heapq.heappush(self._heap, (self._urgency(key), next(self._order), key))

    def _urgency(self, key: Shape) -> float:
        """Return where a group stands, the lowest first; a group that is gone comes last."""
        if key not in self._groups:
            return math.inf
        return -self._price(key)[1] if self._rank is None else self._rank(self._groups[key][0])

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


def packs_of(queue: PackQueue[T]) -> Sequence[tuple[T, ...]]:
    """Empty a queue whose groups all have a size, and return its packs in order."""
    packs = []
    while isinstance(pack := queue.next(), tuple):
        packs.append(pack)
    return packs
