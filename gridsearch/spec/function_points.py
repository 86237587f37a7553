"""Makes the settings of points that are called as a function's params; a part of `expand`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gridsearch.records import FunctionSettings
from gridsearch.spec.axis_values import plain_option

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gridsearch.records import TrialDraft
    from gridsearch.spec.grid import GridPoint
    from gridsearch.spec.study import StudySpec


class FunctionResolver(Protocol):
    """What the spec asks of those who know the function of a study of one."""

    def objective(self, name: str) -> tuple[str, str | None]:
        """Return a function's display name and the hash of its source.

        Raises:
            PluginError: there is no such function, or it cannot be called with params and a seed.
        """
        ...


class FunctionPoints:
    """Makes settings of points that are called as a function's params."""

    def __init__(self, spec: StudySpec, resolve: FunctionResolver) -> None:
        self._fixed = spec.fixed()
        self._version = spec.version
        self._name, self._source = resolve.objective(spec.objective or "")

    def settings(self, point: GridPoint) -> tuple[FunctionSettings, tuple[str, ...], tuple[str, ...]]:
        """Return a point's settings, its axes and its inactive axes."""
        params = {name: plain_option(value) for name, value in {**self._fixed, **point.values}.items()}
        settings = FunctionSettings(
            objective=self._name, objective_source=self._source, params=params, code_version=self._version
        )
        return settings, tuple(point.values), point.inactive

    def check(self) -> None:
        """Find nothing: what a function thinks of its params it says when it is called."""

    def warnings(self, drafts: Sequence[TrialDraft]) -> Iterator[str]:  # noqa: ARG002 - see `PointBuilder`
        """Warn of nothing: nobody knows what its params do."""
        yield from ()
