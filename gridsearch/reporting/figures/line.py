"""The study's values over its one varying axis: a point for every seed, a line through the means."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from gridsearch.reporting.figures.fonts import axis_names, fitted, legible, level_names, text_width
from gridsearch.reporting.figures.mpl_style import (
    ACCENT,
    PALETTE,
    hatch_level,
    level_ticks,
    new_figure,
    plain_text,
    ruled,
    settled,
)
from gridsearch.reporting.figures.panels import missing_words, why_missing
from gridsearch.reporting.figures.rendering import INK
from gridsearch.reporting.figures.scale import level_where_flat
from gridsearch.reporting.figures.units import Unit
from gridsearch.reporting.ranking.points import Levels
from gridsearch.reporting.words.text import capitalized, metric_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gridsearch.reporting.figures.scale import Scale
    from gridsearch.reporting.ranking.ranking import Ranking

MOST_TICKS: Final = 40
MOST_NUMBERS: Final = 16
"""Means are written over up to so many dots, where there is space for them."""
WIDEST: Final = 13.0
_LINE: Final = 0.2
"""Inches from one slanted label to the next at least."""


def axis_figure(ranking: Ranking, axis: str, *, scale: Scale | None = None) -> Figure:
    """Return a figure of the metric over an axis; levels stand at equal distances, as the grid lists them.

    Args:
        ranking: the points.
        axis: the one that varies.
        scale: what has to fit, unless values are beyond its ends; default: the study's own.
    """
    levels = Levels(ranking.points, axis)
    names = level_names(axis, levels.values)
    name, metric = axis_names(ranking.varying)[axis], legible(metric_name(ranking.metric), "the metric")
    unit = Unit.of([v for p in ranking.points for v in p.values], ranking.metric)
    widest = max(text_width(n, 9) for n in names)
    width = min(max(5.6, 1.4 + _step(ranking) * len(levels)), WIDEST)
    slanted = widest > 0.9 * (width - 1.4) / len(levels)
    below = widest / math.sqrt(2) if slanted else 0.0
    figure = new_figure(width, 3.0 + below, f"{capitalized(metric)} over {name}", _note(ranking))
    axes = figure.add_subplot()
    _draw_seeds(axes, ranking, levels, unit)
    numbered = len(levels) <= MOST_NUMBERS and 1.4 + _step(ranking) * len(levels) <= WIDEST
    _draw_means(axes, ranking, levels, unit, numbered=numbered)
    _mark_missing(axes, ranking, levels)
    level_where_flat(axes)
    if scale is not None and not scale.clipped:
        axes.set_ylim(scale.drawn_in(unit).limits(0.2))
    step = max(math.ceil(len(levels) / MOST_TICKS), math.ceil(len(levels) * _LINE / (width - 1.4)))
    level_ticks(axes, names, every=step, slanted=slanted)
    axes.set(xlabel=fitted(name, width - 1.4, 9), ylabel=fitted(metric, 2.6, 9))
    unit.dress(axes.yaxis)
    ruled(axes)
    plain_text([axes.xaxis.label, axes.yaxis.label])
    return settled(figure)


def _step(ranking: Ranking) -> float:
    """Return the inches from a level to the next: the numbers over the dots lie beside each other."""
    shown = [ranking.digits_of().show(p.mean, unit=False) for p in ranking.points if p.mean is not None]
    return max([0.75, *(text_width(text, 8) + 0.15 for text in shown)])


def _draw_seeds(axes: Axes, ranking: Ranking, levels: Levels, unit: Unit) -> None:
    spots = [
        (levels.place(p), unit.draw(v))
        for p in ranking.points
        if p.n > 1 and not p.outsized
        for v in p.values
    ]
    if spots:
        axes.scatter(
            [x for x, _ in spots], [y for _, y in spots], s=14, color=PALETTE[0], alpha=0.45, linewidths=0
        )


def _draw_means(axes: Axes, ranking: Ranking, levels: Levels, unit: Unit, *, numbered: bool) -> None:
    points = [(p, p.mean) for p in ranking.points if p.drawable and p.mean is not None]
    means = sorted((levels.place(p), unit.draw(mean)) for p, mean in points)
    if not means:
        return
    x, y = zip(*means, strict=True)
    axes.plot(
        x,
        y,
        marker="o",
        markersize=6 if len(x) <= 60 else 3.5 if len(x) <= 300 else 1.5,
        color=PALETTE[0],
        linestyle="-" if levels.joined else "none",
        linewidth=1.4 if len(x) <= 300 else 0.4,
    )
    for point, mean in points if numbered else ():
        axes.annotate(
            ranking.digits_of().show(mean, unit=False),
            (levels.place(point), unit.draw(mean)),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            size=8,
            color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.7},
        )
    best = ranking.best
    if best is not None and best.mean is not None:
        place = (levels.place(best), unit.draw(best.mean))
        axes.plot(*place, marker="o", markersize=12, fillstyle="none", color=ACCENT, mew=2)
    axes.margins(y=0.18)


def _mark_missing(axes: Axes, ranking: Ranking, levels: Levels) -> None:
    for point in ranking.points:
        if not point.drawable:
            place = levels.place(point)
            hatch_level(axes, place)
            axes.text(
                place,
                0.04,
                why_missing(point).replace("\n", " "),
                transform=axes.get_xaxis_transform(),
                ha="center",
                va="bottom",
                rotation=90,
                size=7.5,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
            )


def _note(ranking: Ranking) -> str:
    notes = ["Best point ringed."] if ranking.best else []
    if ranking.most_seeds > 1:
        notes.append(f"Small dots: {ranking.noun}s.")
    if missing := missing_words(ranking):
        notes.append(f"Hatched: not drawn ({missing}).")
    if ranking.by_train:
        notes.append("By TRAIN accuracy: nothing was held out.")
    return " ".join(notes)
