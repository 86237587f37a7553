"""What goes into the store and comes out of it, beside the records that all stages share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gridsearch.advice import Advice

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from gridsearch.records import DataFacts, Settings, TrialState


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyDraft:
    """A study as one run asks for it.

    Attributes:
        name: `[A-Za-z0-9._-]{1,64}`.
        dataset: display name of the dataset, or of the plain function; one study holds one of them.
        metric: what its trials are ranked by: "val_accuracy", "train_accuracy", or one of the function's.
        direction: "maximize" or "minimize".
        axes: the axes of this run's grid, in the order in which they are shown.
        class_names: of the first point's images, by label.
        facts: what is known of the images of all its trials, by fingerprint.
        same_images: they are some that the study holds, whatever the dataset is called now.
        command: the command line that asks for it.
        environment: versions and hardware of this run.
        spec: the study file in JSON-able form, shown as the study's note.
        where: the options with which a command finds the store, for what the notes advise.
    """

    name: str
    dataset: str
    metric: str
    direction: str = "maximize"
    axes: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    facts: Mapping[str, DataFacts] = field(default_factory=dict)
    same_images: bool = False
    command: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    where: tuple[str, ...] = ()

    @property
    def again(self) -> Advice:
        """The commands about it."""
        return Advice(study=self.name, where=self.where)


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What became of the trials that a run asked for; the four numbers count distinct trials.

    Attributes:
        study_id: the ledger's row of the study.
        ids: ledger ids in the order of the drafts.
        new: had not been there.
        reused: have a result.
        offered_again: had failed (or had been pruned, and pruning is off), and wait again.
        in_flight: were waiting or running already.
        varied: settings other than this grid's axes that differ from the trials which the study held before:
            the points are of another recipe.
    """

    study_id: int
    ids: tuple[int, ...]
    new: int
    reused: int
    offered_again: int
    in_flight: int
    varied: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reclaimed:
    """A claim that was taken back from somebody who had died or fallen silent.

    Attributes:
        trial: ledger id.
        number: Optuna's number of the trial.
        attempt: the token of the claim that ended.
        tries: how often the trial has been tried since it was last offered, this claim included.
        requeued: whether it waits again; otherwise it has FAILED.
        epoch: the epoch, or step, that it goes on from: its newest checkpoint's.
    """

    trial: int
    number: int
    attempt: int
    tries: int
    requeued: bool
    epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialCurve:
    """What a trial has shown so far of the metric that ranks its study.

    Attributes:
        trial: ledger id.
        number: Optuna's number of the trial.
        attempt: the claim that trained these epochs.
        epochs: epochs that the ledger counts; one of them may have no value.
        values: by epoch, counted from 1.
    """

    trial: int
    number: int
    attempt: int
    settings: Settings
    state: TrialState
    epochs: int
    values: Mapping[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySummary:
    """A line of the list of studies.

    Attributes:
        title: its name in Optuna's dashboard, where it may have been renamed.
        created: in UTC.
        counts: number of trials in each state, all states present.
        size: bytes of its files under home.
    """

    name: str
    title: str
    dataset: str
    metric: str
    direction: str
    created: datetime
    counts: Mapping[str, int]
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerAtWork:
    """A runner that holds trials of a study.

    Attributes:
        host: the machine's name; empty where the store does not know it.
        pid: its process there.
        seen: its last heartbeat, by the store's clock in UTC.
        since: when the first of the trials that it holds began, in UTC.
        trials: numbers of the trials that it holds.
        gone: its process has ended, or it has not renewed its leases in time: the next run takes its trials.
    """

    host: str
    pid: int | None
    seen: datetime | None
    since: datetime | None
    trials: tuple[int, ...]
    gone: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleRunner:
    """A runner that holds no trial: it waits for work, or for what others hold of its grid.

    Attributes:
        host: the machine's name.
        pid: its process there.
    """

    host: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStudy:
    """What a worker has to know of a study before it takes it up.

    Attributes:
        uid: no other study ever bears it.
        waiting: trials that wait, those included whose runner is gone.
        running: trials that somebody trains.
        numbers: how many trials it ever had; it grows with each that is added.
        stops: how often its runners were asked to stop.
    """

    name: str
    uid: str
    waiting: int
    running: int
    numbers: int
    stops: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTrial:
    """A trial that waits or runs.

    Attributes:
        id: ledger id.
        key: see `records.trial_key`.
        waits: no runner is training it; its runner is gone, if it had one.
    """

    id: int
    key: str
    waits: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file under home as the store knows it.

    Attributes:
        number: the trial's number, None for a file of the study.
    """

    number: int | None
    name: str
    sha256: str
    size: int
