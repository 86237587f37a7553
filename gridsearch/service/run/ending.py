"""Whether a run ends although trials wait or train: a signal, the budget, a request from elsewhere.

Stands beside the coordinator, which then begins no more, and asks how long the packs under way may still take to come
to their next epoch's end.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final

from gridsearch.service.prepare.option_words import duration_word

if TYPE_CHECKING:
    from gridsearch.service.run.interruption import Interruption
    from gridsearch.service.run.run_context import RunContext

SIGNAL_SECONDS: Final = 8.0
"""Packs whose trials go on from checkpoints have so long to write them after the first signal; others none."""

BUDGET_SECONDS = 15.0
"""All packs have so long to come to an epoch's end, or to their own, when the budget is spent."""


def time_to_save(who_has: str) -> str:
    """Say after the first signal how long what trains may still take."""
    seconds = duration_word(SIGNAL_SECONDS)
    theirs = "their" if who_has.endswith("have") else "its"
    return (
        f"interrupted: {who_has} {seconds} to finish {theirs} epoch and be saved; Ctrl-C again stops at once"
    )


class Ending:
    """How a run ends before its trials do.

    Args:
        run: the run.
        interruption: whether there was a signal.

    Attributes:
        alike: why what waits was not begun, where it would fail as the first trials have.
    """

    def __init__(self, run: RunContext, interruption: Interruption) -> None:
        self._run = run
        self._interruption = interruption
        self._since: dict[str, float] = {}
        self._said = False
        self.alike: str | None = None

    @property
    def begun(self) -> bool:
        """Whether no more trials shall begin; says why, once."""
        now, budget = time.monotonic(), self._run.options.budget
        request = self._run.store.stop_request()
        if self._interruption:
            self._since.setdefault("signal", now)
        if budget is not None and self._run.progress.seconds > budget:
            self._begin(
                "budget", f"the budget of {duration_word(budget)} is used up: running trials are stopped"
            )
        if request == "epoch":
            self._begin("request", "asked to stop: running trials stop at the end of their epoch")
        if request == "now":
            self._begin("now", "asked to stop at once: running trials wait for the next run")
        return bool(self._since)

    def _begin(self, reason: str, words: str) -> None:
        if reason not in self._since:
            self._since[reason] = time.monotonic()
            self._run.observer.say(words)

    def _say_that_it_takes_time(self) -> None:
        if not self._said:
            self._said = True
            self._run.observer.say(time_to_save("running trials have"))

    @property
    def signum(self) -> int | None:
        """The signal that ended the run, None where there was none."""
        return self._interruption.signum

    @property
    def asked(self) -> bool:
        """Whether somebody has asked for it, on whatever machine, with `gridsearch stop`."""
        return bool({"request", "now"} & self._since.keys())

    @property
    def at_once(self) -> bool:
        """Whether somebody wants it quickly, so that there is no time for a report either."""
        return "signal" in self._since or "now" in self._since

    def over(self, *, resumable: bool) -> bool:
        """Whether packs under way have had their time.

        Args:
            resumable: their trials go on from checkpoints that they write at their epoch's end.
        """
        if not self.begun:
            return False
        if resumable and "signal" in self._since:
            self._say_that_it_takes_time()
        grace = {
            "signal": SIGNAL_SECONDS if resumable else 0.0,
            "now": 0.0,
            "budget": BUDGET_SECONDS,
            "request": math.inf,
        }
        return time.monotonic() >= min(since + grace[reason] for reason, since in self._since.items())
