"""Says when a worker has been silent for long; stands beside the coordinator.

A worker that trains a network says every few seconds that it goes on.  So its silence means that one step, or what
comes before the first (the model's own code, reading data), takes that long or hangs; a function is silent until it
returns, or yields again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gridsearch.service.prepare.option_words import duration_word

if TYPE_CHECKING:
    from gridsearch.service.run.run_context import RunContext

SILENT_SECONDS = 300.0
"""So long a worker may say nothing before that is worth a line."""

_LOOK_SHARE = 1 / 60
"""How often to look, as a share of that: with a thousand workers it takes milliseconds."""


class Silence:
    """The silent workers of a run.

    Args:
        run: the run.
    """

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._said: dict[str, float] = {}
        self._looked = float("-inf")

    def check(self) -> None:
        """Say which workers have said nothing for long, each time once."""
        now = time.monotonic()
        if now - self._looked < SILENT_SECONDS * _LOOK_SHARE:
            return
        self._looked = now
        heard: dict[str, float] = {}
        trials: dict[str, list[int]] = {}
        for running in self._run.progress.running.values():
            if running.began is not None:
                heard[running.worker] = max(running.heard, heard.get(running.worker, 0.0))
                trials.setdefault(running.worker, []).append(running.trial.number)
        for worker, last in heard.items():
            if now - last >= SILENT_SECONDS and self._said.get(worker) != last:
                self._said[worker] = last
                numbers = ", ".join(map(str, sorted(trials[worker])))
                self._run.observer.warn(
                    f"worker {worker} has been silent for {duration_word(round(now - last))}, "
                    f"trial{'s' * (len(trials[worker]) > 1)} {numbers}: one step takes that long, or hangs; "
                    "--trial-limit TIME ends such a trial"
                )
