"""Means and deviations of numbers of any size; below everything that computes with a metric.

Sums are formed in units of a power of two near the largest number, which costs no digit: neither the square of 1e160
nor that of 1e-300 leaves the range of floats.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROUNDING: Final = 1e-12
"""Relative to the values: smaller differences are rounding."""


def unit(values: Iterable[float]) -> int:
    """Return the exponent of the power of two above the largest size of finite values, 0 where all are zero."""
    return math.frexp(max((abs(v) for v in values), default=0.0))[1]


def in_units(values: Iterable[float], exponent: int) -> list[float]:
    """Return values over 2 to an exponent; what is nothing beside the largest becomes 0."""
    return [math.ldexp(v, -exponent) for v in values]


def mean(values: Sequence[float]) -> float | None:
    """Return the mean, None of nothing."""
    if not values:
        return None
    exponent = unit(values)
    return math.ldexp(math.fsum(in_units(values, exponent)) / len(values), exponent)


def deviation(values: Sequence[float]) -> float | None:
    """Return the standard deviation (n - 1 in the denominator), None for fewer than two or beyond any float.

    Values that are one but for rounding have none.
    `statistics.stdev` computes in fractions, slowly.
    """
    if len(values) < 2:
        return None
    exponent = unit(values)
    scaled = in_units(values, exponent)
    middle = math.fsum(scaled) / len(scaled)
    gaps = [v - middle for v in scaled]
    if max(map(abs, gaps)) <= ROUNDING * abs(middle):
        return 0.0
    own = unit(gaps)  # equal values but for their last digits
    squares = math.fsum(g * g for g in in_units(gaps, own))
    try:
        return math.ldexp(math.sqrt(squares / (len(values) - 1)), exponent + own)
    except OverflowError:
        return None
