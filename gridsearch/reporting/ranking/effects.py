"""From ranked points to how much of the variance each axis explains; chooses the heatmap's axes.

Fixed-effects analysis of variance.  In a complete factorial with equal seeds the decomposition is the textbook's
(for example Montgomery, Design and Analysis of Experiments, chapter 5): exact, and additive.  In a grid with holes
(points excluded, failed or diverged, axes that exist under a condition, uneven seeds) it is by least squares: the
share of a term is what it explains beyond all terms that do not contain it (sums of squares of type II; for example
S. Searle, Linear Models for Unbalanced Data, 1987).  What two axes explain only together, because the holes tie them
to each other, is then nobody's share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

from gridsearch.records.axis import identity
from gridsearch.reporting.ranking.points import Levels, RankedPoint, levels_of
from gridsearch.reporting.stats import moments

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from gridsearch.records import Value
    from gridsearch.reporting.ranking.ranking import Ranking


@dataclass(frozen=True, slots=True)
class Effect:
    """A share of the variance: of one axis ("lr"), or of the interaction of two ("batch,lr")."""

    axis: str
    share: float


@dataclass(frozen=True, slots=True)
class Decomposition:
    """Shares of the variance over all trials, largest first, and what no main effect or pair explains.

    The residual holds interactions of three and more axes, and the scatter over seeds.

    Attributes:
        exact: whether the grid is complete, so that shares and residual add up to 1; else they are by least squares.
    """

    effects: tuple[Effect, ...]
    residual_share: float | None
    exact: bool = True

    @property
    def confounded_share(self) -> float:
        """What the terms explain only together, or, below zero, by how much their shares overlap; 0 where exact.

        Either way the grid ties axes to each other, so that no term can be given what is its own.
        """
        if self.exact or self.residual_share is None:
            return 0.0
        return 1.0 - math.fsum(e.share for e in self.effects) - self.residual_share


def decompose(ranking: Ranking) -> Decomposition:
    """Return main effects and two-way interactions of the axes, no effects at all where nothing varies.

    Points with a result and no diverged replicate count.  The grid is complete where every combination of their
    axes' values is one of them and all have the same number of replicates.
    """
    points = _in_units(ranking.ranked)
    axes = tuple(axis for axis in ranking.varying if len(levels_of(points, axis)) > 1)
    if not axes:
        return Decomposition((), None)
    table = _factorial(points, axes)
    if table is not None:
        table = table - table.flat[0]  # near values: exact, and means lose no digit of what differs
        total = float(((table - table.mean()) ** 2).sum())
        size = table.size
        shares = _shares(table, total) if total > 0 else {}
        residual = 1.0 - math.fsum(shares.values())
    else:
        from gridsearch.reporting.ranking.least_squares import LeastSquares

        fit = LeastSquares(points, axes)
        total, size = fit.total, len(points)
        shares, residual = fit.shares(), fit.residual_share()
    if total <= 1e-24 * size:
        return Decomposition((), None)
    effects = [Effect(",".join(sorted(axes[i] for i in term)), share) for term, share in shares.items()]
    effects.sort(key=lambda e: (-e.share, e.axis))
    return Decomposition(tuple(effects), max(0.0, residual), exact=table is not None)


def _factorial(points: Sequence[RankedPoint], axes: Sequence[str]) -> np.ndarray | None:
    """Return the values by the axes' levels and replicate, None where the factorial is not complete."""
    import numpy as np

    n = points[0].n
    levels = [Levels(points, axis) for axis in axes]
    shape = tuple(map(len, levels))
    if any(p.n != n for p in points) or math.prod(shape) != len(points):
        return None
    values = np.full((*shape, n), np.nan)
    for point in points:
        values[tuple(own.place(point) for own in levels)] = point.values
    return None if np.isnan(values).any() else values


def _shares(values: np.ndarray, total: float) -> dict[tuple[int, ...], float]:
    """Return the share of each main effect (i,) and pair (i, j); the last dimension holds the replicates."""
    factors = range(values.ndim - 1)
    grand = values.mean()

    def between(term: tuple[int, ...]) -> float:
        others = tuple(d for d in range(values.ndim) if d not in term)
        means = values.mean(axis=others)
        share = float(((means - grand) ** 2).sum() * (values.size / means.size) / total)
        return min(1.0, share)  # but for rounding it is no more

    shares: dict[tuple[int, ...], float] = {(i,): between((i,)) for i in factors}
    for pair in combinations(factors, 2):
        shares[pair] = max(0.0, between(pair) - shares[pair[:1]] - shares[pair[1:]])
    return shares


def _in_units(points: Sequence[RankedPoint]) -> tuple[RankedPoint, ...]:
    """Return the points with their values in units of the largest, so that their squares are floats."""
    exponent = moments.unit(v for p in points for v in p.values)
    found = []
    for point in points:
        values = tuple(moments.in_units(point.values, exponent))
        found.append(replace(point, values=values, mean=moments.mean(values)))
    return tuple(found)


def strength(ranking: Ranking) -> dict[str, float]:
    """Return for each varying axis the variance between its levels' means over the variance of all points.

    Defined for any set of points, also where the factorial has holes; not additive then.
    """
    measured = _in_units([p for p in ranking.points if p.mean is not None and not p.outsized])
    values = [(p, p.mean) for p in measured if p.mean is not None]
    grand = math.fsum(v for _, v in values) / len(values) if values else 0.0
    total = math.fsum((v - grand) ** 2 for _, v in values)
    result = {}
    for axis in ranking.varying:
        sums: dict[tuple[bool, Value], list[float]] = {}
        for point, value in values:
            sums.setdefault(identity(point.level(axis)), []).append(value)
        between = math.fsum(len(v) * (math.fsum(v) / len(v) - grand) ** 2 for v in sums.values())
        result[axis] = between / total if total > 0 else 0.0
    return result
