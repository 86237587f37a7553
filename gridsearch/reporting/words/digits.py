"""How many digits a metric's numbers are shown with: as many as they need to differ, in any unit and at any size.

The one place that decides it, for tables, sentences, cells and ticks alike.  A number by itself has four significant
digits; numbers that stand together have one last place, which their differences and their scatter over seeds set.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from gridsearch.reporting.words.text import (
    FIXED,
    MOST_DIGITS,
    NOTHING,
    SIGNIFICANT,
    exponent_of,
    is_share,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PERCENT_PLACES: Final = 2
"""Decimals of a percentage at least, so that a column of them keeps its width."""
_NO_SHARE: Final = ""
_PLAIN: Final = 6
"""Decimals that a plain number has at most; finer ones are written as 1.23e-14."""
_NOISE: Final = 1e-12
"""Relative to the size of the values: a smaller difference is rounding."""
_SIZES: Final = 4
"""Powers of ten between the least and the greatest of numbers that have no last place in common."""
_FEW: Final = 20
_FINER: Final = 4
"""Decimals that are added at most to distinguish more points than the first two, where they are few."""


@dataclass(frozen=True, slots=True)
class Digits:
    """The last place that numbers of a metric are written to, and their unit.

    Attributes:
        metric: its name where it is one of `text.SHARES`, which are written in percent; "" or any name otherwise.
        place: decimals in the unit shown, below zero where not even the ones are certain; None for a number by
            itself.
    """

    metric: str
    place: int | None = None

    @classmethod
    def of(
        cls, values: Iterable[float | None], metric: str, *, spreads: Iterable[float | None] = ()
    ) -> Digits:
        """Return the digits with which values differ.

        Args:
            values: best first, as far as they have an order: the first two differ as shown if they differ at all.
                None and what is not finite is left out.
            metric: whose they are.
            spreads: their standard deviations, or whatever else must be seen beside them.
        """
        values = tuple(values)
        metric = metric if is_share(metric, values) else _NO_SHARE
        factor = 100.0 if is_share(metric) else 1.0
        shown = [factor * v for v in values if v is not None and math.isfinite(factor * v)]
        noise = [factor * s for s in spreads if s is not None and s > 0 and math.isfinite(factor * s)]
        size = statistics.median_low(abs(v) for v in shown) if shown else 0.0
        if size == 0:
            size = max((abs(v) for v in shown), default=0.0)
        if size == 0:
            return cls(metric)
        fewest = PERCENT_PLACES if is_share(metric) else 0
        place = fewest if is_share(metric) else SIGNIFICANT - 1 - exponent_of(size)
        # digits of what differs; a percentage's two decimals are enough as a rule
        kept = 1 if is_share(metric) else 2
        place = max(place, kept - 1 - exponent_of(_range(shown) or size))
        place = _distinguishing_place(shown, place, finer=0 if noise else _FINER if len(shown) <= _FEW else 1)
        while place > fewest and all(_exact(v, place - 1) for v in shown):
            place -= 1
        if noise:
            place = max(place, kept - 1 - exponent_of(statistics.median_low(noise)))
        elif not is_share(metric) and _by_themselves(shown, place):
            return cls(metric)
        return cls(metric, min(place, MOST_DIGITS - 1 - exponent_of(size)))

    def finer(self, *widths: float | None) -> Digits:
        """Return digits that show widths of this size (of an interval, of a difference) as more than nothing.

        By two digits, so that a mean does not seem to lie at the end of its interval; by one of a percentage, which
        has two decimals already.
        """
        factor = 100.0 if is_share(self.metric) else 1.0
        seen = [factor * abs(w) for w in widths if w and math.isfinite(factor * w)]
        if not seen:
            return self
        place = (0 if is_share(self.metric) else 1) - exponent_of(min(seen))
        return replace(self, place=place if self.place is None else max(self.place, place))

    def show(self, value: float | None, *, unit: bool = True) -> str:
        """Return a value: "93.71 %", "12345.51", "1.2346e+181"."""
        if value is None or not math.isfinite(value):
            return NOTHING
        share = is_share(self.metric)
        shown = 100 * value if share else value
        place = PERCENT_PLACES if share and self.place is None else self.place
        return written(shown, place) + (" %" if share and unit else "")

    def spread(self, value: float | None) -> str:
        """Return a standard deviation in the values' unit, without the unit, "" for None."""
        if value is None or not math.isfinite(value):
            return ""
        shown = 100 * value if is_share(self.metric) else value
        if self.place is None:
            return f"{shown:.2f}" if is_share(self.metric) else f"{shown:.2g}"
        return _small(shown, self.place)

    def difference(self, value: float, *, unit: bool = True) -> str:
        """Return a difference between two values, percentage points for shares."""
        if is_share(self.metric):
            place = max(PERCENT_PLACES, self.place or 0)
            size = _significant(100 * value, 3) if place > _PLAIN else _small(100 * value, place)
            return size + (" percentage points" if unit else "")
        return _significant(value, 3)

    def interval(self, low: float, high: float, *, sign: bool = False) -> str:
        """Return an interval in the values' unit, without the unit: "[93.41, 94.01]"; `sign` writes "+0.12"."""
        ends = [("+" if sign and x > 0 else "") + self.show(x, unit=False) for x in (low, high)]
        return f"[{ends[0]}, {ends[1]}]"


def tick_labels(values: Sequence[float], metric: str) -> list[str]:
    """Return the labels of an axis's ticks: all written alike, none that differ look the same, no offset apart."""
    share = is_share(metric, values)
    factor = 100.0 if share else 1.0
    shown = [factor * v for v in values]
    size = max((abs(v) for v in shown if math.isfinite(v)), default=0.0)
    shown = [0.0 if abs(v) <= _NOISE * size else v for v in shown]
    finite = sorted(v for v in shown if math.isfinite(v))
    gaps = [b - a for a, b in pairwise(finite) if b - a > _NOISE * size]
    gap = min((g for g in gaps if math.isfinite(g)), default=size)
    place = -exponent_of(gap if gap > 1e300 else gap * (1 + 1e-6)) if gap else 0  # 9.9999999e-10 is 1e-09
    top = exponent_of(size) if size else 0
    while place < MOST_DIGITS - 1 - top and not all(_exact(v, place, within=0.05 * gap) for v in finite):
        place += 1
    fixed = top in FIXED  # 0.01000000001 is shorter than 1.000000001e-02
    unit = " %" if share else ""

    def label(value: float) -> str:
        if fixed or value == 0:
            return f"{value:.{max(0, place) if fixed else 0}f}{unit}"
        return f"{value:.{max(0, min(MOST_DIGITS, exponent_of(value) + place))}e}{unit}"

    return [label(v) if math.isfinite(v) else NOTHING for v in shown]


def _small(value: float, place: int) -> str:
    """Return a spread or a difference to a place, with a digit of its own where it would seem to be nothing."""
    if value != 0 and (exponent_of(value) < -place or place > _PLAIN or exponent_of(value) not in FIXED):
        return _significant(value, 2)
    return "0" if value == 0 and place > _PLAIN else f"{value:.{max(0, place)}f}"


def _significant(value: float, digits: int) -> str:
    """Return a number with some significant digits, a large one with all that it has before the point: "1065"."""
    text = f"{value:.{digits}g}"
    large = "e+" in text and exponent_of(value) in FIXED
    return f"{value:.0f}" if large else text


def _range(values: Sequence[float]) -> float:
    """Return how far the better half of the values spreads, or all where that half is equal; 0 where all are."""
    size = max(abs(v) for v in values)
    for part in (values[: max(2, (len(values) + 1) // 2)], values):
        reach = max(part) - min(part)
        if not math.isfinite(reach):
            return size
        if reach > _NOISE * size:
            return reach
    return 0.0


def _distinguishing_place(values: Sequence[float], place: int, *, finer: int) -> int:
    """Return the place at which the first two that differ look different, and all where so few decimals do it."""
    first = values[0]
    second = next((v for v in values if abs(v / 2 - first / 2) > _NOISE * max(abs(v), abs(first))), None)
    for _ in range(MOST_DIGITS):
        if second is None or written(first, place) != written(second, place):
            break
        place += 1
    different = len({float(f"{v:.12g}") for v in values})
    for more in range(place, place + finer + 1):
        if len({written(v, more) for v in values}) == different:
            return more
    return place


def _by_themselves(values: Sequence[float], place: int) -> bool:
    """Whether values of so many sizes that no one place suits them differ as well with digits of their own."""
    sizes = [exponent_of(v) for v in values if v]
    apart = max(sizes) - min(sizes) >= _SIZES
    return apart and len({written(v) for v in values}) >= len({written(v, place) for v in values})


def _exact(value: float, place: int, *, within: float | None = None) -> bool:
    """Whether a number loses nothing when it is rounded to a place (which `round` does not do below 1e-22)."""
    limit = _NOISE * abs(value) if within is None else within
    kept = exponent_of(value) + place if value else 0
    rounded = float(f"{value:.{kept}e}") if kept >= 0 else float(round(value, place)) if place > -300 else 0.0
    return abs(rounded - value) <= limit
