"""Makes the parts of a grid out of what was written: axes and rules checked, ranges built, all problems reported.

The command line, a study file and Python all come through here; they differ only in the places that their
problems name.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gridsearch.records.axis import Axis, AxisScope
from gridsearch.spec.axes import SEED, canonical, find_axis
from gridsearch.spec.axis_values import given, typed
from gridsearch.spec.collector import ErrorCollector, InvalidValue
from gridsearch.spec.conditions import (
    Condition,
    Exclusion,
    as_spelled,
    check_condition,
    check_exclusion,
    in_order,
    read_condition,
    read_exclusion,
)
from gridsearch.spec.grammar import Span, read_row, read_scalar, read_values, split, write_row
from gridsearch.spec.grid_parts import (
    MAX_POINTS,
    MAX_SEEDS,
    Group,
    Parts,
    Row,
    merge,
    too_many,
    unique,
)

if TYPE_CHECKING:
    from gridsearch.records import Value


@dataclass(frozen=True, slots=True)
class Entry:
    """One axis, or several paired ones, as written.

    Attributes:
        names: "lr", or "lr,batch" for a pair.
        values: a text in the command line's grammar; or values from Python or TOML, one or many.
        place: where it was written, for messages.
        as_given: whether a str in a list is that str, as from Python; else it is a word of the grammar.
    """

    names: str
    values: Any
    place: str
    as_given: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """An exclusion or a condition as written, with its place."""

    text: Any
    place: str


@dataclass(slots=True)
class _Draft:
    """An entry whose values are read but whose ranges are not built."""

    axes: tuple[Axis, ...]
    items: list[Row | Span]
    place: str
    warnings: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        spans = [item for item in self.items if isinstance(item, Span)]
        return len(self.items) - len(spans) + sum(span.count for span in spans)

    def build(self) -> Group:
        rows = itertools.chain.from_iterable(
            (((v,) for v in item.values()) if isinstance(item, Span) else (item,)) for item in self.items
        )
        kept, twice = unique(rows)
        self.warnings += [
            f"{self.place}: {self.text(row)} is given twice, and counts once" for row in twice[:5]
        ]
        if len(twice) > 5:
            self.warnings.append(f"{self.place}: {len(twice) - 5:,} more values are given twice")
        return Group(self.names, kept)

    def merge_equal_words(self) -> None:
        """Drop what was spelled out twice, so that it does not count towards the grid's size."""
        spans = any(isinstance(item, Span) for item in self.items)
        if (spans and len(self.items) > 1 and self.count <= MAX_POINTS) or not spans:
            self.items = list(self.build().rows)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(axis.name for axis in self.axes)

    def text(self, row: Row) -> str:
        return f"{','.join(self.names)}={write_row(self.axes, row)}"


def assemble(
    entries: Sequence[Entry],
    *,
    exclude: Sequence[Written] = (),
    when: Sequence[Written] = (),
    base: Parts | None = None,
    free: bool = False,
    problems: ErrorCollector | None = None,
) -> Parts:
    """Read axes and rules into the parts of a grid, on top of a base whose axes they replace.

    Args:
        entries: the axes as written.
        exclude: exclusions as written; they may name axes of the base.
        when: conditions as written, likewise.
        base: the grid of the study file, say.
        free: whether the axes are params of a function.
        problems: where to gather problems; then they are not raised, and what is right comes back.

    Raises:
        SpecError: everything that is wrong, unless `problems` is given.
    """
    found = ErrorCollector() if problems is None else problems
    drafts, unread = _read_entries(entries, found, free=free)
    own = _build(drafts, found, free=free)
    unread |= {name for draft in drafts for name in draft.names} - own.values().keys()
    merged = own
    if base is not None:
        with found.at(""):
            merged = merge(base, own)
    parts = _with_rules(merged, exclude, when, unread, found)
    if problems is None:
        found.check()
    return parts


def _read_entries(
    entries: Sequence[Entry], problems: ErrorCollector, *, free: bool
) -> tuple[list[_Draft], frozenset[str]]:
    """Read all entries; returns what could be read, and the axes that have problems."""
    drafts: list[_Draft] = []
    seen: set[str] = set()
    unread: set[str] = set()
    for entry in entries:
        names = [canonical(name.strip(), free=free) for name in entry.names.split(",")]
        try:
            axes = tuple(_grid_axis(name, paired=len(names) > 1, free=free) for name in names)
            again = [name for i, name in enumerate(names) if name in seen or name in names[:i]]
            seen.update(names)
            if again:
                raise InvalidValue(f"{again[0]} is given twice")
            draft = _Draft(axes, _read_items(axes, entry), entry.place)
            draft.merge_equal_words()
            drafts.append(draft)
        except InvalidValue as wrong:
            problems.add(entry.place, str(wrong))
            unread.update(names)
    return drafts, frozenset(unread)


def _grid_axis(name: str, *, paired: bool, free: bool) -> Axis:
    if not name:
        raise InvalidValue("names no axis; write it as AXIS=VALUES")
    axis = find_axis(name, free=free)
    if axis.scope is not AxisScope.GRID:
        raise InvalidValue(f"{name!r} is not an axis: it is one for the whole study")
    if name == SEED and paired:
        raise InvalidValue("seeds are replicates of every point and cannot be paired")
    return axis


def _read_items(axes: tuple[Axis, ...], entry: Entry) -> list[Row | Span]:
    """Read the values of an entry: a text, one plain value, or several."""
    values = entry.values
    if isinstance(values, str):
        if len(axes) == 1:
            return [item if isinstance(item, Span) else (item,) for item in read_values(axes[0], values)]
        if not values.strip():
            raise InvalidValue("no value")
        return [read_row(axes, item) for item in split(values, ",")]
    if isinstance(values, Mapping | bytes | set | frozenset):  # a set's order is not the same in each process
        raise InvalidValue(f"takes a list of values, not a {type(values).__name__}")
    one = (
        not isinstance(values, Iterable)
        or getattr(values, "ndim", None) == 0
        or isinstance(values, os.PathLike)
    )
    several = [values] if one else list(values)
    if not several:
        raise InvalidValue("no value")
    return [_read_given(axes, value, as_given=entry.as_given) for value in several]


def _read_given(axes: tuple[Axis, ...], value: Any, *, as_given: bool) -> Row:
    """Read one value of a list from Python or TOML; where axes are paired, one row."""
    if len(axes) == 1:
        return (_scalar(axes[0], value, as_given=as_given),)
    if isinstance(value, str):
        return read_row(axes, value)
    if isinstance(value, Mapping | bytes) or not isinstance(value, Iterable):
        raise InvalidValue(f"a row of paired axes is a list of {len(axes)} values, not {value!r}")
    row = list(value)
    if len(row) != len(axes):
        raise InvalidValue(
            f"{row!r} has {len(row)} of the {len(axes)} values of {','.join(axis.name for axis in axes)}"
        )
    return tuple(_scalar(axis, v, as_given=as_given) for axis, v in zip(axes, row, strict=True))


def _scalar(axis: Axis, value: Any, *, as_given: bool) -> Value:
    if as_given and axis.free:
        return given(axis, value)
    return read_scalar(axis, value.strip()) if isinstance(value, str) else typed(axis, value)


def _build(drafts: Sequence[_Draft], problems: ErrorCollector, *, free: bool) -> Parts:
    """Build the values, unless there would be too many points."""
    seeds = [draft for draft in drafts if draft.names == (SEED,)]
    others = [draft for draft in drafts if draft.names != (SEED,)]
    count = math.prod(draft.count for draft in others)
    if count > MAX_POINTS:
        problems.add(others[0].place if len(others) == 1 else "", too_many(count))
        others = []
    if seeds and seeds[0].count > MAX_SEEDS:
        problems.add(seeds[0].place, f"{seeds[0].count:,} seeds, and at most {MAX_SEEDS:,} are taken")
        seeds = []
    groups = []
    for draft in (*others, *seeds):
        with problems.at(draft.place):
            groups.append(draft.build())
    rows = [group.rows for group in groups if group.names == (SEED,)]
    return Parts(
        groups=tuple(group for group in groups if group.names != (SEED,)),
        seeds=tuple(int(row[0]) for row in rows[0] if row[0] is not None) if rows else None,
        free=free,
        warnings=tuple(line for draft in drafts for line in draft.warnings),
    )


def _with_rules(
    parts: Parts,
    exclude: Sequence[Written],
    when: Sequence[Written],
    unread: frozenset[str],
    problems: ErrorCollector,
) -> Parts:
    """Add exclusions and conditions to a grid, each checked against its axes."""
    values = parts.values()
    exclusions, conditions, warnings = list(parts.exclusions), list(parts.conditions), list(parts.warnings)
    for written in exclude:
        with problems.at(written.place):
            exclusion = read_exclusion(_text(written), free=parts.free)
            exclusion = Exclusion(as_spelled(exclusion.terms, values))
            check_exclusion(exclusion, values, unread)
            exclusions.append(exclusion)
    for written in when:
        with problems.at(written.place):
            condition = read_condition(_text(written), free=parts.free)
            condition = Condition(condition.axis, as_spelled(condition.terms, values))
            conditions.append(condition)
            try:
                check_condition(condition, values)
            except InvalidValue as wrong:
                warnings.append(f"{written.place}: {wrong}")
    ordered: tuple[Condition, ...] = ()
    with problems.at(when[0].place if when else ""):
        ordered = in_order(tuple(dict.fromkeys(conditions)))
    return Parts(
        groups=parts.groups,
        exclusions=tuple(dict.fromkeys(exclusions)),
        conditions=ordered,
        seeds=parts.seeds,
        free=parts.free,
        warnings=tuple(warnings),
    )


def _text(written: Written) -> str:
    if not isinstance(written.text, str):
        raise InvalidValue(f"must be a text, not {type(written.text).__name__}")
    return written.text
