"""What is shown of a trial as its params, and how Optuna's tables type it.

Shown are the axes of all grids of the study and every setting that differs among its trials.  The kind of an
axis never changes within a study, but for one widening: an option of a model or a dataset ("model.width") has
the kind of the values that came first, and becomes float or categorical in all rows at once if a value comes
that does not fit.  None in an axis of numbers ("as the model has it", "all images") leaves the param out of
Optuna's row.  A number's distribution spans the values that the study holds, the same in all its trials:
evaluators of importance take it for the space that was searched.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Self

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from gridsearch.errors import StoreError
from gridsearch.records import LATER, Settings, TrialState, Value
from gridsearch.records.axis import identity
from gridsearch.records.function_settings import OBJECTIVE_VERSION
from gridsearch.records.settings import VERSION_OF
from gridsearch.spec.axes import AXES, SEED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gridsearch.records.axis import Axis

_DIGITS = 8
_MISSING: Final = object()


class Kind(StrEnum):
    """How Optuna types an axis."""

    FLOAT = "float"
    INT = "int"
    CATEGORICAL = "categorical"


_DECADES: Final = 100
"""Another axis of numbers above 0 is logarithmic if its largest value is so many times its smallest."""


@dataclass(frozen=True, slots=True)
class StudyAxis:
    """An axis that the study's trials show.

    Attributes:
        choices: the values in the order in which they came; only ever grows at its end.  Empty for a number of
            fixed kind; an option of numbers keeps them, since it may yet become categorical.
        free: a param of a function: its name says nothing of its kind.
    """

    name: str
    kind: Kind
    choices: tuple[Value, ...] = ()
    free: bool = False

    @property
    def fixed(self) -> bool:
        """Whether the axis keeps its kind whatever values come."""
        return not self.free and _declared(self.name) is not None

    def number(self, value: Value) -> float | None:
        """Return a value as Optuna keeps it; None where the param is left out."""
        if self.kind is Kind.CATEGORICAL:
            types = tuple(type(choice) for choice in self.choices)
            return float(_positions(self.choices, types)[identity(value)])
        return None if value is None else float(value)

    def distribution(self, low: float, high: float) -> str:
        """Return the distribution of all rows of the axis, as JSON.

        Args:
            low: the smallest number that its rows hold, see `number`.
            high: the largest.
        """
        if self.kind is Kind.CATEGORICAL:
            return _categorical_distribution(self.choices, tuple(type(c) for c in self.choices))
        declared = None if self.free else _declared(self.name)
        wide = declared is not None and declared.log
        return _numeric_distribution(self.kind, low, high, low > 0 and (wide or high >= _DECADES * low))

    def grown(self, values: Sequence[Value]) -> Self:
        """Return the axis with the kind and the choices that take these values too."""
        if self.fixed:
            return self
        numbers = [value for value in values if value is not None]
        kind = _wider(self.kind, _kind_of(numbers)) if numbers else self.kind
        known = {identity(choice) for choice in self.choices}
        new = {identity(value): value for value in values if identity(value) not in known}
        return replace(self, kind=kind, choices=(*self.choices, *new.values()))


@dataclass(frozen=True, slots=True)
class StudyAxes:
    """What a study shows, and what its trials have in common so far.

    Attributes:
        common: the value of every setting that has had one value in all trials which have it.
    """

    axes: tuple[StudyAxis, ...] = ()
    common: Mapping[str, Value] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the axes, in the order in which they are shown."""
        return tuple(axis.name for axis in self.axes)

    @property
    def of_function(self) -> bool:
        """Whether its trials are those of a function, which has no settings of networks."""
        return any(name.startswith(OBJECTIVE_VERSION + VERSION_OF) for name in self.common)

    def to_json(self) -> str:
        """Return the text that `from_json` reads back."""
        axes = [
            {"name": a.name, "kind": a.kind, "choices": a.choices} | ({"free": True} if a.free else {})
            for a in self.axes
        ]
        return json.dumps({"axes": axes, "common": dict(self.common)}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        data = json.loads(text)
        axes = tuple(
            StudyAxis(a["name"], Kind(a["kind"]), tuple(a["choices"]), a.get("free", False))
            for a in data["axes"]
        )
        return cls(axes, data["common"])


@dataclass(frozen=True, slots=True)
class Growth:
    """How a study's axes grow by more trials.

    Attributes:
        varied: names of axes that are shown because values differ, and were not shown before.
        missing: some trials that the study holds lack a row of an axis.
        widened: axes whose kind changed: all their rows must be written anew.
    """

    shown: StudyAxes
    varied: tuple[str, ...]
    missing: bool
    widened: tuple[StudyAxis, ...]


def grow(shown: StudyAxes, *, axes: Iterable[str], settings: Iterable[Settings]) -> Growth:
    """Work out what a study shows once it holds trials of these settings too.

    Args:
        shown: what it shows so far.
        axes: the axes of the grid that asks for them.
        settings: the distinct settings of all its trials.
    """
    wanted = list(settings)
    free = any(each.kind.free_axes for each in wanted) or shown.of_function
    if free:
        shown = replace(shown, common=_without_later(shown.common))
    elif shown.common:  # else a study of before would not show what new trials differ in
        shown = replace(shown, common={**LATER, **shown.common})
    common, varied = _common(shown.common, wanted)
    names = dict.fromkeys((*shown.names, *axes, *varied))
    before = {axis.name: axis for axis in shown.axes}
    after = []
    for name in names:
        values = _values(name, wanted)
        if name in before:
            after.append(before[name].grown(values))
            continue
        # Older trials have the one value that they share; it comes first among the choices.
        older = [shown.common[name]] if name in shown.common else []
        older += [_short(v) for k, v in shown.common.items() if k.startswith(name + VERSION_OF)]
        values = [*older, *values]
        declared = None if free else _declared(name)
        kind = _kind_of(values) if declared is None else Kind(declared.kind)
        after.append(StudyAxis(name, kind, free=free).grown(values))
    return Growth(
        shown=StudyAxes(tuple(after), common),
        varied=tuple(name for name in varied if name not in before),
        missing=any(axis.name not in before for axis in after),
        widened=tuple(a for a in after if a.name in before and a.kind is not before[a.name].kind),
    )


def params_of(settings: Settings, inactive: Iterable[str], names: Iterable[str]) -> dict[str, Value]:
    """Return what a trial shows: the value of every axis that it has and that no condition takes away."""
    flat = settings.flat() | {name: _short(address) for name, address in settings.versions().items()}
    off = set(inactive)
    return {name: flat[name] for name in names if name in flat and name not in off}


def rows_of(
    trial_id: int, params: Mapping[str, Value], axes: Iterable[StudyAxis]
) -> list[tuple[int, str, float]]:
    """Return the rows of a trial in Optuna's table of params, without their distributions."""
    return [
        (trial_id, axis.name, number)
        for axis in axes
        if axis.name in params and (number := axis.number(params[axis.name])) is not None
    ]


def _common(
    common: Mapping[str, Value], settings: Iterable[Settings]
) -> tuple[dict[str, Value], tuple[str, ...]]:
    """Return what all have in common, and the names of what differs, in order."""
    shared = dict(common)
    varied: dict[str, None] = {}
    for each in settings:
        facts = each.facts()
        if each.kind.free_axes and shared:  # a param that only some trials have tells them apart
            varied |= dict.fromkeys(
                name for name in {**shared, **facts} if (name in shared) != (name in facts)
            )
        for name, value in facts.items():
            if name not in shared:
                shared[name] = value
            elif identity(shared[name]) != identity(value):
                varied[name] = None
    return shared, tuple(dict.fromkeys(name.partition(VERSION_OF)[0] for name in varied))


def _without_later(common: Mapping[str, Value]) -> dict[str, Value]:
    """Return what a function's trials have in common, rid of settings of networks.

    Earlier versions noted them when nothing new was asked for.  A param of such a name would be the whole number 0.
    """
    networks = {k: v for k, v in LATER.items() if k != "code_version"}
    return {
        k: v
        for k, v in common.items()
        if not (isinstance(v, float) and networks.get(k) == v) and (k != "code_version" or v is not None)
    }


def _values(name: str, settings: Iterable[Settings]) -> list[Value]:
    """Return the distinct values of an axis, in order of appearance."""
    seen: dict[tuple[bool, Any], None] = {}
    for each in settings:
        versions = each.versions()
        value: Any = _short(versions[name]) if name in versions else each.get(name, _MISSING)  # type: ignore[arg-type]
        if value is not _MISSING:
            seen[identity(value)] = None
    return [value for _, value in seen]


def _declared(name: str) -> Axis | None:
    """Return the axis of this name if its kind does not depend on its values."""
    axis = AXES.get(name)
    return axis if axis is not None and axis.numeric and name != SEED else None


def _short(source: Value) -> Value:
    return source[:_DIGITS] if isinstance(source, str) else source


@lru_cache(maxsize=1024)
def _positions(choices: tuple[Value, ...], _types: tuple[type, ...]) -> dict[tuple[bool, Value], int]:
    """Return where each choice stands."""
    return {identity(choice): i for i, choice in enumerate(choices)}


def _kind_of(values: Iterable[Value]) -> Kind:
    """Return the kind of free values; None fits an axis of numbers."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds == {int}:
        return Kind.INT
    return Kind.FLOAT if kinds and kinds <= {int, float} else Kind.CATEGORICAL


def _wider(a: Kind, b: Kind) -> Kind:
    order = (Kind.INT, Kind.FLOAT, Kind.CATEGORICAL)
    return max(a, b, key=order.index)


@lru_cache(maxsize=1024)
def _categorical_distribution(choices: tuple[Value, ...], _types: tuple[type, ...]) -> str:
    # The types are part of the cache's key because (1, 2) and (True, 2) are equal.
    return distribution_to_json(CategoricalDistribution(choices))


@lru_cache(maxsize=1024)
def _numeric_distribution(kind: Kind, low: float, high: float, log: bool) -> str:
    assert math.isfinite(low) and math.isfinite(high)
    distribution: BaseDistribution
    if kind is Kind.INT:
        distribution = IntDistribution(int(low), int(high), log=log)
    else:
        distribution = FloatDistribution(low, high, log=log)
    return distribution_to_json(distribution)


def settings_of(text: str) -> Settings:
    """Read the settings of a ledger row.

    Raises:
        StoreError: they are not what this version writes.
    """
    try:
        data: dict[str, Any] = json.loads(text)
        return Settings.from_json(data)
    except (TypeError, ValueError) as error:
        raise _unreadable("settings", error) from error


def state_of(text: str) -> TrialState:
    """Read the state of a ledger row.

    Raises:
        StoreError: it is none that this version knows.
    """
    try:
        return TrialState(text)
    except ValueError as error:
        raise _unreadable("state", error) from error


def _unreadable(part: str, error: Exception) -> StoreError:
    """Return the error that a trial's row has what a newer version has written, or nobody."""
    reason = str(error).rpartition("() ")[2]  # without the name of a constructor
    return StoreError(
        f"the store holds a trial whose {part} this gridsearch cannot read ({reason})",
        hint="if a newer gridsearch wrote it: pip install --upgrade gridsearch; if not, the store is damaged: "
        "restore a copy of it",
    )
