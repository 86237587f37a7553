"""What a grid consists of, as values: groups of axes, rules and seeds; and two grids merged into one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from gridsearch.records import Value
from gridsearch.records.axis import identity
from gridsearch.spec.collector import InvalidValue
from gridsearch.spec.conditions import Condition, Exclusion, Term, in_order

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAX_POINTS = 1_000_000
MAX_SEEDS = 10_000

Row: TypeAlias = tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """An axis with its values, or several axes that are paired: a row has a value for each of them."""

    names: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a grid consists of.

    Attributes:
        conditions: each after those that decide about the axes it names.
        free: whether the axes are params of a function, which may bear any name.
        warnings: what looks unintended, one line each; no part of the grid's identity.
    """

    groups: tuple[Group, ...] = ()
    exclusions: tuple[Exclusion, ...] = ()
    conditions: tuple[Condition, ...] = ()
    seeds: tuple[int, ...] | None = None
    free: bool = False
    warnings: tuple[str, ...] = field(default=(), compare=False)

    def values(self) -> dict[str, tuple[Value, ...]]:
        """Return the values of each axis, in the order in which they come up first."""
        return {
            name: tuple({identity(row[i]): row[i] for row in group.rows}.values())
            for group in self.groups
            for i, name in enumerate(group.names)
        }


def merge(base: Parts, other: Parts) -> Parts:
    """Return a grid with the axes of both; where both have an axis, the other's values stand in its place.

    Rules of the base that speak of values which are gone are dropped, with a warning.
    """
    taken = {name for group in other.groups for name in group.names}
    pending = list(other.groups)
    groups: list[Group] = []
    warnings = [*base.warnings, *other.warnings]
    for group in base.groups:
        replacing = [g for g in pending if set(g.names) & set(group.names)]
        pending = [g for g in pending if g not in replacing]
        groups += replacing
        kept = [i for i, name in enumerate(group.names) if name not in taken]
        if kept and len(kept) < len(group.names):
            warnings.append(f"{','.join(group.names)} are no longer paired, since one of them is replaced")
        if kept:
            rows, _ = unique(tuple(row[i] for i in kept) for row in group.rows)
            groups.append(Group(tuple(group.names[i] for i in kept), rows))
    merged = Parts(
        groups=(*groups, *pending),
        seeds=base.seeds if other.seeds is None else other.seeds,
        free=base.free or other.free,
        warnings=tuple(warnings),
    )
    check_size(merged)
    values = merged.values()
    exclusions = [_still_there(rule, values) for rule in base.exclusions]
    dropped = [str(rule) for rule, kept in zip(base.exclusions, exclusions, strict=True) if kept is None]
    conditions = dict.fromkeys((*base.conditions, *other.conditions))
    return Parts(
        groups=merged.groups,
        exclusions=tuple(dict.fromkeys((*filter(None, exclusions), *other.exclusions))),
        conditions=in_order(tuple(conditions)),
        seeds=merged.seeds,
        free=merged.free,
        warnings=(
            *warnings,
            *(f"exclude {text!r} is dropped: the grid no longer has such a point" for text in dropped),
        ),
    )


def size_of(groups: Iterable[Group]) -> int:
    """Return the number of points, before exclusions and conditions."""
    return math.prod(len(group.rows) for group in groups)


def too_many(count: int) -> str:
    """Return the problem of a grid with so many points."""
    return f"the grid has {count:,} points, and at most {MAX_POINTS:,} are taken"


def unique(rows: Iterable[Row]) -> tuple[tuple[Row, ...], list[Row]]:
    """Return the different rows in the order of their first appearance, and those that came again."""
    kept: dict[tuple[tuple[bool, Value], ...], Row] = {}
    twice = []
    for row in rows:
        key = tuple(map(identity, row))
        if key in kept:
            twice.append(row)
        else:
            kept[key] = row
    return tuple(kept.values()), twice


def check_size(parts: Parts) -> None:
    """Refuse a grid of too many points.

    Raises:
        InvalidValue: it has more than `MAX_POINTS`.
    """
    count = size_of(parts.groups)
    if count > MAX_POINTS:
        raise InvalidValue(too_many(count))


def _still_there(rule: Exclusion, values: Mapping[str, Sequence[Value]]) -> Exclusion | None:
    """Return an exclusion without the values that the grid no longer has, None if that leaves nothing."""
    terms = []
    for term in rule.terms:
        there = set(map(identity, values.get(term.axis, ())))
        kept = tuple(v for v in term.values if identity(v) in there)
        if not kept:
            return None
        terms.append(Term(term.axis, kept, term.free))
    return Exclusion(tuple(terms))
