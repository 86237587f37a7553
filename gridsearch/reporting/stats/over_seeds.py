"""From the values of points at several seeds to intervals, to the points tied with the best, to seeds still needed.

M points, S replicates: seeds, or folds of seeds.

*Folds are not independent*, so that the mean of n values has a variance above s^2 / n: see `over_folds`.

*Interval of a mean*: Student's t from the point's own seeds.  It needs nothing but values that scatter normally over
seeds, so it holds whatever the other points do and whether or not they share their seeds' luck.  Where a point's seeds
give one value (accuracies are counts: with two seeds that is common, and says nothing of its scatter) the variance is
that of the comparable points, pooled, with the degrees of freedom of F. Satterthwaite (Biometrics Bulletin 2, 1946).

*Tied with the best*: multiple comparisons with the best (J. Hsu, "Constrained simultaneous confidence intervals
for multiple comparisons with the best", Annals of Statistics 12, 1984; the set is Gupta's, Technometrics 7, 1965).
A point leaves the set if it is behind the observed best by more than luck explains.  The truly best point is lost
only if one of the others is ahead of it by luck, so that the level is shared among all points (Bonferroni): the set
holds the truly best point with at least 95 %, although the winner was picked for being highest, and among equal
points a sole winner is claimed in at most 5 %.  Differences between points of similar error are taken over their
shared seeds, where there are two or more; the variances are those of `variance.py`.  As with one common variance the
set has no gaps: of comparable points it holds all that are better than one it holds.  A point that scatters far more
than those would be in it for its few seeds alone, with better points outside; it is `unsettled` instead.

Wilcoxon's test is no choice here: with four seeds its smallest p-value is 1/16.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import special

from gridsearch.reporting.stats.over_folds import share
from gridsearch.reporting.stats.uncertainty import MOST_SEEDS
from gridsearch.reporting.stats.variance import Scatter, scatter, strata

if TYPE_CHECKING:
    from gridsearch.reporting.stats.over_folds import Partitions

LEVEL: Final = 0.05
POWER: Final = 0.8
_ROUNDING: Final = 1e-12
_ALIKE: Final = 2.0
"""Factor between the errors of points that lend each other their scatter for an interval."""
_ENOUGH: Final = 2
"""Degrees of freedom below which points lend none: those of two seeds of one point say next to nothing."""
_FAR: Final = 1e100
"""In units of the best point's size: farther ones count as so far, so that squares stay within the range of floats."""


def mean_intervals(
    values: np.ndarray, errors: np.ndarray | None = None, partitions: Partitions | None = None
) -> np.ndarray:
    """Return the ends of the 95 % interval of each point's mean over its replicates [M, 2].

    NaN with fewer than two values, and where no point shows any scatter: an interval always has a width.

    Args:
        values: [M, S], NaN where a point has no value for a replicate.
        errors: [M], how wrong each point is: those that err alike lend each other their scatter; None where all do.
        partitions: which folds the replicates are; None where no point has folds.
    """
    there = np.isfinite(values)
    n = there.sum(1)
    ends = np.full((len(values), 2), np.nan)
    several = np.flatnonzero(n > 1)
    if not several.size:
        return ends
    there, n = there[several], n[several]
    scaled, exponents = _in_units(values[several])
    means = np.where(there, scaled, 0.0).sum(1) / n
    deviations = np.where(there, scaled - means[:, None], 0.0)
    deviations[np.abs(deviations) <= _ROUNDING * np.abs(means)[:, None]] = 0.0
    spreads = np.sqrt((deviations**2).sum(1) / (n - 1))
    df = n - 1.0
    constant = spreads == 0
    if constant.any() and not constant.all():
        top = int((np.frexp(spreads)[1] + exponents)[~constant].max())
        # a pooled variance may be far larger
        coarser = np.where(constant, np.maximum(exponents, top) - exponents, 0)
        means, exponents = np.ldexp(means, -coarser), exponents + coarser
        own = errors[several] if errors is not None else None
        spreads[constant], df[constant] = _pooled(np.ldexp(spreads, exponents - top), df, own, constant)
        spreads[constant] = np.ldexp(spreads[constant], top - exponents[constant])
    shares = 1 / n
    if partitions is not None:
        own_folds = partitions.some(several)
        shares = share(n, own_folds.folds, own_folds.averaged(scaled))
    half = special.stdtrit(df, 1 - LEVEL / 2) * spreads * np.sqrt(shares)
    half[half > 0] = np.maximum(half, np.spacing(np.abs(means)))[half > 0]  # a width that floats can show
    with np.errstate(over="ignore"):
        found = np.ldexp(np.stack([means - half, means + half], axis=1), exponents[:, None])
    found[(half == 0) | ~np.isfinite(found).all(1)] = np.nan
    ends[several] = found
    return ends


def is_constant(spread: float | None, mean: float | None) -> bool:
    """Whether a point's seeds give one value, but for rounding."""
    return spread is not None and mean is not None and spread <= _ROUNDING * abs(mean)


def _pooled(
    spreads: np.ndarray, df: np.ndarray, errors: np.ndarray | None, constant: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pooled standard deviation and its degrees of freedom for the points whose seeds do not differ.

    Args:
        spreads: standard deviation of each point [M], the largest near 1.
        df: of each [M].
        errors: [M] or None.
        constant: which points need one [M].
    """
    squares = spreads**2
    found, degrees = [], []
    for place in np.flatnonzero(constant):
        near = _near(place, errors, squares, df)
        weights = df[near] * squares[near]
        found.append(math.sqrt(weights.sum() / df[near].sum()))
        degrees.append(max(1.0, float(weights.sum() ** 2 / (weights**2 / df[near]).sum())))
    return np.array(found), np.array(degrees)


def _near(place: np.intp, errors: np.ndarray | None, squares: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Return which points lend a point their scatter [M]: those that err at most twice as much, if they have any.

    Else those that err at most twice as much as usual (a point without errors has none like it), else all.
    """
    if errors is not None:
        for error in (float(errors[place]), float(np.median(errors))):
            near: np.ndarray = errors <= _ALIKE * error
            if df[near & (squares > 0)].sum() >= _ENOUGH:
                return near
    return np.ones(len(squares), dtype=bool)


def _in_units(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each row in units of the power of two above its largest value, and these powers' exponents [M]."""
    exponents = np.frexp(np.nanmax(np.abs(values), axis=1))[1].astype(np.int64)
    return np.ldexp(values, -exponents[:, None]), exponents


class Comparisons:
    """How far each point is behind the best one, in units of the largest value, and how sure that is.

    Args:
        values: [M, S], larger is better, the best point's mean first among equals; at least one point has two.
        errors: [M], how wrong each point is, for the strata of `variance.strata`; None for one stratum.
        partitions: which folds the replicates are; None where no point has folds.
    """

    def __init__(
        self,
        values: np.ndarray,
        *,
        best: int,
        errors: np.ndarray | None,
        partitions: Partitions | None = None,
    ) -> None:
        self._best = best
        self._values = _beside(values, best)
        self._there = np.isfinite(values)
        self._n = self._there.sum(1)
        self._stratum = (
            np.zeros(len(values), dtype=int) if errors is None else strata(errors, floor=_floor(errors))
        )
        self._scatter: Scatter = scatter(self._values, self._stratum)
        self._folds = np.ones(len(values), dtype=int) if partitions is None else partitions.folds
        self._averaged, self._averaged_by_more = (0.0, 0.0), 0.0
        if partitions is not None:
            left = self._without_effects_of_replicates()
            self._averaged = partitions.averaged(left), partitions.averaged(self._values)
            self._averaged_by_more = partitions.averaged(left, unknown=1.0)
        self.behind, self.variance, self.df = self._differences()

    def _without_effects_of_replicates(self) -> np.ndarray:
        """Return what is left of the values [M, S] without their points' means and what a replicate does to all."""
        there, n = self._there, self._n
        means = np.where(there, self._values, 0.0).sum(1) / n
        left = np.where(there, self._values - means[:, None], 0.0)
        return np.where(there, left - left.sum(0) / np.maximum(there.sum(0), 1), np.nan)

    def _differences(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the differences [M] best minus point, their variances and degrees of freedom."""
        best, there, n = self._best, self._there, self._n
        shared = there & there[best]
        common = shared.sum(1)
        same = self._stratum == self._stratum[best]
        self._common = common
        paired = same & (common > 1)  # between strata nearly all of the scatter is the worse point's own
        filled = np.where(there, self._values, 0.0)
        gaps = np.where(shared, filled[best] - filled, 0.0).sum(1) / np.maximum(common, 1)
        means = filled.sum(1) / n
        behind = np.where(paired, gaps, means[best] - means)
        parts = []
        for found, averaged, own, other in (
            (self._scatter.residual, self._averaged[0], np.maximum(common, 1), np.maximum(common, 1)),
            (self._scatter.total, self._averaged[1], np.full_like(n, n[best]), n),
        ):
            first = found.values[best] * share(own, self._folds[best], averaged)
            second = found.values * share(other, self._folds, averaged)
            with np.errstate(divide="ignore", invalid="ignore"):
                weights = first**2 / found.df[best] + second**2 / found.df
                df = np.where(weights > 0, (first + second) ** 2 / weights, found.df)
            # Two estimates that borrow from the same points know no more together than those points do.
            df = np.where(same, np.minimum(df, found.pooled), df)
            parts.append((first + second, df))
        (close, close_df), (unpaired, unpaired_df) = parts
        paired &= np.isfinite(close)
        self._paired = paired
        return behind, np.where(paired, close, unpaired), np.where(paired, close_df, unpaired_df)

    def over_fewer(self) -> np.ndarray:
        """Return whether each point [M] is compared over fewer replicates than it or the best has."""
        fewer: np.ndarray = self._paired & ((self._common < self._n) | (self._common < self._n[self._best]))
        fewer[self._best] = False
        return fewer

    def tied(self) -> np.ndarray:
        """Return whether each point cannot be distinguished from the best [M]; the best is tied with itself."""
        return self._sets()[0]

    def unsettled(self) -> np.ndarray:
        """Return the points [M] that nothing distinguishes from the best, but that scatter too much to be tied with it.

        Better points are distinguished from the best: only the few seeds of these keep them from being so too.
        """
        return self._sets()[1]

    def _sets(self) -> tuple[np.ndarray, np.ndarray]:
        sizes = np.abs(np.where(self._there, self._values, 0.0)).max(1)
        rounding = _ROUNDING * np.maximum(sizes, sizes[self._best])
        error = np.sqrt(self.variance)
        chance = np.where(self.behind > rounding, 0.0, 1.0)
        noisy = error > rounding
        chance[noisy] = special.stdtr(self.df[noisy], -self.behind[noisy] / error[noisy])
        open_: np.ndarray = chance > self.level
        open_[self._best] = True
        means = np.where(self._there, self._values, 0.0).sum(1) / self._n
        alike = self._stratum == self._stratum[self._best]
        tied = alike & (means >= means[open_ & alike].min())
        worse = means[alike & ~tied].max(initial=-np.inf)
        for place in np.argsort(-means, kind="stable"):
            if not alike[place]:
                tied[place] = open_[place] and means[place] > worse
                if not open_[place]:
                    worse = max(worse, means[place])
        return tied, open_ & ~tied

    @property
    def level(self) -> float:
        """The chance at which a single point is distinguished from the best."""
        return LEVEL / len(self._values)

    def seeds_to_separate(self, other: int) -> int | None:
        """Return how many seeds, shared by both, the best and another point need to be distinguished.

        The difference is taken to be what it seems, the criterion is that of `tied`, the power 80 %.  None beyond
        `MOST_SEEDS`, or where the other is not behind.
        """
        residual = self._scatter.residual if np.isfinite(self.variance[other]) else self._scatter.total
        both = float(residual.values[self._best] + residual.values[other])
        if not math.isfinite(both):
            both = float(self._scatter.total.values[self._best] + self._scatter.total.values[other])
        return seeds_needed(
            float(self.behind[other]),
            variance=both,
            df=float(self.df[other]),
            level=self.level,
            folds=int(min(self._folds[self._best], self._folds[other])),
            averaged=self._averaged_by_more,
        )


def seeds_needed(
    difference: float, *, variance: float, df: float, level: float, folds: int = 1, averaged: float = 1.0
) -> int | None:
    """Return the smallest number of shared seeds at which a one-sided t test has 80 % power.

    Args:
        difference: between the two means, the metric's unit.
        variance: of the difference at one replicate.
        df: degrees of freedom that the variance has now; more seeds bring at least their own.
        level: of the test.
        folds: replicates of a seed.
        averaged: see `over_folds.Partitions.averaged`.

    The power is that of the noncentral t distribution (for example J. Cohen, Statistical Power Analysis, 1988).
    """
    if not difference > 0 or not math.isfinite(variance):
        return None
    n = np.arange(1 if folds > 1 else 2, MOST_SEEDS + 1, dtype=float)
    if variance <= 0:
        return int(n[0])
    degrees = np.maximum(n * folds - 1, df)
    reach = difference / np.sqrt(variance * share(n * folds, folds, averaged))
    power = 1 - special.nctdtr(degrees, np.minimum(reach, 30), special.stdtrit(degrees, 1 - level))
    enough = np.flatnonzero(power >= POWER)
    return int(n[enough[0]]) if enough.size else None


def _beside(values: np.ndarray, best: int) -> np.ndarray:
    """Return values in units of the best point's largest, or of the smallest other where that is zero."""
    sizes = np.nanmax(np.abs(values), axis=1)
    size = sizes[best] or sizes[sizes > 0].min(initial=np.inf)
    exponent = math.frexp(size)[1] if math.isfinite(size) else 0
    with np.errstate(over="ignore"):
        scaled = np.ldexp(values, -exponent)
    return np.where(np.isnan(values), np.nan, np.clip(scaled, -_FAR, _FAR))


def _floor(errors: np.ndarray) -> float:
    """Return an error below which points do not differ in kind: a thousandth of the usual."""
    return max(1e-3 * float(np.median(errors)), float(np.finfo(float).tiny))
