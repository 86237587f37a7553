"""Which trials keep their weights: the best of a study, decided as results come in.

Stands between the recorder of a run and the store.  To ask the store for the best after every trial would make a run's
cost grow with the square of its trials; here one list of the best is read once and kept.
"""

from __future__ import annotations

import bisect
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

WEIGHTS_KEPT = 10


class KeptWeights:
    """The best trials of a study as far as one runner knows them.

    What other runners find meanwhile is not in it: then more are kept than need be, never fewer, until
    `StudyStore.prune_weights` looks at all of them when the run ends.

    Args:
        best: (value, number) of the best COMPLETE trials that there are.
        having: the numbers of the trials that have weights.
        direction: "maximize" or "minimize" the value.
        keep: how many keep them.
    """

    def __init__(
        self,
        best: Iterable[tuple[float, int]],
        *,
        having: Iterable[int],
        direction: str,
        keep: int = WEIGHTS_KEPT,
    ) -> None:
        self._sign = -1.0 if direction == "maximize" else 1.0
        self._keep = keep
        self._best = sorted((self._sign * value, number) for value, number in best)
        self._having = set(having)

    def take(self, value: float | None, number: int, *, weights: bool) -> int | None:
        """Take in a trial that has ended; the older of two equals is the better one.

        Args:
            value: what ranks it, None where nothing does: it is not COMPLETE.
            number: the trial's.
            weights: whether it has any.

        Returns:
            The trial whose weights are not to be kept, which may be this one; None for none.
        """
        if weights:
            self._having.add(number)
        gone: int | None = number
        if value is not None and math.isfinite(value):
            bisect.insort(self._best, (self._sign * value, number))
            gone = self._best.pop()[1] if len(self._best) > self._keep else None
        if gone not in self._having:
            return None
        self._having.discard(gone)
        return gone
