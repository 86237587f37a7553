"""What accuracy costs: the metric against the time of a trial, and the points that nothing cheaper beats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gridsearch.reporting.figures.canvas import (
    ACCENT,
    FAINT,
    PALETTE,
    drawn,
    new_figure,
    plain_text,
    settled,
    sheet_title,
)
from gridsearch.reporting.figures.panels import value_range
from gridsearch.reporting.ranking import RankedPoint, Ranking, rank
from gridsearch.reporting.text import is_share, metric_name, show_metric, show_params, show_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gridsearch.records import StudyData

MOST_NAMED: Final = 6
MOST_VECTORS: Final = 2000
_WIDE: Final = 20.0
"""Times that differ more than this many times are drawn on a logarithmic scale."""


@drawn
def cost_figure(data: StudyData, *, ranking: Ranking | None = None) -> Figure | None:
    """Return the metric against the mean seconds of a point's trials; None with fewer than two such points."""
    ranking = ranking or rank(data)
    points = [p for p in ranking.points if p.mean is not None and not p.diverged and (p.seconds or 0.0) > 0.0]
    if len(points) < 2:
        return None
    higher = ranking.direction != "minimize"
    front = cheapest(points, higher=higher)
    named = front[-MOST_NAMED:]
    figure = new_figure(7.6, 3.7 + 0.21 * len(named))
    axes = figure.add_subplot()
    low, high, clipped = value_range([p.mean for p in points if p.mean is not None], better_high=higher)
    margin = 0.09 * (high - low)
    _draw_points(axes, points, limits=(low, high))
    _draw_front(axes, front, named, limits=(low, high))
    seconds = [p.seconds or 0.0 for p in points]
    if max(seconds) > _WIDE * min(seconds):
        axes.set_xscale("log")
    elif max(seconds) < 1.2 * min(seconds):  # the noise of equal times shall not fill the sheet
        axes.set_xlim(0.8 * min(seconds), 1.2 * max(seconds))
    axes.set(
        xlabel="time of a trial",
        ylabel=metric_name(ranking.metric),
        ylim=(low - margin, high + margin),
    )
    axes.xaxis.set_major_formatter(lambda v, _: _short(v))
    if is_share(ranking.metric):
        axes.yaxis.set_major_formatter(lambda v, _: show_metric(v, ranking.metric, digits=1))
    axes.grid(visible=True, color="#e3e5e9", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _legend(figure, named, ranking)
    note = "Numbered: no cheaper point is as good. A trial's time is its share of its pack's."
    note += f" {'Lower' if clipped == 'min' else 'Higher'} values lie at the scale's end." if clipped else ""
    sheet_title(figure, f"{metric_name(ranking.metric).capitalize()} against time", note)
    return settled(figure)


def cheapest(points: Sequence[RankedPoint], *, higher: bool) -> list[RankedPoint]:
    """Return the points that no point beats which takes no longer (the Pareto front), by time."""
    sign = 1.0 if higher else -1.0
    order = sorted(points, key=lambda p: (p.seconds or 0.0, -sign * (p.mean or 0.0)))
    front: list[RankedPoint] = []
    for point in order:
        if not front or sign * (point.mean or 0.0) > sign * (front[-1].mean or 0.0):
            front.append(point)
    return front


def _draw_points(axes: Axes, points: Sequence[RankedPoint], *, limits: tuple[float, float]) -> None:
    axes.scatter(
        [p.seconds or 0.0 for p in points],
        [_within(p, limits) for p in points],
        s=22 if len(points) <= 300 else 6,
        color=PALETTE[0],
        alpha=0.5,
        linewidths=0,
        rasterized=len(points) > MOST_VECTORS,
    )


def _draw_front(
    axes: Axes, front: Sequence[RankedPoint], named: Sequence[RankedPoint], *, limits: tuple[float, float]
) -> None:
    axes.plot(
        [p.seconds or 0.0 for p in front],
        [_within(p, limits) for p in front],
        drawstyle="steps-post",
        color=ACCENT,
        linewidth=1.2,
        zorder=3,
    )
    for number, point in enumerate(named, start=1):
        place = (point.seconds or 0.0, _within(point, limits))
        axes.plot(*place, "o", markersize=13, color="white", markeredgecolor=ACCENT, mew=1.5, zorder=4)
        axes.annotate(str(number), place, ha="center", va="center_baseline", size=8, zorder=5)


def _legend(figure: Figure, named: Sequence[RankedPoint], ranking: Ranking) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], linestyle="none", marker="o", color=FAINT, markersize=0) for _ in named]
    words = [
        f"{number}.  {show_metric(p.mean, ranking.metric)} in {show_seconds(p.seconds)}: "
        f"{show_params(p.params, ranking.varying, limit=80)}"
        for number, p in enumerate(named, start=1)
    ]
    legend = figure.legend(
        handles,
        words,
        loc="outside lower left",
        frameon=False,
        fontsize=8.5,
        handlelength=0,
        handletextpad=0.3,
    )
    plain_text(legend.get_texts())


def _within(point: RankedPoint, limits: tuple[float, float]) -> float:
    return min(max(point.mean or 0.0, limits[0]), limits[1])


def _short(seconds: float) -> str:
    """Return a tick's time: "0.5 s", "20 s", "5 min", "2 h"."""
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
