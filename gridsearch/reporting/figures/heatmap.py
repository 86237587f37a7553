"""The study's values over two of its axes, with a panel for each value of the others; from ranking to figure.

lr and batch are the axes where both vary, else the two that explain most; a study with one varying axis is
drawn as points instead.  A cell without a result is hatched, never drawn as a value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from gridsearch.reporting.figures.dark import ON_LIGHT
from gridsearch.reporting.figures.fonts import axis_names, fitted, legible, level_names, text_width
from gridsearch.reporting.figures.line import axis_figure
from gridsearch.reporting.figures.mpl_style import (
    ACCENT,
    colours_for,
    drawn,
    new_figure,
    panel_grid,
    plain_text,
    settled,
    slant,
)
from gridsearch.reporting.figures.panels import (
    Layout,
    Panel,
    missing_words,
    panel_titles,
    panels_of,
    plan_layout,
    why_missing,
)
from gridsearch.reporting.figures.scale import Scale
from gridsearch.reporting.ranking.points import RankedPoint, levels_of
from gridsearch.reporting.ranking.ranking import Ranking, rank
from gridsearch.reporting.words.text import capitalized, is_share, listed, metric_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.path import Path

    from gridsearch.records import StudyData

MOST_ANNOTATED: Final = 24
"""Cells are annotated up to so many in a row; beyond, colour alone is drawn."""
MOST_TICKS: Final = 60
WIDEST: Final = 15.0
_NARROWEST: Final = 2.0
"""Inches of a panel's title in a line at least."""
_LOWEST: Final = 1.2
"""Inches that a panel is high at least, for its axis's name to stand beside it."""
_LINE: Final = 0.145
"""Inches from one label to the next at least."""
_HATCHES: Final = {
    "": ("white", ".."),
    "pruned": ("#e3edf7", "\\\\\\"),
    "waiting": ("white", "/"),
    "running": ("white", "/"),
}
"""Face and hatch by reason; what is not named here (failed, diverged) is grey with dense lines."""


@drawn
def heatmap_figures(
    data: StudyData, *, ranking: Ranking | None = None, scale: Scale | None = None
) -> dict[str, Figure]:
    """Return the figures by their files' stems ("heatmap"); none for a single point.

    Args:
        data: the study.
        ranking: `rank(data)` where the caller has it already.
        scale: the ends of the colour scale; default: the study's own.
    """
    ranking = ranking or rank(data)
    layout = plan_layout(ranking)
    if layout is not None:
        return {"heatmap": _heatmap(ranking, layout, scale)}
    if ranking.varying:
        return {"heatmap": axis_figure(ranking, ranking.varying[0], scale=scale)}
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Common:
    """What all panels share: levels and their labels, the size of a cell in inches, the metric's unit and scale."""

    ranking: Ranking
    layout: Layout
    names: Mapping[str, str]
    columns: Sequence[str]
    rows: Sequence[str]
    cell: tuple[float, float]
    annotated: bool
    scale: Scale

    @property
    def labels_width(self) -> float:
        """Inches of the rows' labels."""
        return max(text_width(n, 9) for n in self.rows)

    @property
    def slanted(self) -> float:
        """Inches below the columns that their slanted labels take; 0 where they stand upright."""
        widest = max(text_width(n, 9) for n in self.columns)
        return 0.0 if widest < self.cell[0] * 0.95 else widest / math.sqrt(2)

    def value(self, point: RankedPoint | None) -> float:
        """Return the place of a point on the scale, NaN where it has none."""
        drawn = point is not None and point.drawable
        return self.scale.unit.draw(point.mean) if drawn and point and point.mean is not None else math.nan


def _heatmap(ranking: Ranking, layout: Layout, scale: Scale | None) -> Figure:
    columns, rows = (levels_of(ranking.points, a) for a in (layout.x, layout.y))
    panels = panels_of(ranking, layout, columns, rows)
    titles = panel_titles(ranking, layout, panels)
    common = _common(ranking, layout, panels, scale)
    labels = common.labels_width + 0.6 + 0.16 * len(_y_label(common).split("\n"))
    titles = [fitted(t, max(_NARROWEST, common.cell[0] * len(columns)), 9.5) for t in titles]
    lines = max(t.count("\n") for t in titles)
    panel_width = max(common.cell[0] * len(columns), _NARROWEST if layout.facets else 0.0) + labels
    panel_height = common.cell[1] * len(rows) + 0.85 + common.slanted + 0.16 * lines
    down = math.ceil(len(panels) / max(1, int(WIDEST / panel_width)))
    across = math.ceil(len(panels) / down)
    width = max(panel_width * across + 1.2, 4.8)
    holes = any(p is None for panel in panels for row in panel.points for p in row)
    note = _note(common, holes=holes)
    figure = new_figure(width, panel_height * down + 0.3, _title(common), note)
    grid = panel_grid(figure, len(panels), across)
    for place, (axes, panel, title) in enumerate(zip(grid, panels, titles, strict=True)):
        _draw_panel(axes, panel, common)
        plain_text([axes.set_title(title, size=9.5)])
        outer = (place % across == 0, place + across >= len(panels))
        _label_panel(axes, common, outer=outer)
    _colour_bar(figure, figure.axes, common)
    return settled(figure)


def _common(ranking: Ranking, layout: Layout, panels: Sequence[Panel], scale: Scale | None) -> _Common:
    """Return what the panels share."""
    columns, rows = (level_names(a, levels_of(ranking.points, a)) for a in (layout.x, layout.y))
    annotated = len(columns) <= MOST_ANNOTATED and len(rows) <= 2 * MOST_ANNOTATED
    drawn = [p for panel in panels for row in panel.points for p in row if p and p.drawable]
    return _Common(
        ranking=ranking,
        layout=layout,
        names=axis_names(ranking.varying),
        columns=columns,
        rows=rows,
        cell=_cell_size(ranking, columns, rows, panels=len(panels), annotated=annotated),
        annotated=annotated,
        scale=scale or Scale.of(drawn, ranking),
    )


def _cell_size(
    ranking: Ranking, columns: Sequence[str], rows: Sequence[str], *, panels: int, annotated: bool
) -> tuple[float, float]:
    """Return a cell's width and height in inches: annotated ones hold their words."""
    if annotated:
        words = {_cell_text(p, ranking) for p in ranking.points}
        words |= {why_missing(p) for p in ranking.points if not p.drawable}
        lines = {line for text in words for line in text.split("\n")}
        widest = max((text_width(line, 8) for line in lines), default=0.0)
        most = max((text.count("\n") for text in words), default=0)
        return max(0.62, widest + 0.14), max(0.4, 0.17 + 0.155 * (most + 1), _LOWEST / len(rows))
    width, height = (12.0, 9.0) if panels == 1 else (5.5, 4.5)
    return (min(0.3, width / len(columns)), min(0.22, height / len(rows)))


def _y_label(common: _Common) -> str:
    """Return the name of the rows' axis in lines that are no longer than a panel is high."""
    return fitted(common.names[common.layout.y], max(0.9, 0.95 * common.cell[1] * len(common.rows)), 9)


def _draw_panel(axes: Axes, panel: Panel, common: _Common) -> None:
    """Draw a panel's cells.

    Not with seaborn's heatmap, which draws the whole figure anew for each panel: 25 s for 10 panels of 500 cells.
    """
    values = np.array([[common.value(p) for p in row] for row in panel.points], dtype=float)
    mesh = axes.pcolormesh(
        np.ma.masked_invalid(values),
        vmin=common.scale.low,
        vmax=common.scale.high,
        cmap=colours_for(common.ranking.direction),
        edgecolors="white" if common.annotated else "none",
        linewidth=0.8 if common.annotated else 0.0,
        rasterized=not common.annotated,
    )
    axes.invert_yaxis()
    if common.annotated:
        colours = mesh.to_rgba(values)
        for y, row in enumerate(panel.points):
            for x, point in enumerate(row):
                text = _cell_text(point, common.ranking)
                _annotate(axes, (x + 0.5, y + 0.5), text, background=colours[y, x])
    _set_ticks(axes, common)
    _hatch(axes, panel, common)
    _outline_best(axes, panel, common.ranking)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _annotate(axes: Axes, place: tuple[float, float], text: str, *, background: np.ndarray) -> None:
    """Write into a cell, dark on light and light on dark (relative luminance of WCAG 2, without its gamma)."""
    if text:
        light = float(background[:3] @ (0.2126, 0.7152, 0.0722)) > 0.5
        axes.text(
            *place,
            text,
            ha="center",
            va="center",
            size=8,
            linespacing=1.1,
            color=ON_LIGHT if light else "white",
        )


def _label_panel(axes: Axes, common: _Common, *, outer: tuple[bool, bool]) -> None:
    """Name the axes and their levels; only at the figure's left and lower side, as `outer` (left, lower) says."""
    left, lower = outer
    axes.tick_params(labelleft=left, labelbottom=lower)
    across = fitted(common.names[common.layout.x], max(2.0, common.cell[0] * len(common.columns)), 9)
    axes.set(xlabel=across if lower else "", ylabel=_y_label(common) if left else "")
    slant(axes.get_xticklabels(), slanted=common.slanted > 0)
    for label in axes.get_yticklabels():
        label.set(rotation=0, va="center")
    plain_text([*axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label])


def _cell_text(point: RankedPoint | None, ranking: Ranking) -> str:
    """Return the mean in percent, and below it the spread and n where any point has more than one seed."""
    if point is None or not point.drawable:
        return ""
    digits = ranking.digits_of()
    text = digits.show(point.mean, unit=False)
    spread = "" if point.spread is None else f"\n±{digits.spread(point.spread)}"
    if point.pruned:
        return f"{text}{spread}\nn={point.n} of {point.n + point.pruned}"
    if spread:
        return f"{text}{spread} n={point.n}"
    return f"{text}\nn={point.n}" if ranking.most_seeds > 1 else text


def _hatch(axes: Axes, panel: Panel, common: _Common) -> None:
    """Hatch the cells without a result, each kind its own way, and say in them why.

    One path a kind: a patch a cell took most of the time of a heatmap of which thousands were pruned.
    """
    from matplotlib.patches import PathPatch

    kinds: dict[str, list[tuple[int, int]]] = {}
    for y, row in enumerate(panel.points):
        for x, point in enumerate(row):
            if not math.isnan(common.value(point)):
                continue
            word = "" if point is None else why_missing(point)
            kinds.setdefault(word.split("\n")[0], []).append((x, y))
            if common.annotated and word:
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


def _set_ticks(axes: Axes, common: _Common) -> None:
    """Name the levels, of very many every second, third ... one: as many as there is space for."""
    space = (common.cell[0] * (math.sqrt(2) if common.slanted else 1.0), common.cell[1])
    for axis, names, size in ((axes.xaxis, common.columns, space[0]), (axes.yaxis, common.rows, space[1])):
        step = max(math.ceil(len(names) / MOST_TICKS), math.ceil(_LINE / size))
        places = range(0, len(names), step)
        axis.set_ticks([p + 0.5 for p in places], labels=[names[p] for p in places])


def _colour_bar(figure: Figure, axes: Sequence[Axes], common: _Common) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    mappable = ScalarMappable(
        norm=Normalize(common.scale.low, common.scale.high), cmap=colours_for(common.ranking.direction)
    )
    height = float(figure.get_figheight())
    bar = figure.colorbar(
        mappable,
        ax=list(axes),
        extend=common.scale.clipped or "neither",
        shrink=min(1.0, 4.0 / height),
        aspect=18,
        pad=0.02,
    )
    common.scale.unit.dress(bar.ax.yaxis)
    name = metric_name(common.ranking.metric)
    bar.set_label(fitted(legible(name, "the metric"), max(1.2, min(4.0, 0.6 * height)), 9))
    plain_text([bar.ax.yaxis.label])
    bar.outline.set_visible(False)


def _title(common: _Common) -> str:
    over = f"{common.names[common.layout.y]} and {common.names[common.layout.x]}"
    means = (point.mean for point in common.ranking.points)
    unit = ", in percent" if is_share(common.ranking.metric, means) else ""
    return f"{capitalized(metric_name(common.ranking.metric))}{unit}, over {over}"


def _note(common: _Common, *, holes: bool) -> str:
    ranking, layout = common.ranking, common.layout
    notes = ["Best point outlined."] if ranking.best else []
    if missing := missing_words(ranking):
        notes.append(f"Hatched: not drawn ({missing}).")
    if holes:
        notes.append("Dotted: not in the grid.")
    if ranking.most_seeds > 1:
        notes.append(f"± standard deviation over n {ranking.noun}s.")
    if any(p.pruned and p.values for p in ranking.points):
        notes.append("n=1 of 2: the other was pruned.")
    if layout.collapsed:
        notes.append(
            f"Each cell shows its best point over {listed([common.names[a] for a in layout.collapsed])}."
        )
    notes += common.scale.clipped_words("have the colour of the scale's end")
    if ranking.by_train:
        notes.append("By TRAIN accuracy: nothing was held out.")
    return " ".join(notes)
