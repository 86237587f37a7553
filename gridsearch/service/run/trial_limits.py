"""Ends trials that take longer than `--trial-limit`; stands beside the coordinator.

A lane ends at its next epoch's or step's end, as a pruned one does, and fails instead.  Where that does not come, the
worker is ended: the trials beside it wait again, with their checkpoints and no try less.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gridsearch.records import PruningDecision, TrialFailed, TrialFinished, TrialState
from gridsearch.service.prepare.option_words import duration_word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.executors import Executor
    from gridsearch.records import Probed, ProbeRequest, Trial
    from gridsearch.service.run.held_trials import Claim, HeldTrials
    from gridsearch.service.run.progress import Running
    from gridsearch.service.run.recorder import Ended
    from gridsearch.service.run.run_context import RunContext

GRACE_SECONDS = 10.0
"""An epoch that is under way when the limit is reached may take so long, or half as long again as the last."""


class TrialLimits:
    """The trials of a run that take too long.

    Args:
        run: whose trials they are.
        held: the trials that are claimed.
    """

    def __init__(self, run: RunContext, held: HeldTrials) -> None:
        self._limit = run.options.trial_limit
        self._nothing_pruned = run.options.prune == "none"
        self._running = run.progress.running
        self._held = held
        self._over: dict[int, float] = {}
        self._probes: dict[str, float] = {}
        self._ended_packs: set[str] = set()

    def probing(self, request: ProbeRequest) -> None:
        """Take note of a measurement that begins: a few steps of a trial, which the limit holds for as well."""
        self._probes[request.key] = time.monotonic()

    def probed(self, event: Probed) -> None:
        """Take note of a measurement that has ended."""
        self._probes.pop(event.key, None)

    def end_probes(self, executor: Executor) -> None:
        """End all measurements: nobody will need what they find."""
        for key in self._probes:
            executor.end_worker(key)

    def check(self, executor: Executor) -> None:
        """Ask for the end of each trial that trains for too long, and end its worker if that does not help."""
        if self._limit is None:
            return
        now = time.monotonic()
        for key, began in list(self._probes.items()):
            if now - began > max(self._limit, GRACE_SECONDS):
                del self._probes[key]
                executor.end_worker(key)
        for claim in self._held:
            running = self._running[claim.trial.id]
            if running.began is None or now - running.began <= self._limit:
                continue
            if claim.trial.id not in self._over:
                self._over[claim.trial.id] = now
                executor.send_decision(claim.pack, _end(claim.trial, running))
            late = now - self._over[claim.trial.id] > max(GRACE_SECONDS, 1.5 * running.took)
            if late and claim.pack not in self._ended_packs:
                self._ended_packs.add(claim.pack)
                executor.end_worker(claim.pack)

    def settle(self, event: Ended) -> Ended:
        """Return how a trial ended: one that was ended for its time has failed.

        Also one of a run before, which ended it, and was then killed: a settled pack keeps how its lanes ended.
        """
        if not isinstance(event, TrialFinished) or event.state is not TrialState.PRUNED:
            return event
        if event.trial in self._over or self._nothing_pruned:
            return self._failed(event.trial, event.attempt)
        return event

    def lost(self, pack: str | None, claims: Sequence[Claim]) -> tuple[list[TrialFailed], list[Claim]] | None:
        """Return what a worker that was ended here has left: its trials that took too long, and the others.

        Args:
            pack: what it trained.
            claims: the trials of that.

        Returns:
            None for a worker that ended by itself.
        """
        if pack not in self._ended_packs:
            return None
        over = [claim for claim in claims if claim.trial.id in self._over]
        others = [claim for claim in claims if claim.trial.id not in self._over]
        return [self._failed(*claim.ids) for claim in over], others

    def _failed(self, trial: int, attempt: int) -> TrialFailed:
        limit = "" if self._limit is None else f" {duration_word(self._limit)}"
        message = f"took longer than --trial-limit{limit}"
        return TrialFailed(trial=trial, attempt=attempt, reason="limit", message=message, traceback=message)


def _end(trial: Trial, running: Running) -> PruningDecision:
    return PruningDecision(trial=trial.id, attempt=trial.attempt, epoch=running.epoch, prune=True)
