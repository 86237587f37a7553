"""From a finding to the command that goes on: the grid around a point, or the study's grid with an axis changed.

Everything that decides a trial's result is in the command, so that its trials stand beside those of the study.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gridsearch.advice import named_again
from gridsearch.errors import GridsearchError
from gridsearch.records.axis import AxisScope, identity
from gridsearch.reporting.ranking.points import levels_of
from gridsearch.reporting.words.typed import ABSENT
from gridsearch.spec import Grid, StudySpec
from gridsearch.spec.axes import AXES, is_option
from gridsearch.spec.collector import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gridsearch.records import StudyData, Value
    from gridsearch.reporting.ranking.points import RankedPoint
    from gridsearch.reporting.ranking.ranking import Ranking

_KEPT = ("dataset", "model", "objective", "metric", "direction", "val", "subset", "version", "folds", "group")
"""What a command takes over from the study as it was last asked for, where the study has it."""


class NextGrids:
    """Builds the commands about one study.

    Args:
        data: the study.
        ranking: its points.
        lost: values of axes at which trials are lost: no command has them, but for a point's own.
    """

    def __init__(self, data: StudyData, ranking: Ranking, *, lost: Sequence[tuple[str, Value]] = ()) -> None:
        self._data, self._ranking = data, ranking
        self._lost = {(axis, identity(value)) for axis, value in lost}

    def around(self, point: RankedPoint, changes: Mapping[str, Sequence[Value]]) -> str:
        """Return the command that tries other values of some axes at a point; "" where no command can.

        Args:
            point: gives the values of all other axes.
            changes: by axis, the values to try.
        """
        axes = {
            axis: [point.params[axis]] for axis in self._data.axes if axis in point.params and _gridable(axis)
        }
        axes.update({axis: list(values) for axis, values in changes.items()})
        return self._command(point, self._grid(axes), 0)

    def without(self, axis: str, *, kept: Sequence[Value], point: RankedPoint, seeds: int = 0) -> str:
        """Return the command of the study's grid with other values of an axis; "" where no command can.

        Args:
            axis: the axis.
            kept: its values.
            point: gives all that is the same for every point.
            seeds: how many more replicates each point gets than this one has.
        """
        grid = self._stored_grid()
        if grid is None or axis not in grid.axes:
            points = self._ranking.points
            levels = {
                a: [v for v in levels_of(points, a) if v != ABSENT and self._works(a, v, point)]
                for a in self._data.axes
                if _gridable(a)
            }
            return self._command(point, self._grid(levels | {axis: list(kept)}), seeds)
        wanted = {identity(value) for value in kept}

        def stays(name: str, value: Value) -> bool:
            return (name != axis or identity(value) in wanted) and self._works(name, value, point)

        groups, changed = [], set()
        for group in grid.parts.groups:
            rows = tuple(row for row in group.rows if all(map(stays, group.names, row)))
            changed |= set(group.names) if len(rows) < len(group.rows) else set()
            groups.append(replace(group, rows=rows))
        rules = grid.parts.exclusions, grid.parts.conditions
        # A rule that names a value which is gone would be refused.
        gone = any(term.axis in changed for kind in rules for rule in kind for term in rule.terms)
        if gone or not all(group.rows for group in groups):
            return ""
        return self._command(point, Grid.of(replace(grid.parts, groups=tuple(groups), seeds=None)), seeds)

    def _works(self, axis: str, value: Value, point: RankedPoint) -> bool:
        """Whether a value may stand in a command: trials are not lost at it, or it is the point's own."""
        own = axis in point.params and identity(point.params[axis]) == identity(value)
        return own or (axis, identity(value)) not in self._lost

    def _stored_grid(self) -> Grid | None:
        try:
            return Grid.from_json(self._data.spec["grid"], free=self._data.kind.free_axes)
        except (GridsearchError, KeyError, TypeError, ValueError):
            return None

    def _grid(self, axes: Mapping[str, Sequence[Value]]) -> Grid | None:
        try:
            return (Grid.of_params if self._data.kind.free_axes else Grid)(dict(axes))
        except (GridsearchError, InvalidValue):
            return None

    def _command(self, point: RankedPoint, grid: Grid | None, seeds: int) -> str:
        """Return the command of a grid, in which all else is as at a point."""
        named, lost = named_again(self._data.spec, point.settings.uses)
        own = {
            option.removeprefix("--"): where for option, where in zip(named[::2], named[1::2], strict=True)
        }
        if grid is None or lost or (own.keys() & set(grid.axes) and len(grid.values["model"]) > 1):
            return ""
        if own.keys() & set(grid.axes):  # the option names it
            grid = Grid.of(
                replace(grid.parts, groups=tuple(g for g in grid.parts.groups if "model" not in g.names))
            )
        flat = point.settings.flat()
        given: dict[str, Any] = {k: v for k, v in self._data.spec.items() if k in _KEPT} | own
        if not self._data.kind.free_axes:
            given |= {k: flat[k] for k in ("val", "subset", "folds", "group") if k in flat}
            if flat.get("folds") is not None:
                del given["val"]  # folds say how much is held out
            given |= {k: flat[k] for k in ("model",) if k not in own and k not in grid.axes}
        recipe = {k: v for k, v in flat.items() if k not in grid.axes and self._fixed(k)}
        taken = sorted({trial.seed for trial in point.trials})
        more = max(len(taken) + seeds, 1)
        try:
            spec = StudySpec(
                **{k: v for k, v in given.items() if k in StudySpec.model_fields},
                study=self._data.name,
                grid=grid,
                recipe=recipe,
                seeds=more if taken == list(range(len(taken))) else [*taken, *_further(taken, seeds)],
            )
        except GridsearchError:
            return ""
        return self._data.again.search(*spec.arguments())

    def _fixed(self, name: str) -> bool:
        """Whether a setting is one that a command fixes for all points."""
        if self._data.kind.free_axes:
            return name not in ("objective", "objective_source", "code_version")
        if not is_option(name):
            return name in AXES and AXES[name].scope in (AxisScope.GRID, AxisScope.RECIPE) and name != "model"
        return name in self._data.spec.get("recipe", {}) or name in self._data.axes


def _gridable(axis: str) -> bool:
    return axis not in AXES or AXES[axis].scope is AxisScope.GRID


def _further(taken: Sequence[int], count: int) -> list[int]:
    free = (seed for seed in range(len(taken) + count) if seed not in set(taken))
    return [seed for seed, _ in zip(free, range(count), strict=False)]
