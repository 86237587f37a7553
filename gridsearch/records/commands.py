"""What the coordinator sends to a worker, as the wire carries it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from gridsearch.records.image_settings import ImageSettings
from gridsearch.records.study_kinds import IMAGES
from gridsearch.records.trials import Lane, Pack


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """A worker's configuration, sent once when it starts.

    Attributes:
        name: the worker's name ("w0").
        kind: the kind of study, by its name.
        dataset: locator of the dataset as the command line or the study file named it.
        models: locator of each model by its display name, likewise.
        data_root: folder of the datasets' files.
        images: under which key the images of a fingerprint are shared by the processes of this machine.
        device: "cpu", "cuda:0", "mps".
        threads: CPU threads for the arithmetic.
        pruning: whether the coordinator answers every epoch and step with a `PruningDecision`, since trials are pruned.
        checkpoint: seconds between two checkpoints of a trial, 0 for one at every epoch's end, None for none.
        settled: whether the packs are settled, so that their results are written together.
        objective: locator of the function that the trials call.
        metric: which metric ranks the study.
        takes_state: whether a trial goes on from the state that it left last, as networks do.
        image_files: files of the images of a fingerprint that another machine has loaded and sent.
    """

    name: str
    kind: str = IMAGES.name
    dataset: str = ""
    models: Mapping[str, str] = field(default_factory=dict)
    data_root: str = ""
    images: Mapping[str, str] = field(default_factory=dict)
    device: str
    threads: int
    pruning: bool = False
    checkpoint: float | None = None
    settled: bool = False
    objective: str = ""
    metric: str = ""
    takes_state: bool = False
    image_files: Mapping[str, str] = field(default_factory=dict)

    @property
    def resumable(self) -> bool:
        """Whether trials that are left at an epoch's end go on from there."""
        return self.checkpoint is not None and self.takes_state

    @property
    def leaves_files(self) -> bool:
        """Whether the worker writes into the scratch folders of its trials: states, or results until a pack's end."""
        return self.takes_state or (self.settled and self.checkpoint is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRequest:
    """Asks a worker what a trial costs in packs of different sizes.

    Attributes:
        key: the cost model's key of the settings.
        lanes: the sizes to try, ascending; the worker stops where a larger one gains nothing.
        limit_mb: the memory that a pack may take; sizes above are not tried.  None: as much as there is.
    """

    key: str
    settings: ImageSettings
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
    lanes: tuple[Lane[ImageSettings], ...]
    folder: str


Task: TypeAlias = Pack | ProbeRequest | ExportRequest
"""What a worker does, one at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LanesGiven:
    """Answers `LanesWanted`; no lanes where none waits."""

    pack: str
    lanes: tuple[Lane, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """Asks a worker to leave its pack at the end of the epoch, once there is a checkpoint of each lane."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningDecision:
    """Answers an `EpochEnded` or a `StepEnded` where trials are pruned: whether this trial shall end now."""

    trial: int
    attempt: int
    epoch: int
    prune: bool
