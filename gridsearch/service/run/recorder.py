"""Writes down what trials report, and notifies the observer; stands between the coordinator and the store.

All that a run writes of its trials' results goes through here: each batch of events becomes one transaction.
"""

from __future__ import annotations

import dataclasses
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from gridsearch.errors import GridsearchError, StudyDeleted, StudyNotFound
from gridsearch.files import PREDICTIONS, WEIGHTS
from gridsearch.records import EpochEnded, TrialFailed, TrialFinished, TrialState
from gridsearch.reporting.figures.second_process import SharedTasks
from gridsearch.service.run.publisher import Pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.records import Advance, LogText, Trial
    from gridsearch.service.run.held_trials import HeldTrials
    from gridsearch.service.run.pruning import Pruning
    from gridsearch.service.run.publisher import TrialPublisher
    from gridsearch.service.run.run_context import RunContext

Ended: TypeAlias = TrialFinished | TrialFailed
_Drawn: TypeAlias = tuple[dict[str, bytes], dict[str, bytes]]

_FLUSH_SECONDS = 1.0
"""Epochs wait that long for others to share a transaction: short epochs would else cost a commit each.  What has no
hurry waits likewise: weights that are needed no longer, and in which packs trials train."""

_RESULT_SECONDS = 0.1
"""There is so much time between two transactions with results: one that comes alone is written at once, those of
trials that take milliseconds share a transaction."""

_QUIET_SECONDS = 0.5
"""So long after the last result pictures are drawn: 21 ms and two files each are much beside trials that take
milliseconds, and most of those are not among the best any more when the run ends."""


class Recorder:
    """Writes epochs, logs and results of one run.

    Args:
        run: whose trials they are.
        held: the trials that are claimed; what others report is not written.
        publisher: draws trials and keeps their TensorBoard runs.
        pruning: is notified of each result, and names what ended the pruned trials; None where none is pruned.
    """

    def __init__(
        self,
        run: RunContext,
        *,
        held: HeldTrials,
        publisher: TrialPublisher,
        pruning: Pruning | None = None,
    ) -> None:
        self._run = run
        self._store = run.store
        self._progress = run.progress
        self._observer = run.observer
        self._held = held
        self._publisher = publisher
        self._pruning = pruning
        self._epochs: list[Advance] = []
        self._of_packs: dict[str, list[Ended]] = {}
        self._results: list[tuple[Trial, Ended]] = []
        self._last_flush = time.monotonic()
        self._last_results = float("-inf")
        self._weights = run.store.kept_weights(run.study)
        self._needless: list[int] = []
        self._last_tidied = float("-inf")
        self._undrawn: list[tuple[Trial, TrialFinished]] = []

    # Epochs and logs

    def log(self, event: LogText) -> None:
        """Append what was printed to the logs of the trials that train."""
        for trial in event.trials:
            if claim := self._held.get(trial):
                self._store.append_log(claim.trial.number, event.text)

    def advance(self, event: Advance) -> None:
        """Take an epoch or a step; it is written with others, within a second."""
        self._epochs.append(event)
        claim = self._held.get(event.trial)
        if claim is None:
            return
        self._publisher.epoch(event)
        settings = claim.trial.settings
        self._progress.epoch_ended(event, self._held.epoch_units(settings))
        if isinstance(event, EpochEnded):
            cost, lanes = self._run.cost, len(self._held.of(claim.pack))
            self._run.probes.observe(cost.key(settings), lanes, event.seconds / cost.images(settings))

    @property
    def patience(self) -> float:
        """Seconds until `flush_in_time` has something to write, as far as is known now."""
        if not self._results:
            return _FLUSH_SECONDS
        return max(0.0, self._last_results + _RESULT_SECONDS - time.monotonic())

    def flush_in_time(self) -> None:
        """Write the results and epochs that came in if they have waited long enough for others; draw meanwhile."""
        if self._results and self.patience == 0:
            self.flush_results()
        elif self._undrawn and time.monotonic() - self._last_results > _QUIET_SECONDS:
            self._draw([self._undrawn.pop(0)])
        if self._epochs and time.monotonic() - self._last_flush > _FLUSH_SECONDS:
            self.flush()
        wanted = self._needless or self._held.any_moved
        if wanted and time.monotonic() - self._last_tidied > _FLUSH_SECONDS:
            self._tidy()

    def flush(self) -> None:
        """Write all that came in, of all lanes, in one transaction.

        Raises:
            StoreError: somebody has deleted the study.
        """
        self.flush_results()
        self._last_flush = time.monotonic()
        if self._epochs:
            epochs, self._epochs = self._epochs, []
            if not self._store.record_epochs(epochs):
                self._run.require_study()
        self._tidy()

    # Results

    def ended(self, event: Ended) -> None:
        """Take a result; that of a settled pack waits for the rest of it: half a pack is not the same pack."""
        claim = self._held.get(event.trial)
        if claim is not None and self._run.options.settled:
            self._of_packs.setdefault(claim.pack, []).append(event)
        elif claim is not None:
            self.take([event])

    def pack_ended(self, pack: str) -> None:
        """Take the results that waited for a pack's end, if all of them are there."""
        events = [event for event in self._of_packs.pop(pack, ()) if event.trial in self._held]
        if len(events) == len(self._held.of(pack)):
            self.take(events)

    def pack_lost(self, pack: str) -> None:
        """Drop the results that waited for the end of a pack that will not come to it."""
        self._of_packs.pop(pack, None)

    def take(self, events: Sequence[Ended]) -> None:
        """Take results of trials that are claimed; `flush_in_time` writes them together with others."""
        for event in events:
            trial = self._held.end(event.trial)
            if trial.settings.length is None and isinstance(event, TrialFinished):
                self._run.probes.observe(self._run.cost.key(trial.settings), 1, event.seconds)
            result = event
            if isinstance(event, TrialFinished):
                result = self._run.final_metric.added(trial, event)
            named = result if self._pruning is None else self._pruning.named(trial, result)
            self._results.append((trial, named))

    def flush_results(self) -> None:
        """Write the results that came in, with the epochs that came in before, in one transaction.

        Raises:
            StoreError: somebody has deleted the study.
        """
        if not self._results:
            return
        results, self._results = self._results, []
        epochs, self._epochs = self._epochs, []
        all_taken = self._write_results(results, epochs)
        self._last_results = time.monotonic()
        if not all_taken:
            self._run.require_study()

    def finish(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Write all that came in, and do what is done once, at a run's end.

        Args:
            meanwhile: called while pictures are drawn.
        """
        self.flush()
        undrawn, self._undrawn = self._undrawn, []
        self._draw(undrawn, meanwhile)
        self._store.prune_weights(self._run.study)

    def _write_results(self, ended: Sequence[tuple[Trial, Ended]], epochs: Sequence[Advance]) -> bool:
        """Write results.

        Args:
            ended: trials and how they ended.
            epochs: of any trials, to be written before.

        Returns:
            Whether all were taken: not those of a trial that others have claimed meanwhile, or deleted.
        """
        for trial, event in ended:
            if isinstance(event, TrialFailed):
                self._store.append_log(trial.number, event.traceback.rstrip() + "\n")
        ended, gone = self._without_weights(ended)
        accepted = self._store.finish_many([event for _, event in ended], epochs=epochs)
        for (trial, event), taken in zip(ended, accepted, strict=True):
            self._publisher.finish(event)
            self._progress.leave(trial)
            if taken:
                self._notify(trial, event)
            else:
                self._observer.warn(
                    f"trial {trial.number}: lost its lease to another runner; its result will not count"
                )
        self._needless += gone
        return all(accepted)

    def _tidy(self) -> None:
        """Write in which packs trials train, and remove the weights of those that are not among the best any more."""
        self._last_tidied = time.monotonic()
        self._held.write_moves()
        needless, self._needless = self._needless, []
        self._store.drop_weights(self._run.study, needless)

    def _without_weights(
        self, ended: Sequence[tuple[Trial, Ended]]
    ) -> tuple[list[tuple[Trial, Ended]], list[int]]:
        """Take weights that are not to be kept out of results.

        Returns:
            The results, and the numbers of trials that ended before and keep their weights no longer.
        """
        gone: set[int] = set()
        for trial, event in ended:
            if isinstance(event, TrialFinished):
                complete = event.state is TrialState.COMPLETE
                value = event.metrics.get(self._progress.metric) if complete else None
                weights = any(ref.name == WEIGHTS for ref in event.files)
                if (worst := self._weights.take(value, trial.number, weights=weights)) is not None:
                    gone.add(worst)
        kept: list[tuple[Trial, Ended]] = []
        for trial, event in ended:
            if trial.number in gone and isinstance(event, TrialFinished):
                gone.discard(trial.number)
                files = tuple(ref for ref in event.files if ref.name != WEIGHTS)
                kept.append((trial, dataclasses.replace(event, files=files)))
            else:
                kept.append((trial, event))
        return kept, sorted(gone)

    def _draw(
        self, ended: Sequence[tuple[Trial, TrialFinished]], meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        """Draw those of the best trials and show them; a failure is a warning, never a lost result."""
        metric = self._progress.metric
        best = [  # those that are it no more, `report --trial` draws
            (trial, event)
            for trial, event in ended
            if self._progress.among_best(event.metrics.get(metric), considered=True)
        ]
        with closing(SharedTasks([partial(self._drawn, *each) for each in best])) as tasks:
            meanwhile()
            for (trial, event), drawn in zip(best, tasks.results(), strict=True):
                self._show(trial, event, drawn)

    def _drawn(self, trial: Trial, event: TrialFinished) -> _Drawn | str | None:
        """Draw a trial, perhaps in another process; return its files and images, what went wrong, or nothing."""
        try:
            pictures = self._publisher.draw(trial, event)
        except GridsearchError:
            return None  # the store reports what is wrong with its file
        except Exception as error:  # noqa: BLE001 -- of a drawing, which is worth no result
            return repr(error)
        return dict(pictures.files), dict(pictures.images)

    def _show(self, trial: Trial, event: TrialFinished, drawn: _Drawn | str | None) -> None:
        wrong = drawn if isinstance(drawn, str) else None
        try:
            if isinstance(drawn, tuple):
                pictures = Pictures(*drawn)
                self._store.show(self._run.study, trial.number, pictures.files)
                self._publisher.show(trial, event, pictures)
        except (StudyDeleted, StudyNotFound):
            return  # the store says it
        except GridsearchError as error:
            wrong = error.message
        except Exception as error:  # noqa: BLE001 -- as above
            wrong = repr(error)
        if wrong is not None:
            self._observer.warn(f"trial {trial.number}: its pictures could not be drawn: {wrong}")

    def _notify(self, trial: Trial, event: Ended) -> None:
        state = event.state if isinstance(event, TrialFinished) else TrialState.FAILED
        self._progress.move(TrialState.RUNNING, state)
        if self._pruning is not None:
            self._pruning.ended(trial, state)
        if isinstance(event, TrialFinished) and state is TrialState.COMPLETE:
            value = event.metrics.get(self._progress.metric)
            if self._progress.among_best(value) and any(ref.name == PREDICTIONS for ref in event.files):
                self._undrawn.append((trial, event))
            self._progress.consider(value, trial.params)
        self._observer.trial_ended(self._progress, trial, event)
