"""Whether a run's first trials all failed with the same error: then the others would too, one after another.

Stands beside the coordinator, which reports results to it and asks before it starts more trials.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gridsearch.records import Settings, Trial

FIRST = 3
"""So many trials must have failed, so that one bad point is no sign."""

_ADDRESS = re.compile(r"\b0x[0-9a-f]+\b", re.IGNORECASE)


class FirstTrials:
    """The trials of a run until one of them gets anywhere.

    Args:
        keep_going: never stop.
        waiting: gives the trials that have not begun.
    """

    def __init__(self, *, keep_going: bool, waiting: Callable[[], Iterable[Trial]]) -> None:
        self._open = not keep_going
        self._waiting = waiting
        self._errors: list[str] = []
        self._subjects: set[str] = set()
        self._reason: str | None = None

    @property
    def reason(self) -> str | None:
        """Why no more trials shall begin, in one sentence; None if they may."""
        return self._reason

    def went_on(self) -> None:
        """Take note that a trial got somewhere: from now on each failure is its own."""
        self._open = False
        self._reason = None

    def failed(self, settings: Settings, message: str) -> None:
        """Take note of a failure that the trial's own code or data is the cause of."""
        if not self._open:
            return
        self._errors.append(message)
        self._subjects.add(settings.code[0])
        if len({_ADDRESS.sub("0x", error) for error in self._errors}) > 1:
            self.went_on()
        elif len(self._errors) >= FIRST and self._reason is None:
            left = list(self._waiting())
            if left and {trial.settings.code[0] for trial in left} <= self._subjects:
                self._reason = (
                    f"the first {len(self._errors)} trials all failed with the same error: {message}; "
                    "trials not yet started stay waiting (--keep-going continues anyway)"
                )


__all__ = ["FIRST", "FirstTrials"]
