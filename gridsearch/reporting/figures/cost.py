"""What accuracy costs: the metric against the time of a trial, and the points that nothing cheaper beats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from gridsearch.reporting.figures.fonts import POINTS_PER_INCH, fitted, legible, point_names
from gridsearch.reporting.figures.mpl_style import (
    ACCENT,
    PALETTE,
    drawn,
    new_figure,
    numbered_legend,
    plain_text,
    ruled,
    settled,
)
from gridsearch.reporting.figures.rendering import INK
from gridsearch.reporting.figures.scale import Scale
from gridsearch.reporting.ranking.ranking import Ranking, rank
from gridsearch.reporting.words.text import capitalized, metric_name, show_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gridsearch.records import StudyData
    from gridsearch.reporting.ranking.points import RankedPoint

MOST_NAMED: Final = 6
MOST_VECTORS: Final = 2000
_WIDTH: Final = 7.6
_MARK: Final = 16.0
"""Across a numbered mark, in points of print."""
_WIDE: Final = 20.0
"""Times that differ more than this many times are drawn on a logarithmic scale."""


@drawn
def cost_figure(data: StudyData, *, ranking: Ranking | None = None) -> Figure | None:
    """Return the metric against the mean seconds of a point's trials; None with fewer than two such points."""
    ranking = ranking or rank(data)
    points = [p for p in ranking.points if p.drawable and (p.seconds or 0.0) > 0.0]
    if len(points) < 2:
        return None
    whole = [p for p in points if not p.pruned] or points  # what pruning left of a point is too good
    front = cheapest(whole, higher=ranking.direction != "minimize")
    named = front[-MOST_NAMED:]
    scale = Scale.of(points, ranking)
    metric = legible(metric_name(ranking.metric), "the metric")
    of = f" the best {len(named)} of {len(front):,} of which" if len(named) < len(front) else ""
    notes = [f"Numbered:{of} no cheaper point is as good."]
    if len(whole) < len(points):
        notes.append("Points with pruned seeds are not numbered: their means are too good.")
    if ranking.kind.packs:
        notes.append("Time: a trial's share of its pack's time.")
    note = " ".join(notes + scale.clipped_words("are drawn at the edge"))
    figure = new_figure(_WIDTH, 3.2 + 0.21 * len(named), f"{capitalized(metric)} against time", note)
    axes = figure.add_subplot()
    _draw_points(axes, points, scale)
    _draw_front(axes, front, scale)
    seconds = [p.seconds or 0.0 for p in points]
    if max(seconds) > _WIDE * min(seconds):
        axes.set_xscale("log")
    elif max(seconds) < 1.2 * min(seconds):  # the noise of equal times shall not fill the figure
        axes.set_xlim(0.8 * min(seconds), 1.2 * max(seconds))
    axes.set(xlabel="time of a trial", ylabel=fitted(metric, 2.6, 9), ylim=scale.limits(0.09))
    plain_text([axes.yaxis.label])
    longest = axes.get_xlim()[1] if axes.get_xscale() == "linear" else None
    axes.xaxis.set_major_formatter(lambda v, _: _short(v, longest))
    axes.xaxis.set_minor_formatter(lambda *_: "")
    scale.unit.dress(axes.yaxis)
    ruled(axes, along="both")
    _legend(figure, named, ranking)
    settled(figure)
    number_places(axes, [(p.seconds or 0.0, scale.place(p)) for p in named])
    return figure


def cheapest(points: Sequence[RankedPoint], *, higher: bool) -> list[RankedPoint]:
    """Return the points that no point beats which takes no longer (the Pareto front), by time."""
    sign = 1.0 if higher else -1.0
    order = sorted(points, key=lambda p: (p.seconds or 0.0, -sign * (p.mean or 0.0)))
    front: list[RankedPoint] = []
    for point in order:
        if not front or sign * (point.mean or 0.0) > sign * (front[-1].mean or 0.0):
            front.append(point)
    return front


def _draw_points(axes: Axes, points: Sequence[RankedPoint], scale: Scale) -> None:
    axes.scatter(
        [p.seconds or 0.0 for p in points],
        [scale.place(p) for p in points],
        s=22 if len(points) <= 300 else 6,
        color=PALETTE[0],
        alpha=0.5,
        linewidths=0,
        rasterized=len(points) > MOST_VECTORS,
    )


def _draw_front(axes: Axes, front: Sequence[RankedPoint], scale: Scale) -> None:
    places = [(p.seconds or 0.0, scale.place(p)) for p in front]
    axes.plot(*zip(*places, strict=True), drawstyle="steps-post", color=ACCENT, linewidth=1.2, zorder=3)
    axes.plot(*zip(*places, strict=True), "o", color=ACCENT, markersize=4, zorder=4)


def number_places(axes: Axes, places: Sequence[tuple[float, float]]) -> None:
    """Write a number at each place, beside it with a line where one lies there already.

    The figure is laid out for good: distances in points of print are what they will be.
    """
    per_inch = float(axes.figure.get_dpi())
    frame = axes.get_window_extent()
    corner = np.array([frame.x0, frame.y0])
    area = np.array([frame.width, frame.height]) * POINTS_PER_INCH / per_inch
    dots = (axes.transData.transform(places) - corner) * POINTS_PER_INCH / per_inch
    for number, (place, dot, mark) in enumerate(
        zip(places, dots, spread_out(dots, area=area), strict=True), start=1
    ):
        away = mark - dot
        axes.annotate(
            str(number),
            place,
            xytext=(float(away[0]), float(away[1])),
            textcoords="offset points",
            ha="center",
            va="center_baseline",
            size=8,
            color=INK,
            zorder=5,
            bbox={"boxstyle": "circle,pad=0.3", "facecolor": "white", "edgecolor": ACCENT, "linewidth": 1.5},
            arrowprops={"arrowstyle": "-", "color": ACCENT, "linewidth": 1.0} if away.any() else None,
            annotation_clip=False,
        )


def spread_out(dots: np.ndarray, *, area: np.ndarray) -> np.ndarray:
    """Return places for marks: at their dots where that is free, else as near as none covers another or its dot.

    Args:
        dots: [N, 2], in points of print from the lower left corner.
        area: [2], the width and height that marks may lie in.
    """
    turns = np.linspace(0, 2 * np.pi, 16, endpoint=False) + np.pi / 2
    ring = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    offsets = np.concatenate([np.zeros((1, 2)), *(r * ring for r in (18.0, 26.0, 36.0, 48.0, 64.0, 84.0))])
    marks: list[np.ndarray] = []
    for i, dot in enumerate(dots):
        tried = dot + offsets
        inside = ((tried >= _MARK / 2) & (tried <= area - _MARK / 2)).all(axis=1)
        inside[0] = True
        others = np.array([*marks, *(d for j, d in enumerate(dots) if j != i)]).reshape(-1, 2)
        gaps = np.linalg.norm(tried[:, None] - others[None], axis=2).min(axis=1, initial=np.inf)
        free = np.flatnonzero(inside & (gaps >= _MARK))
        marks.append(tried[free[0] if len(free) else int(np.argmax(np.where(inside, gaps, -1.0)))])
    return np.array(marks).reshape(-1, 2)


def _legend(figure: Figure, named: Sequence[RankedPoint], ranking: Ranking) -> None:
    marks = [f"the point ranked {p.rank}" for p in named]
    names = point_names([p.params for p in named], ranking.varying, marks, _WIDTH - 2.6)
    digits = ranking.digits_of()
    words = [
        f"{number}.  {digits.show(p.mean)} in {show_seconds(p.seconds)}: {name}"
        for number, (p, name) in enumerate(zip(named, names, strict=True), start=1)
    ]
    numbered_legend(figure, words)


def _short(seconds: float, longest: float | None = None) -> str:
    """Return a tick's time: "20 ms", "0.5 s", "20 s", "5 min", "2 h"; in the unit of the axis's longest where given."""
    measure = seconds if longest is None else longest
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if measure >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    for size, unit in ((1e-6, "µs"), (1e-3, "ms")):
        if 0 < measure < 99.5 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
