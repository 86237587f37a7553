"""Writes down how trials ended, and notifies the observer; stands between the coordinator and the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from gridsearch.errors import GridsearchError
from gridsearch.records import TrialFailed, TrialFinished, TrialState
from gridsearch.service.run.publisher import Pictures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.records import Advance, Trial
    from gridsearch.service.run.progress import Observer, Progress
    from gridsearch.service.run.pruning import Pruning
    from gridsearch.service.run.publisher import TrialPublisher
    from gridsearch.store import Store

Ended: TypeAlias = TrialFinished | TrialFailed


class ResultWriter:
    """Writes results of one study.

    Args:
        store: the open store.
        study: the study's name.
        publisher: draws its trials and keeps their TensorBoard runs.
        progress: is kept up to date.
        observer: is notified of each result.
        pruning: is notified of each result, and names what ended the pruned trials; None where none is pruned.
    """

    def __init__(
        self,
        store: Store,
        *,
        study: str,
        publisher: TrialPublisher,
        progress: Progress,
        observer: Observer,
        pruning: Pruning | None = None,
    ) -> None:
        self._store = store
        self._study = study
        self._publisher = publisher
        self._progress = progress
        self._observer = observer
        self._pruning = pruning

    def write(self, ended: Sequence[tuple[Trial, Ended]], epochs: Sequence[Advance]) -> bool:
        """Write results, those of trials that did not fail in one transaction.

        Args:
            ended: trials and how they ended.
            epochs: of any trials, to be written before.

        Returns:
            Whether all were taken: not those of a trial that others have claimed meanwhile, or deleted.
        """
        if self._pruning is not None:
            ended = [(trial, self._pruning.named(trial, event)) for trial, event in ended]
        finished = [event for _, event in ended if isinstance(event, TrialFinished)]
        pictures = {trial.id: self._draw(trial, event) for trial, event in ended}
        shown = {trial: drawn.files for trial, drawn in pictures.items() if drawn.files}
        accepted = iter(self._store.finish_many(finished, epochs=epochs, shown=shown))
        all_taken = True
        for trial, event in ended:
            if isinstance(event, TrialFailed):
                self._store.home.append_log(self._study, trial.number, event.traceback.rstrip() + "\n")
                taken = self._store.fail(event)
            else:
                taken = next(accepted)
            self._publisher.finish(event, pictures[trial.id])
            self._progress.leave(trial)
            if taken:
                self._notify(trial, event)
            else:
                all_taken = False
                self._observer.warn(
                    f"trial {trial.number}: lost its lease to another runner; the result is not ours"
                )
        if any(event.state is TrialState.COMPLETE for event in finished):
            self._store.prune_weights(self._study)
        return all_taken

    def _draw(self, trial: Trial, event: Ended) -> Pictures:
        """Draw a trial's pictures; a failure is a warning, never a lost result."""
        if not isinstance(event, TrialFinished):
            return Pictures()
        try:
            return self._publisher.draw(trial, event)
        except GridsearchError:
            return Pictures()  # the store reports what is wrong with its file
        except Exception as error:  # noqa: BLE001 -- of a drawing, which is worth no result
            self._observer.warn(f"trial {trial.number}: its pictures could not be drawn: {error!r}")
            return Pictures()

    def _notify(self, trial: Trial, event: Ended) -> None:
        state = event.state if isinstance(event, TrialFinished) else TrialState.FAILED
        self._progress.move(TrialState.RUNNING, state)
        if self._pruning is not None:
            self._pruning.ended(trial, state)
        if isinstance(event, TrialFinished) and state is TrialState.COMPLETE:
            self._progress.consider(event.metrics.get(self._progress.metric), trial.params)
        self._observer.trial_ended(self._progress, trial, event)
