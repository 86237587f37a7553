"""Where the means of points lie on a figure: in which unit, and between which ends of an axis or of the colours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from gridsearch.reporting.figures.units import Unit
from gridsearch.reporting.stats.moments import ROUNDING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.axes import Axes

    from gridsearch.reporting.ranking.points import RankedPoint
    from gridsearch.reporting.ranking.ranking import Ranking


@dataclass(frozen=True, slots=True)
class Scale:
    """The unit of a metric and the ends between which it is drawn, in that unit.

    Attributes:
        clipped: the end beyond which values lie that are drawn at it: "", "min" or "max".
    """

    unit: Unit
    low: float
    high: float
    clipped: str

    @classmethod
    def of(cls, points: Iterable[RankedPoint], ranking: Ranking) -> Self:
        """Return the scale for the means of some points; see `value_range`."""
        means = [p.mean for p in points if p.mean is not None]
        unit = Unit.of(means, ranking.metric)
        ends = value_range([unit.draw(m) for m in means], better_high=ranking.direction != "minimize")
        return cls(unit, *ends)

    def drawn_in(self, unit: Unit) -> Scale:
        """Return the same ends in another unit."""
        low, high = (unit.draw(self.unit.value(end)) for end in (self.low, self.high))
        return Scale(unit, low, high, self.clipped)

    def place(self, point: RankedPoint) -> float:
        """Return where a point's mean lies; one beyond an end lies at it."""
        return min(max(self.unit.draw(point.mean or 0.0), self.low), self.high)

    def limits(self, margin: float) -> tuple[float, float]:
        """Return the ends of an axis with a margin, a share of the scale, at both sides."""
        wide = margin * (self.high - self.low)
        return self.low - wide, self.high + wide

    def clipped_words(self, where: str) -> list[str]:
        """Return the note that says where values beyond an end are drawn, none if there are none."""
        return [f"{'Lower' if self.clipped == 'min' else 'Higher'} values {where}."] if self.clipped else []


def value_range(values: Sequence[float], *, better_high: bool) -> tuple[float, float, str]:
    """Return the ends of the scale that values are drawn on, and which end was clipped ("", "min", "max").

    A lost corner of the grid (10 % among 90 %) would leave all others in one colour, or in one line.  So where
    the worst is far off the best seven tenths, the scale ends a little below these.
    """
    import numpy as np

    if not len(values):
        return 0.0, 1.0, ""
    low, high = float(min(values)), float(max(values))
    if (flat := about_rounding(low, high)) is not None:
        return *flat, ""
    with np.errstate(over="ignore"):  # beyond all floats apart: no knee, and the scale holds all
        knee = float(np.quantile(values, 0.3 if better_high else 0.7))
    if better_high:
        if knee / 3 - low / 3 > high - knee > 0:
            return knee - 0.5 * (high - knee), high, "min"
    elif high / 3 - knee / 3 > knee - low > 0:
        return low, knee + 0.5 * (knee - low), "max"
    return low, high, ""


def about_rounding(low: float, high: float) -> tuple[float, float] | None:
    """Return ends around values that differ by no more than rounding, which is no slope; None for other values."""
    if high / 2 - low / 2 > ROUNDING * max(abs(low), abs(high)) / 2:
        return None
    margin = 0.01 * abs(low) or 0.005  # so that the only value lies in the middle
    return low - margin, high + margin


def level_where_flat(axes: Axes) -> None:
    """Give an axis whose drawn values differ by rounding alone ends that show them as one."""
    low, high = (float(end) for end in axes.dataLim.intervaly)
    if math.isfinite(low) and math.isfinite(high) and (ends := about_rounding(low, high)) is not None:
        axes.set_ylim(ends)


def common_scale(rankings: Sequence[Ranking]) -> Scale:
    """Return one scale for the points of several rankings by one metric."""
    points = [p for r in rankings for p in r.points if p.drawable]
    return Scale.of(points, rankings[0])
