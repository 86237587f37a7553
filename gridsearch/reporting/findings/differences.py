"""Differences between two values of an axis where all else is alike; what findings about axes rest on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gridsearch.records.axis import identity
from gridsearch.reporting.ranking.points import values_by_replicate
from gridsearch.reporting.stats import moments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.records import Value
    from gridsearch.reporting.ranking.points import RankedPoint
    from gridsearch.reporting.ranking.ranking import Ranking

FEWEST: Final = 3
"""Differences below this number say too little of how they scatter."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better one value of an axis is than another, above zero where it is better.

    Attributes:
        mean: over `count` pairs.
        low: lower end of the confidence interval of the mean; likewise `high`.
        over: what the pairs are: "seeds" of one point, or "points" that differ in this axis alone.
    """

    mean: float
    low: float
    high: float
    count: int
    over: str


def intervals(ranking: Ranking, axis: str, first: Value, second: Value, *, level: float) -> list[Difference]:
    """Return how much better one value is than another: at the winner, over its seeds, and over all matched points.

    By the paired t-test: differences of a block (same settings but for the axis) are independent of those of another
    and taken as roughly normal.  Each needs three pairs, and is left out where there are fewer.

    Args:
        ranking: the points.
        axis: the axis.
        first: a value of it.
        second: another one.
        level: error level of an interval, two-sided.
    """
    sign = -1.0 if ranking.direction == "minimize" else 1.0
    found = []
    at_winner, between, folds = [], [], 1
    for one, other in _blocks(ranking.ranked, axis, first, second):
        a, b = (values_by_replicate(p.trials, ranking.metric) for p in (one, other))
        both = sorted(set(a) & set(b))
        shared = [sign * (a[replicate] - b[replicate]) for replicate in both]
        if not shared:
            continue
        between.append(moments.mean(shared) or 0.0)
        if ranking.best in (one, other):
            at_winner, folds = shared, len({replicate.fold for replicate in both})
    # Folds train on images in common: their scatter understates that of their mean (Nadeau and Bengio, Inference for
    # the generalization error, 2003, correct it by the ratio of test to training images).
    wider = math.sqrt(1 + len(at_winner) / (folds - 1)) if folds > 1 else 1.0
    for pairs, over, factor in ((at_winner, "seeds", wider), (between, "points", 1.0)):
        if len(pairs) >= FEWEST:
            found.append(_interval(pairs, level=level, over=over, wider=factor))
    return found


def chance(ranking: Ranking) -> float | None:
    """Return the standard deviation of a trial's value by chance alone; None where nothing says it.

    Pooled over the seeds of the points, else that of a share of right answers among the validation images.
    """
    spreads = [(p.n - 1, p.spread) for p in ranking.ranked if p.spread is not None]
    freedom = sum(n for n, _ in spreads)
    if freedom:
        return math.hypot(*(math.sqrt(n / freedom) * spread for n, spread in spreads)) or None
    images, best = ranking.uncertainty.images, ranking.best
    if images and best is not None and best.mean is not None and 0 < best.mean < 1:
        return math.sqrt(best.mean * (1 - best.mean) / images)
    return None


def _blocks(
    points: Sequence[RankedPoint], axis: str, first: Value, second: Value
) -> list[tuple[RankedPoint, RankedPoint]]:
    """Return the pairs of points that differ in this axis alone, in these two values."""
    sides: tuple[dict[object, RankedPoint], dict[object, RankedPoint]] = ({}, {})
    for point in points:
        for side, value in zip(sides, (first, second), strict=True):
            if identity(point.level(axis)) == identity(value):
                flat = point.settings.flat()
                rest = tuple((k, identity(v)) for k, v in sorted(flat.items()) if k != axis)
                side[rest] = point
    return [(point, sides[1][rest]) for rest, point in sides[0].items() if rest in sides[1]]


def _interval(values: Sequence[float], *, level: float, over: str, wider: float) -> Difference:
    from scipy import special

    mean, error = (
        moments.mean(values) or 0.0,
        (moments.deviation(values) or 0.0) * wider / math.sqrt(len(values)),
    )
    reach = float(special.stdtrit(len(values) - 1, 1 - level / 2)) * error
    return Difference(mean, mean - reach, mean + reach, len(values), over)
