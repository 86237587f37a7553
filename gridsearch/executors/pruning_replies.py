"""A worker's side of pruning: it reports an epoch, the coordinator decides, and the lane ends or goes on."""

from __future__ import annotations

import queue
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from gridsearch.records import Advance, PruningDecision

_DECISION_SECONDS = 0.25
"""How long an epoch's end waits for the coordinator's decisions; one that comes later counts an epoch later."""


class PruningReplies:
    """The coordinator's decisions on the epochs that this worker reported.

    Args:
        arriving: where the decisions come in.
    """

    def __init__(self, arriving: queue.SimpleQueue[PruningDecision]) -> None:
        self._arriving = arriving
        self._open: set[tuple[int, int, int]] = set()
        self._pruned: set[int] = set()
        self._attempts: dict[int, int] = {}

    def expect(self, event: Advance) -> None:
        """Take note of an epoch that the coordinator will decide on."""
        if self._attempts.get(event.trial) != event.attempt:  # whatever was said of the one before
            self._pruned.discard(event.trial)
            self._attempts[event.trial] = event.attempt
        self._open.add((event.trial, event.attempt, event.epoch))

    def pruned(self) -> Collection[int]:
        """Wait a moment for the decisions that are open, and return the trials that shall end."""
        deadline = time.monotonic() + _DECISION_SECONDS
        while True:
            left = deadline - time.monotonic() if self._open else 0.0
            try:
                decision = self._arriving.get(timeout=left) if left > 0 else self._arriving.get_nowait()
            except queue.Empty:
                self._open.clear()
                return self._pruned
            self._open.discard((decision.trial, decision.attempt, decision.epoch))
            if decision.prune:
                self._pruned.add(decision.trial)
