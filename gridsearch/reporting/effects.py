"""From ranked points to how much of the variance each axis explains; chooses the heatmap's axes.

The decomposition is the textbook's fixed-effects analysis of variance of a balanced complete factorial (for
example Montgomery, Design and Analysis of Experiments, chapter 5): exact there, and not offered elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from gridsearch.reporting.ranking import RankedPoint, Ranking, identity

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from gridsearch.records import Value

ABSENT = "\0absent"
"""The level of a point that lacks an axis, because a condition takes it away."""


@dataclass(frozen=True, slots=True)
class Effect:
    """A share of the variance: of one axis ("lr"), or of the interaction of two ("batch,lr")."""

    axis: str
    share: float


@dataclass(frozen=True, slots=True)
class Decomposition:
    """Shares of the variance over all trials, largest first, and what no main effect or pair explains.

    The residual holds interactions of three and more axes, and the scatter over seeds.
    """

    effects: tuple[Effect, ...]
    residual_share: float | None


def decompose(ranking: Ranking) -> Decomposition:
    """Return exact main effects and two-way interactions of a complete factorial, else no effects at all.

    Complete means: every combination of the varying axes' values is one point with a result, no replicate
    diverged, and all points have the same number of replicates.
    """
    import numpy as np

    nothing = Decomposition((), None)
    axes = ranking.varying
    n = ranking.points[0].n if ranking.points else 0
    if not axes or n == 0 or any(p.n != n or p.diverged for p in ranking.points):
        return nothing
    levels = {axis: levels_of(ranking.points, axis) for axis in axes}
    shape = tuple(len(levels[axis]) for axis in axes)
    if math.prod(shape) != len(ranking.points):
        return nothing
    places = {axis: {identity(v): i for i, v in enumerate(levels[axis])} for axis in axes}
    values = np.full((*shape, n), np.nan)
    for point in ranking.points:
        values[tuple(places[a][identity(level_of(point, a))] for a in axes)] = point.values
    if np.isnan(values).any():
        return nothing
    total = float(((values - values.mean()) ** 2).sum())
    if total <= 1e-24 * values.size:
        return nothing
    shares = _shares(values, total)
    effects = [Effect(",".join(sorted(axes[i] for i in term)), share) for term, share in shares.items()]
    residual = max(0.0, 1.0 - math.fsum(shares.values()))
    return Decomposition(tuple(sorted(effects, key=lambda e: (-e.share, e.axis))), residual)


def _shares(values: np.ndarray, total: float) -> dict[tuple[int, ...], float]:
    """Return the share of each main effect (i,) and pair (i, j); the last dimension holds the replicates."""
    factors = range(values.ndim - 1)
    grand = values.mean()

    def between(term: tuple[int, ...]) -> float:
        others = tuple(d for d in range(values.ndim) if d not in term)
        means = values.mean(axis=others)
        return float(((means - grand) ** 2).sum() * (values.size / means.size) / total)

    shares: dict[tuple[int, ...], float] = {(i,): between((i,)) for i in factors}
    for pair in combinations(factors, 2):
        shares[pair] = max(0.0, between(pair) - shares[pair[:1]] - shares[pair[1:]])
    return shares


def strength(ranking: Ranking) -> dict[str, float]:
    """Return for each varying axis the variance between its levels' means over the variance of all points.

    Defined for any set of points, also where the factorial has holes; not additive then.
    """
    points = [p for p in ranking.points if p.mean is not None]
    grand = math.fsum(p.mean for p in points if p.mean is not None) / len(points) if points else 0.0
    total = math.fsum((p.mean - grand) ** 2 for p in points if p.mean is not None)
    result = {}
    for axis in ranking.varying:
        sums: dict[tuple[bool, Value], list[float]] = {}
        for point in points:
            if point.mean is not None:
                sums.setdefault(identity(level_of(point, axis)), []).append(point.mean)
        between = math.fsum(len(v) * (math.fsum(v) / len(v) - grand) ** 2 for v in sums.values())
        result[axis] = between / total if total > 0 else 0.0
    return result


def level_of(point: RankedPoint, axis: str) -> Value:
    """Return a point's value of an axis, `ABSENT` if it does not have that axis."""
    return point.params.get(axis, ABSENT)


def levels_of(points: Sequence[RankedPoint], axis: str) -> tuple[Value, ...]:
    """Return an axis's values: numbers ascending, other values before them in the order of their trials."""
    first: dict[tuple[bool, Value], Value] = {}
    for point in sorted(points, key=lambda p: p.trials[0].number):
        value = level_of(point, axis)
        first.setdefault(identity(value), value)
    words: list[Value] = []
    numbers: list[int | float] = []
    for value in first.values():
        if isinstance(value, int | float) and not isinstance(value, bool):
            numbers.append(value)
        else:
            words.append(value)
    return (*words, *sorted(numbers))
