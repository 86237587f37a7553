"""A lane's progress through its epochs, whichever engine trains it: which epoch counts, and what is left at the end.

Engines train and evaluate; what they found of an epoch goes through here and becomes the lane's events.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from gridsearch.records import EpochEnded, TrialFinished, TrialState
from gridsearch.records.image_metrics import ACCURACY, LOSS
from gridsearch.training import outputs
from gridsearch.training.metrics import (
    CLASS_SCORES,
    Diverged,
    EpochTotals,
    Evaluation,
    class_scores,
    confusion,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gridsearch.records import FileRef, ImageSettings, Lane
    from gridsearch.training.beside_weights import Beside
    from gridsearch.training.resident_data import ResidentData


@dataclass(slots=True, eq=False, kw_only=True)
class LaneState:
    """All that a lane is at an epoch's end: loaded into any engine's program it goes on as if it had stayed.

    The streams have no state of their own: they follow from the trial's seed, the epoch and the step.

    Attributes:
        epoch: epochs trained.
        step: optimizer steps taken.
        weights: parameters and buffers by their names in the model, a tied one under one name alone.
        optimizer_state: what the optimizer keeps of each parameter: by kind ("mean"), then by parameter.
        averages: the moving average of the weights by their names, begun at zero and not yet divided (see
            `averages`); empty without `ema`.
        selected: number, totals and evaluation of the epoch that counts, None before the first.
        best_score: how good that epoch is, under `select best`.
        best_weights: that epoch's state_dict, under `select best`.
        rows: what was reported of each epoch.
        seconds: the lane's share of the wall time so far.
        members: the keys of all trials that began in one program with it; none where it trains alone from its start.
        turn: epochs of that program.
        alone: whether it trains alone by now.
        resumable: whether there is nothing else to the lane: a user's module may keep more than tensors.
    """

    epoch: int = 0
    step: int = 0
    weights: Mapping[str, torch.Tensor] = field(default_factory=dict)
    optimizer_state: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    averages: Mapping[str, torch.Tensor] = field(default_factory=dict)
    selected: tuple[int, EpochTotals, Evaluation | None] | None = None
    best_score: tuple[float, float] | None = None
    best_weights: Mapping[str, object] | None = None
    rows: tuple[EpochEnded, ...] = ()
    seconds: float = 0.0
    members: tuple[str, ...] = ()
    turn: int = 0
    alone: bool = False
    resumable: bool = True


class LaneView(Protocol):
    """Where a lane's weights are: those that are evaluated, which with `ema` are their moving average."""

    @property
    def step(self) -> int:
        """Optimizer steps taken."""
        ...

    @property
    def parameter_count(self) -> int:
        """Trainable parameters; a tied one counts once."""
        ...

    def state_dict(self) -> Mapping[str, object]:
        """Return the lane's model's state_dict as it is evaluated; its tensors may change with the next step."""
        ...

    def parameters(self) -> list[torch.Tensor]:
        """Return the lane's parameters, likewise."""
        ...

    def beside(self) -> Beside:
        """Return what the lane has beside its state_dict, likewise."""
        ...


class LaneProgress:
    """What is known of a lane so far.

    Args:
        lane: the trial and its scratch folder.
        data: what it trains on.
        state: where to go on from.
        metric: which metric ranks the study.

    Attributes:
        epochs: epochs trained.
        seconds: the lane's share of the wall time so far.
        rows: what was reported of each epoch.
        members, turn, alone: see `LaneState`; kept by whoever trains the lane.
    """

    def __init__(
        self,
        lane: Lane[ImageSettings],
        data: ResidentData,
        state: LaneState | None = None,
        *,
        metric: str = ACCURACY,
    ) -> None:
        state = LaneState() if state is None else state
        settings = lane.trial.settings
        self._scored = metric in CLASS_SCORES or settings.select_metric in CLASS_SCORES
        self.lane = lane
        self.epochs = state.epoch
        self.seconds = state.seconds
        self._data = data
        self._best_score = state.best_score
        self._selected = state.selected
        self._best_weights = state.best_weights
        self.rows = list(state.rows)
        self._best: tuple[tuple[float, float], int] | None = None
        for row in self.rows:
            self._compare(row)
        self.members, self.turn, self.alone = state.members, state.turn, state.alone

    def done(self) -> bool:
        """Whether it trains no more: all its epochs, or as many as its patience lasts without a better one."""
        settings = self.lane.trial.settings
        return self.epochs >= settings.epochs or (
            settings.patience is not None
            and self._best is not None
            and self.epochs - self._best[1] >= settings.patience
        )

    def save(self, state: LaneState) -> None:
        """Put what is known here into a state; nothing of it changes later."""
        state.rows = tuple(self.rows)
        state.members, state.turn, state.alone = self.members, self.turn, self.alone
        state.epoch, state.seconds = self.epochs, self.seconds
        state.selected, state.best_score, state.best_weights = (
            self._selected,
            self._best_score,
            self._best_weights,
        )

    def epoch_ended(
        self,
        view: LaneView,
        totals: EpochTotals,
        found: Evaluation | None,
        *,
        lr: float,
        seconds: float,
        training_seconds: float,
    ) -> EpochEnded:
        """Take in an epoch.

        Args:
            view: has the weights after it.
            totals: of its training.
            found: of its evaluation.
            lr: of its last step.
            seconds: of wall time, the lane's share.
            training_seconds: from its first step to its last.

        Raises:
            Diverged: the validation loss is not finite.
        """
        epoch, trial = self.epochs + 1, self.lane.trial
        if found is not None and not math.isfinite(found.loss):
            raise Diverged("validation loss", step=view.step, epoch=epoch, value=found.loss)
        scores = self._scores(found) if self._scored and found is not None else {}
        self.epochs = epoch
        self.seconds += seconds
        row = EpochEnded(
            trial=trial.id,
            attempt=trial.attempt,
            epoch=epoch,
            train_loss=totals.loss,
            train_accuracy=totals.accuracy,
            val_loss=None if found is None else found.loss,
            val_accuracy=None if found is None else found.accuracy,
            lr=lr,
            seconds=seconds,
            images_per_second=totals.images / max(training_seconds, 1e-9),
            scores=scores,
        )
        self._consider(row, view, totals, found)
        self.rows.append(row)
        self._compare(row)
        return row

    def complete(self, view: LaneView) -> TrialFinished:
        """Write the lane's files and return its result.

        Raises:
            Diverged: the last step made weights that are not finite, without any loss showing it.
            StoreError: a file cannot be written.
        """
        for parameter in view.parameters():
            if not bool(parameter.isfinite().all()):
                raise Diverged("weights", step=view.step, epoch=self.epochs, value=math.nan)
        metrics = self._metrics(view)
        return self._finished(TrialState.COMPLETE, metrics=metrics, files=self._write(view))

    def diverged(self, end: Diverged) -> TrialFinished:
        """Return the result of a lane that broke."""
        return self._finished(TrialState.DIVERGED, message=str(end))

    def pruned(self, view: LaneView) -> TrialFinished:
        """Return the result of a lane that is to end early; it has metrics and leaves no files."""
        metrics = {} if self._selected is None else self._metrics(view)
        return self._finished(TrialState.PRUNED, metrics=metrics, message=f"pruned after epoch {self.epochs}")

    def _finished(
        self,
        state: TrialState,
        *,
        metrics: Mapping[str, float] | None = None,
        files: tuple[FileRef, ...] = (),
        message: str | None = None,
    ) -> TrialFinished:
        trial = self.lane.trial
        return TrialFinished(
            trial=trial.id,
            attempt=trial.attempt,
            state=state,
            epochs=self.epochs,
            seconds=self.seconds,
            metrics=metrics or {},
            files=files,
            message=message,
        )

    def _metrics(self, view: LaneView) -> dict[str, float]:
        """Return the metrics of the epoch that counts."""
        assert self._selected is not None
        epoch, totals, found = self._selected
        metrics: dict[str, float] = {
            "train_accuracy": totals.accuracy,
            "train_loss": totals.loss,
            "parameters": view.parameter_count,
        }
        if found is not None:
            metrics |= {"val_accuracy": found.accuracy, "val_loss": found.loss, **self._scores(found)}
        if self.lane.trial.settings.select == "best":
            metrics["selected_epoch"] = epoch
        return metrics

    def _write(self, view: LaneView) -> tuple[FileRef, ...]:
        """Write the predictions (if there is a validation split) and the weights of the epoch that counts."""
        assert self._selected is not None
        folder = Path(self.lane.scratch)
        files = []
        found = self._selected[2]
        if found is not None:
            files.append(
                outputs.write_predictions(
                    folder, found=found, labels_N=self._val_labels(), indices_N=self._data.val
                )
            )
        state = view.state_dict() if self._best_weights is None else self._best_weights
        files.append(outputs.write_weights(folder, state))
        if found is None:  # all images are trained on, as those of the winner, which is exported
            view.beside().write(folder)
        return tuple(files)

    def _scores(self, found: Evaluation) -> dict[str, float]:
        """Return the metrics in which all classes count alike, from the counts that the device makes."""
        labels_N = self._val_labels()
        guesses_N = found.logits.argmax(1).to(labels_N.device)
        return class_scores(confusion(guesses_N, labels_N, self._data.num_classes))

    def _val_labels(self) -> torch.Tensor:
        return self._data.labels.index_select(0, self._data.val)

    def _compare(self, row: EpochEnded) -> None:
        """Take note of an epoch that is better than those before it."""
        score = self._score(row)
        if self._best is None or score > self._best[0]:
            self._best = score, row.epoch

    def _consider(
        self, row: EpochEnded, view: LaneView, totals: EpochTotals, found: Evaluation | None
    ) -> None:
        """Let an epoch count: always under `select last`, else if it is better than those before."""
        if self.lane.trial.settings.select == "best":
            score = self._score(row)
            if self._best_score is not None and score <= self._best_score:
                return
            self._best_score = score
            state = view.state_dict()
            self._best_weights = {
                k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in state.items()
            }
        self._selected = (row.epoch, totals, found)

    def _score(self, row: EpochEnded) -> tuple[float, float]:
        """Return how good an epoch is, by the metric that compares epochs; of equals the smaller loss is better.

        Where none is held out, by the train accuracy.
        """
        if row.val_accuracy is None or row.val_loss is None:
            return row.train_accuracy, -row.train_loss
        by = self.lane.trial.settings.select_metric
        if by == LOSS:
            return -row.val_loss, row.val_accuracy
        return row.scores.get(by, row.val_accuracy), -row.val_loss
