"""How one recipe key is declared: its type, range, default and help, and whether lanes of a pack may differ in it.

`ImageSettings` declares each key once, with `key`; the grid, the recipe, help, the docs' table, the store's columns
and the planner all go by the `Axis` that `axes_of` makes of it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from numbers import Real
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast, get_args, get_type_hints

Value: TypeAlias = bool | int | float | str | None
"""What an axis may hold."""

LARGEST_INT = 2**63 - 1
"""Whole numbers are stored in 64 bits."""

_T = TypeVar("_T")


class AxisKind(StrEnum):
    """How the values of an axis are typed and stored."""

    FLOAT = "float"
    INT = "int"
    BOOL = "bool"
    CATEGORICAL = "categorical"


class AxisScope(StrEnum):
    """Where an axis may be given."""

    GRID = "grid"
    """In the grid, or fixed in the recipe."""
    RECIPE = "recipe"
    """In the recipe alone: one value for the whole study."""
    STUDY = "study"
    """As an option of its own, or at the top of a study file."""
    DERIVED = "derived"
    """By nobody: found out from the plug-ins."""


class Bounds(NamedTuple):
    """The range of a number: `low` is its smallest value, or, if `low_open`, must be exceeded; likewise `high`."""

    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False

    @property
    def words(self) -> tuple[str, str]:
        """Both ends in words ("at least 0", "below 1"), "" where there is none."""
        low = "" if self.low is None else f"{'above' if self.low_open else 'at least'} {self.low:g}"
        if self.high is None:
            return low, ""
        high = str(self.high) if isinstance(self.high, int) else f"{self.high:g}"
        return low, f"{'below' if self.high_open else 'at most'} {high}"

    def refusal(self, value: float) -> str | None:
        """Return in words the end that a value is beyond, None where it is in the range."""
        if self.low is not None and (value < self.low or (self.low_open and value == self.low)):
            return self.words[0]
        if self.high is not None and (value > self.high or (self.high_open and value == self.high)):
            return self.words[1]
        return None


_ANY = Bounds()
POSITIVE = Bounds(low=0.0, low_open=True)
NOT_NEGATIVE = Bounds(low=0.0)
FRACTION = Bounds(low=0.0, high=1.0, high_open=True)
COUNT = Bounds(low=1, high=LARGEST_INT)
WHOLE = Bounds(low=0, high=LARGEST_INT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis or recipe key.

    Attributes:
        kind: follows from the type that the key is declared with.
        bounds: the range of a number.
        choices: the words of a categorical axis; empty where any word will do.
        own: whether code of the user's own goes beside the words, as file.py:name or module:name.
        nullable: whether `none` is a value.
        free: an option of a model or dataset, or a param of a function: any number, word, true, false or none.
        fusible: whether trials of one pack may differ in it.
        log: whether Optuna's distribution is logarithmic, however near to each other its values are.
        later: it came when stores held trials already: at its default, which those trials had, it is left out of
            a trial's content address.
        alias: another name that is taken for it.
    """

    name: str
    kind: AxisKind
    help: str
    default: Value = None
    bounds: Bounds = _ANY
    choices: tuple[str, ...] = ()
    own: bool = False
    nullable: bool = False
    free: bool = False
    fusible: bool = False
    scope: AxisScope = AxisScope.GRID
    log: bool = False
    later: bool = False
    alias: str | None = None

    @property
    def numeric(self) -> bool:
        """Whether its values are numbers."""
        return self.kind in (AxisKind.FLOAT, AxisKind.INT)


def key(  # noqa: PLR0913  (each fact of a declaration by its name)
    default: _T,
    help: str,  # noqa: A002 - as argparse calls it
    values: Bounds | str = "",
    *,
    own: bool = False,
    fusible: bool = False,
    scope: AxisScope = AxisScope.GRID,
    log: bool = False,
    later: bool = False,
    alias: str | None = None,
) -> _T:
    """Declare a recipe key as a field of a dataclass; its type is that of the field.

    Args:
        default: its value where none is given.
        help: what it is, in a few words.
        values: its range, or its words separated by spaces.
        own: see `Axis`, likewise all others.
        fusible: whether trials of one pack may differ in it.
        scope: where it may be given.
        log: whether it is searched on a logarithmic scale.
        later: whether it came when stores held trials already.
        alias: another name.
    """
    bounds, words = (values, "") if isinstance(values, Bounds) else (_ANY, values)
    declared = {
        "help": help,
        "bounds": bounds,
        "choices": tuple(words.split()),
        "own": own,
        "fusible": fusible,
        "scope": scope,
        "log": log,
        "later": later,
        "alias": alias,
    }
    made: _T = dataclasses.field(default=default, metadata={_DECLARED: declared})
    return made


def axes_of(settings: type[Any]) -> tuple[Axis, ...]:
    """Return the keys that a dataclass declares, in their order."""
    hints = get_type_hints(settings)
    return tuple(
        Axis(
            name=f.name,
            kind=_KIND_OF[next(iter(get_args(hints[f.name])), hints[f.name])],
            nullable=type(None) in get_args(hints[f.name]),
            default=cast(Value, f.default),
            **f.metadata[_DECLARED],
        )
        for f in dataclasses.fields(settings)
        if _DECLARED in f.metadata
    )


_DECLARED = "gridsearch.key"
_KIND_OF = {float: AxisKind.FLOAT, int: AxisKind.INT, bool: AxisKind.BOOL, str: AxisKind.CATEGORICAL}


def identity(value: Value) -> tuple[bool, Value]:
    """Return what tells values apart in sets and mappings, where True would pass for 1."""
    return isinstance(value, bool), value


def scalar(value: Any) -> Value:
    """Return the plain value of a scalar of numpy, torch or the like, without importing them.

    None stands for anything else: an array, a masked value, whose number is arbitrary, and a date or a duration,
    whose number depends on its unit.
    """
    item, dtype = getattr(value, "item", None), getattr(value, "dtype", None)
    if not callable(item) or getattr(value, "ndim", None) != 0:
        return None
    if bool(getattr(value, "mask", False)) or getattr(dtype, "kind", None) in ("m", "M"):
        return None
    found = item()
    if isinstance(found, bool | int | float | str):
        return found
    return float(found) if isinstance(found, Real) else None  # a float of more than 64 bits
