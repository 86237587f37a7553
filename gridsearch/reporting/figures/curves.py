"""Loss and accuracy by epoch of the top points, train beside validation; from epoch rows to a figure.

Of a plain function: what it yielded, by step, a panel for each metric.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from gridsearch.reporting.figures.fonts import distinct_lines, fitted, legible, point_names
from gridsearch.reporting.figures.mpl_style import (
    PALETTE,
    drawn,
    new_figure,
    panel_grid,
    plain_text,
    ruled,
    settled,
)
from gridsearch.reporting.figures.scale import level_where_flat
from gridsearch.reporting.figures.units import Unit
from gridsearch.reporting.ranking.ranking import Ranking, rank
from gridsearch.reporting.words.labels import distinct_labels
from gridsearch.reporting.words.text import metric_name, plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import LineStyleType

    from gridsearch.records import StudyData
    from gridsearch.reporting.ranking.points import RankedPoint

MOST_POINTS: Final = len(PALETTE)
_PANELS: Final = (("loss", "loss (nats)"), ("accuracy", "accuracy"))
_KINDS: Final[tuple[tuple[str, LineStyleType], ...]] = (("validation", "-"), ("train", "--"))
_MOST_PANELS: Final = 4


@drawn
def curves_figure(
    data: StudyData, *, ranking: Ranking | None = None, top: int = MOST_POINTS
) -> Figure | None:
    """Return loss and accuracy by epoch of the best `top` points (at most 5), None if there are no epochs or steps.

    A line is the mean over a point's seeds, its band reaches from the lowest to the highest; solid lines are
    validation, dashed ones train.
    """
    ranking = ranking or rank(data)
    rows: Mapping[int, Sequence[object]] = data.epochs if data.kind.classifies else data.steps
    points = [p for p in ranking.points if p.mean is not None and any(rows.get(t.number) for t in p.complete)]
    points = points[: min(top, MOST_POINTS)]
    if not points:
        return None
    own = not data.kind.classifies
    panels = _metric_panels(data, points) if own else _PANELS
    down, across = -(-len(panels) // 2), min(len(panels), 2)
    left = len(_yielded(data, points)) - len(panels) if own else 0
    more = f" Not drawn: {plural(left, 'more metric')}." if left > 0 else ""
    title = f"Learning curves of the best {plural(len(points), 'point')}.{_seeds_note(points)}{more}"
    width = 5.0 * across if across > 1 else 7.0
    figure = new_figure(width, 3.9 * down + 0.22 * len(points), title)
    grid = panel_grid(figure, len(panels), across)
    for axes, (name, label) in zip(grid, panels, strict=True):
        drawn_curves = [_step_curves(data, p, name) for p in points] if own else []
        unit = Unit.of([float(v) for c in drawn_curves for v in c.ravel() if np.isfinite(v)], name)
        for place, (colour, point) in enumerate(zip(PALETTE, points, strict=False)):
            if own:
                with np.errstate(invalid="ignore"):  # a step may be NaN
                    lines = np.vectorize(unit.draw, otypes=[float])(drawn_curves[place])
                _draw_curves(axes, lines, colour=colour)
            else:
                _draw_point(axes, data, point, name=name, colour=colour)
        _dress(axes, xlabel="step" if own else "epoch", ylabel=label)
        if own:
            unit.dress(axes.yaxis)
    if not own:
        _dress_values(grid)
    kinds = _KINDS if not ranking.by_train else _KINDS[1:]
    _legend(figure, points, ranking, kinds=() if own else kinds)
    return settled(figure)


def _seeds_note(points: Iterable[RankedPoint]) -> str:
    """Say what a line of several seeds shows, and where it ends; "" where each point has one seed."""
    lengths = [{t.epochs for t in p.complete} for p in points if p.n > 1]
    if not lengths:
        return ""
    ends = " A line ends where its first seed does." if any(len(each) > 1 for each in lengths) else ""
    return f" Bands: lowest to highest seed.{ends}"


def _dress(axes: Axes, *, xlabel: str, ylabel: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set(xlabel=xlabel, ylabel=fitted(ylabel, 3.0, 9))
    plain_text([axes.yaxis.label])
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
    level_where_flat(axes)
    ruled(axes, along="both")


def _dress_values(panels: Iterable[Axes]) -> None:
    """Write the ticks of loss and accuracy, each with all its digits and not over an offset above the axis."""
    for axes, metric in zip(panels, ("val_loss", "val_accuracy"), strict=True):
        Unit(metric).dress(axes.yaxis)


def _metric_panels(data: StudyData, points: Sequence[RankedPoint]) -> Sequence[tuple[str, str]]:
    """Return the metrics that these points have yielded, the ranking one first, with their names in words."""
    shown = _yielded(data, points)[:_MOST_PANELS]
    words = distinct_labels([metric_name(n) for n in shown], 60)
    return [
        (name, legible(w, f"metric {i}"))
        for i, (name, w) in enumerate(zip(shown, words, strict=True), start=1)
    ]


def _yielded(data: StudyData, points: Sequence[RankedPoint]) -> list[str]:
    """Return the names of all metrics that these points have yielded, the ranking one first."""
    rows = (row for p in points for t in p.complete for row in data.steps.get(t.number, ()))
    return list(dict.fromkeys([data.metric, *(name for row in rows for name in row.metrics)]))


def _step_curves(data: StudyData, point: RankedPoint, metric: str) -> np.ndarray:
    """Return a metric of a point's COMPLETE seeds as [seeds, steps], cut to the shortest, NaN for none."""
    rows = [data.steps[t.number] for t in point.complete if data.steps.get(t.number)]
    length = min((len(r) for r in rows), default=0)
    values = [[row.metrics.get(metric, np.nan) for row in r[:length]] for r in rows]
    return np.array(values, dtype=float).reshape(len(rows), length)


@drawn
def winners_figure(
    sides: Sequence[tuple[StudyData, RankedPoint, str]], *, title: str = "Learning curves of the winners."
) -> Figure | None:
    """Return the learning curves of several studies' points in one figure, None if none has any.

    Args:
        sides: for each study (the first 5), its point, and what to call it.
        title: what they are.
    """
    found = [s for s in sides if any(s[0].epochs.get(t.number) for t in s[1].complete)][:MOST_POINTS]
    if not found:
        return None
    title = f"{title}{_seeds_note([point for _, point, _ in found])}"
    figure = new_figure(10.0, 3.9 + 0.22 * len(found), title)
    panels = figure.subplots(1, 2)
    for axes, (name, label) in zip(panels, _PANELS, strict=True):
        for colour, (data, point, _) in zip(PALETTE, found, strict=False):
            _draw_point(axes, data, point, name=name, colour=colour)
        _dress(axes, xlabel="epoch", ylabel=label)
    _dress_values(panels)
    marks = [f"study {i}" for i in range(1, len(found) + 1)]
    names = distinct_lines([words for _, _, words in found], marks, _name_width(figure), 8.5)
    _legends(figure, names, kinds=_KINDS)
    return settled(figure)


def seed_curves(data: StudyData, point: RankedPoint, name: str) -> np.ndarray:
    """Return a scalar of a point's COMPLETE seeds as [seeds, epochs], cut to the shortest, NaN for none."""
    rows = [data.epochs[t.number] for t in point.complete if data.epochs.get(t.number)]
    length = min((len(r) for r in rows), default=0)
    values = [[getattr(e, name) for e in r[:length]] for r in rows]
    return np.array([[np.nan if v is None else v for v in line] for line in values], dtype=float).reshape(
        len(rows), length
    )


def _draw_point(axes: Axes, data: StudyData, point: RankedPoint, *, name: str, colour: str) -> None:
    parts: list[tuple[str, LineStyleType, float]] = [("val", "-", 0.16), ("train", "--", 0.08)]
    for part, style, strength in parts:
        curves = seed_curves(data, point, f"{part}_{name}")
        _draw_curves(axes, curves, colour=colour, style=style, strength=strength)


def _draw_curves(
    axes: Axes, curves: np.ndarray, *, colour: str, style: LineStyleType = "-", strength: float = 0.16
) -> None:
    """Draw the mean of curves [seeds, steps], and a band from the lowest to the highest."""
    if curves.size == 0 or not np.isfinite(curves).any():
        return
    steps = np.arange(1, curves.shape[1] + 1)
    marker = "o" if len(steps) < 3 else None
    axes.plot(
        steps, curves.mean(axis=0), linestyle=style, color=colour, linewidth=1.5, marker=marker, markersize=4
    )
    if len(curves) > 1:
        low, high = curves.min(axis=0), curves.max(axis=0)
        axes.fill_between(steps, low, high, color=colour, alpha=strength, linewidth=0)


def _legend(
    figure: Figure,
    points: Sequence[RankedPoint],
    ranking: Ranking,
    *,
    kinds: Sequence[tuple[str, LineStyleType]],
) -> None:
    marks = [f"the point ranked {p.rank}" for p in points]
    names = point_names([p.params for p in points], ranking.varying, marks, _name_width(figure) - 0.4)
    _legends(figure, [f"{p.rank}.  {n}" for p, n in zip(points, names, strict=True)], kinds=kinds)


def _name_width(figure: Figure) -> float:
    """Return the inches that a name at the lower left may take, beside its line and the kinds at the right."""
    return float(figure.get_figwidth()) - 2.3


def _legends(figure: Figure, names: Sequence[str], *, kinds: Sequence[tuple[str, LineStyleType]]) -> None:
    """Name the colours at the lower left, and the kinds of lines at the lower right."""
    from matplotlib.lines import Line2D

    colours = [Line2D([], [], color=c, linewidth=2.5) for c, _ in zip(PALETTE, names, strict=False)]
    lines = [Line2D([], [], color="#5b6070", linewidth=1.5, linestyle=style) for _, style in kinds]
    left = figure.legend(
        colours, names, loc="outside lower left", frameon=False, fontsize=8.5, handlelength=2.6
    )
    if lines:
        words = [kind for kind, _ in kinds]
        figure.legend(lines, words, loc="outside lower right", frameon=False, fontsize=8.5, handlelength=2.6)
    plain_text(left.get_texts())
