"""The figure that users get: matplotlib's, which shows itself once below a notebook's cell, whatever the backend.

Made by `mpl_style.new_figure`; apart from it, so that matplotlib is imported only where something is drawn.
"""

from __future__ import annotations

from matplotlib import figure


class Figure(figure.Figure):
    """A figure that is no part of pyplot's, which would draw it a second time when the cell ends."""

    def _repr_png_(self) -> bytes:
        """Return what a notebook shows where no backend has its own way to show a figure."""
        from gridsearch.reporting.figures.mpl_style import png_bytes

        dpi = self.get_dpi()
        try:
            return png_bytes(self)
        finally:
            self.set_dpi(dpi)
