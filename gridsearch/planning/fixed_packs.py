"""Packs that are settled before a run begins, so that a broken run and its sequel make the packs of an unbroken one.

A lane's rounding depends on the pack it trains in (on the number of lanes, on whether all see the same images).
Where the user says how many lanes and workers there are, the packs follow from the study's trials alone: all of
them, those that have ended included, in the order in which the study got them.  Nothing that the clock decides
moves a trial from one pack to another: no free lane is filled from outside, and the packs at the end are not
split anew.  What has ended before is left out of its pack, and since the coordinator writes the results of such
a pack all at once, a run that is killed leaves no pack half done.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Generic

from gridsearch.planning.queue import T, WorkQueue, packs_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from gridsearch.records import Settings


def settle(
    trials: Collection[T], *, lanes: int, workers: int, cost: Callable[[T], float]
) -> list[tuple[T, ...]]:
    """Split all trials of a study into packs, in the order in which they go.

    Args:
        trials: in the order in which the study got them.
        lanes: the most of one pack.
        workers: how many packs run side by side; the last packs are small enough that none idles.
        cost: relative cost of one trial.
    """
    side_by_side = max(1, min(workers, math.ceil(len(trials) / lanes)))
    queue = WorkQueue[T](workers=side_by_side, lanes=lambda *_: lanes, cost=cost)
    queue.fill(trials)
    return list(packs_of(queue))


class SettledQueue(Generic[T]):
    """Waiting trials in packs that were settled; a `PackQueue` like `WorkQueue`.

    Args:
        packs: the keys of each pack's trials.
    """

    def __init__(self, packs: Iterable[Sequence[str]]) -> None:
        self._packs = [tuple(pack) for pack in packs]
        self._waiting: deque[tuple[T, ...]] = deque()

    def __len__(self) -> int:
        return sum(map(len, self._waiting))

    def fill(self, trials: Iterable[T]) -> None:
        """Hold these trials and no others."""
        there = {trial.key: trial for trial in trials}
        packs = (tuple(there[key] for key in pack if key in there) for pack in self._packs)
        self._waiting = deque(pack for pack in packs if pack)

    def next(
        self,
        ahead: Callable[[], Sequence[float]] = tuple,  # noqa: ARG002 - the queue's
    ) -> tuple[T, ...] | None:
        """Take the next pack; None if there is none."""
        return self._waiting.popleft() if self._waiting else None

    def sized(self, settings: Settings) -> None:
        """Do nothing: the user has said how many lanes there are."""

    def refill(
        self,
        settings: Settings,  # noqa: ARG002 - the queue's
        count: int,  # noqa: ARG002
        ahead: Callable[[], Sequence[float]] = tuple,  # noqa: ARG002
    ) -> tuple[T, ...]:
        """Take nothing: a free lane stays free."""
        return ()
