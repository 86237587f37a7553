"""The sheet that every figure is drawn on: its style, its fonts, and the way to PNG and SVG.

Figures are made without pyplot, under matplotlib's default style whatever the user's own is, and leave no
state behind.  Names from users are drawn as they are: no mathtext, no missing-glyph warnings.
"""

from __future__ import annotations

import functools
import io
import textwrap
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from gridsearch.errors import ArtifactError
from gridsearch.reporting.figures.library import load, our_style
from gridsearch.reporting.predictions import class_labels
from gridsearch.reporting.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from matplotlib.figure import Figure
    from matplotlib.text import Text

P = ParamSpec("P")
T = TypeVar("T")

POINTS_PER_INCH: Final = 72.0
LETTER: Final = 0.62
"""Mean width of a letter of DejaVu Sans, in its size; wide letters are rarer than narrow ones."""
INK: Final = "#1f2430"
FAINT: Final = "#c9ccd3"
ACCENT: Final = "#d1242f"
PALETTE: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00")
"""Five colours that are told apart with any colour vision (after Okabe and Ito, yellow darkened)."""
_COLOURS: Final = "viridis"

_SCRIPTS: Final = (
    "Noto Sans",
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans Arabic",
    "Noto Sans Hebrew",
    "Noto Sans Devanagari",
    "Noto Sans Bengali",
    "Noto Sans Tamil",
    "Noto Sans Thai",
    "Noto Sans Ethiopic",
    "Noto Sans Symbols2",
    "Noto Emoji",
    "Symbola",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Hiragino Sans",
    "PingFang SC",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Arial Unicode MS",
)


@contextmanager
def drawing() -> Iterator[None]:
    """Draw under matplotlib's default style and ours on top, restore the user's own afterwards."""
    load()
    ours: dict[str, Any] = {
        "font.family": [*_font_family()],
        "font.size": 9.0,
        "text.parse_math": False,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": "#8b909c",
        "axes.titlesize": 10.0,
        "axes.titlelocation": "left",
        "xtick.color": INK,
        "ytick.color": INK,
        "svg.fonttype": "none",
        "svg.hashsalt": "gridsearch",
        "hatch.linewidth": 0.6,
    }
    with our_style(ours):
        yield


def drawn(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function that returns a figure, or figures, draw in our style."""

    @functools.wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> T:
        with drawing():
            return function(*args, **kwargs)

    return inner


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches, laid out so that nothing overlaps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(
        figure
    )  # keeps one renderer for all measuring of text; without it, each measure makes one
    return figure


def text_width(text: str, size: float) -> float:
    """Return about how many inches a text takes at a font size in points; wide scripts count twice."""
    letters = sum(1.0 if ord(c) < 0x1100 else 1.7 for c in text)
    return letters * LETTER * size / POINTS_PER_INCH


def readable_names(class_names: Sequence[str], classes: int, *, limit: int) -> list[str]:
    """Return a label for each of Y classes, with its number before a name that no font here can draw.

    In the SVG such a name is still its text; in the PNG, where it is a row of boxes, the number tells which.
    """
    names = [printable(n, limit) for n in class_labels(class_names, classes)]
    return [n if _drawable(n) else f"{i}: {n}" for i, n in enumerate(names)]


def _drawable(text: str) -> bool:
    return text.isascii() or all(ord(c) in _glyphs() for c in text)


def font_with(text: str) -> str | None:
    """Return the file of the first of our fonts that has every letter of a text, None if none has."""
    return next((file for file, glyphs in _charmaps().items() if all(ord(c) in glyphs for c in text)), None)


def _glyphs() -> frozenset[int]:
    """Return the characters that our fonts have."""
    return frozenset().union(*_charmaps().values())


@functools.lru_cache(maxsize=1)
def _charmaps() -> dict[str, frozenset[int]]:
    """Return the characters of each of our fonts, by its file; none where matplotlib does not load."""
    try:
        load()
    except ArtifactError:
        return {}
    from matplotlib import font_manager

    files = [font_manager.findfont(family) for family in _font_family()]
    return {file: frozenset(font_manager.get_font(file).get_charmap()) for file in files}


def settled(figure: Figure) -> Figure:
    """Lay a finished figure out for good, and return it.

    Constrained layout is not settled after one pass where axes keep their aspect: it left a name cut off at the
    sheet's edge.  Fixed, it is also not done again for each file that is written.
    """
    for axes in figure.axes:
        for inner in (*axes.texts, *axes.patches, *axes.collections):
            inner.set_in_layout(False)  # lies inside the axes; measuring each took most of the time
    engine = figure.get_layout_engine()
    assert engine is not None
    for _ in range(2):
        engine.execute(figure)
    figure.set_layout_engine("none")
    return figure


def sheet_title(figure: Figure, title: str, note: str = "") -> None:
    """Write a title, and a line of notes below it, at the sheet's upper left, wrapped to its width."""
    lines = _title_lines(title, note, width=float(figure.get_figwidth()))
    text = figure.suptitle("\n".join(lines), x=0.012, ha="left", size=10.5, color=INK)
    plain_text([text])
    if figure.get_layout_engine() is None:  # a layout finds the title's place; without one it is ours to find
        text.set_y(1.0 - 0.07 / float(figure.get_figheight()))


def title_height(title: str, note: str, *, width: float) -> float:
    """Return how many inches `sheet_title` takes on a sheet of that width, with room below."""
    return 0.2 + 0.19 * len(_title_lines(title, note, width=width))


def _title_lines(title: str, note: str, *, width: float) -> list[str]:
    letters = max(20, int((width - 0.3) / text_width("n", 10.5)))
    return [line for text in (title, note) for line in textwrap.wrap(printable(text, 6 * letters), letters)]


def png_bytes(figure: Figure, *, dpi: int = 110) -> bytes:
    """Return a figure as PNG, without a date in it.

    Not through `savefig`, which draws a figure with a colour bar twice, to lay it out once more.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    out = io.BytesIO()
    with drawing():
        figure.set_dpi(dpi)
        FigureCanvasAgg(figure).print_png(out, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return out.getvalue()


def svg_bytes(figure: Figure) -> bytes:
    """Return a figure as SVG with its text as text; the same figure gives the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    out = io.BytesIO()
    with drawing():
        FigureCanvasSVG(figure).print_svg(  # type: ignore[no-untyped-call]
            out, metadata={"Date": None, "Creator": None}
        )
    FigureCanvasAgg(figure)  # which measures text
    return out.getvalue()


def plain_text(texts: Iterable[Text]) -> None:
    """Switch off mathtext for labels that hold users' names, also for a later draw under another style."""
    for text in texts:
        text.set_parse_math(False)


@functools.lru_cache(maxsize=1)
def _font_family() -> tuple[str, ...]:
    """Return DejaVu Sans, which comes with matplotlib, then the installed fonts for further scripts."""
    load()
    from matplotlib import font_manager

    there = set(font_manager.get_font_names())
    return ("DejaVu Sans", *(f for f in _SCRIPTS if f in there))


def colours_for(direction: str) -> str:
    """Return the name of the colour map in which better values are the brighter ones."""
    return _COLOURS if direction != "minimize" else f"{_COLOURS}_r"
