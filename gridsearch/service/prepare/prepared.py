"""Trials with all that they need: what preparing gives to a run and to a plan, whatever kind of study it is.

`images` and `functions` each have a subclass, which knows what such trials need.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from gridsearch.records import point_address
from gridsearch.records.results import SAMPLED_FROM
from gridsearch.spec.study_options import ORDERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from gridsearch.planning import CostModel, ProbeCache
    from gridsearch.plugins import ImageData, Plugin
    from gridsearch.records import DataFacts, Settings, StudyData, Trial, TrialDraft
    from gridsearch.records.study_kinds import StudyKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Plug-ins that are objects, or that are named again for a stored study.

    Attributes:
        dataset: a dataset instead of the spec's locator.
        objective: likewise the function of a study of one.
        models: locators, or names of objects, for the user's own models, optimizers and augmentations of a stored
            study.
        objects: those given as classes or functions, by name.
    """

    dataset: Any = None
    objective: Any = None
    models: Sequence[str] = ()
    objects: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Joining:
    """How a grid's data stands to that of the study that it joins.

    Attributes:
        same: it is some that the study holds already, whatever its name and place are now.
        earlier: how many trials the study holds, where none is of this data.
    """

    same: bool = False
    earlier: int = 0


class Plugins(Protocol):
    """The plug-ins of one run."""

    version: str | None
    """Stands for what of the user's own code has no address."""

    @property
    def subject(self) -> str:
        """What the study is of, in a few words for the user."""
        ...

    @property
    def setup(self) -> dict[str, Any]:
        """What a worker's setup says of them."""
        ...

    @property
    def named(self) -> dict[str, dict[str, str]]:
        """What the user's own are named by: kind, display name, locator ("" for one of this process alone)."""
        ...

    @property
    def own(self) -> tuple[Plugin, ...]:
        """Those whose code is a part of the trials' keys."""
        ...

    @property
    def objects(self) -> dict[str, Plugin]:
        """Those that exist in this process alone, by display name."""
        ...

    def images_of(self, settings: Iterable[Settings]) -> dict[str, ImageData]:
        """Return the images that trials of these settings train on, by fingerprint; none where they take none.

        Raises:
            DataError: they are not what they were when the trials were made.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared(ABC):
    """Trials with all that they need.

    Attributes:
        name: the study's name.
        axes: the axes of the grid.
        spec: the spec as JSON, for the record.
        catalog: the plug-ins that it names.
        drafts: every point with every seed.
        points: how many points that are.
        excluded: how many points were left out by `exclude`.
        warnings: what the user should know of the grid.
        stored: whether the trials are those of a study that is there, and no grid was given.
    """

    name: str
    axes: tuple[str, ...]
    spec: Mapping[str, Any]
    catalog: Plugins
    drafts: tuple[TrialDraft, ...]
    points: int
    excluded: int = 0
    warnings: tuple[str, ...] = ()
    stored: bool = False

    @property
    def order(self) -> str:
        """In which order its trials train, see `spec.study_options.ORDERS`."""
        return str(self.spec.get("order", ORDERS[0]))

    @property
    def sampled_from(self) -> int | None:
        """How many points the grid has, where the drafts are a sample of it."""
        return None if self.stored else self.spec.get(SAMPLED_FROM)

    @property
    def kind(self) -> StudyKind:
        """What the study is of."""
        return self.drafts[0].settings.kind

    @property
    @abstractmethod
    def metric(self) -> str:
        """What the study ranks by."""

    @property
    @abstractmethod
    def direction(self) -> str:
        """Which way is better: "maximize" or "minimize"."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """By label, of the images that were loaded."""
        return ()

    @property
    def facts(self) -> dict[str, DataFacts]:
        """What the images of all trials are, by their fingerprint.

        Raises:
            DataError: they are other than a moment ago.
        """
        return {}

    @property
    def described(self) -> str:
        """The data in one line, as it was understood; "" where none was loaded."""
        return ""

    @property
    def loaded(self) -> dict[str, ImageData]:
        """The loaded images by their fingerprint."""
        return {}

    def feature_bytes(self, images: int) -> int:  # noqa: ARG002
        """Return the size of what is computed of so many images and trained on in their place."""
        return 0

    @abstractmethod
    def cost(self, device: str, probes: ProbeCache) -> CostModel | None:
        """Return the cost model of these trials on a device; None where what it needs was not loaded."""

    @abstractmethod
    def bytes_kept(self) -> int | None:
        """Return how much a trial leaves besides its rows, log and events, None where that is unknown."""

    def joining(self, ledger: Sequence[Trial], spec: Mapping[str, Any], *, home: Path) -> Joining:  # noqa: ARG002
        """Say how the grid's data stands to that of the study that it joins.

        Args:
            ledger: the trials that it holds.
            spec: as it was last asked for.
            home: beside it an older version's relative paths are looked for.

        Raises:
            UsageError: the study is of another place of the same name, which holds other data.
        """
        return Joining()


def stored_fields(data: StudyData, drafts: tuple[TrialDraft, ...]) -> dict[str, Any]:
    """Return what all trials of a stored study have in common, as fields of a `Prepared`."""
    return {
        "name": data.name,
        "axes": data.axes,
        "drafts": drafts,
        "points": len({point_address(d.settings) for d in drafts}),
        "stored": True,
    }
