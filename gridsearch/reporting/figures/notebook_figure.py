"""The figure that users get: matplotlib's, which shows itself once below a notebook's cell, whatever the backend.

Made by `mpl_style.new_figure`; apart from it, so that matplotlib is imported only where something is drawn.
"""

from __future__ import annotations

from matplotlib import figure

from gridsearch.reporting.figures.rendering import png_bytes


class Figure(figure.Figure):
    """A figure that pyplot does not know: it would draw it a second time when the cell ends."""

    def _repr_png_(self) -> bytes:
        """Return what a notebook shows where no backend has its own way to show a figure."""
        dpi = self.get_dpi()
        try:
            return png_bytes(self)
        finally:
            self.set_dpi(dpi)
