"""How many packs to claim at a time: one where they train for long, many where they take milliseconds.

Used by the source of a run's trials.  A transaction costs as much as a trial that takes milliseconds; what is claimed
ahead waits here for so short a time that other runners on the same store miss nothing.
"""

from __future__ import annotations

import time

_SECONDS = 0.2
"""What is claimed at a time is to last so long."""

_MOST = 64


class ClaimPace:
    """Packs to claim at a time, from how soon the last ones were used up."""

    def __init__(self) -> None:
        self._count = 1
        self._claimed = float("-inf")

    def next(self, waiting: int, workers: int) -> int:
        """Return how many packs to claim now that all that were claimed are handed out.

        Args:
            waiting: trials that wait; near the end no more than a share of them is taken.
            workers: packs that train side by side.
        """
        now = time.monotonic()
        lasted = max(now - self._claimed, 1e-3)
        self._claimed = now
        self._count = max(1, min(2 * self._count, _MOST, round(self._count * _SECONDS / lasted)))
        return max(1, min(self._count, waiting // (2 * workers)))
