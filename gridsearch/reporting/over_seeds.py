"""From the values of points at several seeds to intervals, to the points tied with the best, to seeds still needed.

M points, S seeds.

*Interval of a mean*: Student's t from the point's own seeds.  It needs nothing but values that scatter normally over
seeds, so it holds whatever the other points do and whether or not they share their seeds' luck.

*Tied with the best*: multiple comparisons with the best (J. Hsu, "Constrained simultaneous confidence intervals
for multiple comparisons with the best", Annals of Statistics 12, 1984; the set is Gupta's, Technometrics 7, 1965).
A point leaves the set if it is behind the observed best by more than luck explains.  The truly best point is lost
only if one of the others is ahead of it by luck, so that the level is shared among all points (Bonferroni): the set
holds the truly best point with at least 95 %, although the winner was picked for being highest, and among equal
points a sole winner is claimed in at most 5 %.  Differences between points of similar error are taken over their
shared seeds, where there are two or more; the variances are those of `variance.py`.

Wilcoxon's test is no choice here: with four seeds its smallest p-value is 1/16.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from scipy import special

from gridsearch.reporting.uncertainty import MOST_SEEDS
from gridsearch.reporting.variance import Scatter, scatter, strata

LEVEL: Final = 0.05
POWER: Final = 0.8
_ROUNDING: Final = 1e-12


def mean_intervals(values: np.ndarray) -> np.ndarray:
    """Return the ends of the 95 % interval of each point's mean over seeds [M, 2]; NaN with fewer than two.

    Args:
        values: [M, S], NaN where a point has no value for a seed.
    """
    size = _size(values)
    values = values / size
    there = np.isfinite(values)
    n = there.sum(1).astype(float)
    several = n > 1
    ends = np.full((len(values), 2), np.nan)
    rows = values[several]
    count = n[several]
    means = np.nansum(rows, 1) / count
    deviations = np.where(there[several], rows - means[:, None], 0.0)
    deviations[np.abs(deviations) <= _ROUNDING * np.abs(means)[:, None]] = 0.0
    errors = np.sqrt((deviations**2).sum(1) / (count - 1) / count)
    half = special.stdtrit(count - 1, 1 - LEVEL / 2) * errors
    ends[several] = size * np.stack([means - half, means + half], axis=1)
    return ends


class Comparisons:
    """How far each point is behind the best one, in units of the largest value, and how sure that is.

    Args:
        values: [M, S], larger is better, the best point's mean first among equals; at least one point has two.
        errors: [M], how wrong each point is, for the strata of `variance.strata`; None for one stratum.
    """

    def __init__(self, values: np.ndarray, *, best: int, errors: np.ndarray | None) -> None:
        self._values, self._best = values / _size(values), best
        self._there = np.isfinite(values)
        self._n = self._there.sum(1)
        self._stratum = (
            np.zeros(len(values), dtype=int) if errors is None else strata(errors, floor=_floor(errors))
        )
        self._scatter: Scatter = scatter(self._values, self._stratum)
        self.behind, self.variance, self.freedom = self._differences()

    def _differences(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the differences [M] best minus point, their variances and degrees of freedom."""
        best, there, n = self._best, self._there, self._n
        shared = there & there[best]
        common = shared.sum(1)
        same = self._stratum == self._stratum[best]
        paired = same & (common > 1)  # between strata nearly all of the scatter is the worse point's own
        filled = np.where(there, self._values, 0.0)
        gaps = np.where(shared, filled[best] - filled, 0.0).sum(1) / np.maximum(common, 1)
        means = filled.sum(1) / n
        behind = np.where(paired, gaps, means[best] - means)
        parts = []
        for found, own, other in (
            (self._scatter.residual, np.maximum(common, 1), np.maximum(common, 1)),
            (self._scatter.total, np.full_like(n, n[best]), n),
        ):
            first, second = found.values[best] / own, found.values / other
            with np.errstate(divide="ignore", invalid="ignore"):
                weights = first**2 / found.freedom[best] + second**2 / found.freedom
                freedom = np.where(weights > 0, (first + second) ** 2 / weights, found.freedom)
            # Two estimates that borrow from the same points know no more together than those points do.
            freedom = np.where(same, np.minimum(freedom, found.pooled), freedom)
            parts.append((first + second, freedom))
        (close, close_freedom), (apart, apart_freedom) = parts
        paired &= np.isfinite(close)
        return behind, np.where(paired, close, apart), np.where(paired, close_freedom, apart_freedom)

    def tied(self) -> np.ndarray:
        """Return whether each point cannot be told from the best [M]; the best is tied with itself."""
        sizes = np.abs(np.where(self._there, self._values, 0.0)).max(1)
        rounding = _ROUNDING * np.maximum(sizes, sizes[self._best])
        error = np.sqrt(self.variance)
        chance = np.where(self.behind > rounding, 0.0, 1.0)
        noisy = error > rounding
        chance[noisy] = special.stdtr(self.freedom[noisy], -self.behind[noisy] / error[noisy])
        found: np.ndarray = chance > self.level
        found[self._best] = True
        return found

    @property
    def level(self) -> float:
        """The chance at which a single point is told from the best."""
        return LEVEL / len(self._values)

    def seeds_to_separate(self, other: int) -> int | None:
        """Return how many seeds, shared by both, the best and another point need to be told apart.

        The difference is taken to be what it seems, the criterion is that of `tied`, the power 80 %.  None beyond
        `MOST_SEEDS`, or where the other is not behind.
        """
        residual = self._scatter.residual if np.isfinite(self.variance[other]) else self._scatter.total
        both = float(residual.values[self._best] + residual.values[other])
        if not math.isfinite(both):
            both = float(self._scatter.total.values[self._best] + self._scatter.total.values[other])
        freedom = float(self.freedom[other])
        return seeds_needed(float(self.behind[other]), variance=both, freedom=freedom, level=self.level)


def seeds_needed(difference: float, *, variance: float, freedom: float, level: float) -> int | None:
    """Return the smallest number of shared seeds at which a one-sided t test has 80 % power.

    Args:
        difference: between the two means, the metric's unit.
        variance: of the difference at one seed.
        freedom: degrees of freedom that the variance has now; more seeds bring at least their own.
        level: of the test.

    The power is that of the noncentral t distribution (for example J. Cohen, Statistical Power Analysis, 1988).
    """
    if not difference > 0 or not math.isfinite(variance):
        return None
    n = np.arange(2, MOST_SEEDS + 1, dtype=float)
    if variance <= 0:
        return 2
    degrees = np.maximum(n - 1, freedom)
    reach = difference * np.sqrt(n / variance)
    power = 1 - special.nctdtr(degrees, np.minimum(reach, 30), special.stdtrit(degrees, 1 - level))
    enough = np.flatnonzero(power >= POWER)
    return int(n[enough[0]]) if enough.size else None


def _size(values: np.ndarray) -> float:
    """Return the largest value's size, so that no power of a tiny or huge metric leaves the range of floats."""
    return float(np.nanmax(np.abs(values), initial=0.0)) or 1.0


def _floor(errors: np.ndarray) -> float:
    """Return an error below which points do not differ in kind: a thousandth of the usual."""
    return max(1e-3 * float(np.median(errors)), float(np.finfo(float).tiny))
