"""The style in which figures are drawn, and the way from a figure to PNG and SVG; below all that draws one."""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from gridsearch.reporting.figures.fonts import font_family
from gridsearch.reporting.figures.matplotlib_setup import our_style

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

INK: Final = "#1f2430"

_DPI: Final = 110


@contextmanager
def drawing() -> Iterator[None]:
    """Draw under matplotlib's default style and ours on top, restore the user's own afterwards."""
    ours: dict[str, Any] = {
        "font.family": [*font_family()],
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


def png_bytes(figure: Figure) -> bytes:
    """Return a figure as PNG, without a date in it.

    Not through `savefig`, which draws a figure with a colour bar twice, to lay it out once more.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    out = io.BytesIO()
    with drawing():
        figure.set_dpi(_DPI)
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
