"""Which trials go together and in which order: longest first, and no worker idles at the end."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

from gridsearch.planning.groups import group_trials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gridsearch.records import Trial


def pack_trials(
    trials: Sequence[Trial], *, lanes: int, workers: int, cost: Callable[[Trial], float]
) -> list[tuple[Trial, ...]]:
    """Partition trials into packs, the longest pack first.

    Args:
        trials: the waiting trials.
        lanes: trials in one pack, at most.
        workers: how many packs run side by side; a group is split so that each has some of it.
        cost: relative cost of one trial.

    Returns:
        Each trial in exactly one pack; the trials of a pack share their shaping settings.  Trials of like
        cost share a pack, so that its lanes end together.
    """
    packs: list[tuple[Trial, ...]] = []
    width = max(1, min(lanes, math.ceil(len(trials) / workers)))
    for group in group_trials(trials, lambda trial: trial.settings).values():
        ordered = sorted(group, key=lambda trial: (-cost(trial), trial.id))
        packs += [tuple(ordered[i : i + width]) for i in range(0, len(ordered), width)]
    packs.sort(key=lambda pack: (-sum(map(cost, pack)), pack[0].id))
    return packs


def makespan(costs: Iterable[float], workers: int) -> float:
    """Return when the last job ends if each goes to the first free worker, in this order."""
    free = [0.0] * workers
    for cost in costs:
        heapq.heapreplace(free, free[0] + cost)
    return max(free)
