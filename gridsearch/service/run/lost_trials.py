"""What becomes of claimed trials that end without a result: their worker died, or their pack ended without them.

Stands beside the coordinator: trials wait again, in smaller packs where memory ran out, or have failed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsearch.records import TrialState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.executors import Executor
    from gridsearch.records import WorkerDied
    from gridsearch.service.run.held_trials import Claim, HeldTrials
    from gridsearch.service.run.resumed_trials import ResumedTrials
    from gridsearch.service.run.run_context import RunContext
    from gridsearch.service.run.trial_source import TrialSource


class LostTrials:
    """Offers trials again.

    Args:
        run: whose trials they are.
        held: the claims.
        source: looks for them again, and makes smaller packs of them.
        resumed: says where those go on from that have a checkpoint.
    """

    def __init__(
        self, run: RunContext, *, held: HeldTrials, source: TrialSource, resumed: ResumedTrials
    ) -> None:
        self._run = run
        self._held = held
        self._source = source
        self._resumed = resumed

    def worker_died(self, event: WorkerDied, executor: Executor) -> None:
        """Offer again what a worker was working on when it died."""
        lost = self._held.of(event.pack)
        numbers = ", ".join(str(claim.trial.number) for claim in lost)
        self._run.observer.warn(
            f"worker {event.worker} died ({event.message})"
            + (f" while training trial {numbers}" if lost else "")
        )
        if lost and event.memory and (relief := self._take_less_memory(lost, executor)):
            self._run.observer.say(relief)
            self.offer_at_once(lost)
            return
        if event.place_gone:
            blameless = [claim for claim in lost if self._went_on(claim)]
            self.offer_at_once(blameless)
            lost = [claim for claim in lost if claim not in blameless]
        self.offer_again(lost, event.message, failed="its worker died")

    def _went_on(self, claim: Claim) -> bool:
        """Whether a trial has come further in this attempt: one that has not may be what ends its places."""
        running = self._run.progress.running[claim.trial.id]
        return running.epoch > running.resumed

    def offer_at_once(self, lost: Sequence[Claim]) -> None:
        """Let trials wait again through no fault of theirs: it is no try less."""
        self._held.release(lost)
        self._source.look_soon()

    def _take_less_memory(self, lost: Sequence[Claim], executor: Executor) -> str | None:
        """Make smaller packs, else fewer at a time; return what was done, None where nothing is left to do."""
        if self._run.options.settled:  # what was settled stays: the user named both numbers
            return None
        if len(lost) > 1:
            fewer = self._source.smaller_packs(lost[0].trial, len(lost) // 2)
            return f"packs of {lost[0].trial.settings.code[0]} get {fewer} lane{'s' * (fewer > 1)} at most"
        return "one worker fewer runs from now on" if executor.use_fewer() else None

    def offer_again(self, lost: Sequence[Claim], reason: str, *, failed: str | None = None) -> None:
        """Let trials wait again that ended without a result; those tried often enough have failed.

        Args:
            lost: their claims.
            reason: how they ended, for the store.
            failed: the same for the user, where it is said in other words.
        """
        self._held.drop(lost)
        retries = self._run.options.retries
        for back in self._run.store.requeue([claim.ids for claim in lost], retries=retries, reason=reason):
            if back.requeued:
                tries = f"attempt {back.tries + 1} of {retries + 1}"
                if back.epoch:
                    self._resumed.expect(back.trial, tries)
                else:
                    self._run.observer.say(f"trial {back.number}: starts again ({tries})")
                self._source.look_soon()
            else:
                times = f" {back.tries} times" if back.tries > 1 else ""
                self._run.progress.move(TrialState.WAITING, TrialState.FAILED)
                self._run.observer.warn(f"trial {back.number}: failed, {failed or reason}{times}")
