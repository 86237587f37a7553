"""Differences between two values of an axis where all else is alike; what findings about axes rest on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gridsearch.records.axis import identity
from gridsearch.reporting.ranking.points import means_in_common, values_by_replicate
from gridsearch.reporting.stats import moments
from gridsearch.reporting.stats.uncertainty import Basis
from gridsearch.reporting.words.text import is_share, plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gridsearch.records import Value
    from gridsearch.reporting.ranking.points import RankedPoint
    from gridsearch.reporting.ranking.ranking import Ranking
    from gridsearch.reporting.words.digits import Digits

FEWEST: Final = 3
"""Differences below this number say too little of how they scatter."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better one value of an axis is than another, above zero where it is better.

    Attributes:
        mean: over `count` pairs.
        low: lower end of the confidence interval of the mean; likewise `high`.
        points: those that were compared.
    """

    mean: float
    low: float
    high: float
    count: int
    points: tuple[RankedPoint, ...]


class Blocks:
    """The points of a ranking, to be paired with those that differ in one axis alone; their settings are read once.

    Args:
        ranking: the points.
    """

    def __init__(self, ranking: Ranking) -> None:
        self.ranking = ranking
        self._settings = [
            (point, tuple((k, identity(v)) for k, v in sorted(point.settings.flat().items())))
            for point in ranking.ranked
        ]
        self._by_axis: dict[str, dict[object, dict[object, RankedPoint]]] = {}

    def pairs(self, axis: str, first: Value, second: Value) -> list[tuple[RankedPoint, RankedPoint]]:
        """Return the pairs of points that differ in this axis alone, in these two values."""
        levels = self._by_axis.get(axis)
        if levels is None:
            levels = self._by_axis[axis] = {}
            for point, settings in self._settings:
                rest = tuple(setting for setting in settings if setting[0] != axis)
                levels.setdefault(identity(point.level(axis)), {})[rest] = point
        others = levels.get(identity(second), {})
        return [
            (point, others[rest]) for rest, point in levels.get(identity(first), {}).items() if rest in others
        ]


def difference(blocks: Blocks, axis: str, first: Value, second: Value, *, level: float) -> Difference | None:
    """Return how much better one value is than another over the points that differ in this axis alone.

    By the paired t-test: differences of a block (same settings but for the axis) are independent of those of another
    and taken as roughly normal.  With one block, which is a study of one axis, its seeds are the pairs.  None with
    fewer than three pairs, and for the folds of one block, which are not independent.

    Args:
        blocks: the points.
        axis: the axis.
        first: a value of it.
        second: another one.
        level: error level of the interval, two-sided.
    """
    ranking = blocks.ranking
    sign = -1.0 if ranking.direction == "minimize" else 1.0
    means, pairs, folds = [], [], 1
    compared: list[RankedPoint] = []
    for one, other in blocks.pairs(axis, first, second):
        a, b = (values_by_replicate(p.trials, ranking.metric) for p in (one, other))
        both = sorted(set(a) & set(b))
        if both:
            pairs = [sign * (a[replicate] - b[replicate]) for replicate in both]
            means.append(moments.mean(pairs) or 0.0)
            folds = len({replicate.fold for replicate in both})
            compared += (one, other)
    if len(means) == 1 and folds == 1:
        means = pairs
    return _interval(means, tuple(compared), level=level) if len(means) >= FEWEST else None


def lead_over(blocks: Blocks, axis: str, other: Value, *, level: float) -> str | None:
    """Return in words by how much the winner's value of an axis is better than another; None where it may be chance.

    Where the point that differs from the winner in this value alone is distinguished by the ranking's own test, that
    says it (which allows for the winner being the pick of all points); else the mean difference over all such points.

    Args:
        blocks: the points.
        axis: the axis.
        other: the value that the winner is compared with.
        level: error level of the mean difference, two-sided.
    """
    ranking, best = blocks.ranking, blocks.ranking.best
    assert best is not None
    digits = ranking.digits_of()
    beside = next((pair[1] for pair in blocks.pairs(axis, best.level(axis), other) if pair[0] is best), None)
    known = ranking.uncertainty
    if beside is not None and beside.mean is not None and best.mean is not None and beside.tier == best.tier:
        place = next(i for i, point in enumerate(ranking.points) if point is beside)
        if (
            place < known.compared
            and known.basis is not Basis.NOTHING  # the winner's predictions are not there
            and not known.exact
            and not beside.tied_with_best
            and place not in known.unsettled
        ):
            means = [f"{digits.show(p.mean)}{_ends(p, digits)}" for p in (best, beside)]
            gap, over = abs(best.mean - beside.mean), ""
            if place in known.over_fewer and (common := means_in_common(best, beside, ranking.metric)):
                *both, count = common
                gap, over = abs(both[0] - both[1]), f" over the {plural(count, ranking.noun)} that both have"
                means = [digits.show(mean) for mean in both]
            said = f"{' against '.join(means)}; more than chance explains, with 95 % confidence"
            return f"{digits.difference(gap)}{over} ({said})"
    found = difference(blocks, axis, best.level(axis), other, level=level)
    if found is None or not found.low > 0:
        return None
    digits = digits.finer(found.high - found.low)
    low, high = (digits.difference(end, unit=False) for end in (found.low, found.high))
    return (
        f"{digits.difference(found.mean)} on average (95 % interval {low} to {high}, over {found.count} pairs of "
        "points that differ only in it)"
    )


def _ends(point: RankedPoint, digits: Digits) -> str:
    if point.ci_low is None or point.ci_high is None:
        return ""
    return f" {digits.finer(point.ci_high - point.ci_low).interval(point.ci_low, point.ci_high)}"


def chance(ranking: Ranking, points: Iterable[RankedPoint]) -> float | None:
    """Return the standard deviation of a trial's value by chance alone; None where nothing says it.

    Pooled over the seeds of some points (poor ones may scatter a thousand times as much as good ones), else that of a
    share of right answers among the validation images.
    """
    spreads = [(p.n - 1, p.spread) for p in points if p.spread is not None]
    df = sum(n for n, _ in spreads)
    if df:
        return math.hypot(*(math.sqrt(n / df) * spread for n, spread in spreads)) or None
    images, best = ranking.uncertainty.images, ranking.best
    if (
        images
        and best is not None
        and best.mean is not None
        and 0 < best.mean < 1
        and is_share(ranking.metric)
    ):
        return math.sqrt(best.mean * (1 - best.mean) / images)
    return None


def _interval(values: Sequence[float], points: tuple[RankedPoint, ...], *, level: float) -> Difference:
    from scipy import special

    mean, error = moments.mean(values) or 0.0, (moments.deviation(values) or 0.0) / math.sqrt(len(values))
    reach = float(special.stdtrit(len(values) - 1, 1 - level / 2)) * error
    return Difference(mean, mean - reach, mean + reach, len(values), points)
