"""Findings about an axis: the winner is at its edge, it has no effect, its best value lies between two that were tried.

The comparisons of all axes share one error level (Bonferroni), so that a study with many axes finds no more by chance.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from gridsearch.records.axis import identity
from gridsearch.reporting.findings.differences import Blocks, chance, difference, lead_over
from gridsearch.reporting.findings.finding import LEVEL, Finding
from gridsearch.reporting.ranking.points import levels_of
from gridsearch.reporting.words.text import MOST_DIGITS, exponent_of, printable, show_value
from gridsearch.reporting.words.typed import ABSENT
from gridsearch.spec.axes import find_axis
from gridsearch.spec.axis_values import typed
from gridsearch.spec.collector import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gridsearch.records import Value
    from gridsearch.reporting.findings.next_grids import NextGrids
    from gridsearch.reporting.ranking.ranking import Ranking

NO_EFFECT = "GS102"

_FURTHER = 2
"""Values that are tried beyond an edge."""

_DECADE = 10.0
"""Where an axis spans as much, its next values are multiples, else they are equally far apart."""


def about_axes(ranking: Ranking, grids: NextGrids, *, free: bool) -> Iterator[Finding]:
    """Give what the axes show."""
    if ranking.best is None:
        return
    blocks = Blocks(ranking)
    for axis in ranking.varying:
        levels = [v for v in levels_of(ranking.points, axis) if v != ABSENT]
        best = ranking.best.level(axis)
        if best == ABSENT or len(levels) < 2:
            continue
        level = LEVEL / len(ranking.varying)
        found: list[Finding] = []
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in levels):
            found += _at_the_edge(blocks, grids, axis, levels, level=level, free=free)
            found += _between(blocks, grids, axis, levels, level=level, free=free)
        yield from found or _no_effect(blocks, grids, axis, levels, level=level)


def _at_the_edge(
    blocks: Blocks, grids: NextGrids, axis: str, levels: Sequence[Value], *, level: float, free: bool
) -> Iterator[Finding]:
    """Find that the winner has the least or the greatest value, and is better than the value next to it."""
    best = blocks.ranking.best
    assert best is not None
    place = [identity(v) for v in levels].index(identity(best.level(axis)))
    if 0 < place < len(levels) - 1:
        return
    edge, inner = levels[place], levels[1 if place == 0 else -2]
    lead = lead_over(blocks, axis, inner, level=level)
    values = _beyond(axis, levels, upward=place > 0, free=free)
    if lead is None or not values:
        return
    yield Finding(
        code="GS101",
        axis=axis,
        value=edge,
        sentence=f"The winner has the {'largest' if place else 'smallest'} {printable(axis)} that was tried, "
        f"{show_value(edge)}, and is better with it than with {show_value(inner)} by {lead}: "
        f"{'larger' if place else 'smaller'} values may be better still.",
        command=grids.around(best, {axis: values}),
    )


def _between(
    blocks: Blocks, grids: NextGrids, axis: str, levels: Sequence[Value], *, level: float, free: bool
) -> Iterator[Finding]:
    """Find that the winner's value is better than both of its neighbours: the best one is not further than these."""
    best = blocks.ranking.best
    assert best is not None
    place = [identity(v) for v in levels].index(identity(best.level(axis)))
    if not 0 < place < len(levels) - 1:
        return
    beside = [levels[place - 1], levels[place + 1]]
    leads = [lead_over(blocks, axis, other, level=level / 2) for other in beside]
    values = [
        v for other in beside if (v := _middle(axis, levels[place], other, levels, free=free)) is not None
    ]
    if not values or leads[0] is None or leads[1] is None:
        return
    yield Finding(
        code="GS107",
        axis=axis,
        value=levels[place],
        sentence=f"The winner's {printable(axis)}, {show_value(levels[place])}, is better than {show_value(beside[0])} "
        f"by {leads[0]}, and than {show_value(beside[1])} by {leads[1]}: the best value lies between these two.",
        command=grids.around(best, {axis: values}),
    )


def _no_effect(
    blocks: Blocks, grids: NextGrids, axis: str, levels: Sequence[Value], *, level: float
) -> Iterator[Finding]:
    """Find that no two values of an axis differ by more than chance does (two one-sided tests, Schuirmann 1987)."""
    ranking = blocks.ranking
    best, pairs = ranking.best, list(itertools.combinations(levels, 2))
    if best is None or len(pairs) > 100:
        return
    found = [difference(blocks, axis, one, other, level=2 * level) for one, other in pairs]
    known = [each for each in found if each is not None]
    compared = {id(point): point for each in known for point in each.points}
    most = chance(ranking, compared.values())
    if len(known) < len(found) or most is None:
        return
    widest = max(max(abs(each.low), abs(each.high)) for each in known)
    count = min(each.count for each in known)
    if not widest < most:
        return
    digits = ranking.digits_of()
    yield Finding(
        code=NO_EFFECT,
        axis=axis,
        sentence=f"{printable(axis)} has no visible effect: its {len(levels)} values differ by at most "
        f"{digits.finer(widest).difference(widest)} on average (95 % confidence, {count} pairs of points), less than "
        f"trials vary by chance ({digits.finer(most).difference(most)}, standard deviation). Leave it out, and use "
        "more seeds instead.",
        command=grids.without(axis, kept=[best.level(axis)], point=best, seeds=2),
    )


def _beyond(axis: str, levels: Sequence[Value], *, upward: bool, free: bool) -> list[Value]:
    """Return the next values beyond an edge, at the distance of those that were tried; none that the axis refuses."""
    numbers = [float(v) for v in levels if v is not None]  # numbers all
    edge, inner = (numbers[-1], numbers[-2]) if upward else (numbers[0], numbers[1])
    multiples = numbers[0] > 0 and (numbers[-1] / numbers[0] >= _DECADE or not upward)
    found: list[Value] = []
    for step in range(1, _FURTHER + 1):
        value = edge * (edge / inner) ** step if multiples else edge + (edge - inner) * step
        taken = _value(axis, value, levels, apart=value - edge, free=free)
        if taken is not None and taken not in found and (float(taken) > edge) is upward:
            found.append(taken)
    return found


def _middle(axis: str, one: Value, other: Value, levels: Sequence[Value], *, free: bool) -> Value:
    """Return a value between two; None where there is none."""
    a, b = sorted((float(one or 0), float(other or 0)))
    value = math.sqrt(a * b) if a > 0 and b / a >= _DECADE / 5 else (a + b) / 2
    found = _value(axis, value, levels, apart=value - a, free=free)
    return found if found is not None and a < float(found) < b else None


def _value(axis: str, value: float, levels: Sequence[Value], *, apart: float, free: bool) -> Value:
    """Return a number as a value of an axis, to three digits or more; None where the axis does not take it.

    Args:
        axis: the axis.
        value: the number.
        levels: what was tried.
        apart: how far it is from the nearest of these, which rounding must not take away: 1003.5 beside 1002.5.
        free: whether an axis may bear any name.
    """
    if not math.isfinite(value):
        return None
    whole = all(isinstance(v, int) for v in levels)
    digits = 3
    if value and apart:
        digits = min(max(digits, exponent_of(value) - exponent_of(apart) + 2), MOST_DIGITS)
    rounded = round(value) if whole else float(f"{value:.{digits}g}")
    if any(identity(rounded) == identity(v) for v in levels) or (whole and rounded == 0):
        return None
    try:
        return typed(find_axis(axis, free=free), rounded)
    except InvalidValue:
        return None
