"""How long packs take side by side."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def makespan(costs: Iterable[float], workers: int) -> float:
    """Return when the last job ends if each goes to the first free worker, in this order."""
    free = [0.0] * workers
    for cost in costs:
        heapq.heapreplace(free, free[0] + cost)
    return max(free)
