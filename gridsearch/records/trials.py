"""Trials: as a grid asks for them, as the ledger knows them, and as they train together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic

from gridsearch.records.axis import Value
from gridsearch.records.settings import Settings, SettingsT_co


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
class Trial(Generic[SettingsT_co]):
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
    settings: SettingsT_co
    params: Mapping[str, Value]
    state: TrialState
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Lane(Generic[SettingsT_co]):
    """A trial's place in a pack.

    Attributes:
        trial: the trial.
        scratch: absolute path of a folder where the worker leaves files for this attempt.
    """

    trial: Trial[SettingsT_co]
    scratch: str


@dataclass(frozen=True, slots=True)
class Pack(Generic[SettingsT_co]):
    """Trials that train together as one program on one device; never empty."""

    id: str
    lanes: tuple[Lane[SettingsT_co], ...]

    @property
    def trial_ids(self) -> tuple[int, ...]:
        """The ledger ids of the pack's trials."""
        return tuple(lane.trial.id for lane in self.lanes)
