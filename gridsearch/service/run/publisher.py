"""What Optuna's dashboard and TensorBoard show of a trial: runs written epoch by epoch, pictures of the best."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gridsearch import reporting
from gridsearch.errors import unwritable
from gridsearch.files import PER_CLASS, PREDICTIONS
from gridsearch.records import TrialFinished, TrialState
from gridsearch.service.queries.reports import as_predictions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gridsearch.plugins import ImageData
    from gridsearch.records import Advance, DataFacts, Trial, TrialFailed
    from gridsearch.store import Home


@dataclass(frozen=True, slots=True)
class Pictures:
    """What was drawn of a trial that ended.

    Attributes:
        files: for Optuna's dashboard, by file name.
        images: for TensorBoard, PNGs by tag.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    images: Mapping[str, bytes] = field(default_factory=dict)


class TrialPublisher:
    """The runs and pictures of one study.

    Args:
        home: the files.
        study: the study's name.
        facts: what is known of its trials' images, by fingerprint.
        images: datasets that are at hand, by their fingerprint.
    """

    def __init__(
        self,
        home: Home,
        study: str,
        *,
        facts: Mapping[str, DataFacts] | None = None,
        images: Mapping[str, ImageData] | None = None,
    ) -> None:
        self._home = home
        self._study = study
        self._facts = facts or {}
        self._images = images or {}
        self._runs: dict[int, reporting.TensorBoardRun] = {}
        self._waiting: list[tuple[reporting.TensorBoardRun, Callable[[], None]]] = []

    def start(self, trial: Trial) -> None:
        """Begin a trial's run anew; an earlier attempt's events go."""
        run = reporting.TensorBoardRun(self._home.tensorboard_dir(self._study, trial.number))
        run.start({**trial.params, **trial.settings.replicate(trial.seed)})
        self._runs[trial.id] = run

    def epoch(self, event: Advance) -> None:
        """Add an epoch or a step."""
        if run := self._runs.get(event.trial):
            self._publish(run, lambda: run.epoch(event))

    def draw(self, trial: Trial, event: TrialFinished) -> Pictures:
        """Draw what a trial's predictions show; nothing where it left none.

        Args:
            trial: as it was claimed.
            event: its result, which is written.

        Raises:
            ArtifactError: the file is missing or altered.
        """
        ref = next((ref for ref in event.files if ref.name == PREDICTIONS), None)
        if ref is None:
            return Pictures()
        place = self._home.trial_file(self._study, trial.number, ref.name)
        found = as_predictions(self._home.read_verified(place, ref.sha256))
        facts = self._facts.get(trial.settings.data_fingerprint)
        names = facts.class_names if facts is not None else ()
        confusion = reporting.quick_confusion_png(found, class_names=names, title=f"Trial {trial.number}")
        images = {"confusion": confusion}
        data = self._images.get(trial.settings.data_fingerprint)
        if data is not None:
            samples = reporting.quick_samples_png(found, data.train_images, class_names=names)
            images |= {"samples": samples} if samples is not None else {}
        files = {"confusion.png": confusion, PER_CLASS: reporting.per_class_csv(found, names)}
        return Pictures(files, images)

    def finish(self, event: TrialFinished | TrialFailed) -> None:
        """End a trial's run."""
        run = self._runs.pop(event.trial, None)
        if run is None:
            return
        if isinstance(event, TrialFinished):
            self._publish(run, lambda: run.finish(event.metrics, epochs=event.epochs, state=event.state))
        else:
            self._publish(run, lambda: run.finish({}, state=TrialState.FAILED))

    def show(self, trial: Trial, event: TrialFinished, pictures: Pictures) -> None:
        """Add pictures to the run of a trial that has ended."""
        run = reporting.TensorBoardRun(self._home.tensorboard_dir(self._study, trial.number))
        self._publish(run, lambda: run.pictures(pictures.images, epochs=event.epochs))

    def _publish(self, run: reporting.TensorBoardRun, write: Callable[[], None]) -> None:
        """Write to a run, after what has waited for home; while that is away it waits.

        Raises:
            StoreError: it cannot be written.
        """
        self._waiting.append((run, write))
        while self._waiting and not self._home.is_away:
            run, write = self._waiting[0]
            try:
                write()
            except OSError as error:
                if not self._home.is_away:
                    raise unwritable(run.folder, error) from error
            else:
                del self._waiting[0]
