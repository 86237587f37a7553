"""The metric over each axis by itself, all points shown; from ranking to a figure with a panel an axis.

The other axes differ within a column of dots: its height says how much they matter, the line through the
medians what this axis does.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from gridsearch.reporting.figures.fonts import axis_names, fitted, legible, level_names, text_width
from gridsearch.reporting.figures.mpl_style import (
    ACCENT,
    PALETTE,
    drawn,
    hatch_level,
    level_ticks,
    new_figure,
    panel_grid,
    plain_text,
    ruled,
    settled,
)
from gridsearch.reporting.figures.panels import missing_words
from gridsearch.reporting.figures.scale import Scale
from gridsearch.reporting.ranking.effects import strength
from gridsearch.reporting.ranking.points import Levels, RankedPoint
from gridsearch.reporting.ranking.ranking import Ranking, rank
from gridsearch.reporting.words.text import metric_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gridsearch.records import StudyData
    from gridsearch.reporting.figures.units import Unit

MOST_AXES: Final = 6
MOST_TICKS: Final = 14
MOST_BARS: Final = 30
MOST_VECTORS: Final = 2000
"""Of more points, the dots are drawn as pixels: a megabyte of SVG says no more."""
ACROSS: Final = 3
_PANEL: Final = 3.5
_FIRST: Final = ("lr", "batch")


@drawn
def marginals_figure(data: StudyData, *, ranking: Ranking | None = None) -> Figure | None:
    """Return the metric over each of the (at most six) strongest axes; lr and batch come first.

    None with fewer than two varying axes, where the heatmap's place is taken by the same drawing of one axis.
    """
    ranking = ranking or rank(data)
    points = [p for p in ranking.points if p.drawable]
    axes = marginal_axes(ranking)
    if len(axes) < 2 or not points:
        return None
    levels = {a: Levels(ranking.points, a) for a in axes}
    names, ticks = axis_names(ranking.varying), {a: level_names(a, levels[a].values) for a in axes}
    metric = legible(metric_name(ranking.metric), "the metric")
    below = max(_tick_height(ticks[a]) for a in axes)
    across = min(ACROSS, len(axes))
    down = math.ceil(len(axes) / across)
    scale = Scale.of(points, ranking)
    width = max(_PANEL * across + 0.6, 6.0)
    note = _note(ranking, scale, left_out=len(axes))
    figure = new_figure(width, (2.9 + below) * down, "Each axis by itself", note)
    panels = panel_grid(figure, len(axes), across, sharey=True)
    for place, (panel, axis) in enumerate(zip(panels, axes, strict=True)):
        columns = _columns(points, levels[axis], scale.unit)
        _draw_dots(panel, columns, limits=(scale.low, scale.high), best=ranking.best)
        _draw_medians(panel, columns, limits=(scale.low, scale.high), joined=levels[axis].joined)
        _name_levels(panel, columns, ticks[axis])
        panel.set(ylim=scale.limits(0.06), xlabel=fitted(names[axis], _PANEL - 0.6, 9))
        if place % across == 0:
            panel.set_ylabel(fitted(metric, 2.4, 9))
        plain_text([panel.xaxis.label, panel.yaxis.label])
    scale.unit.dress(panels[0].yaxis)  # shared by all
    return settled(figure)


def marginal_axes(ranking: Ranking) -> list[str]:
    """Return the axes that get a panel: lr and batch, then the others by how much they explain."""
    shares = strength(ranking)
    usual = [a for a in _FIRST if a in ranking.varying]
    others = sorted((a for a in ranking.varying if a not in _FIRST), key=lambda a: -shares[a])
    return [*usual, *others][:MOST_AXES]


def _tick_height(names: Sequence[str]) -> float:
    """Return the inches that slanted names below a panel need, 0 where they stand upright."""
    widest = max(text_width(n, 9) for n in names)
    shown = min(len(names), MOST_TICKS)
    return widest / math.sqrt(2) if widest > 0.8 * (_PANEL - 0.8) / shown else 0.0


def _columns(
    points: Sequence[RankedPoint], levels: Levels, unit: Unit
) -> dict[int, list[tuple[RankedPoint, float]]]:
    """Return the points of each level, with the places of their values, best first."""
    columns: dict[int, list[tuple[RankedPoint, float]]] = {}
    for point in points:
        if point.mean is not None:
            columns.setdefault(levels.place(point), []).append((point, unit.draw(point.mean)))
    return columns


def _name_levels(panel: Axes, columns: Mapping[int, object], names: Sequence[str]) -> None:
    for place in range(len(names)):
        if place not in columns:
            hatch_level(panel, place)
    level_ticks(panel, names, every=math.ceil(len(names) / MOST_TICKS), slanted=_tick_height(names) > 0)
    ruled(panel)


def _draw_dots(
    panel: Axes,
    columns: Mapping[int, Sequence[tuple[RankedPoint, float]]],
    *,
    limits: tuple[float, float],
    best: RankedPoint | None,
) -> None:
    """Draw a dot a point, spread sideways in the order of their values; what is off the scale lies at its edge."""
    dots = [
        (point, place + offset, value)
        for place, column in columns.items()
        for (point, value), offset in zip(column, _spread(len(column)).tolist(), strict=True)
    ]
    panel.scatter(
        [x for _, x, _ in dots],
        np.clip([y for _, _, y in dots], *limits),
        s=14 if len(dots) <= 300 else 5 if len(dots) <= MOST_VECTORS else 2,
        color=PALETTE[0],
        alpha=0.5 if len(dots) <= MOST_VECTORS else 0.25,
        linewidths=0,
        rasterized=len(dots) > MOST_VECTORS,
    )
    for point, x, y in dots:
        if point is best:
            panel.plot(
                x, y, "o", markersize=10, fillstyle="none", color=ACCENT, mew=2, zorder=5, label="best"
            )


def _spread(count: int) -> np.ndarray:
    """Return offsets to both sides that fill a column evenly without any draw (golden ratio steps)."""
    if count <= 2:
        return np.zeros(count)
    width = min(0.3, 0.03 * count)
    offsets: np.ndarray = width * (2 * ((np.arange(count) * 0.6180339887498949) % 1.0) - 1)
    return offsets


def _draw_medians(
    panel: Axes,
    columns: Mapping[int, Sequence[tuple[RankedPoint, float]]],
    *,
    limits: tuple[float, float],
    joined: bool,
) -> None:
    """Draw the median of each column; one off the scale lies at its edge, as its dots do."""
    places = sorted(columns)
    medians = [float(np.clip(np.median([v for _, v in columns[place]]), *limits)) for place in places]
    joined = joined or len(places) > MOST_BARS
    panel.plot(places, medians, color="#d55e00", linewidth=1.6, linestyle="-" if joined else "none", zorder=4)
    for place, median in zip(places, medians, strict=True) if len(places) <= MOST_BARS else ():
        panel.plot([place - 0.22, place + 0.22], [median] * 2, color="#d55e00", linewidth=2.4, zorder=4)


def _note(ranking: Ranking, scale: Scale, *, left_out: int) -> str:
    notes = ["Each dot is a point; orange: median of the column; circle: best point."]
    notes += scale.clipped_words("are drawn at the edge")
    if missing := missing_words(ranking):
        notes.append(f"Not drawn: {missing}.")
    if len(ranking.varying) > left_out:
        notes.append(f"The {left_out} strongest of {len(ranking.varying)} axes.")
    return " ".join(notes)
