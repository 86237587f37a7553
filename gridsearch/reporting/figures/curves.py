"""Loss and accuracy by epoch of the top points, train beside validation; from epoch rows to a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from gridsearch.reporting.figures.canvas import PALETTE, drawn, new_figure, plain_text, settled, sheet_title
from gridsearch.reporting.ranking import RankedPoint, Ranking, rank
from gridsearch.reporting.text import plural, show_params

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import LineStyleType

    from gridsearch.records import StudyData

MOST_POINTS: Final = len(PALETTE)
_PANELS: Final = (("loss", "loss (nats)"), ("accuracy", "accuracy"))


@drawn
def curves_figure(
    data: StudyData, *, ranking: Ranking | None = None, top: int = MOST_POINTS
) -> Figure | None:
    """Return loss and accuracy by epoch of the best `top` points (at most 5), None if there are no epochs.

    A line is the mean over a point's seeds, its band reaches from the lowest to the highest; solid lines are
    validation, dashed ones train.
    """
    from matplotlib.ticker import MaxNLocator

    ranking = ranking or rank(data)
    points = [
        p for p in ranking.points if p.mean is not None and any(data.epochs.get(t.number) for t in p.complete)
    ]
    points = points[: min(top, MOST_POINTS)]
    if not points:
        return None
    figure = new_figure(10.0, 4.3 + 0.22 * len(points))
    panels = figure.subplots(1, 2)
    for axes, (name, label) in zip(panels, _PANELS, strict=True):
        for colour, point in zip(PALETTE, points, strict=False):
            _draw_point(axes, data, point, name=name, colour=colour)
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
        axes.grid(visible=True, color="#e3e5e9", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    panels[1].yaxis.set_major_formatter(lambda v, _: f"{100 * v:.4g} %")
    _legend(figure, points, ranking, validated=not ranking.by_train)
    band = " Bands: lowest to highest seed." if any(p.n > 1 for p in points) else ""
    sheet_title(figure, f"Learning curves of the best {plural(len(points), 'point')}.{band}")
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
    for part, style, strength in (("val", "-", 0.16), ("train", "--", 0.08)):
        curves = seed_curves(data, point, f"{part}_{name}")
        if curves.size == 0 or not np.isfinite(curves).any():
            continue
        epochs = np.arange(1, curves.shape[1] + 1)
        marker = "o" if len(epochs) < 3 else None
        axes.plot(
            epochs,
            curves.mean(axis=0),
            linestyle=style,
            color=colour,
            linewidth=1.5,
            marker=marker,
            markersize=4,
        )
        if len(curves) > 1:
            axes.fill_between(
                epochs, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=strength, linewidth=0
            )


def _legend(figure: Figure, points: Sequence[RankedPoint], ranking: Ranking, *, validated: bool) -> None:
    from matplotlib.lines import Line2D

    colours = [Line2D([], [], color=c, linewidth=2.5) for c, _ in zip(PALETTE, points, strict=False)]
    names = [f"{p.rank}.  {show_params(p.params, ranking.varying, limit=90)}" for p in points]
    kinds: list[tuple[str, LineStyleType]] = [("validation", "-"), ("train", "--")]
    kinds = kinds if validated else kinds[1:]
    lines = [Line2D([], [], color="#5b6070", linewidth=1.5, linestyle=style) for _, style in kinds]
    left = figure.legend(
        colours, names, loc="outside lower left", frameon=False, fontsize=8.5, handlelength=2.6
    )
    figure.legend(
        lines, [k for k, _ in kinds], loc="outside lower right", frameon=False, fontsize=8.5, handlelength=2.6
    )
    plain_text(left.get_texts())
