"""Every point as a line across all axes, coloured by its result; from ranking to a figure.

A level's lines are spread by rank around its place, best on top, so that they can be followed through it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from gridsearch.reporting.figures.fonts import axis_names, legible, level_names, text_width
from gridsearch.reporting.figures.mpl_style import ACCENT, colours_for, drawn, new_figure, plain_text, settled
from gridsearch.reporting.figures.panels import missing_words
from gridsearch.reporting.figures.rendering import INK
from gridsearch.reporting.figures.scale import Scale
from gridsearch.reporting.ranking.effects import strength
from gridsearch.reporting.ranking.points import Levels, RankedPoint
from gridsearch.reporting.ranking.ranking import Ranking, rank
from gridsearch.reporting.words.digits import tick_labels
from gridsearch.reporting.words.text import metric_name, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gridsearch.records import StudyData

MOST_AXES: Final = 10
MOST_LEVELS: Final = 16
MOST_VECTORS: Final = 400
_NAME: Final = 20


@drawn
def parallel_figure(data: StudyData, *, ranking: Ranking | None = None) -> Figure | None:
    """Return parallel coordinates of all points with a result; None with fewer than two varying axes."""
    ranking = ranking or rank(data)
    points = [p for p in ranking.points if p.drawable]
    shares = strength(ranking)
    strongest = sorted(ranking.varying, key=lambda a: -shares[a])[:MOST_AXES]
    axes = [a for a in ranking.varying if a in strongest]
    if len(axes) < 2 or len(points) < 2:
        return None
    levels = {a: Levels(ranking.points, a) for a in axes}
    names, ticks = (
        axis_names(ranking.varying, _NAME),
        {a: level_names(a, levels[a].values, _NAME) for a in axes},
    )
    metric = legible(printable(metric_name(ranking.metric), _NAME + 6), "the metric")
    scale = Scale.of(points, ranking)
    low, high = scale.low, scale.high
    heights = [_heights(points, levels[a]) for a in axes]
    result = (np.array([scale.place(p) for p in points]) - low) / (high - low)
    lines = np.stack([*heights, result], axis=1)
    steps = _steps([ticks[a] for a in axes], [*(names[a] for a in axes), metric])
    marks = _marks(low, high)
    numbers = tick_labels([scale.unit.value(m) for m in marks], ranking.metric)
    right = max(0.95, 0.3 + max((text_width(n, 8.5) for n in numbers), default=0.0))
    width = max(1.25 + right + sum(steps), 6.5)
    note = _note(ranking, scale, shown=len(axes))
    figure = new_figure(width, 4.0, "Every point across the axes", note)
    panel = figure.add_subplot()
    places = np.concatenate([[0.0], np.cumsum(steps)])
    _draw_lines(panel, places, lines, result, colours=colours_for(ranking.direction))
    _draw_best(panel, places, lines[0])
    for place, axis in zip(places, axes, strict=False):
        _draw_axis(panel, float(place), ticks[axis])
    heights_of_marks = [(m - low) / (high - low) for m in marks]
    _draw_result(panel, float(places[-1]), heights_of_marks, numbers, colours=colours_for(ranking.direction))
    panel.set_xticks(places, [*(names[a] for a in axes), metric])
    panel.tick_params(length=0, labelsize=9.5, top=True, labeltop=True, bottom=False, labelbottom=False)
    panel.set(xlim=(places[0] - 0.95, places[-1] + right), ylim=(-0.03, 1.03), yticks=[])
    panel.spines[:].set_visible(False)
    plain_text(panel.get_xticklabels())
    return settled(figure)


def _heights(points: Sequence[RankedPoint], levels: Levels) -> np.ndarray:
    """Return each point's height, 0 to 1: its level's place, and within it the points' order, best on top."""
    level = np.array([levels.place(p) for p in points])
    heights = np.empty(len(level))
    gap = 1.0 / len(levels)
    for i in range(len(levels)):
        own = np.flatnonzero(level == i)
        if len(own):
            offsets = np.linspace(0.5, -0.5, len(own)) if len(own) > 1 else np.zeros(1)
            heights[own] = (i + 0.5) * gap + offsets * min(0.62, 0.06 * len(own)) * gap
    return heights


def _steps(ticks: Sequence[Sequence[str]], names: Sequence[str]) -> list[float]:
    """Return the inches from each axis to the next: neither its levels' names nor its own reach the next one's."""
    wide = [text_width(n, 9.5) for n in names]
    levels = [max(text_width(n, 8.5) for n in own) for own in ticks]
    return [
        max(1.5, level + 0.75, (one + other) / 2 + 0.2)
        for level, one, other in zip(levels, wide[:-1], wide[1:], strict=True)
    ]


def _draw_lines(
    panel: Axes, places: np.ndarray, lines: np.ndarray, result: np.ndarray, *, colours: str
) -> None:
    """Draw the points' lines, worst first."""
    from matplotlib.collections import LineCollection

    order = np.arange(len(lines))[::-1]
    segments = [np.column_stack([places, lines[i]]) for i in order]
    collection = LineCollection(
        segments,
        cmap=colours,
        array=result[order],
        linewidths=1.3 if len(lines) <= 60 else 0.9 if len(lines) <= 400 else 0.5,
        alpha=0.85 if len(lines) <= 60 else 0.6 if len(lines) <= 1000 else 0.3,
        rasterized=len(lines) > MOST_VECTORS,
    )
    collection.set_clim(0.0, 1.0)
    panel.add_collection(collection, autolim=False)


def _draw_best(panel: Axes, places: np.ndarray, line: np.ndarray) -> None:
    panel.plot(places, line, color="white", linewidth=4.2, zorder=3)
    panel.plot(places, line, color=ACCENT, linewidth=2.2, marker="o", markersize=5, zorder=4)


def _draw_axis(panel: Axes, place: float, names: Sequence[str]) -> None:
    panel.axvline(place, color="#8b909c", linewidth=1.0, zorder=2)
    step = math.ceil(len(names) / MOST_LEVELS)
    texts = [
        panel.text(
            place + 0.07,
            (i + 0.5) / len(names),
            names[i],
            ha="left",
            va="center",
            size=8.5,
            color=INK,
            zorder=6,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.82},
        )
        for i in range(0, len(names), step)
    ]
    plain_text(texts)


def _marks(low: float, high: float) -> list[float]:
    """Return round values between the ends of the scale."""
    from matplotlib.ticker import MaxNLocator

    return [float(m) for m in MaxNLocator(nbins=6).tick_values(low, high) if low <= m <= high]


def _draw_result(
    panel: Axes, place: float, shares: Sequence[float], numbers: Sequence[str], *, colours: str
) -> None:
    """Draw the result's own axis: the colours beside its numbers."""
    panel.imshow(
        np.linspace(0, 1, 128)[:, None],
        extent=(place, place + 0.13, 0.0, 1.0),
        origin="lower",
        cmap=colours,
        aspect="auto",
        zorder=2,
    )
    for share, number in zip(shares, numbers, strict=True):
        panel.text(place + 0.2, share, number, ha="left", va="center", size=8.5)


def _note(ranking: Ranking, scale: Scale, *, shown: int) -> str:
    notes = [
        "Each line is a point; the best one in red.",
        *scale.clipped_words("have the colour of the scale's end"),
    ]
    if missing := missing_words(ranking):
        notes.append(f"Not drawn: {missing}.")
    if len(ranking.varying) > shown:
        notes.append(f"The {shown} strongest of {len(ranking.varying)} axes.")
    return " ".join(notes)
