"""How far a mean over folds scatters: what folds share, and what other partitions take away; below `over_seeds`.

Any two of K folds train on much the same images, so that their mean scatters more than their number says.  Of one
partition the variance of the mean is taken to be s^2 (1 / K + n2 / n1), with n2 images that validate and n1 that
train, here 1 / (K - 1): C. Nadeau and Y. Bengio, "Inference for the generalization error", Machine Learning 52, 2003.
That is a correlation of 1 / K between folds; what it is no single cross-validation can say (Y. Bengio and
Y. Grandvalet, "No unbiased estimator of the variance of k-fold cross-validation", Journal of Machine Learning
Research 5, 2004).

Of R partitions, one for each seed, it is smaller by (1 - 1 / R) v, where v is the variance of their means about each
other: so much is averaged away, and it is seen in the values.  With v = s^2 / K, as if each partition were of images
of its own, that is s^2 (1 / n + n2 / n1) for n values, the corrected repeated k-fold test of R. Bouckaert and E. Frank
("Evaluating the replicability of significance tests for comparing learning algorithms", PAKDD 2004).  But a partition
validates on all images once, so that v is smaller.  tests/benchmarks/folds.py measures what these variances cover.

Shapes: M points, S replicates, R partitions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence


@dataclass(frozen=True, slots=True, eq=False)
class Partitions:
    """Which folds the replicates of some points are.

    Attributes:
        folds: int [M], K of each point, 1 without folds.
        columns: int [S], the number of the partition that each column of values is of.
    """

    folds: np.ndarray
    columns: np.ndarray

    @classmethod
    def by(cls, folds: Sequence[int], keys: Sequence[Hashable]) -> Self:
        """Return those of columns that are of one partition where their keys are equal."""
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        return cls(np.array(folds), np.array([numbers[key] for key in keys]))

    def some(self, points: slice | np.ndarray) -> Partitions:
        """Return those of some of the points."""
        return Partitions(self.folds[points], self.columns)

    def averaged(self, values: np.ndarray, *, unknown: float = 0.0) -> float:
        """Return v over s^2 / K, at most 1, on average over the points.

        Args:
            values: [M, S], NaN where a point has no value.
            unknown: what to return where no point has two whole partitions.
        """
        within, between = np.full((2, len(values)), np.nan)
        parts = [values[:, self.columns == number] for number in np.unique(self.columns)]
        whole_MR = np.stack([np.isfinite(part).sum(1) == self.folds for part in parts], axis=1)
        for i in np.flatnonzero((self.folds > 1) & (whole_MR.sum(1) > 1)):
            rows = [part[i] for part, whole in zip(parts, whole_MR[i], strict=True) if whole]
            own_RK = np.array([row[np.isfinite(row)] for row in rows])
            within[i] = own_RK.var(axis=1, ddof=1).mean()
            between[i] = own_RK.mean(axis=1).var(ddof=1) * self.folds[i]
        known = np.isfinite(within)
        if not known.any():
            return unknown
        within, between = within[known], between[known]
        ratios = np.divide(between, within, out=np.ones_like(within), where=between < within)
        return float(ratios.mean())


def share(n: np.ndarray | float, folds: np.ndarray | int, averaged: float) -> np.ndarray:
    """Return the variance of the mean of n values over that of one value.

    Args:
        n: values.
        folds: K, 1 without.
        averaged: see `Partitions.averaged`.
    """
    k, each = np.asarray(folds, dtype=float), 1 / np.asarray(n)
    kept = (1 - averaged) * np.maximum(0.0, 1 / k - each)
    found: np.ndarray = each + np.where(k > 1, kept + 1 / np.maximum(k - 1, 1), 0.0)
    return found
