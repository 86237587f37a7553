"""The confusion matrix of a trial as a heat map whose class names can be read; from predictions to a figure.

The figure is sized from the number of classes and the longest name: names under the columns are rotated by 45
degrees, and the cells are wide enough that neighbours never touch.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gridsearch.reporting.figures.fonts import POINTS_PER_INCH, legible_names, readable_names, text_width
from gridsearch.reporting.figures.mpl_style import (
    FAINT,
    drawn,
    new_figure,
    panel_grid,
    plain_text,
    settled,
    slant,
)
from gridsearch.reporting.stats.predictions import most_mistaken, row_shares
from gridsearch.reporting.words.labels import distinct_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

MOST_CLASSES: Final = 120
"""Of more classes, those with the most mistakes are drawn; the per-class table has them all."""
MOST_ANNOTATED: Final = 25
LONGEST_NAME: Final = 48
LONGEST_TITLE: Final = 60
WIDEST: Final = 22.0

_MAKO: Final = (
    "0b040511070c160b131b0f1a201322251729291a312e1e3931214235254a3829533b2d5b3d31643f366d403a76413e7f414387"
    "40498e3e4f943c55983a5b9b38619d37669e366ca03572a13578a2357da33483a53488a6348ea73493a83499aa359fab36a4ab"
    "38aaac3bafad3fb5ad43baad48c0ad4fc5ad57cbad62cfac70d4ad7fd7af8edbb39cdeb7a9e1bdb5e5c4c0e9cccaedd4d4f1dc"
    "def5e5"
)
"""Every fifth of the 256 colours of seaborn's mako, from black to white; between them they run evenly."""

_BRIGHT: Final = 0.408
"""On a cell of more luminance letters are dark."""


@drawn
def confusion_figure(
    matrix: np.ndarray, *, class_names: Sequence[str], title: str = "Confusion matrix", note: str = ""
) -> Figure:
    """Return the figure of a confusion matrix: colour is the share of the row, cells hold counts and shares.

    Args:
        matrix: counts [Y, Y], rows true, columns predicted.
        class_names: by label; any text.
        title: what it is about.
        note: one more line below the title.
    """
    labels, kept, note = _chosen(class_names, [matrix], note)
    cell, size = _cell_and_letter_size(len(kept))
    width, height = _matrix_size(labels, cell=cell, size=size)
    width = max(width + 1.0, 5.0)
    figure = new_figure(width, height - 0.1, title, note)
    axes = figure.add_subplot()
    _draw_matrix(axes, matrix, kept, labels, size=size, draw_cells=_draw_cells)
    _colour_bar(figure, [axes], shrink=min(1.0, 3.5 / (cell * len(kept))), size=size)
    return settled(figure)


@drawn
def confusions_figure(
    matrices: Sequence[np.ndarray],
    *,
    titles: Sequence[str],
    class_names: Sequence[str],
    title: str = "Confusion matrices",
) -> Figure:
    """Return the confusion matrices of several trials side by side, on one colour scale.

    Args:
        matrices: counts [Y, Y] each, rows true, columns predicted.
        titles: one for each matrix; any text.
        class_names: by label; any text.
        title: what they are about.

    Raises:
        ValueError: no matrix, different sizes, or not a title for each.
    """
    if not matrices or len(matrices) != len(titles) or len({m.shape for m in matrices}) != 1:
        raise ValueError("side by side are matrices of one size, with a title each")
    labels, kept, note = _chosen(class_names, matrices, "")
    cell, size = (0.8 * x for x in _cell_and_letter_size(len(kept)))
    width, height = _matrix_size(labels, cell=cell, size=size)
    names = distinct_labels(titles, LONGEST_TITLE)
    names = legible_names(names, [f"matrix {i}" for i in range(1, len(names) + 1)])
    width = max(width, max(text_width(n, 9.5) for n in names) + 0.3)
    across = min(len(matrices), max(1, int(WIDEST / width)))
    down = math.ceil(len(matrices) / across)
    whole = max(width * across + 1.0, 5.0)
    figure = new_figure(whole, height * down + 0.1, title, note)
    grid = panel_grid(figure, len(matrices), across)
    for axes, matrix, name in zip(grid, matrices, names, strict=True):
        _draw_matrix(axes, matrix, kept, labels, size=size, draw_cells=_seaborn_cells)
        plain_text([axes.set_title(name, size=9.5)])
    _colour_bar(figure, figure.axes, shrink=min(1.0, 3.5 / (height * down)), size=size)
    return settled(figure)


def _chosen(
    class_names: Sequence[str], matrices: Sequence[np.ndarray], note: str
) -> tuple[list[str], list[int], str]:
    """Return the names and labels of the classes that are drawn, and the note that says so if not all are."""
    matrix = np.sum(matrices, axis=0)
    kept = most_mistaken(matrix, MOST_CLASSES)
    if len(kept) < len(matrix):
        chosen = f"The {len(kept)} classes with the most mistakes, of {len(matrix)}."
        note = f"{note.rstrip('.')}. {chosen}" if note else chosen
    names = readable_names(class_names, len(matrix), limit=LONGEST_NAME)
    return [names[i] for i in kept], kept, note


def _draw_matrix(
    axes: Axes,
    matrix: np.ndarray,
    kept: Sequence[int],
    labels: Sequence[str],
    *,
    size: float,
    draw_cells: Callable[..., None],
) -> None:
    """Draw the kept rows and columns of a matrix; the shares are those of whole rows."""
    from matplotlib.colors import PowerNorm

    shares = row_shares(matrix)[np.ix_(kept, kept)]
    annotated = len(kept) <= MOST_ANNOTATED
    draw_cells(
        axes,
        shares,
        _annotations(matrix[np.ix_(kept, kept)], shares) if annotated else None,
        letters={"size": size - 1.5, "linespacing": 1.05},
        norm=PowerNorm(0.5, vmin=0.0, vmax=1.0),  # a square root scale shows confusions of a few percent
        linewidths=0.4 if annotated else 0.0,
        rasterized=not annotated,
    )
    _hatch_empty_rows(axes, shares)
    _label(axes, labels, size=size)


def _draw_cells(axes: Axes, shares: np.ndarray, texts: Any, *, letters: dict[str, Any], **how: Any) -> None:
    """Draw the cells of a matrix as seaborn's `heatmap` does, without loading it.

    It brings pandas and scipy.stats, together half a second, which a small study's report would wait for.
    """
    mesh = axes.pcolormesh(np.ma.masked_invalid(shares), cmap=_colours(), edgecolors="white", **how)
    axes.set(xlim=(0, shares.shape[1]), ylim=(shares.shape[0], 0), aspect="equal")
    axes.spines[:].set_visible(False)
    colours = mesh.to_rgba(shares)
    for row, column in np.ndindex(shares.shape) if texts is not None else ():
        if texts[row, column]:
            ink = ".15" if _luminance(colours[row, column]) > _BRIGHT else "white"
            axes.text(
                column + 0.5, row + 0.5, texts[row, column], color=ink, ha="center", va="center", **letters
            )


def _seaborn_cells(
    axes: Axes, shares: np.ndarray, texts: Any, *, letters: dict[str, Any], **how: Any
) -> None:
    """Draw the cells of one of several matrices, which nobody waits for after a training."""
    import seaborn as sns

    sns.heatmap(
        shares,
        ax=axes,
        cmap="mako_r",
        annot=False if texts is None else texts,
        fmt="",
        annot_kws=letters,
        square=True,
        cbar=False,
        linecolor="white",
        xticklabels=False,
        yticklabels=False,
        **how,
    )


@functools.cache
def _colours() -> Colormap:
    """Return the colours of shares, white for none."""
    from matplotlib.colors import LinearSegmentedColormap

    places = range(len(_MAKO) - 6, -1, -6)
    return LinearSegmentedColormap.from_list("mako", [f"#{_MAKO[place : place + 6]}" for place in places])


def _luminance(colour: np.ndarray) -> float:
    """Return the relative luminance of a colour, https://www.w3.org/TR/WCAG20/#relativeluminancedef."""
    rgb = np.where(colour[:3] <= 0.03928, colour[:3] / 12.92, ((colour[:3] + 0.055) / 1.055) ** 2.4)
    return float(rgb @ (0.2126, 0.7152, 0.0722))


def _colour_bar(figure: Figure, axes: Sequence[Axes], *, shrink: float, size: float) -> None:
    bar = figure.colorbar(axes[0].collections[0], ax=list(axes), shrink=shrink, aspect=18, pad=0.02)
    bar.set_ticks(
        [0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0], labels=["0", "1 %", "5 %", "10 %", "25 %", "50 %", "100 %"]
    )
    bar.set_label("share of the true class", size=max(size, 8.0))
    bar.outline.set_visible(False)


def _cell_and_letter_size(classes: int) -> tuple[float, float]:
    """Return a cell's side in inches and the letters' size in points.

    Two lines of letters fit into an annotated cell; lines at 45 degrees lie side / sqrt(2) apart, and a line
    is 1.2 letter sizes high, so side >= 1.7 letter sizes keeps neighbours apart.
    """
    if classes <= 4:
        return 72 / POINTS_PER_INCH, 10.0
    if classes <= 12:
        return 50 / POINTS_PER_INCH, 9.5
    if classes <= MOST_ANNOTATED:
        return 38 / POINTS_PER_INCH, 8.5
    return 13 / POINTS_PER_INCH, 7.0


def _matrix_size(labels: Sequence[str], *, cell: float, size: float) -> tuple[float, float]:
    """Return the inches that a matrix and its names take."""
    longest = max((text_width(n, size) for n in labels), default=0.0)
    slanted = longest / math.sqrt(2)
    side = cell * len(labels)
    left = max(longest + 0.5, slanted + 0.2)
    return left + side + 0.5, max(side + slanted + 1.0, 2.9)


def _annotations(matrix: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return "count, share" for each cell; nothing in a cell without images, so that mistakes stand out."""
    texts = np.full(matrix.shape, "", dtype=object)
    for place in zip(*np.nonzero(matrix), strict=True):
        texts[place] = f"{matrix[place]}\n{_percent(float(shares[place]))}"
    return texts


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f}%" if percent >= 99.95 else f"{percent:.1f}%"


def _hatch_empty_rows(axes: Axes, shares: np.ndarray) -> None:
    from matplotlib.patches import Rectangle

    for row in np.flatnonzero(np.isnan(shares).all(axis=1)).tolist():
        axes.add_patch(
            Rectangle(
                (0.0, row),
                shares.shape[1],
                1,
                facecolor="#f1f2f4",
                edgecolor=FAINT,
                hatch="////",
                linewidth=0,
            )
        )


def _label(axes: Axes, labels: Sequence[str], *, size: float) -> None:
    places = np.arange(len(labels)) + 0.5
    axes.set_xticks(places, labels)
    axes.set_yticks(places, labels)
    axes.set_xlabel("predicted class", size=max(size, 9.0))
    axes.set_ylabel("true class", size=max(size, 9.0))
    axes.tick_params(length=0, labelsize=size)
    slant(axes.get_xticklabels(), slanted=True)
    for label in axes.get_yticklabels():
        label.set(rotation=0, va="center")
    plain_text(axes.get_yticklabels())
