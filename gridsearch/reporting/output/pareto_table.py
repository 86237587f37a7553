"""The Pareto front as rows of text, for the terminal and the page, and as a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gridsearch.reporting.figures.front_figure import value_words
from gridsearch.reporting.output.frames import frame_of
from gridsearch.reporting.output.plain_tables import PlainTable
from gridsearch.reporting.ranking.pareto import COSTS
from gridsearch.reporting.words.digits import Digits
from gridsearch.reporting.words.text import show_params, written

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from gridsearch.reporting.ranking.pareto import Candidate, ParetoFront, Quantity

MOST: Final = 20
"""Points of a table."""


def headings(found: ParetoFront) -> list[str]:
    """Return the columns' names."""
    return ["point", *(q.words for q in found.quantities), ""]


def hidden(found: ParetoFront) -> int:
    """Return how many of the points that `rows` is about stand beyond its last row."""
    return max(0, sum(c.front or c.open for c in found.candidates) - MOST)


def rows(found: ParetoFront, varying: Sequence[str]) -> list[list[str]]:
    """Return the front's points, then those that the intervals leave open."""
    shown = [c for c in found.candidates if c.front or c.open][:MOST]
    written = [
        Digits.of([c.values[i] for c in found.candidates], q.name) for i, q in enumerate(found.quantities)
    ]
    return [
        [
            show_params(c.point.params, varying or None, limit=120),
            *(_with_ends(q, c, i, written[i]) for i, q in enumerate(found.quantities)),
            "front" if c.front else "open",
        ]
        for c in shown
    ]


def _with_ends(quantity: Quantity, candidate: Candidate, place: int, digits: Digits) -> str:
    value, ends = candidate.values[place], candidate.ends[place]
    if quantity.name in COSTS:
        words = value_words(quantity, value)
        return words if ends is None else f"{words} [{written(ends[0])}, {written(ends[1])}]"
    if ends is None:
        return digits.show(value)
    digits = digits.finer(ends[1] - ends[0])
    return f"{digits.show(value)} {digits.interval(*ends)}"


def pareto_frame(found: ParetoFront) -> pd.DataFrame:
    """Return one row a point, the front first: params, each quantity with the ends of its interval, front, open."""
    axes = tuple(dict.fromkeys(axis for c in found.candidates for axis in c.point.params))
    columns = [*axes]
    for quantity in found.quantities:
        columns += [quantity.name, f"{quantity.name}_low", f"{quantity.name}_high"]
    content: list[list[Any]] = []
    for c in found.candidates:
        row: list[Any] = [c.point.params.get(axis) for axis in axes]
        for value, ends in zip(c.values, c.ends, strict=True):
            row += [value, *(ends or (None, None))]
        content.append([*row, c.front, c.open])
    return frame_of(PlainTable([*columns, "front", "open"], content, axes))
