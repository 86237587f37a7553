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

from gridsearch.records import DATA_PREFIX, LATER, MODEL_PREFIX, Settings, Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MODEL_VERSION = "model_version"
"""Shown when one model's source file differs among the trials: the first digits of its SHA-256."""

DATA_VERSION = "data_version"
"""Shown when the dataset's content differs among the trials: the first digits of its fingerprint."""

CODE_VERSION = "code_version"
"""Shown when the version that the user gave of their own code differs among the trials."""

_OF = " of "
_DIGITS = 8


class Kind(StrEnum):
    """How Optuna types an axis."""

    FLOAT = "float"
    INT = "int"
    CATEGORICAL = "categorical"


_KINDS: Final[Mapping[str, Kind]] = {
    **dict.fromkeys(
        ("lr", "weight_decay", "momentum", "dropout", "label_smoothing", "ema", "warmup", "val"), Kind.FLOAT
    ),
    **dict.fromkeys(("batch", "epochs", "subset", "split_seed"), Kind.INT),
}
"""The axes whose kind does not depend on their values."""

_LOG: Final = frozenset({"lr", "batch", "subset"})
"""The axes that are logarithmic, however near to each other their values are."""

_DECADES: Final = 100
"""Another axis of numbers above 0 is logarithmic if its largest value is so many times its smallest."""

OBJECTIVE_VERSION = "objective_version"
"""Shown when the source of the function differs among the trials: the first digits of its SHA-256."""


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
        return not self.free and self.name in _KINDS

    def number(self, value: Value) -> float | None:
        """Return a value as Optuna keeps it; None where the param is left out."""
        if self.kind is Kind.CATEGORICAL:
            types = tuple(type(choice) for choice in self.choices)
            return float(_positions(self.choices, types)[_one(value)])
        return None if value is None else float(value)

    def distribution(self, low: float, high: float) -> str:
        """Return the distribution of all rows of the axis, as JSON.

        Args:
            low: the smallest number that its rows hold, see `number`.
            high: the largest.
        """
        if self.kind is Kind.CATEGORICAL:
            return _categorical_distribution(self.choices, tuple(type(c) for c in self.choices))
        wide = not self.free and self.name in _LOG
        return _numeric_distribution(self.kind, low, high, low > 0 and (wide or high >= _DECADES * low))

    def grown(self, values: Sequence[Value]) -> Self:
        """Return the axis with the kind and the choices that take these values too."""
        if self.fixed:
            return self
        numbers = [value for value in values if value is not None]
        kind = _wider(self.kind, _kind_of(numbers)) if numbers else self.kind
        known = {_one(choice) for choice in self.choices}
        new = {_one(value): value for value in values if _one(value) not in known}
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
        return any(name.startswith(OBJECTIVE_VERSION + _OF) for name in self.common)

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
    free = any(each.objective is not None for each in wanted) or shown.of_function
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
        older += [_short(v) for k, v in shown.common.items() if k.startswith(name + _OF)]
        values = [*older, *values]
        fixed = None if free else _KINDS.get(name)
        kind = fixed or _kind_of(values)
        after.append(StudyAxis(name, kind, free=free).grown(values))
    return Growth(
        shown=StudyAxes(tuple(after), common),
        varied=tuple(name for name in varied if name not in before),
        missing=any(axis.name not in before for axis in after),
        widened=tuple(a for a in after if a.name in before and a.kind is not before[a.name].kind),
    )


def params_of(settings: Settings, inactive: Iterable[str], names: Iterable[str]) -> dict[str, Value]:
    """Return what a trial shows: the value of every axis that it has and that no condition takes away."""
    flat = settings.flat()
    if settings.objective is not None:
        flat[OBJECTIVE_VERSION] = _short(flat.pop("objective_source"))
        off = set(inactive)
        return {name: flat[name] for name in names if name in flat and name not in off}
    flat[MODEL_VERSION] = _short(flat.pop("model_source"))
    flat[DATA_VERSION] = _short(flat.pop("data_fingerprint"))
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


def _facts(settings: Settings) -> dict[str, Value]:
    """Return what may differ among the trials of a study.

    A source belongs to its model and a content to its options: two models differ in their source without
    either having changed.
    """
    flat = settings.flat()
    if settings.objective is not None:
        flat[f"{OBJECTIVE_VERSION}{_OF}{flat.pop('objective')}"] = flat.pop("objective_source")
        return flat
    del flat["dataset"]
    flat[CODE_VERSION] = settings.code_version
    source, content = flat.pop("model_source"), flat.pop("data_fingerprint")
    if source is not None:
        flat[f"{MODEL_VERSION}{_OF}{settings.model}"] = source
    options = json.dumps(settings.data_options, sort_keys=True, separators=(",", ":"))
    flat[f"{DATA_VERSION}{_OF}{options}"] = content
    return flat


def _common(
    common: Mapping[str, Value], settings: Iterable[Settings]
) -> tuple[dict[str, Value], tuple[str, ...]]:
    """Return what all have in common, and the names of what differs, in order."""
    shared = dict(common)
    varied: dict[str, None] = {}
    for each in settings:
        facts = _facts(each)
        if each.objective is not None and shared:  # a param that only some trials have tells them apart
            varied |= dict.fromkeys(
                name for name in {**shared, **facts} if (name in shared) != (name in facts)
            )
        for name, value in facts.items():
            if name not in shared:
                shared[name] = value
            elif _one(shared[name]) != _one(value):
                varied[name] = None
    return shared, tuple(dict.fromkeys(name.partition(_OF)[0] for name in varied))


def _without_later(common: Mapping[str, Value]) -> dict[str, Value]:
    """Return what a function's trials have in common, rid of settings of networks.

    Earlier versions noted them when nothing new was asked for.  A param of such a name would be the whole number 0.
    """
    networks = {k: v for k, v in LATER.items() if k != CODE_VERSION}
    return {
        k: v
        for k, v in common.items()
        if not (isinstance(v, float) and networks.get(k) == v) and (k != CODE_VERSION or v is not None)
    }


def _values(name: str, settings: Iterable[Settings]) -> list[Value]:
    """Return the distinct values of an axis, in order of appearance."""
    seen: dict[tuple[bool, Value], None] = {}
    for each in settings:
        if each.objective is not None:
            if name == OBJECTIVE_VERSION:
                value = _short(each.objective_source)
            elif name == CODE_VERSION:
                value = each.code_version
            elif name not in each.params:
                continue
            else:
                value = each.params[name]
        elif name == MODEL_VERSION:
            value = _short(each.model_source)
        elif name == DATA_VERSION:
            value = _short(each.data_fingerprint)
        elif name.startswith((MODEL_PREFIX, DATA_PREFIX)):
            options = each.model_options if name.startswith(MODEL_PREFIX) else each.data_options
            option = name.partition(".")[2]
            if option not in options:
                continue
            value = options[option]
        else:
            value = each.get(name)
        seen[_one(value)] = None
    return [value for _, value in seen]


def _short(source: Value) -> Value:
    return source[:_DIGITS] if isinstance(source, str) else source


def _one(value: Value) -> tuple[bool, Value]:
    """Return what two values share if they are one; 1 and True are not."""
    return isinstance(value, bool), value


@lru_cache(maxsize=1024)
def _positions(choices: tuple[Value, ...], _types: tuple[type, ...]) -> dict[tuple[bool, Value], int]:
    """Return where each choice stands."""
    return {_one(choice): i for i, choice in enumerate(choices)}


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
    """Read the settings of a ledger row."""
    data: dict[str, Any] = json.loads(text)
    return Settings.from_json(data)
