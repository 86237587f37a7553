"""Exclusions and conditions: which points of a grid are left out, and where an axis exists at all.

Read after the axes, since both name axes and values of the grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gridsearch.errors import nearest
from gridsearch.records import Value
from gridsearch.records.axis import Axis, AxisScope, identity
from gridsearch.spec.axes import SEED, find_axis
from gridsearch.spec.collector import InvalidValue, shortened
from gridsearch.spec.grammar import Span, read_terms, read_values, write_scalar
from gridsearch.spec.words import spelled

MAX_RULE_VALUES = 100_000


@dataclass(frozen=True, slots=True)
class Term:
    """An axis has one of these values; `free` says that it is a param of a function."""

    axis: str
    values: tuple[Value, ...]
    free: bool = False

    def __str__(self) -> str:
        axis = find_axis(self.axis, free=self.free)
        return f"{self.axis}={','.join(write_scalar(axis, value) for value in self.values)}"


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Points for which all terms hold are left out."""

    terms: tuple[Term, ...]

    def __str__(self) -> str:
        return " ".join(map(str, self.terms))


@dataclass(frozen=True, slots=True)
class Condition:
    """An axis exists only where all terms hold."""

    axis: str
    terms: tuple[Term, ...]

    def __str__(self) -> str:
        return f"{self.axis}: {' '.join(map(str, self.terms))}"


Values = Mapping[str, Sequence[Value]]
"""The values of each axis of a grid."""


def read_exclusion(text: str, *, free: bool = False) -> Exclusion:
    """Read `lr=.01 batch=10`.

    Raises:
        InvalidValue: not such a text, an unknown axis or a wrong value.
    """
    return Exclusion(_read_terms(text, free=free))


def read_condition(text: str, *, free: bool = False) -> Condition:
    """Read `momentum: optimizer=sgd`.

    Raises:
        InvalidValue: not such a text, an unknown axis, a wrong value, or an axis that depends on itself.
    """
    name, colon, rest = text.partition(":")
    if not colon or "=" in name:
        raise InvalidValue("write it as 'AXIS: OTHER=VALUE'")
    axis = _known(name.strip(), free=free)
    if axis.scope is not AxisScope.GRID:
        raise InvalidValue(f"{axis.name} cannot be an axis of a grid")
    condition = Condition(axis.name, _read_terms(rest, free=free))
    if axis.name in {term.axis for term in condition.terms}:
        raise InvalidValue(f"{axis.name} depends on itself")
    return condition


def as_spelled(terms: tuple[Term, ...], values: Values) -> tuple[Term, ...]:
    """Return terms in which a number that is the word of one of the grid's values is that value.

    Args:
        terms: of an exclusion or a condition.
        values: the grid's axes and their values.
    """
    found = []
    for term in terms:
        words = spelled(values.get(term.axis, ()))
        meant = (
            tuple(words.get(v, v) if isinstance(v, float) else v for v in term.values)
            if words
            else term.values
        )
        found.append(term if meant == term.values else Term(term.axis, meant, term.free))
    return tuple(found)


def check_exclusion(exclusion: Exclusion, values: Values, unread: frozenset[str]) -> None:
    """Check that an exclusion names axes and values of the grid.

    Args:
        exclusion: what was read.
        values: the grid's axes and their values.
        unread: axes that the grid has but that have problems of their own, which say enough.

    Raises:
        InvalidValue: an axis or a value is not in the grid.
    """
    for term in exclusion.terms:
        if term.axis in unread:
            continue
        if term.axis not in values:
            raise InvalidValue(f"{term.axis!r} is not an axis of this grid{nearest(term.axis, values)}")
        _check_values(term, values[term.axis])


def check_condition(condition: Condition, values: Values) -> None:
    """Check that a condition speaks of values that the grid has, as far as its axes are in the grid.

    Raises:
        InvalidValue: it changes nothing, or it never holds; either may be meant, so this is worth a warning.
    """
    if condition.axis not in values:
        raise InvalidValue(f"{condition.axis!r} is not an axis of this grid, so this changes nothing")
    for term in condition.terms:
        if term.axis in values:
            _check_values(term, values[term.axis])


def in_order(conditions: Sequence[Condition]) -> tuple[Condition, ...]:
    """Return the conditions, each after those that decide about the axes it names, else as they were given.

    Raises:
        InvalidValue: axes depend on each other in a circle.
    """
    needs: dict[str, list[str]] = {}
    for condition in conditions:
        needs.setdefault(condition.axis, []).extend(term.axis for term in condition.terms)
    depths: dict[str, int] = {}

    def depth(name: str, path: tuple[str, ...]) -> int:
        if name in path:
            circle = " -> ".join((*path[path.index(name) :], name))
            raise InvalidValue(f"axes depend on each other in a circle: {circle}")
        if name not in depths:
            depths[name] = 1 + max((depth(other, (*path, name)) for other in needs.get(name, ())), default=0)
        return depths[name]

    return tuple(sorted(conditions, key=lambda condition: depth(condition.axis, ())))


def allowed(terms: Sequence[Term]) -> list[tuple[str, frozenset[tuple[bool, Value]]]]:
    """Return the terms with their values as sets, for quick look-up."""
    return [(term.axis, frozenset(map(identity, term.values))) for term in terms]


def _read_terms(text: str, *, free: bool) -> tuple[Term, ...]:
    terms: dict[str, Term] = {}
    for name, words in read_terms(text):
        axis = _known(name, free=free)
        if axis.name in terms:
            raise InvalidValue(f"{axis.name} is named twice; give its values as a list")
        items = read_values(axis, words)
        if sum(item.count if isinstance(item, Span) else 1 for item in items) > MAX_RULE_VALUES:
            raise InvalidValue(f"more than {MAX_RULE_VALUES:,} values of {axis.name}")
        values = [v for item in items for v in (item.values() if isinstance(item, Span) else (item,))]
        terms[axis.name] = Term(axis.name, tuple({identity(v): v for v in values}.values()), free)
    return tuple(terms.values())


def _known(name: str, *, free: bool) -> Axis:
    axis = find_axis(name, free=free)
    if axis.name == SEED:
        raise InvalidValue("seeds are replicates of every point, not an axis that rules may name")
    return axis


def _check_values(term: Term, there: Sequence[Value]) -> None:
    known = set(map(identity, there))
    for value in term.values:
        if identity(value) not in known:
            axis = find_axis(term.axis, free=term.free)
            text = write_scalar(axis, value)
            if isinstance(value, str):
                tip = nearest(value, [str(v) for v in there])
            else:
                shown = ", ".join(write_scalar(axis, v) for v in there[:8])
                tip = f"; known: {shown}{', ...' if len(there) > 8 else ''}"
            raise InvalidValue(f"{shortened(text)} is not a value of {term.axis} in this grid{tip}")
