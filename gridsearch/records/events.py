"""What a worker reports to the coordinator, in the order in which it happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from gridsearch.records.trials import TrialState

Metrics: TypeAlias = Mapping[str, int | float]
"""Metrics by name.  A count stays a whole number on its way from a worker: it is stored and shown as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReady:
    """A worker has started and waits for a pack."""

    worker: str
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PackStarted:
    """A worker has begun with a pack."""

    worker: str
    pack: str
    trials: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LanesTraining:
    """From now on these trials of a pack train, and no others of it: lanes may train one after the other."""

    pack: str
    trials: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StillTraining:
    """A sign of life: a pack takes its steps, though no epoch has ended for some seconds."""

    pack: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochEnded:
    """One epoch of one trial: means over the epoch; accuracies are fractions.

    Attributes:
        trial: ledger id.
        epoch: counted from 1.
        train_loss: running mean over the epoch (nats), likewise train_accuracy.
        val_loss: after the epoch; None without a validation split, likewise val_accuracy.
        lr: learning rate of the epoch's last step.
        seconds: wall time of the epoch, evaluation included, as this lane's share of its pack.
        images_per_second: training images per second of this lane.
        scores: other metrics of the validation images, where one of them ranks the study.
    """

    trial: int
    attempt: int
    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    lr: float
    seconds: float
    images_per_second: float
    scores: Mapping[str, float] = field(default_factory=dict)

    def value(self, metric: str) -> float | None:
        """Return one of its metrics by name, None where it has none of that name."""
        found: float | None = self.scores.get(metric, getattr(self, metric, None))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEnded:
    """One step of a trial of a plain function: what the generator has yielded.

    Attributes:
        trial: ledger id.
        step: counted from 1.
        metrics: by name, in the function's order.
        seconds: wall time of the step.
    """

    trial: int
    attempt: int
    step: int
    metrics: Metrics
    seconds: float

    @property
    def epoch(self) -> int:
        """The step, for all who count epochs and steps alike."""
        return self.step

    def value(self, metric: str) -> float | None:
        """Return one of its metrics by name, None where it has none of that name."""
        return self.metrics.get(metric)


Advance: TypeAlias = EpochEnded | StepEnded
"""A trial has come a little further."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResumed:
    """A trial that was tried before goes on from its last checkpoint, or begins again where there is none.

    Attributes:
        trial: ledger id.
        epoch: epochs, or steps, that are neither trained nor counted again.
        epochs: what was reported of each of them, of a function `steps`.
        damaged: newer checkpoints that were damaged.
    """

    trial: int
    attempt: int
    epoch: int
    epochs: tuple[EpochEnded, ...] = ()
    steps: tuple[StepEnded, ...] = ()
    damaged: int = 0

    @property
    def rows(self) -> tuple[Advance, ...]:
        """What was reported of each epoch or step, for all who count them alike."""
        return self.epochs or self.steps


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRef:
    """A file that a worker left in a lane's scratch folder."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFinished:
    """A trial has a result: COMPLETE, PRUNED, or DIVERGED (`message` says at which step and with which loss).

    Attributes:
        metrics: val_accuracy, val_loss (absent without a validation split), train_accuracy, train_loss of the
            epoch that counts, and more where there is more (balanced_accuracy, parameters, ...); of a function,
            what it returned or yielded last.
        epochs: epochs trained, or steps.
        seconds: wall time of the trial, as its share of its pack.
        pruner: what decided that a PRUNED trial ends; the coordinator names it.
    """

    trial: int
    attempt: int
    state: TrialState
    epochs: int
    seconds: float
    metrics: Metrics
    files: tuple[FileRef, ...] = ()
    message: str | None = None
    pruner: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFailed:
    """A trial could not be trained.

    Attributes:
        reason: "error" (the model or the data raised), "oom" (memory).
        message: one line.
        traceback: all its lines, for the trial's log.
    """

    trial: int
    attempt: int
    reason: str
    message: str
    traceback: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogText:
    """What the user's code or a library printed while these trials trained."""

    trials: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PackEnded:
    """A worker is done with a pack and waits for another."""

    worker: str
    pack: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LanesWanted:
    """A pack has free lanes and waits for `LanesGiven`.

    Attributes:
        count: how many, at most.
    """

    worker: str
    pack: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What a `ProbeRequest` found; the worker waits for work again.

    Attributes:
        seconds_per_image: by number of lanes, of one lane; empty where the model could not be trained.
        memory_mb: of a pack beyond torch's own and the data's, by number of lanes.
        worker_mb: of the worker without a pack and the images; None where it is not known.
        seconds: how long all of it took.
    """

    worker: str
    key: str
    seconds_per_image: Mapping[int, float]
    memory_mb: Mapping[int, float] = field(default_factory=dict)
    worker_mb: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What became of an `ExportRequest`; the worker waits for work again.

    Attributes:
        files: what lies in the folder now: model.safetensors, test.safetensors (logits float32 [K, N, Y] and
            labels int64 [N] of the test images), model.onnx where the network could be exported.
        facts: what the exported model takes and how it was checked, see `training.export.export`.
        error: one line where there is nothing to export, with all its lines in `traceback`.
    """

    worker: str
    id: str
    files: tuple[FileRef, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    traceback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwritable:
    """A worker cannot write the files of a pack or an export, through no fault of a trial.

    Attributes:
        message: which, in one line, and why.
        hint: how to fix it.
    """

    worker: str
    message: str
    hint: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDied:
    """A worker process ended without being asked to.

    Attributes:
        pack: what it was working on, if anything.
        message: how it ended.
        memory: the kernel ended it for lack of memory, as far as is known.
        place_gone: its place ended with it: a node that was lost, an allocation that was taken away.
    """

    worker: str
    pack: str | None
    message: str
    memory: bool = False
    place_gone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLeft:
    """A worker has left its place, which was taken away and said so before: what it trained goes on elsewhere.

    Attributes:
        pack: what it was working on, at an epoch's end where it had the time to come to it.
        message: why it left.
    """

    worker: str
    pack: str | None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSays:
    """What workers wait for, or that some of a cluster's do not come back; several may say the same."""

    message: str
    warning: bool = False


Event: TypeAlias = (
    WorkerReady
    | PackStarted
    | LanesTraining
    | StillTraining
    | EpochEnded
    | StepEnded
    | TrialResumed
    | TrialFinished
    | TrialFailed
    | LogText
    | LanesWanted
    | PackEnded
    | Probed
    | Exported
    | Unwritable
    | WorkerDied
    | WorkerLeft
    | EngineSays
)
