"""Gives a drawing a dark form, for a reader whose browser asks for one; between a figure's SVG and the page.

Matplotlib writes colours into each element's `style`, so rules by what is written there turn ground, ink and lines;
the colours of data stay.  An SVG shown as an image follows `prefers-color-scheme` as the page does.
"""

from __future__ import annotations

from typing import Final

from gridsearch.reporting.figures.mpl_style import ACCENT
from gridsearch.reporting.figures.rendering import INK

ON_LIGHT: Final = "#262626"
"""Ink on the light colours of data, which are as light on a dark page."""
_GROUND, _LIGHT_INK, _LINE, _ACCENT = "#1b1f27", "#e6e9ef", "#333a46", "#ff6b70"
"""As report.css has them."""
_END: Final = b"</style>"
_RULES: Final = f"""
@media (prefers-color-scheme: dark) {{
  [id^="patch"] > path[style*="fill: #ffffff"] {{ fill: {_GROUND} !important; }}
  [id^="text"] path[style*="fill: #ffffff"] {{ fill: {_GROUND} !important; }}
  pattern rect[fill="#ffffff"], pattern rect[fill="#eceef1"], pattern rect[fill="#e3edf7"] {{ fill: {_GROUND}; }}
  text[style*="fill: {INK}"], tspan[style*="fill: {INK}"] {{ fill: {_LIGHT_INK} !important; }}
  text[style*="fill: {ACCENT}"], tspan[style*="fill: {ACCENT}"] {{ fill: {_ACCENT} !important; }}
  [style*="stroke: {INK}"] {{ stroke: {_LIGHT_INK} !important; }}
  [style*="stroke: #e3e5e9"] {{ stroke: {_LINE} !important; }}
}}
""".encode()


def with_dark(svg: bytes) -> bytes:
    """Return a drawing of matplotlib's that is dark where the reader's browser asks for it."""
    return svg.replace(_END, _RULES + _END, 1)
