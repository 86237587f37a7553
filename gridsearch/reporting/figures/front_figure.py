"""The Pareto front as a figure: the first quantity against each of the others, intervals and numbers at its points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gridsearch.reporting.figures.cost import number_places
from gridsearch.reporting.figures.fonts import fitted, legible, point_names
from gridsearch.reporting.figures.mpl_style import (
    ACCENT,
    PALETTE,
    drawn,
    new_figure,
    numbered_legend,
    panel_grid,
    plain_text,
    ruled,
    settled,
)
from gridsearch.reporting.figures.units import Unit
from gridsearch.reporting.ranking.pareto import COSTS
from gridsearch.reporting.words.digits import Digits
from gridsearch.reporting.words.text import capitalized, show_seconds, written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from gridsearch.reporting.ranking.pareto import Candidate, ParetoFront, Quantity

MOST_NAMED: Final = 8
_WIDTH: Final = 7.6
_WIDE: Final = 20.0
"""Costs that differ more than this many times are drawn on a logarithmic scale."""


@drawn
def pareto_figure(found: ParetoFront, varying: Sequence[str]) -> Figure:
    """Return a panel for each quantity but the first, which is drawn against it.

    Args:
        found: the points by their quantities.
        varying: the axes that name a point.
    """
    first, *others = found.quantities
    named = found.front[:MOST_NAMED]
    title = f"{capitalized(first.words)} against {', '.join(q.words for q in others)}"
    of = f" the first {len(named)} of {len(found.front):,} of which" if len(named) < len(found.front) else ""
    note = f"Numbered:{of} no other point is as good in all and better in one. Lines are intervals."
    across = min(2, len(others))
    rows = -(-len(others) // across)
    figure = new_figure(_WIDTH, 3.1 * rows + 0.21 * len(named), title, note)
    panels = panel_grid(figure, len(others), across)
    for place, (axes, quantity) in enumerate(zip(panels, others, strict=True), start=1):
        _draw(axes, found, place)
        axes.set(xlabel=_label(quantity), ylabel=fitted(legible(_label(first), "the metric"), 2.6, 9))
        plain_text([axes.xaxis.label, axes.yaxis.label])
        ruled(axes, along="both")
    _legend(figure, found, named, varying)
    settled(figure)
    for place, axes in enumerate(panels, start=1):
        number_places(axes, [(c.values[place], c.values[0]) for c in named])
    return figure


def _draw(axes: Axes, found: ParetoFront, place: int) -> None:
    for candidates, colour, size in (
        ([c for c in found.candidates if not c.front], PALETTE[0], 22),
        (found.front, ACCENT, 16),
    ):
        x, y = [c.values[place] for c in candidates], [c.values[0] for c in candidates]
        axes.scatter(
            x, y, s=size, color=colour, alpha=0.5 if colour != ACCENT else 1.0, linewidths=0, zorder=4
        )
    for candidate in found.front:
        _interval(axes, candidate, place)
    if _wide(found, place):
        axes.set_xscale("log")
    if _wide(found, 0):
        axes.set_yscale("log")
    for axis, own in ((axes.xaxis, place), (axes.yaxis, 0)):
        _dress(axis, found.quantities[own].name)


def _interval(axes: Axes, candidate: Candidate, place: int) -> None:
    """Draw the intervals of a point in both directions, as far as it has them."""
    x, y = candidate.values[place], candidate.values[0]
    if (ends := candidate.ends[0]) is not None:
        axes.plot([x, x], ends, color=ACCENT, linewidth=1.1, alpha=0.7, zorder=3)
    if (ends := candidate.ends[place]) is not None:
        axes.plot(ends, [y, y], color=ACCENT, linewidth=1.1, alpha=0.7, zorder=3)


def _wide(found: ParetoFront, place: int) -> bool:
    """Whether a cost differs so much between the points that it is drawn on a logarithmic scale."""
    values = [c.values[place] for c in found.candidates]
    return found.quantities[place].name in COSTS and min(values) > 0 and max(values) > _WIDE * min(values)


def _dress(axis: Axis, name: str) -> None:
    """Say an axis's ticks."""
    if name not in COSTS:
        Unit(name).dress(axis)
        return
    axis.set_major_formatter(lambda value, _: _short(value))
    axis.set_minor_formatter(lambda *_: "")


def _short(value: float) -> str:
    """Return a cost's tick: "0.35", "12", "45k", "1.2M"."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _label(quantity: Quantity) -> str:
    if quantity.name not in COSTS:
        return quantity.words
    words, unit = COSTS[quantity.name]
    return unit if unit.endswith(words) else f"{words}, {unit}"


def value_words(quantity: Quantity, value: float) -> str:
    """Return a quantity of a point as text: "93.71 %", "44,426", "0.21 ms"."""
    if quantity.name not in COSTS:
        return Digits(quantity.name).show(value)
    if quantity.name == "parameters":
        return f"{value:,.0f}"
    return f"{written(value)} ms" if quantity.name == "latency" else show_seconds(value)


def _legend(figure: Figure, found: ParetoFront, named: Sequence[Candidate], varying: Sequence[str]) -> None:
    marks = [f"the point ranked {c.point.rank}" for c in named]
    names = point_names([c.point.params for c in named], varying, marks, _WIDTH - 3.4)
    words = [
        f"{number}.  {', '.join(value_words(q, v) for q, v in zip(found.quantities, c.values, strict=True))}: {name}"
        for number, (c, name) in enumerate(zip(named, names, strict=True), start=1)
    ]
    numbered_legend(figure, words)
