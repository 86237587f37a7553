"""The colours and the layout of every figure, its title and its labels.

Figures are made without pyplot, under matplotlib's default style whatever the user's own is, and leave no
state behind.  Names from users are drawn as they are: no mathtext, no missing-glyph warnings.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, TypeVar

from gridsearch.reporting.figures.fonts import Key, fitted, keyed, legible_words
from gridsearch.reporting.figures.rendering import INK, drawing
from gridsearch.reporting.words.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

P = ParamSpec("P")
T = TypeVar("T")

FAINT: Final = "#c9ccd3"
ACCENT: Final = "#d1242f"
PALETTE: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00")
"""Five colours that differ for any colour vision (after Okabe and Ito, yellow darkened)."""
_COLOURS: Final = "viridis"
_MOST_LAYOUTS: Final = 4


def drawn(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function that returns a figure, or figures by name, draw in our style, and give each its key."""

    @functools.wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> T:
        with drawing(), keyed() as key:
            made = function(*args, **kwargs)
            for figure in made.values() if isinstance(made, dict) else [made]:
                if figure is not None:
                    figure.gridsearch_key = tuple(key.items())  # type: ignore[union-attr]
            return made

    return inner


def key_of(figure: Figure) -> Key:
    """Return what the numbers in a figure stand for that are drawn in place of names; mostly nothing."""
    key: Key = getattr(figure, "gridsearch_key", ())
    return key


def new_figure(width: float, height: float, title: str, note: str = "") -> Figure:
    """Return a figure that holds its title and a line of notes alone, laid out so that nothing overlaps.

    Args:
        width: in inches; the title is wrapped to it.
        height: in inches, of what comes below the title.
        title: any text.
        note: one more line below it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from gridsearch.reporting.figures.notebook_figure import Figure

    lines = _title_lines(title, note, width=width)
    size = (width, height + title_height(title, note, width=width))
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)  # keeps one renderer for measuring all text; without it, each measure makes one
    text = figure.suptitle("\n".join(lines), x=0.012, ha="left", size=10.5, color=INK)
    text.set_in_layout(False)  # until `settled`: seaborn has a half-drawn figure laid out
    plain_text([text])
    return figure


def panel_grid(figure: Figure, count: int, across: int, **how: Any) -> list[Axes]:
    """Return so many axes in rows of `across`; the rest of the last row stays empty."""
    grid: list[Axes] = list(figure.subplots(math.ceil(count / across), across, squeeze=False, **how).flat)
    for unused in grid[count:]:
        unused.set_axis_off()
    return grid[:count]


def ruled(axes: Axes, *, along: Literal["both", "x", "y"] = "y") -> None:
    """Draw faint lines behind the data, and no frame above and at the right."""
    axes.grid(visible=True, axis=along, color="#e3e5e9", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def level_ticks(axes: Axes, names: Sequence[str], *, every: int, slanted: bool) -> None:
    """Name the levels along the x axis, every second, third ... one of very many."""
    axes.set_xticks(range(0, len(names), every), names[::every])
    axes.set_xlim(-0.6, len(names) - 0.4)
    slant(axes.get_xticklabels(), slanted=slanted)


def hatch_level(axes: Axes, place: float) -> None:
    """Hatch the column of a level that has nothing to draw."""
    axes.axvspan(place - 0.4, place + 0.4, facecolor="#eceef1", edgecolor="#a9adb6", hatch="///", linewidth=0)


def settled(figure: Figure) -> Figure:
    """Lay a finished figure out for good, and return it.

    Constrained layout is not settled after one pass where axes keep their aspect: it left a name cut off at the
    figure's edge.  Fixed, it is also not done again for each file that is written.  The figure grows by what would be
    cut: a name longer than its axis is high.
    """
    for axes in figure.axes:
        for inner in (*axes.texts, *axes.patches, *axes.collections):
            inner.set_in_layout(False)  # lies inside the axes; measuring each took most of the time
    for text in figure.texts:
        text.set_in_layout(True)
    engine = figure.get_layout_engine()
    assert engine is not None
    passes = 2 if any(axes.get_aspect() != "auto" for axes in figure.axes) else 1
    for _ in range(_MOST_LAYOUTS):
        for _ in range(passes):
            engine.execute(figure)
        box = figure.get_tightbbox()
        width, height = (float(x) for x in figure.get_size_inches())
        wider, higher = max(0.0, -box.x0, box.x1 - width), max(0.0, -box.y0, box.y1 - height)
        if max(wider, higher) < 0.001:
            break
        figure.set_size_inches(width + 2 * wider, height + 2 * higher)
    figure.set_layout_engine("none")
    return figure


def title_height(title: str, note: str, *, width: float) -> float:
    """Return how many inches a title takes on a figure of that width, with space below."""
    return 0.2 + 0.19 * len(_title_lines(title, note, width=width))


def _title_lines(title: str, note: str, *, width: float) -> list[str]:
    texts = [
        fitted(legible_words(printable(t)), width - 0.3, 10.5, lines=n) for t, n in ((title, 4), (note, 8))
    ]
    return [line for text in texts for line in text.split("\n") if line]


def slant(labels: Sequence[Text], *, slanted: bool) -> None:
    """Turn the names below an axis by 45 degrees, ends at their ticks, or leave them upright."""
    for label in labels:
        label.set(
            rotation=45 if slanted else 0,
            ha="right" if slanted else "center",
            rotation_mode="anchor",
            va="top",
        )
    plain_text(labels)


def plain_text(texts: Iterable[Text]) -> None:
    """Switch off mathtext for labels that hold users' names, also for a later draw under another style."""
    for text in texts:
        text.set_parse_math(False)


def numbered_legend(figure: Figure, words: Sequence[str]) -> None:
    """Write below a figure what its numbered points are, a line each."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], linestyle="none", marker="o", color=FAINT, markersize=0) for _ in words]
    how = {"frameon": False, "fontsize": 8.5, "handlelength": 0, "handletextpad": 0.3}
    plain_text(figure.legend(handles, list(words), loc="outside lower left", **how).get_texts())


def colours_for(direction: str) -> str:
    """Return the name of the colour map in which better values are the brighter ones."""
    return _COLOURS if direction != "minimize" else f"{_COLOURS}_r"
