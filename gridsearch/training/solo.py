"""The plain engine: one lane after the other, each an ordinary module with an ordinary optimizer.

It is always correct, and what every other engine is measured against.

Shapes: B batch, C/H/W channels, height, width, Y classes, N images of an epoch or of the validation split.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.records import EpochEnded, TrialFinished, TrialState
from gridsearch.training import augment, outputs, seeds
from gridsearch.training.batches import batch_plan
from gridsearch.training.engine import Stopped
from gridsearch.training.failures import failure
from gridsearch.training.metrics import Diverged, EpochTally, EpochTotals, Evaluation, class_scores, confusion
from gridsearch.training.network import build_network, check_logits, count_parameters, has_batch_norm, lay_out
from gridsearch.training.optimizers import LaneOptimizer
from gridsearch.training.precision import Precision
from gridsearch.training.schedules import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from gridsearch.records import Event, FileRef, Lane, Pack, Settings
    from gridsearch.training.data import ResidentData
    from gridsearch.training.engine import Bench

_EVALUATION_BYTES = {"cpu": 4 << 20, "cuda": 256 << 20, "mps": 64 << 20}  # of float32 images at a time
_EVALUATION_BATCH = 8192


class SoloEngine:
    """Trains the lanes of a pack one after the other."""

    name = "solo"

    def accepts(self, pack: Pack) -> bool:  # noqa: ARG002  (part of the seam)
        """Take any pack."""
        return True

    def train(self, pack: Pack, bench: Bench) -> Iterator[Event]:
        """Train a pack's lanes and yield their events."""
        for lane in pack.lanes:
            try:
                bench.check_stop()
                yield from _train_lane(lane, bench)
            except Stopped:
                return


def _train_lane(lane: Lane, bench: Bench) -> Iterator[Event]:
    """Train one lane to its end; an error of the user's model or data ends this lane alone."""
    course = None
    started = time.perf_counter()
    try:
        settings = lane.trial.settings
        data = bench.data(settings)
        started = time.perf_counter()  # reading the data is the worker's cost, not the trial's
        precision = Precision.of(settings.dtype, bench.device)
        with precision.products():
            program = SoloProgram(settings, lane.trial.seed, data, bench.build, precision)
            course = Course(lane, program)
            for epoch in range(1, settings.epochs + 1):
                yield course.epoch(epoch, bench.check_stop)
            course.check_weights()
            metrics = course.metrics()
    except Stopped:
        raise
    except Diverged as end:
        yield TrialFinished(
            trial=lane.trial.id,
            attempt=lane.trial.attempt,
            state=TrialState.DIVERGED,
            epochs=0 if course is None else course.epochs,
            seconds=time.perf_counter() - started,
            metrics={},
            message=str(end),
        )
        return
    except (Exception, SystemExit) as error:  # noqa: BLE001  (a user's model may raise anything)
        yield failure(lane, error)
        return
    files = course.write(Path(lane.scratch))  # a full disk is no fault of this trial: it goes to the worker
    yield TrialFinished(
        trial=lane.trial.id,
        attempt=lane.trial.attempt,
        state=TrialState.COMPLETE,
        epochs=course.epochs,
        seconds=time.perf_counter() - started,
        metrics=metrics,
        files=files,
    )


class SoloProgram:
    """One lane as a program: a model, its optimizer, its place in the schedule and its streams.

    Args:
        settings: the trial's recipe.
        seed: the trial's seed.
        data: what it trains on.
        build: gives the model.
        precision: how it computes.

    Raises:
        ModelRefused: the model cannot be trained.
        Exception: whatever the user's code raises.
    """

    def __init__(
        self,
        settings: Settings,
        seed: int,
        data: ResidentData,
        build: Callable[[Settings, ResidentData], nn.Module],
        precision: Precision,
    ) -> None:
        self.settings = settings
        self.data = data
        self.step = 0
        self._seed = seed
        self._precision = precision
        self.model = build_network(settings, seed, data, build, precision)
        memory_format = lay_out(self.model, settings, data, precision)
        self._make = data.batches(norm=settings.norm, dtype=precision.weights, memory_format=memory_format)
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]
        self._optimizer = LaneOptimizer(settings, self._parameters)
        self.plan = batch_plan(
            len(data.train),
            settings.batch,
            drop_last=settings.drop_last,
            drop_single=has_batch_norm(self.model),
        )
        self._schedule = Schedule.of(
            settings.schedule, epochs=settings.epochs, steps_per_epoch=self.plan.steps, warmup=settings.warmup
        )
        self._set_lr(0)

    @property
    def lr(self) -> float:
        """The learning rate of the last step."""
        return self._optimizer.lr

    def train_epoch(self, epoch: int, check_stop: Callable[[], None] = lambda: None) -> EpochTotals:
        """Train for one epoch.

        Args:
            epoch: counted from 1; decides order and augmentation.
            check_stop: called before each step; raises to leave.

        Raises:
            Diverged: a loss is not finite.
            Exception: whatever the user's code raises.
        """
        order = self._order(epoch)
        labels_N = self.data.labels.index_select(0, order)
        drawn = augment.draw(
            self.settings.augment,
            seed=self._seed,
            epoch=epoch,
            count=len(order),
            image_size=self.data.image_size,
            device=self.data.device,
        )
        tally = EpochTally(labels_N, epoch=epoch, first_step=self.step)
        seeds.reseed_others(seeds.stream(self._seed, seeds.EPOCH, epoch))
        self.model.train()
        batch = self.plan.batch
        pairs = zip(torch.split(order, batch), torch.split(labels_N, batch), strict=True)
        for i, (chosen_B, labels_B) in enumerate(pairs):
            check_stop()
            raw_BHWC = self._make.raw(chosen_B)
            if drawn is not None:
                raw_BHWC = drawn.apply(raw_BHWC, i * batch)
            self._train_step(self._make.finish(raw_BHWC), labels_B, tally, check=i == 0)
        return tally.totals()

    def evaluate(self, epoch: int, check_stop: Callable[[], None] = lambda: None) -> Evaluation | None:
        """Score the validation images in evaluation mode; None if there are none.

        Args:
            epoch: counted from 1; for models that draw random numbers in evaluation mode.
            check_stop: called before each batch; raises to leave.
        """
        data = self.data
        if len(data.val) == 0:
            return None
        seeds.reseed(data.device, seeds.stream(self._seed, seeds.EVALUATION, epoch))
        self.model.eval()
        parts = []
        with torch.no_grad():
            for chosen_B in torch.split(data.val, self.evaluation_batch):
                check_stop()
                with self._precision.forward():
                    logits_BY = self.model(self._make(chosen_B))
                parts.append(logits_BY.to(self._precision.weights))
        return Evaluation.of(torch.cat(parts), data.labels.index_select(0, data.val))

    @property
    def evaluation_batch(self) -> int:
        """Images at a time in evaluation: what fits into a CPU's cache, many on a GPU."""
        height, width = self.data.image_size
        room = _EVALUATION_BYTES.get(self.data.device.type, 4 << 20)
        return min(_EVALUATION_BATCH, max(1, room // (4 * self.data.channels * height * width)))

    def _train_step(
        self, x_BCHW: torch.Tensor, labels_B: torch.Tensor, tally: EpochTally, *, check: bool
    ) -> None:
        seeds.reseed(self.data.device, seeds.stream(self._seed, seeds.STEP, self.step))
        with self._precision.forward():
            logits_BY = self.model(x_BCHW)
        if check:
            check_logits(logits_BY, len(x_BCHW), self.data.num_classes)
        logits_BY = logits_BY.to(self._precision.weights)
        loss = F.cross_entropy(logits_BY, labels_B, label_smoothing=self.settings.label_smoothing)
        tally.add(loss, logits_BY)
        for parameter in self._parameters:
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        if self._schedule.moves:
            self._set_lr(self.step)
        self._optimizer.step()
        self.step += 1

    def _set_lr(self, step: int) -> None:
        self._optimizer.lr = self.settings.lr * self._schedule.factor(step)

    def _order(self, epoch: int) -> torch.Tensor:
        """The indices of an epoch's images in their order, drawn on the CPU whatever the device."""
        train = self.data.train
        drawn = torch.randperm(len(train), generator=seeds.generator(self._seed, seeds.ORDER, epoch))
        return train.index_select(0, drawn[: self.plan.images].to(train.device))


class Course:
    """A lane's way through its epochs: which epoch counts, and what is left of it at the end."""

    def __init__(self, lane: Lane, program: SoloProgram) -> None:
        self.epochs = 0
        self._lane = lane
        self._program = program
        self._best: tuple[float, float] | None = None
        self._counts: tuple[int, EpochTotals, Evaluation | None] | None = None
        self._kept: dict[str, object] | None = None

    def epoch(self, epoch: int, check_stop: Callable[[], None]) -> EpochEnded:
        """Train and evaluate one epoch.

        Raises:
            Diverged: a loss is not finite.
            Exception: whatever the user's code raises.
        """
        program, trial = self._program, self._lane.trial
        started = time.perf_counter()
        totals = program.train_epoch(epoch, check_stop)
        trained = time.perf_counter()
        found = program.evaluate(epoch, check_stop)
        if found is not None and not math.isfinite(found.loss):
            raise Diverged("validation loss", step=program.step, epoch=epoch, value=found.loss)
        self._consider(epoch, totals, found)
        self.epochs = epoch
        ended = time.perf_counter()
        return EpochEnded(
            trial=trial.id,
            attempt=trial.attempt,
            epoch=epoch,
            train_loss=totals.loss,
            train_accuracy=totals.accuracy,
            val_loss=None if found is None else found.loss,
            val_accuracy=None if found is None else found.accuracy,
            lr=program.lr,
            seconds=ended - started,
            images_per_second=totals.images / max(trained - started, 1e-9),
        )

    def check_weights(self) -> None:
        """Refuse weights that are not finite, which the last step may have made without any loss showing it.

        Raises:
            Diverged: one is not.
        """
        for parameter in self._program.model.parameters():
            if not bool(parameter.isfinite().all()):
                raise Diverged("weights", step=self._program.step, epoch=self.epochs, value=math.nan)

    def metrics(self) -> dict[str, float]:
        """Return the metrics of the epoch that counts."""
        assert self._counts is not None
        epoch, totals, found = self._counts
        program = self._program
        metrics: dict[str, float] = {
            "train_accuracy": totals.accuracy,
            "train_loss": totals.loss,
            "parameters": count_parameters(program.model),
        }
        if found is not None:
            labels_N = program.data.labels.index_select(0, program.data.val)
            counts_YY = confusion(found.logits.argmax(1), labels_N, program.data.num_classes)
            metrics |= {"val_accuracy": found.accuracy, "val_loss": found.loss, **class_scores(counts_YY)}
        if program.settings.select == "best":
            metrics["selected_epoch"] = epoch
        return metrics

    def write(self, folder: Path) -> tuple[FileRef, ...]:
        """Write the predictions (if there is a validation split) and the weights of the epoch that counts."""
        assert self._counts is not None
        program = self._program
        files = []
        found = self._counts[2]
        if found is not None:
            labels_N = program.data.labels.index_select(0, program.data.val)
            files.append(
                outputs.write_predictions(
                    folder, logits_NY=found.logits, labels_N=labels_N, indices_N=program.data.val
                )
            )
        state = program.model.state_dict() if self._kept is None else self._kept
        files.append(outputs.write_weights(folder, state))
        return tuple(files)

    def _consider(self, epoch: int, totals: EpochTotals, found: Evaluation | None) -> None:
        """Let an epoch count: always under `select last`, else if it is better than those before."""
        if self._program.settings.select == "best":
            worth = (totals.accuracy, -totals.loss) if found is None else (found.accuracy, -found.loss)
            if self._best is not None and worth <= self._best:
                return
            self._best = worth
            state = self._program.model.state_dict()
            self._kept = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in state.items()}
        self._counts = (epoch, totals, found)
