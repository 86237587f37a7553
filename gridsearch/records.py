"""What travels between the stages: frozen values, JSON-able all of them.

Settings and Trial go from the spec through the store to the worker, events come back, and TrialRecord and
StudyData go from the store to reporting.  Nothing here imports anything heavy.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self, TypeAlias

Value: TypeAlias = bool | int | float | str | None
"""What an axis may hold."""

MODEL_PREFIX = "model."
DATA_PREFIX = "data."


class TrialState(StrEnum):
    """Where a trial stands.  COMPLETE and DIVERGED are results; FAILED is offered again on the next run."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETE = "complete"
    DIVERGED = "diverged"
    PRUNED = "pruned"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether nobody will work on the trial any more in this run."""
        return self not in (TrialState.WAITING, TrialState.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything besides the seed that decides a trial's result: the point, typed and complete.

    Attributes:
        dataset: display name ("fmnist", "folder:flowers", "my_data.py:Digits"); not part of the key,
            `data_fingerprint` stands for it.
        data_options: the `data.*` options, complete with their defaults.
        data_fingerprint: SHA-256 over the images and labels (or over their pinned checksums).
        val: fraction of the training images held out for validation; 0 trains on all.
        split_seed: fixes the test, validation and subset splits.
        subset: train on that many images of the training split, stratified; None for all.
        model: display name ("lenet", "my_net.py:Net").
        model_options: the `model.*` options, complete with their defaults.
        model_source: SHA-256 of the source file of a user's own model and of files that its options name; None
            for an installed model without such files.
        dropout: rate for every dropout layer; None leaves them as the model has them.
        warmup: epochs (may be fractional) of linear warm-up.
        select: "last" or "best", the epoch that counts.
        objective: display name of a plain function ("fit.py:loss"); then the function, its source and `params`
            are all that there is, and everything above keeps its default.  None for training on images.
        objective_source: SHA-256 of the function's source file.
        params: what the function is called with; an axis, or set for all points.
    """

    dataset: str = ""
    data_options: Mapping[str, Value] = field(default_factory=dict)
    data_fingerprint: str = ""
    val: float = 1 / 6
    split_seed: int = 0
    subset: int | None = None
    model: str = "lenet"
    model_options: Mapping[str, Value] = field(default_factory=dict)
    model_source: str | None = None
    epochs: int = 10
    batch: int = 64
    lr: float = 0.001
    norm: str = "standard"
    optimizer: str = "adam"
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup: float = 0.0
    augment: str = "none"
    label_smoothing: float = 0.0
    dropout: float | None = None
    drop_last: bool = False
    select: str = "last"
    dtype: str = "float32"
    objective: str | None = None
    objective_source: str | None = None
    params: Mapping[str, Value] = field(default_factory=dict)

    @property
    def length(self) -> int | None:
        """The epochs that a trial trains; None for a function, whose steps nobody knows beforehand."""
        return self.epochs if self.objective is None else None

    def get(self, axis: str, default: Value = None) -> Value:
        """Return the value of an axis, of a recipe key, or of an option ("model.width")."""
        if self.objective is not None and axis not in _FUNCTION_FIELDS[:2]:
            return self.params.get(axis, default)
        if axis.startswith(MODEL_PREFIX):
            return self.model_options.get(axis.removeprefix(MODEL_PREFIX), default)
        if axis.startswith(DATA_PREFIX):
            return self.data_options.get(axis.removeprefix(DATA_PREFIX), default)
        value: Value = getattr(self, axis, default)
        return value

    def flat(self) -> dict[str, Value]:
        """Return all settings as one flat mapping: options as "model.NAME" and "data.NAME", params by their names."""
        if self.objective is not None:
            return {
                "objective": self.objective,
                "objective_source": self.objective_source,
                **self.params,
            }
        values: dict[str, Value] = {}
        for f in _IMAGE_FIELDS:
            value = getattr(self, f)
            if f == "model_options":
                values |= {MODEL_PREFIX + k: v for k, v in value.items()}
            elif f == "data_options":
                values |= {DATA_PREFIX + k: v for k, v in value.items()}
            else:
                values[f] = value
        return values

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able mapping that `from_json` reads back: what a function has, or what images need."""
        fields = _IMAGE_FIELDS if self.objective is None else _FUNCTION_FIELDS
        return {f: dict(v) if isinstance(v := getattr(self, f), Mapping) else v for f in fields}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        return cls(**data)


_FUNCTION_FIELDS = ("objective", "objective_source", "params")
_IMAGE_FIELDS = tuple(f.name for f in dataclasses.fields(Settings) if f.name not in _FUNCTION_FIELDS)


def trial_key(settings: Settings, seed: int) -> str:
    """Return the content address of a trial: SHA-256 of the canonical JSON of all that decides its result.

    Canonical: keys sorted, no white space, floats as their shortest repr, no NaN.  The dataset's name and
    options are left out, since the fingerprint says what the data is wherever it lies.
    """
    return trial_keys(settings, (seed,))[0]


def trial_keys(settings: Settings, seeds: Sequence[int]) -> list[str]:
    """Return `trial_key` for each seed, with the text made once."""
    content = settings.to_json()
    for name in ("dataset", "data_options"):
        content.pop(name, None)
    content["seed"] = 0
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    # The last one is ours: an option or param of that name lies in a mapping which sorts before.
    head, mark, tail = text.rpartition(',"seed":0')
    assert mark
    return [hashlib.sha256(f'{head},"seed":{seed}{tail}'.encode()).hexdigest() for seed in seeds]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialDraft:
    """A trial that a grid asks for, before the store knows it.

    Attributes:
        axes: the axes that this point has, in the grid's order.
        inactive: axes of the grid that a condition (`when`) takes away from this point.
    """

    key: str
    seed: int
    settings: Settings
    axes: tuple[str, ...]
    inactive: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A trial as the ledger knows it.

    Attributes:
        id: the ledger's row.
        number: Optuna's number of the trial within its study; names its folder.
        params: what is shown of the point: the study's axes and whatever else varies in the study.
        attempt: the fencing token; counts claims.
    """

    id: int
    number: int
    key: str
    seed: int
    settings: Settings
    params: Mapping[str, Value]
    state: TrialState
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Lane:
    """A trial's place in a pack.

    Attributes:
        trial: the trial.
        scratch: absolute path of a folder where the worker leaves files for this attempt.
    """

    trial: Trial
    scratch: str


@dataclass(frozen=True, slots=True)
class Pack:
    """Trials that train together as one program on one device; never empty."""

    id: str
    lanes: tuple[Lane, ...]

    @property
    def trial_ids(self) -> tuple[int, ...]:
        """The ledger ids of the pack's trials."""
        return tuple(lane.trial.id for lane in self.lanes)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """What a worker is told once, when it starts.

    Attributes:
        name: the worker's name ("w0").
        dataset: locator of the dataset as the command line or the study file named it.
        models: locator of each model by its display name, likewise.
        data_root: folder of the datasets' files.
        device: "cpu", "cuda:0", "mps".
        threads: CPU threads for the arithmetic.
        judged: whether the coordinator answers every epoch and step with a `Verdict`, since trials are pruned.
        objective: locator of the function that the trials call; None where they train on images.
        metric: which of the function's metrics ranks.
    """

    name: str
    dataset: str = ""
    models: Mapping[str, str] = field(default_factory=dict)
    data_root: str = ""
    device: str
    threads: int
    judged: bool = False
    objective: str | None = None
    metric: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRequest:
    """Asks a worker what a trial costs in packs of different sizes.

    Attributes:
        key: the cost model's key of the settings.
        lanes: the sizes to try, ascending; the worker stops where a larger one gains nothing.
        limit_mb: the memory that a pack may take; sizes above are not tried.  None: as much as there is.
    """

    key: str
    settings: Settings
    lanes: tuple[int, ...]
    limit_mb: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """Asks a worker to evaluate trained lanes on the test images and to export the first of them.

    Attributes:
        lanes: trained with the same settings, each with its weights in its scratch folder.
        folder: absolute path of a folder for the exported files.
    """

    id: str
    lanes: tuple[Lane, ...]
    folder: str


Task: TypeAlias = Pack | ProbeRequest | ExportRequest
"""What a worker does, one at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LanesGiven:
    """Answers `LanesWanted`; no lanes where none waits."""

    pack: str
    lanes: tuple[Lane, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Answers an `EpochEnded` or a `StepEnded` where trials are pruned: whether this trial shall end now."""

    trial: int
    attempt: int
    epoch: int
    prune: bool


# Events: from a worker to the coordinator, in the order in which they happened.


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

    def value(self, metric: str) -> float | None:
        """Return one of its metrics by name, None where it has none of that name."""
        found: float | None = getattr(self, metric, None)
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
    metrics: Mapping[str, float]
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
    metrics: Mapping[str, float]
    files: tuple[FileRef, ...] = ()
    message: str | None = None
    pruner: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFailed:
    """A trial could not be trained.

    Attributes:
        reason: "error" (the model or the data raised), "oom" (memory).
        message: one line.
        traceback: the whole story, for the trial's log.
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
        seconds: how long all of it took.
    """

    worker: str
    key: str
    seconds_per_image: Mapping[int, float]
    memory_mb: Mapping[int, float] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What became of an `ExportRequest`; the worker waits for work again.

    Attributes:
        files: what lies in the folder now: model.safetensors, test.safetensors (logits float32 [K, N, Y] and
            labels int64 [N] of the test images), model.onnx where the network could be exported.
        facts: what the exported model takes and how it was checked, see `training.export.export`.
        error: one line where there is nothing to export, with the whole story in `traceback`.
    """

    worker: str
    id: str
    files: tuple[FileRef, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    traceback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDied:
    """A worker process ended without being asked to; `pack` is what it was working on, if anything."""

    worker: str
    pack: str | None
    message: str


Event: TypeAlias = (
    WorkerReady
    | PackStarted
    | EpochEnded
    | StepEnded
    | TrialFinished
    | TrialFailed
    | LogText
    | LanesWanted
    | PackEnded
    | Probed
    | Exported
    | WorkerDied
)


# What reporting reads.


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRow:
    """One epoch of a trial as the store holds it; see `EpochEnded` for the units."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    lr: float
    seconds: float
    images_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """One step of a function's trial as the store holds it; see `StepEnded`."""

    step: int
    metrics: Mapping[str, float]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """A trial with its result.

    Attributes:
        value: the ranking metric (an accuracy as a fraction), None where there is no result.
        metrics: final metrics by name.
        epochs: the epochs trained so far; of a function, its steps.
        seconds: wall time, None while it has not ended.
        error: one line for a failed or diverged trial; of a pruned one, when it was ended.
        pruner: what ended a pruned trial ("median", "asha", "hyperband").
    """

    number: int
    key: str
    seed: int
    state: TrialState
    params: Mapping[str, Value]
    settings: Settings
    value: float | None
    metrics: Mapping[str, float]
    epochs: int
    seconds: float | None
    attempts: int
    error: str | None
    pruner: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyData:
    """A study as reporting sees it.

    Attributes:
        axes: the axes of all its grids and whatever else varies, in a stable order; the keys of `params`.
        dataset: display name of the dataset, or of the function.
        metric: "val_accuracy", or "train_accuracy" where nothing was held out; of a function, what its study says.
        direction: "maximize" or "minimize".
        class_names: by label.
        commands: the command lines that made the study, oldest first.
        environment: versions and hardware of the newest run.
        epochs: the epoch rows by trial number, each in order.
        steps: likewise the steps of a function's trials.
        test: what `best` found on the test images, None before it has read them; see
            `reporting.evaluation.evaluate`.
    """

    name: str
    dataset: str
    metric: str
    direction: str
    axes: tuple[str, ...]
    trials: tuple[TrialRecord, ...]
    class_names: tuple[str, ...]
    commands: tuple[str, ...]
    environment: Mapping[str, str]
    epochs: Mapping[int, tuple[EpochRow, ...]]
    steps: Mapping[int, tuple[StepRow, ...]] = field(default_factory=dict)
    test: Mapping[str, Any] | None = None

    @property
    def objective(self) -> str | None:
        """Display name of the function that this is a study of, None where its trials train on images."""
        return next((trial.settings.objective for trial in self.trials), None)

    def counts(self) -> dict[str, int]:
        """Return the number of trials in each state, all states present."""
        counts = {state.value: 0 for state in TrialState}
        for trial in self.trials:
            counts[trial.state.value] += 1
        return counts
