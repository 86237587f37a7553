"""Chooses points one after another so that the first ones, however many, lie evenly over a grid.

Used for a sample of a grid (`expand`) and for the order in which a run trains (`planning.order`); needs numpy alone.

The points of a complete grid go in a sequence in which every level of every axis comes once in each run of as many
points as the axis has levels, so that among the first n points a level is within one of its share n / levels.  Points
are elements of the product of cyclic groups Z_L, one for each axis.  The sequence walks along the diagonal
(1, 1, ..., 1), which visits every level in turn and comes back after lcm(L, ...) steps, and then along its cosets,
until all points were visited.  Within a coset two axes meet in one class of differences modulo gcd(L, L'), so the
cosets are taken such that these classes, and with them the pairs of levels, come up evenly.  Which level of an axis
comes first, second and so on says a low-discrepancy sequence (the additive recurrence of M. Roberts, The unreasonable
effectiveness of quasirandom sequences, 2018, with a seeded start), so that the first ones lie far apart.

Where a grid has holes, each next point is one at which the levels were chosen least so far, weighted by how many points
they have; among equals the first of that sequence.  This keeps chi-square, the sum over levels of
(chosen - share)^2 / share, as small as a greedy choice can.  In a complete grid it is the sequence itself.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from gridsearch.records.axis import identity

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from gridsearch.records import Value

SEED = 0
"""Where the sequences start: the same grid always gives the same sample, and a larger sample holds the smaller one."""

_CHOSEN_COSETS = 256
"""So many cosets are chosen by how evenly they pair levels; later ones follow in a seeded random order."""

_CHOSEN_POINTS = 4096
"""So many points are ordered one by one: each looks at all others."""

_LARGEST = 2**62
_EQUAL = 1e-9
_NO_LEVEL = (-1, 0.0, "")


class Spread:
    """The points of a grid, to be chosen one after another.

    The result depends on the points as a set: neither on their order nor on that of their axes.

    Args:
        points: the value of each axis that a point has.
    """

    def __init__(self, points: Sequence[Mapping[str, Value]]) -> None:
        levels = _independent(_levels(points))
        self._axes = tuple(levels)
        codes = np.array(list(levels.values()), np.int64).reshape(len(levels), len(points)).T
        sizes = [int(own.max()) + 1 for own in codes.T]
        self._original = np.argsort(_sequence(codes, sizes), kind="stable")
        self._codes = codes[self._original]
        self._members = [_by_level(own, size) for own, size in zip(self._codes.T, sizes, strict=True)]
        # What one choice adds at a level; 1 where all levels of the axis have equally many points.
        self._weights = [[len(points) / (len(own) * len(at)) for at in own] for own in self._members]
        self._costs = np.zeros(len(points))
        for axis in range(len(sizes)):
            for level in range(sizes[axis]):
                self._add(axis, level, 0.5)
        self._proposed = -1

    def propose(self) -> int | None:
        """Return the index of the next point, which is then gone; None once all are."""
        best = self._costs.min(initial=np.inf)
        if not np.isfinite(best):
            return None
        self._proposed = int((self._costs <= best + _EQUAL).argmax())
        self._costs[self._proposed] = np.inf
        return int(self._original[self._proposed])

    def take(self, without: Container[str] = ()) -> None:
        """Count the point that was proposed last; one that is not counted is passed over.

        Args:
            without: axes that turned out to have no effect at this point.
        """
        for axis, (name, level) in enumerate(zip(self._axes, self._codes[self._proposed], strict=True)):
            if name not in without:
                self._add(axis, int(level), 1.0)

    def rest(self) -> list[int]:
        """Return the indices of the points that were not proposed, as they stand in the sequence."""
        return [int(i) for i in self._original[np.isfinite(self._costs)]]

    def _add(self, axis: int, level: int, times: float) -> None:
        self._costs[self._members[axis][level]] += times * self._weights[axis][level]


def spread(points: Sequence[Mapping[str, Value]]) -> list[int]:
    """Return the indices of points in such an order; of thousands the later ones as they stand in the sequence."""
    chosen = Spread(points)
    found: list[int] = []
    while len(found) < _CHOSEN_POINTS and (index := chosen.propose()) is not None:
        chosen.take()
        found.append(index)
    return [*found, *chosen.rest()]


def _levels(points: Sequence[Mapping[str, Value]]) -> dict[str, np.ndarray]:
    """Return the places of the points' values among the levels of each axis that varies; to have none is a level."""
    found = {}
    for axis in sorted({axis for names in {tuple(point) for point in points} for axis in names}):
        keys = [_level(point[axis]) if axis in point else _NO_LEVEL for point in points]
        places = {key: place for place, key in enumerate(sorted(set(keys)))}
        if len(places) > 1:
            found[axis] = np.array([places[key] for key in keys])
    return found


def _level(value: Value) -> tuple[int, float, str]:
    """Return what sorts a value among those of its axis: words, then numbers."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 1, float(value), ""
    return 0, 0.0, repr(identity(value))


def _independent(levels: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Leave out axes whose level follows from that of another one, as in pairs."""
    found: dict[str, np.ndarray] = {}
    for axis in sorted(levels, key=lambda axis: (-levels[axis].max(), axis)):
        own = levels[axis]
        finer = (
            other for other in found.values() if len(np.unique(other * len(own) + own)) == other.max() + 1
        )
        if next(finer, None) is None:
            found[axis] = own
    return found


def _by_level(codes: np.ndarray, size: int) -> list[np.ndarray]:
    """Return the places of the points at each level of an axis."""
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.cumsum(np.bincount(codes, minlength=size))[:-1])


def _sequence(codes: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Return each point's place in the sequence over the complete grid, as numbers in that order.

    Args:
        codes: [points, axes], the places of the points' levels.
        sizes: how many levels each axis has.
    """
    count = len(codes)
    if math.prod(sizes) >= _LARGEST:  # only with holes: then the levels' counts alone decide
        return np.random.default_rng(SEED).permutation(count)
    steps = np.zeros(count, np.int64)  # how far along the diagonal, modulo `length`
    length = 1
    coset = np.zeros(count, np.int64)
    differences = np.zeros((count, len(sizes)), np.int64)  # from the diagonal: the coset's representative
    for axis, (size, place) in enumerate(zip(sizes, _places(sizes), strict=True)):
        own = place[codes[:, axis]]
        common = math.gcd(length, size)
        differences[:, axis] = (own - steps) % common
        coset = coset * common + differences[:, axis]
        # The Chinese remainder theorem: the step that is `steps` modulo `length`, and own - difference modulo `size`.
        rest = (own - differences[:, axis] - steps) // common
        further = rest * pow(length // common, -1, size // common) % (size // common)
        steps = steps + length * further
        length = math.lcm(length, size)
    _, first, which = np.unique(coset, return_index=True, return_inverse=True)
    return _coset_order(differences[first], sizes)[which.reshape(-1)] * length + steps


def _places(sizes: Sequence[int]) -> list[np.ndarray]:
    """Return for each axis which of its levels is the how manieth, the first ones far apart."""
    root = 2.0
    for _ in range(64):  # root^(axes + 1) = root + 1; the iteration contracts
        root = (1.0 + root) ** (1.0 / (len(sizes) + 1))
    generator = np.random.default_rng(SEED)
    found = []
    for axis, size in enumerate(sizes):
        start, step = generator.random(), root ** -(axis + 1)
        left = list(range(size))
        place = np.zeros(size, np.int64)
        for turn in range(size):
            target = (start + turn * step) % 1.0
            level = min(left, key=lambda level: abs((level + 0.5) / size - target))
            left.remove(level)
            place[level] = turn
        found.append(place)
    return found


def _coset_order(differences: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Return the turn of each coset, such that the pairs of levels come up evenly.

    Args:
        differences: [cosets, axes], a representative of each.
        sizes: how many levels each axis has.
    """
    count = len(differences)
    pairs = [(i, j) for i in range(len(sizes)) for j in range(i) if math.gcd(sizes[i], sizes[j]) > 1]
    order = np.random.default_rng(SEED).permutation(count)
    classes = [
        ((differences[:, i] - differences[:, j]) % math.gcd(sizes[i], sizes[j]), math.gcd(sizes[i], sizes[j]))
        for i, j in pairs
    ]
    costs = np.zeros(count)
    costs[order] = np.arange(count) * 1e-9  # among equals
    turns = np.full(count, -1, np.int64)
    for turn in range(min(count, _CHOSEN_COSETS)):
        chosen = int(costs.argmin())
        costs[chosen] = np.inf
        turns[chosen] = turn
        for own, many in classes:
            costs[own == own[chosen]] += many
    rest = order[turns[order] < 0]
    turns[rest] = np.arange(count - len(rest), count)
    return turns
