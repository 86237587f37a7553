"""The recipe: all that is the same for every point of a study, typed and complete with its defaults.

The grid's axes win over it, point by point.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from gridsearch.records import DATA_PREFIX, MODEL_PREFIX, OPTIMIZER_PREFIX, Value
from gridsearch.records.axis import AxisScope, identity
from gridsearch.records.image_settings import RecipeKeys
from gridsearch.spec.axes import AXES, SEED, canonical, find_axis, is_option
from gridsearch.spec.axis_values import given, typed
from gridsearch.spec.collector import ErrorCollector, InvalidValue, shortened
from gridsearch.spec.grammar import read_scalar

OPTION_TABLES = ("model", "data", "optimizer")
"""Tables of options: `model = {width = 2}` says the same as `"model.width" = 2`."""

_FIELD_OF = {"model": "model", "data": "data", "optimizer": "optimizer_options"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(RecipeKeys):
    """What is the same for every point; `RecipeKeys` declares the keys.

    Attributes:
        model: options of the model ("width": 2), likewise `data` of the dataset and `optimizer_options` of the
            optimizer.

    Raises:
        SpecError: everything that is wrong with it, at once.
    """

    model: Mapping[str, Value] = field(default_factory=dict)
    data: Mapping[str, Value] = field(default_factory=dict)
    optimizer_options: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in (*_KEYS, "model", "data")}
        given |= {OPTIMIZER_PREFIX + name: value for name, value in self.optimizer_options.items()}
        for name, value in _fields(read_settings(given)).items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """Make a recipe of keys and values; options of plug-ins as "model.NAME" or {"model": {NAME: ...}}.

        Raises:
            SpecError: everything that is wrong, unknown keys with the nearest name.
        """
        return cls(**_fields(read_settings(settings)))

    def flat(self) -> dict[str, Value]:
        """Return all keys with their values, options as "model.NAME", "data.NAME" and "optimizer.NAME"."""
        values: dict[str, Value] = {name: getattr(self, name) for name in _KEYS}
        values |= {MODEL_PREFIX + name: value for name, value in self.model.items()}
        values |= {OPTIMIZER_PREFIX + name: value for name, value in self.optimizer_options.items()}
        return values | {DATA_PREFIX + name: value for name, value in self.data.items()}

    def changes(self) -> dict[str, Value]:
        """Return the keys whose values are not the defaults, and all options."""
        return {
            name: value
            for name, value in self.flat().items()
            if is_option(name) or identity(value) != identity(AXES[name].default)
        }

    def __hash__(self) -> int:
        return hash(frozenset(self.flat().items()))


@dataclass(frozen=True, slots=True)
class Params:
    """What is the same for every point of a study of a plain function: params by name, any plain values.

    Raises:
        SpecError: a name that no param may bear, or a value that is none.
    """

    values: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", read_settings(self.values, free=True))

    def flat(self) -> dict[str, Value]:
        """Return all params with their values."""
        return dict(self.values)

    changes = flat

    def __hash__(self) -> int:
        return hash(frozenset(self.values.items()))


_KEYS = tuple(f.name for f in dataclasses.fields(RecipeKeys))


def read_settings(
    settings: Mapping[str, Any],
    *,
    place: Callable[[str], str] = "recipe {}".format,
    free: bool = False,
    as_given: bool = True,
    problems: ErrorCollector | None = None,
) -> dict[str, Value]:
    """Return settings of the recipe typed, under their canonical names, options flat ("model.width").

    Args:
        settings: by name or alias.
        place: says where a key was given.
        free: whether they are params of a function.
        as_given: whether a str is that str, as from Python; else it is a word, as in a study file.
        problems: where to gather problems; then they are not raised, and what is right comes back.

    Raises:
        SpecError: everything that is wrong, unless `problems` is given.
    """
    found = ErrorCollector() if problems is None else problems
    values: dict[str, Value] = {}
    for key, value in settings.items() if free else _flattened(settings):
        with found.at(place(key)):
            name = canonical(key, free=free)
            if name in values:
                raise InvalidValue(f"{name} is given twice")
            values[name] = read_setting(name, value, free=free, as_given=as_given)
    if problems is None:
        found.check()
    return values


def read_setting(name: str, value: object, *, free: bool = False, as_given: bool = True) -> Value:
    """Type one setting of the recipe, or one param of a function; see `read_settings`.

    Raises:
        InvalidValue: no such key, or not a value of it.
    """
    axis = find_axis(name, noun="key", free=free)
    if name == SEED:
        raise InvalidValue("seeds are replicates of every point, not part of the recipe (seeds)")
    if name not in _KEYS and not axis.free:
        known = (
            "is found out from the plug-ins" if axis.scope is AxisScope.DERIVED else "is an option of its own"
        )
        raise InvalidValue(f"{shortened(name)!r} {known}, not a key of the recipe")
    if isinstance(value, Mapping | list | tuple | set):
        raise InvalidValue(f"{name} takes one value; several go into the grid")
    if not as_given and isinstance(value, str) and value.strip():
        return given(axis, read_scalar(axis, value.strip()))
    return given(axis, value) if as_given else typed(axis, value)


def _flattened(settings: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for key, value in settings.items():
        if key in OPTION_TABLES and isinstance(value, Mapping):
            yield from ((f"{key}.{name}", v) for name, v in value.items())
        else:
            yield str(key), value


def _fields(values: Mapping[str, Value]) -> dict[str, Any]:
    """Sort flat settings into the fields of a Recipe."""
    fields: dict[str, Any] = {name: value for name, value in values.items() if not is_option(name)}
    for table in OPTION_TABLES:
        prefix = f"{table}."
        fields[_FIELD_OF[table]] = {
            k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)
        }
    return fields
