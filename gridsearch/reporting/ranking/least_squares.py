"""Sums of squares of a grid with holes; what `effects` shows where the factorial is not complete.

P points, each with its mean and its number of replicates.

Ours, since statsmodels' `anova_lm` (0.15, type II) needs every cell of every pair: where points are excluded, axes
paired, or an axis exists under a condition, it ends with an error, and these are the cases that come here.  It builds
its design densely: 18 s for a grid of 30 x 30 x 10 points beside 0.2 s here, 0.6 s to import, 65 MB to install.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import lsmr

from gridsearch.reporting.ranking.points import Levels, RankedPoint
from gridsearch.reporting.words.typed import ABSENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Term: TypeAlias = tuple[int, ...]
"""A main effect (i,) or an interaction (i, j), by the places of its axes."""


class LeastSquares:
    """Fits sums of main effects and two-way interactions to the points' means, weighted by their replicates.

    Args:
        points: with a mean each.
        axes: those that vary over the points.

    Attributes:
        total: sum of squares of all values about their mean.
    """

    def __init__(self, points: Sequence[RankedPoint], axes: Sequence[str]) -> None:
        values = [v for p in points for v in p.values]
        means = np.array([p.mean for p in points], dtype=float)
        grand = math.fsum(values) / len(values)
        self._roots = np.sqrt([p.n for p in points])
        self._target = self._roots * (means - grand)
        self._within = math.fsum((v - (p.mean or 0.0)) ** 2 for p in points for v in p.values)
        self.total = float(self._target @ self._target) + self._within
        self._levels = [_places(points, axis) for axis in axes]
        self._absent = [np.array([p.level(axis) == ABSENT for p in points], dtype=bool) for axis in axes]
        mains = [(i,) for i in range(len(axes))]
        self._terms: list[Term] = [*mains, *combinations(range(len(axes)), 2)]
        self._known: dict[frozenset[Term], float] = {}

    def shares(self) -> dict[Term, float]:
        """Return for each term the share of the variance that it explains beyond the terms without it."""
        found = {}
        for term in self._terms:
            others = [t for t in self._terms if not self._contains(t, term)]
            gain = self._unexplained(others) - self._unexplained([*others, term])
            found[term] = min(1.0, max(0.0, gain / self.total)) if self.total > 0 else 0.0
        return found

    def residual_share(self) -> float:
        """Return the share that no term explains: higher interactions, and the scatter over seeds."""
        left = self._unexplained(self._terms) + self._within
        return min(1.0, left / self.total) if self.total > 0 else 0.0

    def _contains(self, other: Term, term: Term) -> bool:
        """Whether another term contains a term, or is about an axis that exists only within it."""
        if set(term) <= set(other):
            return True
        return len(term) == 1 and any(self._within_levels_of(axis, term[0]) for axis in other)

    def _within_levels_of(self, axis: int, outer: int) -> bool:
        """Whether an axis is absent at some levels of another one, and present at its other levels."""
        absent = self._absent[axis]
        if axis == outer or not absent.any():
            return False
        lacking = np.unique(self._levels[outer][absent])
        return not np.isin(self._levels[outer][~absent], lacking).any()

    def _unexplained(self, terms: Iterable[Term]) -> float:
        """Return the weighted sum of squares between points that terms leave."""
        key = frozenset(terms)
        if key not in self._known:
            self._known[key] = self._fit(sorted(key))
        return self._known[key]

    def _fit(self, terms: Sequence[Term]) -> float:
        columns = [_indicators(np.zeros(len(self._target), dtype=np.int64))]
        columns += [_indicators(self._cells(term)) for term in terms]
        design = sparse.diags(self._roots) @ sparse.hstack(columns, format="csr")
        fitted = lsmr(design, self._target, atol=1e-10, btol=1e-10, maxiter=2000)[0]
        left = self._target - design @ fitted
        return float(left @ left)

    def _cells(self, term: Term) -> np.ndarray:
        """Return for each point the number of its combination of levels [P]."""
        cells = self._levels[term[0]]
        for axis in term[1:]:
            cells = cells * (1 + int(self._levels[axis].max())) + self._levels[axis]
        return np.unique(cells, return_inverse=True)[1]


def _places(points: Sequence[RankedPoint], axis: str) -> np.ndarray:
    """Return for each point the number of its level [P]."""
    levels = Levels(points, axis)
    return np.array([levels.place(p) for p in points], dtype=np.int64)


def _indicators(cells: np.ndarray) -> sparse.csr_array:
    """Return a row of zeros and a one for each point [P, cells]."""
    rows = np.arange(len(cells))
    return sparse.csr_array((np.ones(len(cells)), (rows, cells)), shape=(len(cells), int(cells.max()) + 1))
