"""The values that a study's axes have, in the order in which tables and figures show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gridsearch.reporting.ranking.ranking import RankedPoint, identity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.records import Value

ABSENT: Final = "\0absent"
"""The level of a point that lacks an axis, because a condition takes it away."""


def level_of(point: RankedPoint, axis: str) -> Value:
    """Return a point's value of an axis, `ABSENT` if it does not have that axis."""
    return point.params.get(axis, ABSENT)


def levels_of(points: Sequence[RankedPoint], axis: str) -> tuple[Value, ...]:
    """Return an axis's values: numbers ascending, other values before them in the order of their trials."""
    first: dict[tuple[bool, Value], Value] = {}
    for point in sorted(points, key=lambda p: p.trials[0].number):
        value = level_of(point, axis)
        first.setdefault(identity(value), value)
    words: list[Value] = []
    numbers: list[int | float] = []
    for value in first.values():
        if isinstance(value, int | float) and not isinstance(value, bool):
            numbers.append(value)
        else:
            words.append(value)
    return (*words, *sorted(numbers))
