"""The study's values over two of its axes, with a panel for each value of the others; from ranking to figure.

lr and batch are the axes where both vary, else the two that explain most; a study with one varying axis is
drawn as points instead.  A cell without a result is hatched, never drawn as a value.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from gridsearch.reporting.figures.canvas import (
    ACCENT,
    INK,
    colours_for,
    drawn,
    new_figure,
    plain_text,
    png_bytes,
    settled,
    sheet_title,
    text_width,
)
from gridsearch.reporting.figures.line import axis_figure
from gridsearch.reporting.figures.panels import (
    Layout,
    Panel,
    level_name,
    missing_words,
    panels_of,
    plan_layout,
    value_range,
    why_missing,
)
from gridsearch.reporting.levels import levels_of
from gridsearch.reporting.ranking import RankedPoint, Ranking, rank
from gridsearch.reporting.text import (
    is_share,
    listed,
    metric_name,
    printable,
    show_metric,
    show_spread,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.path import Path

    from gridsearch.records import StudyData, Value

MOST_ANNOTATED: Final = 24
"""Cells are annotated up to so many in a row; beyond, colour alone is drawn."""
MOST_TICKS: Final = 60
WIDEST: Final = 15.0
_HATCHES: Final = {
    "": ("white", ".."),
    "pruned": ("#e3edf7", "\\\\\\"),
    "waiting": ("white", "/"),
    "running": ("white", "/"),
}
"""Face and hatch by reason; what is not named here (failed, diverged) is grey with dense lines."""


@drawn
def heatmap_figures(
    data: StudyData, *, ranking: Ranking | None = None, scale: tuple[float, float, str] | None = None
) -> dict[str, Figure]:
    """Return the figures by their files' stems ("heatmap"); none for a single point.

    Args:
        data: the study.
        ranking: `rank(data)` where the caller has it already.
        scale: the ends of the colour scale and which of them is clipped, as `panels.value_range` has it; default:
            the study's own.
    """
    ranking = ranking or rank(data)
    layout = plan_layout(ranking)
    if layout is not None:
        return {"heatmap": _heatmap(ranking, layout, scale)}
    if ranking.varying:
        return {"heatmap": axis_figure(ranking, ranking.varying[0], scale=scale)}
    return {}


def heatmap_png(data: StudyData, *, dpi: int = 110) -> bytes | None:
    """Return the first of `heatmap_figures` as PNG, None if there is none."""
    figures = heatmap_figures(data)
    return png_bytes(next(iter(figures.values())), dpi=dpi) if figures else None


def _heatmap(ranking: Ranking, layout: Layout, scale: tuple[float, float, str] | None) -> Figure:
    columns, rows = (levels_of(ranking.points, a) for a in (layout.x, layout.y))
    panels = panels_of(ranking, layout, columns, rows)
    annotated = len(columns) <= MOST_ANNOTATED and len(rows) <= 2 * MOST_ANNOTATED
    cell_width, cell_height = _cell_size(ranking, columns, rows, panels=len(panels), annotated=annotated)
    labels_width = max(text_width(level_name(v), 9) for v in rows) + 0.6
    titles = max(text_width(panel.title, 9.5) for panel in panels) + 0.3
    panel_width = max(cell_width * len(columns) + labels_width, titles, 2.2)
    panel_height = cell_height * len(rows) + 0.85 + _tick_height(columns, cell_width)
    down = math.ceil(len(panels) / max(1, int(WIDEST / panel_width)))
    across = math.ceil(len(panels) / down)
    figure = new_figure(max(panel_width * across + 1.2, 4.8), panel_height * down + 0.9)
    grid = figure.subplots(down, across, squeeze=False)
    low, high, clipped = scale or _scale(panels, better_high=ranking.direction != "minimize")
    flat = list(grid.flat)
    for place, (axes, panel) in enumerate(zip(flat, panels, strict=False)):
        _draw_panel(axes, panel, ranking, levels=(columns, rows), scale=(low, high), annotated=annotated)
        outer = (place % across == 0, place + across >= len(panels))
        _label_panel(axes, layout, columns, cell_width=cell_width, outer=outer)
    for axes in flat[len(panels) :]:
        axes.set_axis_off()
    _colour_bar(figure, flat, ranking, scale=(low, high), clipped=clipped)
    holes = any(p is None for panel in panels for row in panel.points for p in row)
    sheet_title(figure, _title(ranking, layout), _note(ranking, layout, clipped=clipped, holes=holes))
    return settled(figure)


def _cell_size(
    ranking: Ranking, columns: Sequence[Value], rows: Sequence[Value], *, panels: int, annotated: bool
) -> tuple[float, float]:
    """Return a cell's width and height in inches."""
    if annotated:
        return (0.78, 0.48) if ranking.most_seeds > 1 else (0.62, 0.4)
    width, height = (12.0, 9.0) if panels == 1 else (5.5, 4.5)
    return (min(0.3, width / len(columns)), min(0.22, height / len(rows)))


def _tick_height(columns: Sequence[Value], cell_width: float) -> float:
    widest = max(text_width(level_name(v), 9) for v in columns)
    return 0.0 if widest < cell_width * 0.95 else widest / math.sqrt(2)


def _scale(panels: Sequence[Panel], *, better_high: bool) -> tuple[float, float, str]:
    drawn_values = (_drawn_value(p) for panel in panels for row in panel.points for p in row)
    return value_range([v for v in drawn_values if not math.isnan(v)], better_high=better_high)


def _draw_panel(
    axes: Axes,
    panel: Panel,
    ranking: Ranking,
    *,
    levels: tuple[Sequence[Value], Sequence[Value]],
    scale: tuple[float, float],
    annotated: bool,
) -> None:
    """Draw a panel's cells.

    Not with seaborn's heatmap, which draws the whole sheet anew for each panel: 25 s for 10 panels of 500 cells.
    """
    values = np.array([[_drawn_value(p) for p in row] for row in panel.points], dtype=float)
    mesh = axes.pcolormesh(
        np.ma.masked_invalid(values),
        vmin=scale[0],
        vmax=scale[1],
        cmap=colours_for(ranking.direction),
        edgecolors="white" if annotated else "none",
        linewidth=0.8 if annotated else 0.0,
        rasterized=not annotated,
    )
    axes.invert_yaxis()
    if annotated:
        colours = mesh.to_rgba(values)
        for y, row in enumerate(panel.points):
            for x, point in enumerate(row):
                _annotate(axes, (x + 0.5, y + 0.5), _cell_text(point, ranking), background=colours[y, x])
    _set_ticks(axes, *levels)
    _hatch(axes, panel, annotated=annotated)
    _outline_best(axes, panel, ranking)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    plain_text([axes.set_title(panel.title, size=9.5)])


def _annotate(axes: Axes, place: tuple[float, float], text: str, *, background: np.ndarray) -> None:
    """Write into a cell, dark on light and light on dark (relative luminance of WCAG 2, without its gamma)."""
    if text:
        light = float(background[:3] @ (0.2126, 0.7152, 0.0722)) > 0.5
        axes.text(
            *place, text, ha="center", va="center", size=8, linespacing=1.1, color=INK if light else "white"
        )


def _label_panel(
    axes: Axes, layout: Layout, columns: Sequence[Value], *, cell_width: float, outer: tuple[bool, bool]
) -> None:
    """Name the axes and their levels; only at the sheet's left and lower side, as (left, lower) tells."""
    left, lower = outer
    slanted = _tick_height(columns, cell_width) > 0
    axes.tick_params(labelleft=left, labelbottom=lower)
    axes.set(xlabel=printable(layout.x, 40) if lower else "", ylabel=printable(layout.y, 40) if left else "")
    for label in axes.get_xticklabels():
        label.set(
            rotation=45 if slanted else 0,
            ha="right" if slanted else "center",
            rotation_mode="anchor",
            va="top",
        )
    for label in axes.get_yticklabels():
        label.set(rotation=0, va="center")
    plain_text([*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label])


def _drawn_value(point: RankedPoint | None) -> float:
    return point.mean if point and point.mean is not None and not point.diverged else math.nan


def _cell_text(point: RankedPoint | None, ranking: Ranking) -> str:
    """Return the mean in percent, and below it the spread and n where there is more than one seed."""
    if point is None or point.mean is None or point.diverged:
        return ""
    text = show_metric(point.mean, ranking.metric, unit=False)
    spread = "" if point.spread is None else f"\n±{show_spread(point.spread, ranking.metric)}"
    if point.pruned:
        return f"{text}{spread}\nn={point.n} of {point.n + point.pruned}"
    return f"{text}{spread} n={point.n}" if spread else text


def _hatch(axes: Axes, panel: Panel, *, annotated: bool) -> None:
    """Hatch the cells without a result, each kind its own way, and say in them why.

    One path a kind: a patch a cell took most of the time of a heatmap of which thousands were pruned.
    """
    from matplotlib.patches import PathPatch

    kinds: dict[str, list[tuple[int, int]]] = {}
    for y, row in enumerate(panel.points):
        for x, point in enumerate(row):
            if not math.isnan(_drawn_value(point)):
                continue
            word = "" if point is None else why_missing(point)
            kinds.setdefault(word.split("\n")[0], []).append((x, y))
            if annotated and word:
                box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85}
                axes.text(x + 0.5, y + 0.5, word, ha="center", va="center", size=7, zorder=3, bbox=box)
    for kind, places in kinds.items():
        face, hatch = _HATCHES.get(kind, ("#eceef1", "///"))
        axes.add_patch(
            PathPatch(_cells(places), facecolor=face, edgecolor="#a9adb6", hatch=hatch, linewidth=0, zorder=2)
        )


def _cells(places: Sequence[tuple[int, int]]) -> Path:
    """Return the unit squares at these places as one path."""
    from matplotlib.path import Path

    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)])
    vertices = (np.array(places)[:, None, :] + corners).reshape(-1, 2)
    codes = [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY] * len(places)
    return Path(vertices, codes)


def _outline_best(axes: Axes, panel: Panel, ranking: Ranking) -> None:
    from matplotlib.patches import Rectangle

    for y, row in enumerate(panel.points):
        for x, point in enumerate(row):
            if point is not None and point is ranking.best:
                axes.add_patch(
                    Rectangle(
                        (x, y), 1, 1, fill=False, edgecolor="white", linewidth=4.5, zorder=4, clip_on=False
                    )
                )
                axes.add_patch(
                    Rectangle(
                        (x, y), 1, 1, fill=False, edgecolor=ACCENT, linewidth=2.4, zorder=5, clip_on=False
                    )
                )


def _set_ticks(axes: Axes, columns: Sequence[Value], rows: Sequence[Value]) -> None:
    """Name the levels, of very many every second, third ... one."""
    for axis, levels in ((axes.xaxis, columns), (axes.yaxis, rows)):
        places = range(0, len(levels), math.ceil(len(levels) / MOST_TICKS))
        axis.set_ticks([p + 0.5 for p in places], labels=[level_name(levels[p]) for p in places])


def _colour_bar(
    figure: Figure, axes: Sequence[Axes], ranking: Ranking, *, scale: tuple[float, float], clipped: str
) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import FuncFormatter

    mappable = ScalarMappable(norm=Normalize(*scale), cmap=colours_for(ranking.direction))
    height = float(figure.get_figheight())
    bar = figure.colorbar(
        mappable,
        ax=list(axes),
        extend=clipped or "neither",
        shrink=min(1.0, 4.0 / height),
        aspect=18,
        pad=0.02,
    )
    digits = 0 if scale[1] - scale[0] > 0.05 else 1 if scale[1] - scale[0] > 0.005 else 2
    if is_share(ranking.metric):
        bar.ax.yaxis.set_major_formatter(
            FuncFormatter(lambda v, _: show_metric(v, ranking.metric, digits=digits))
        )
    bar.set_label(metric_name(ranking.metric))
    bar.outline.set_visible(False)


def _title(ranking: Ranking, layout: Layout) -> str:
    over = f"{printable(layout.y)} and {printable(layout.x)}"
    unit = ", in percent" if is_share(ranking.metric) else ""
    return f"{metric_name(ranking.metric).capitalize()}{unit}, over {over}"


def _note(ranking: Ranking, layout: Layout, *, clipped: str, holes: bool) -> str:
    notes = ["Best point outlined."]
    if missing := missing_words(ranking):
        notes.append(f"Hatched: no result ({missing}).")
    if holes:
        notes.append("Dotted: not in the grid.")
    if ranking.most_seeds > 1:
        notes.append("± standard deviation over n seeds.")
    if any(p.pruned and p.values for p in ranking.points):
        notes.append("n=1 of 2: the other was pruned.")
    if layout.collapsed:
        notes.append(
            f"Each cell shows its best point over {listed([printable(a) for a in layout.collapsed])}."
        )
    if clipped:
        notes.append(f"{'Lower' if clipped == 'min' else 'Higher'} values share the scale's end.")
    if ranking.by_train:
        notes.append("By TRAIN accuracy: nothing was held out.")
    return " ".join(notes)
