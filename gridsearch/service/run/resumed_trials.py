"""Trials that go on from a checkpoint: what lies before it is on record, is shown, and is not counted again.

Stands beside the coordinator.  A checkpoint holds the rows of its epochs, so that a store which a killed run has left
behind them, or ahead of them, has exactly these afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gridsearch.records import Settings, Trial, TrialResumed
    from gridsearch.service.run.held_trials import HeldTrials
    from gridsearch.service.run.pruning import Pruning
    from gridsearch.service.run.publisher import TrialPublisher
    from gridsearch.service.run.run_context import RunContext


class ResumedTrials:
    """Takes in where trials go on from, those of a pack together.

    Args:
        run: whose trials they are.
        held: the claims.
        publisher: keeps their TensorBoard runs.
        pruning: takes in their epochs; None where none is pruned.
    """

    def __init__(
        self, run: RunContext, *, held: HeldTrials, publisher: TrialPublisher, pruning: Pruning | None
    ) -> None:
        self._run = run
        self._held = held
        self._publisher = publisher
        self._pruning = pruning
        self._waiting: list[TrialResumed] = []
        self._tries: dict[int, str] = {}

    def expect(self, trial: int, tries: str) -> None:
        """Take note of a trial, by its ledger id, that will go on from a checkpoint: which attempt that will be."""
        self._tries[trial] = tries

    def add(self, event: TrialResumed) -> None:
        """Take where a trial goes on from; `flush` writes it."""
        self._waiting.append(event)

    def flush(self) -> None:
        """Write what came in, in one transaction, and say it."""
        if not self._waiting:
            return
        events, self._waiting = self._waiting, []
        self._run.store.resume(events)
        alike: dict[tuple[str, str], list[int]] = {}
        for event in events:
            claim = self._held.get(event.trial)
            if claim is None or claim.trial.attempt != event.attempt:
                continue
            self._take(claim.trial, event)
            tries = self._tries.pop(event.trial, "")
            if event.epoch or tries:
                where = where_text(event.epoch, claim.trial.settings) if event.epoch else ""
                alike.setdefault((where, tries), []).append(claim.trial.number)
        for (where, tries), numbers in alike.items():
            several = len(numbers) > 1
            named = f"trial{'s' * several} {', '.join(map(str, sorted(numbers)))}"
            begins = "start again" if several else "starts again"
            goes_on = f"{'continue' if several else 'continues'} from {where}"
            note = f" ({tries})" if tries else ""
            self._run.observer.say(f"{named}: {goes_on if where else begins}{note}")

    def _take(self, trial: Trial, event: TrialResumed) -> None:
        if self._pruning is not None:
            self._pruning.resumed(trial, event)
        for row in event.rows:
            self._publisher.epoch(row)
        progress = self._run.progress
        running = progress.running[trial.id]
        running.epoch = running.resumed = event.epoch
        progress.total_units -= event.epoch * self._held.epoch_units(trial.settings)
        if event.damaged:
            self._run.observer.warn(
                f"trial {trial.number}: its last checkpoint is damaged; "
                + ("the one before it is used" if event.epoch else "there is no other")
            )


def where_text(epoch: int, settings: Settings) -> str:
    """Write how far a trial has come: "epoch 12 of 30", or "step 12" of a function."""
    return f"step {epoch}" if settings.length is None else f"epoch {epoch} of {settings.length}"
