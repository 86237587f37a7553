"""Prepares studies that call a plain function: it is found, and is what it was.

One of the two kinds that `preparation` chooses between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gridsearch import plugins
from gridsearch.advice import is_own
from gridsearch.errors import UsageError
from gridsearch.planning import FunctionCost
from gridsearch.records.study_kinds import FUNCTION
from gridsearch.service.prepare import user_code
from gridsearch.service.prepare.prepared import Prepared, stored_fields
from gridsearch.service.prepare.replicates import open_or_more
from gridsearch.service.prepare.user_code import check_same, of_todays_code
from gridsearch.spec import expand_study

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gridsearch.planning import ProbeCache
    from gridsearch.plugins import ImageData, Plugin
    from gridsearch.records import Settings, StudyData
    from gridsearch.service.prepare.options import Places
    from gridsearch.service.prepare.prepared import Given
    from gridsearch.service.prepare.replicates import MoreSeeds
    from gridsearch.spec import StudySpec


class FunctionCatalog:
    """The function of one run; the `FunctionResolver` that a spec expands with.

    Args:
        function: its locator, or the function itself.
        metric: which of its metrics ranks.
        version: stands for what of it has no address.

    Raises:
        PluginError: there is no such function, or it cannot be called with params and a seed.
    """

    def __init__(self, function: str | Any, *, metric: str, version: str | None = None) -> None:
        self.version = version
        self.plugin: Plugin = (
            plugins.find_objective(function)
            if isinstance(function, str)
            else plugins.as_objective(plugins.of_object(function, version=version))
        )
        self._metric = metric

    @property
    def subject(self) -> str:
        """What the study is about: the function's display name."""
        return self.plugin.name

    @property
    def setup(self) -> dict[str, Any]:
        """What a worker's setup says of it."""
        return {
            "kind": FUNCTION.name,
            "objective": self.plugin.locator or self.plugin.name,
            "metric": self._metric,
            "takes_state": plugins.takes_state(self.plugin),
        }

    @property
    def named(self) -> dict[str, dict[str, str]]:
        """What the function was named by; "" for one that lives in this process alone."""
        return (
            {"objective": {self.plugin.name: self.plugin.locator}}
            if is_own("objective", self.plugin.name)
            else {}
        )

    @property
    def own(self) -> tuple[Plugin, ...]:
        """The function, whose code is a part of the trials' keys."""
        return (self.plugin,)

    @property
    def objects(self) -> dict[str, Plugin]:
        """The function, if it exists in this process alone, by its display name."""
        return {} if self.plugin.locator else {self.plugin.name: self.plugin}

    def images_of(self, settings: Iterable[Settings]) -> dict[str, ImageData]:  # noqa: ARG002 - as `Plugins` has it
        """Return none: what a function reads is its own affair."""
        return {}

    def known_as(self, trials: Callable[[], Iterable[Settings]]) -> None:
        """Take the address under which a study's trials have the function; they are asked for only where it matters."""
        if self.plugin.older:
            self.plugin = self.plugin.known_as({settings.code[1] for settings in trials()})

    def objective(self, name: str) -> tuple[str, str | None]:  # noqa: ARG002 - a study has but one
        """Return the function's display name and the hash of its source."""
        return self.plugin.name, self.plugin.source

    def code_of(self, settings: Settings) -> dict[str, bool]:
        """Return by name whether a trial's function is this one; see `user_code.of_todays_code`."""
        name, source = settings.code
        return {name: (name, source) == (self.plugin.name, self.plugin.source)}

    def check_unchanged(self, data: StudyData, needed: Iterable[Settings], spec: Mapping[str, Any]) -> None:
        """Refuse another function than the one that stored trials were made for.

        Args:
            data: the study.
            needed: the settings of the trials.
            spec: the study's, as it is stored.

        Raises:
            UsageError: it is another one, or its source has changed since.
        """
        for settings in needed:
            name, source = settings.code
            if name != self.plugin.name:
                raise UsageError(
                    f"study {data.name!r} is of objective {name!r}, not of {self.plugin.name!r}",
                    hint=f"name it again: --objective {name} (with its path)",
                )
            check_same(
                "objective",
                self.plugin,
                self.plugin.source,
                source,
                study=data.name,
                spec=spec,
                commands=data.commands,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedFunction(Prepared):
    """Trials that call a plain function.

    Attributes:
        catalog: the function.
        ranked_by: which of its metrics ranks, and the direction.
    """

    catalog: FunctionCatalog
    ranked_by: tuple[str, str]

    @property
    def metric(self) -> str:
        """What the study ranks by."""
        return self.ranked_by[0]

    @property
    def direction(self) -> str:
        """Which way is better."""
        return self.ranked_by[1]

    def cost(self, device: str, probes: ProbeCache) -> FunctionCost:  # noqa: ARG002 - it computes where it likes
        """Return the cost model of these trials."""
        return FunctionCost(probes.load())

    def bytes_kept(self) -> int:
        """Return nothing: what the function itself writes is its own."""
        return 0


def prepare_function(
    spec: StudySpec,
    places: Places,  # noqa: ARG001 - as `prepare_images`, likewise what else is not asked for
    given: Given,
    earlier: Callable[[], Iterable[Settings]],
    *,
    fetch: bool,  # noqa: ARG001
    say: Callable[[str], None],  # noqa: ARG001
) -> PreparedFunction:
    """Expand a spec into drafts; see `preparation.prepare`."""
    catalog = FunctionCatalog(given.objective or spec.objective, metric=spec.metric, version=spec.version)
    plugins.check_called(catalog.plugin, {*spec.grid.axes, *spec.fixed()})
    catalog.known_as(earlier)
    expansion = expand_study(spec, catalog)
    return PreparedFunction(
        name=spec.name,
        axes=spec.grid.axes,
        spec=spec.to_json() | expansion.noted,
        catalog=catalog,
        drafts=expansion.drafts,
        points=expansion.points,
        excluded=expansion.excluded,
        warnings=(*expansion.warnings, *user_code.warnings(catalog.own, version=spec.version)),
        ranked_by=(spec.metric, spec.direction),
    )


def stored_function(
    data: StudyData,
    spec: Mapping[str, Any],
    places: Places,  # noqa: ARG001 - as `stored_images`
    given: Given,
    *,
    more: MoreSeeds | None,
    say: Callable[[str], None],
) -> PreparedFunction:
    """Take trials of a stored study of a function; see `preparation.prepare_stored`."""
    catalog = FunctionCatalog(
        given.objective or _stored_locator(data, spec), metric=data.metric, version=spec.get("version")
    )
    catalog.known_as(lambda: [trial.settings for trial in data.trials])
    drafts = open_or_more(of_todays_code(data, catalog.code_of, say=say), more)
    catalog.check_unchanged(data, [d.settings for d in drafts], spec)
    return PreparedFunction(
        **stored_fields(data, drafts), spec=spec, catalog=catalog, ranked_by=(data.metric, data.direction)
    )


def _stored_locator(data: StudyData, spec: Mapping[str, Any]) -> str:
    """Return the locator of a study's function.

    Raises:
        UsageError: it is a user's own, which has to be named again.
    """
    locator = str(spec.get("objective", data.dataset))
    if ":" in locator:
        raise UsageError(
            f"study {data.name!r} calls your own function {data.dataset!r}, whose code runs only when it is named",
            hint=data.again.name_again(),
        )
    return locator
