"""Optuna's pruners on what the trials of a study have shown so far; the store's part in ending trials early.

Pruners run on studies in memory, never on the store: they would read it anew at every question, and ASHA and
Hyperband write attributes through a connection of their own, which would wait for our lock.  What a run knows
before its first epoch comes from the store (`Store.curves`).

Steps are epochs counted from 1, as in the store's intermediate values: the step is the number of epochs trained.
"""

from __future__ import annotations

import math
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, SuccessiveHalvingPruner
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection

from gridsearch.records import Settings, TrialState
from gridsearch.store.optuna_tables import optuna_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gridsearch.store.messages import TrialCurve

REDUCTION = 3
"""Of this many trials that reach a rung of ASHA or Hyperband, one goes on; the next rung lies as many times higher."""

FIRST_RUNG = 9
"""ASHA's first rung comes after one ninth of the epochs: two rungs then, and none shortly before the end."""

STARTUP_TRIALS = 5
"""The median rule waits for that many complete trials."""

FIRST_MEDIAN_EPOCH = 2
"""No trial ends by the median rule before that epoch's end: a first epoch says little."""

_Kind: TypeAlias = tuple[object, ...]


def make_pruner(name: str, *, epochs: int | None) -> BasePruner:
    """Return one of Optuna's pruners, set for trials of so many epochs.

    Args:
        name: "median": a trial ends if its best value so far is below the median of what the complete trials had
            at that epoch.  "asha": asynchronous successive halving (Li et al. 2020).  "hyperband" (Li et al.
            2018): several such ladders, with rungs at 1, 3, 9 ... epochs, that begin at different rungs; a trial's
            number decides which ladder is its own.
        epochs: the most that a trial trains; None for a function's steps, of which nobody knows how many come: asha
            and hyperband then go by the first complete trials.
    """
    if name == "median":
        return MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=FIRST_MEDIAN_EPOCH)
    if name == "asha":
        first = "auto" if epochs is None else math.ceil(epochs / FIRST_RUNG)
        return SuccessiveHalvingPruner(min_resource=first, reduction_factor=REDUCTION)
    assert name == "hyperband", name
    return HyperbandPruner(
        min_resource=1, max_resource="auto" if epochs is None else epochs, reduction_factor=REDUCTION
    )


class PruningStudy:
    """Decides, epoch by epoch, which trials of a study end early; trials of one kind are compared with each other.

    Args:
        pruner: "median", "asha" or "hyperband".
        name: the study's name; Hyperband draws a trial's ladder from it and the trial's number.
        direction: "maximize" or "minimize".
    """

    def __init__(self, pruner: str, *, name: str, direction: str) -> None:
        self._pruner, self._name = pruner, name
        self._direction = StudyDirection[direction.upper()]
        self._peers: dict[_Kind, _PeerGroup] = {}
        self._of: dict[int, _PeerGroup] = {}

    def should_prune(self, curve: TrialCurve) -> bool:
        """Take in the newest epoch of a running trial and say whether it shall end.

        A trial that has trained all its epochs is complete, whatever a pruner says.  An epoch 1 begins the trial
        anew: what an earlier attempt showed is forgotten.

        Args:
            curve: the trial with the value of that epoch alone.
        """
        (epoch,) = curve.values
        if epoch == 1:
            self.forget(curve.trial)
        peers = self._of.setdefault(curve.trial, self._peers_of(curve.settings))
        return peers.should_prune(curve.trial, curve.number, epoch, curve.values[epoch])

    def restore(self, curve: TrialCurve) -> None:
        """Take in all that a trial has shown, in this run or an earlier one, and its state."""
        self.forget(curve.trial)
        peers = self._of[curve.trial] = self._peers_of(curve.settings)
        peers.replay(curve)
        if curve.state.ended:
            self.end(curve.trial, curve.state)

    def end(self, trial: int, state: TrialState) -> None:
        """Take in that a trial has ended; one that never had a value is not known here."""
        if trial in self._of:
            self._of[trial].end(trial, state)

    def forget(self, trial: int) -> None:
        """Take a trial out of the comparison."""
        if peers := self._of.pop(trial, None):
            peers.drop(trial)

    def _peers_of(self, settings: Settings) -> _PeerGroup:
        kind = settings.peers()
        if kind not in self._peers:
            pruner = make_pruner(self._pruner, epochs=settings.length)
            study = _NumberedStudy.new(pruner, name=self._name, direction=self._direction)
            self._peers[kind] = _PeerGroup(study, settings.length or math.inf)
        return self._peers[kind]


@dataclass(slots=True)
class _NumberedStudy:
    """An Optuna study in memory whose trials bear numbers of our choice."""

    study: optuna.Study
    storage: InMemoryStorage

    @classmethod
    def new(cls, pruner: BasePruner, *, name: str, direction: StudyDirection) -> _NumberedStudy:
        storage = InMemoryStorage()
        with _quiet():
            study = optuna.create_study(storage=storage, pruner=pruner, study_name=name, direction=direction)
        return cls(study, storage)

    @property
    def pruner(self) -> BasePruner:
        return self.study.pruner

    def empty(self) -> _NumberedStudy:
        """Return a study like this one without its trials."""
        return self.new(self.pruner, name=self.study.study_name, direction=self.study.direction)

    def add(self, number: int, like: optuna.trial.FrozenTrial | None = None) -> int:
        """Add a trial that runs, or one like another; return its id here."""
        trial_id = self.storage.create_new_trial(self.study._study_id, template_trial=like)
        # Hyperband draws a ladder from it; the storage finds its trials by an index of its own
        self.storage.get_trial(trial_id).number = number
        return trial_id

    def report(self, trial_id: int, epoch: int, value: float) -> None:
        self.storage.set_trial_intermediate_value(trial_id, epoch, value)

    def prune(self, trial_id: int) -> bool:
        with warnings.catch_warnings():
            # the median rule takes the best of values that may all be NaN; it knows what to do with the answer
            warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
            return self.pruner.prune(self.study, self.storage.get_trial(trial_id))


@dataclass(slots=True)
class _PeerGroup:
    """Trials that are compared with each other.

    Attributes:
        ids: our ids of trials by the ledger's.
        ending: trials that shall end; a decision that came too late for one epoch holds for the next.
    """

    numbered: _NumberedStudy
    epochs: float
    ids: dict[int, int] = field(default_factory=dict)
    ending: set[int] = field(default_factory=set)

    def should_prune(self, trial: int, number: int, epoch: int, value: float) -> bool:
        if trial not in self.ids:
            self.ids[trial] = self.numbered.add(number)
        self.numbered.report(self.ids[trial], epoch, value)
        if epoch < self.epochs and trial not in self.ending and self.numbered.prune(self.ids[trial]):
            self.ending.add(trial)
        return epoch < self.epochs and trial in self.ending

    def replay(self, curve: TrialCurve) -> None:
        """Add a trial with its epochs and with the marks that it would have got on its way.

        A rung keeps a trial's value whatever the others' are, so the trial is replayed alone: to replay it among its
        peers would look through all of them at each rung.
        """
        alone = self.numbered.empty()
        restored = alone.add(curve.number)
        for epoch, value in sorted(curve.values.items()):
            alone.report(restored, epoch, value)
            if epoch < self.epochs:
                alone.prune(restored)
        self.ids[curve.trial] = self.numbered.add(curve.number, alone.storage.get_trial(restored))

    def end(self, trial: int, state: TrialState) -> None:
        frozen = self.numbered.storage.get_trial(self.ids[trial])
        values: Mapping[int, float] = frozen.intermediate_values
        last = [values[max(values)]] if state in (TrialState.COMPLETE, TrialState.PRUNED) else None
        self.numbered.storage.set_trial_state_values(self.ids[trial], optuna_state(state), last)
        self.ending.discard(trial)

    def drop(self, trial: int) -> None:
        """Take a trial out; Optuna deletes none, so the others move."""
        del self.ids[trial]
        self.ending.discard(trial)
        old, self.numbered = self.numbered, self.numbered.empty()
        for each, there in self.ids.items():
            frozen = old.storage.get_trial(there)
            self.ids[each] = self.numbered.add(frozen.number, frozen)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from announcing a study that nobody but us will see."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
