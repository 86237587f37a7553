"""From a metric's values to places on a figure and back: any size is drawn, and ticks say the values as they are.

Matplotlib's scales lose values below 1e-287 and overflow near 1e308, so values far from 1 are drawn in a power of ten.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gridsearch.reporting.words.digits import tick_labels
from gridsearch.reporting.words.text import exponent_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.axis import Axis

_USUAL: Final = range(-6, 10)
_FARTHEST: Final = 1e100


@dataclass(frozen=True, slots=True)
class Unit:
    """The power of ten that values are drawn in; 0 for usual ones, which are drawn as they are."""

    metric: str
    exponent: int = 0

    @classmethod
    def of(cls, values: Iterable[float | None], metric: str) -> Unit:
        """Return the unit for these values, all finite; one that is far larger than most lies at its edge."""
        sizes = [abs(v) for v in values if v]
        size = statistics.median_low(sizes) if sizes else 0.0
        exponent = exponent_of(size) if size else 0
        return cls(metric, 0 if exponent in _USUAL else exponent)

    def draw(self, value: float) -> float:
        """Return the place of a value."""
        place = value if self.exponent == 0 else _times(value, -self.exponent)
        return min(max(place, -_FARTHEST), _FARTHEST)

    def value(self, place: float) -> float:
        """Return the value at a place."""
        return place if self.exponent == 0 else _times(place, self.exponent)

    def dress(self, axis: Axis) -> None:
        """Label an axis's ticks with the values at their places."""
        from matplotlib.ticker import Formatter

        unit = self

        class Labels(Formatter):
            """All ticks at once: only together do they say how many digits they need to differ."""

            def __call__(self, x: float, pos: Any = None) -> str:  # noqa: ARG002  matplotlib's
                return self.format_ticks([x])[0]

            def format_ticks(self, values: Sequence[float]) -> list[str]:
                return tick_labels([unit.value(v) for v in values], unit.metric)

        axis.set_major_formatter(Labels())


def _times(value: float, exponent: int) -> float:
    """Multiply by a power of ten in two steps, of which neither power overflows; a tick beyond all floats is inf."""
    half = exponent // 2
    return float(value) * 10.0**half * 10.0 ** (exponent - half)
