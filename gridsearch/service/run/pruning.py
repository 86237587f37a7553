"""Ends trials early: between the coordinator, to whom epochs come, and the store's `PruningStudy`, which decides."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

from gridsearch.records import PruningDecision, TrialFailed, TrialFinished, TrialState
from gridsearch.reporting.words.text import metric_name, show_metric
from gridsearch.store import PruningStudy, TrialCurve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gridsearch.records import Advance, Trial, TrialResumed
    from gridsearch.store import Store

_LOOK_AGAIN_SECONDS = 10.0
"""How often to look at what other runners on the same store have found."""


class Pruning:
    """Decides after each epoch whether a trial ends, by all curves of the study.

    Args:
        pruner: "median", "asha" or "hyperband".
        store: knows what was there before this run, and what other runners find.
        study: the study's name.
        study_id: its ledger id.
        metric: what ranks the study; a trial whose epochs have no such value goes on to its end.
        direction: "maximize" or "minimize".
    """

    def __init__(
        self, pruner: str, *, store: Store, study: str, study_id: int, metric: str, direction: str
    ) -> None:
        self._pruner = pruner
        self._store = store
        self._study_id = study_id
        self._metric = metric
        self._optuna = PruningStudy(pruner, name=study, direction=direction)
        self._known: dict[int, tuple[int, int, TrialState]] = {}
        self._values: dict[int, float] = {}
        self._looked = float("-inf")

    def decide(self, trial: Trial, event: Advance) -> PruningDecision:
        """Decide whether a trial of ours ends after this epoch."""
        self._look()
        value = event.value(self._metric)
        prune = False
        if value is not None:
            self._values[trial.id] = value
            self._known[trial.id] = (trial.attempt, event.epoch, TrialState.RUNNING)
            prune = self._optuna.should_prune(self._curve(trial, event.epoch, {event.epoch: value}))
        return PruningDecision(trial=event.trial, attempt=event.attempt, epoch=event.epoch, prune=prune)

    def resumed(self, trial: Trial, event: TrialResumed) -> None:
        """Take in the epochs of a trial of ours that goes on from a checkpoint."""
        values = {row.epoch: v for row in event.rows if (v := row.value(self._metric)) is not None}
        self._known[trial.id] = (trial.attempt, event.epoch, TrialState.RUNNING)
        if not values:
            self._optuna.forget(trial.id)
            return
        self._values[trial.id] = values[max(values)]
        self._optuna.restore(self._curve(trial, event.epoch, values))

    def _curve(self, trial: Trial, epoch: int, values: Mapping[int, float]) -> TrialCurve:
        return TrialCurve(
            trial=trial.id,
            number=trial.number,
            attempt=trial.attempt,
            settings=trial.settings,
            state=TrialState.RUNNING,
            epochs=epoch,
            values=values,
        )

    def named(self, trial: Trial, event: TrialFinished | TrialFailed) -> TrialFinished | TrialFailed:
        """Return how a trial ended with the pruner that ended it, if one did."""
        if not isinstance(event, TrialFinished) or event.state is not TrialState.PRUNED:
            return event
        value = self._values.get(trial.id)
        of = trial.settings.length
        when = f"after step {event.epochs}" if of is None else f"after epoch {event.epochs} of {of}"
        message = f"pruned by {self._pruner} {when}"
        if value is not None:
            message += f", {metric_name(self._metric)} {show_metric(value, self._metric)}"
        return dataclasses.replace(event, pruner=self._pruner, message=message)

    def ended(self, trial: Trial, state: TrialState) -> None:
        """Take note of how a trial of ours ended."""
        _, epochs, _ = self._known.get(trial.id, (0, 0, None))
        self._known[trial.id] = (trial.attempt, epochs, state)
        self._values.pop(trial.id, None)
        self._optuna.end(trial.id, state)

    def _look(self) -> None:
        """Take in what the store knows and we do not: earlier runs at first, other runners now and then."""
        now = time.monotonic()
        if now - self._looked < _LOOK_AGAIN_SECONDS:
            return
        for curve in self._store.curves(self._study_id, self._known):
            attempt, epochs, _ = self._known.get(curve.trial, (0, 0, None))
            if (curve.attempt, curve.epochs) < (attempt, epochs):
                continue  # ours, and the store is a moment behind
            self._known[curve.trial] = (curve.attempt, curve.epochs, curve.state)
            if curve.values:
                self._optuna.restore(curve)
        self._looked = time.monotonic()
