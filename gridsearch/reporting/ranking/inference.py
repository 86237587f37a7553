"""From ranked points to how sure the ranking is: intervals, ties with the best, seeds still needed.

Over seeds and folds where a point has two or more of them, else over the validation images of the stored predictions,
else not at all; `Uncertainty.basis` says which.  Needs scipy, so it is imported when there is something to rank.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from gridsearch.records.image_metrics import known_metric
from gridsearch.reporting.stats import over_images
from gridsearch.reporting.stats.over_folds import Partitions
from gridsearch.reporting.stats.over_seeds import LEVEL, Comparisons, is_constant, mean_intervals
from gridsearch.reporting.stats.prediction_scores import ImageScores, Parts, Score, Unmeasured
from gridsearch.reporting.stats.predictions import usable
from gridsearch.reporting.stats.uncertainty import Basis, Uncertainty
from gridsearch.reporting.words.text import is_share

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gridsearch.reporting.ranking.points import RankedPoint, Replicate
    from gridsearch.reporting.stats.predictions import Predictions

MOST_READ: Final = 200
"""Points whose predictions are read, the best first; 1.3 MB and some milliseconds each with 10,000 images."""

_UP_TO_ONE: Final = ("auc", "ece")
"""Metrics between 0 and 1 that are not shown in percent."""


def assess(
    points: Sequence[RankedPoint],
    values: Sequence[Mapping[Replicate, float]],
    *,
    metric: str,
    sign: float,
    peers: int,
    read: Callable[[RankedPoint], Measured | None] | None,
) -> tuple[list[RankedPoint], Uncertainty]:
    """Return the points with intervals and ties, and how they came about.

    Args:
        points: best first.
        values: by replicate, of each point.
        metric: the study's metric.
        sign: 1.0 where larger is better, else -1.0.
        peers: how many points, from the first, may be tied with the best.
        read: returns what the first trial of a point says by this metric, see `measured`; None without predictions.
    """
    over_seeds: tuple[list[RankedPoint], Uncertainty] = list(points), Uncertainty()
    if any(len(v) > 1 for v in values):
        over_seeds = _over_seeds(points, values, metric=metric, sign=sign, peers=peers)
        if not over_seeds[1].exact or over_seeds[1].basis is Basis.FOLDS:
            return over_seeds
    if peers and read is not None and known_metric(metric) is not None:
        first = points[: min(peers, MOST_READ)]
        found = {place: one for place, point in enumerate(first) if (one := read(point)) is not None}
        ranked, known = _over_images(points, peers=peers, sign=sign, read=found)
        if not over_seeds[1].exact:
            return ranked, known
        if known.basis is Basis.IMAGES:  # seeds that all give one value say nothing; the images still do
            return ranked, dataclasses.replace(known, exact=True)
    return over_seeds


def _over_seeds(
    points: Sequence[RankedPoint],
    values: Sequence[Mapping[Replicate, float]],
    *,
    metric: str,
    sign: float,
    peers: int,
) -> tuple[list[RankedPoint], Uncertainty]:
    folds = [p.folds or 1 for p in points]
    table, partitions = _table(values, folds)
    counts = np.isfinite(table).sum(1)
    means = np.array([np.nan if p.mean is None else p.mean for p in points], dtype=float)
    ends = mean_intervals(table, _errors(means, metric, sign), partitions)
    if (top := _ceiling(table, metric)) is not None:
        ends = np.clip(ends, 0.0, top)
    found = [
        p if np.isnan(e[0]) else dataclasses.replace(p, ci_low=float(e[0]), ci_high=float(e[1]))
        for p, e in zip(points, ends, strict=True)
    ]
    known = Uncertainty(
        basis=Basis.FOLDS if max(folds[: max(1, peers)]) > 1 else Basis.SEEDS,
        compared=peers,
        exact=not np.isfinite(ends).any(),
        pooled=sum(p.ci_low is not None and is_constant(p.spread, p.mean) for p in found),
    )
    if peers < 2 or counts[:peers].max() < 2:
        return found, known
    errors = _errors(means[:peers], metric, sign)
    first = None if partitions is None else partitions.some(slice(peers))
    comparisons = Comparisons(sign * table[:peers], best=0, errors=errors, partitions=first)
    tied = comparisons.tied()
    found = [dataclasses.replace(p, tied_with_best=bool(i < peers and tied[i])) for i, p in enumerate(found)]
    needed = comparisons.seeds_to_separate(1) if tied[1] else None
    more = None if needed is None else max(1, needed - min(p.seeds for p in points[:2]))
    return found, dataclasses.replace(
        known,
        runner_up_differs=not tied[1],
        seeds_needed=needed,
        more_seeds=more,
        unsettled=_places(comparisons.unsettled()),
        over_fewer=_places(comparisons.over_fewer()),
    )


def _places(marked: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.flatnonzero(marked))


def _ceiling(table: np.ndarray, metric: str) -> float | None:
    """Return the largest value that an accuracy or the like can have, as a fraction or in percent; None for others."""
    if not (is_share(metric) or metric in _UP_TO_ONE or metric.endswith("accuracy")) or np.nanmin(table) < 0:
        return None
    most = float(np.nanmax(table))
    return next((top for top in (1.0, 100.0) if most <= top), None)


def _table(
    values: Sequence[Mapping[Replicate, float]], folds: Sequence[int]
) -> tuple[np.ndarray, Partitions | None]:
    """Return the values as [M, S], NaN where a point lacks a replicate, and which folds these are; None without any."""
    replicates = sorted({r for row in values for r in row})
    places = {one: i for i, one in enumerate(replicates)}
    table = np.full((len(values), len(places)), np.nan)
    for i, row in enumerate(values):
        for one, value in row.items():
            table[i, places[one]] = value
    if max(folds) < 2:
        return table, None
    return table, Partitions.by(folds, [replicate.partition for replicate in replicates])


def _errors(means: np.ndarray, metric: str, sign: float) -> np.ndarray:
    """Return how wrong each point is [M], above zero; NaN for a point without a mean.

    Of an accuracy what it lacks to 1.  Any other metric has no zero that means anything: there it is how far the
    point is behind the best, over twice what the better quarter is behind; so that neither unit nor offset matter.
    """
    if (
        (is_share(metric) or metric in _UP_TO_ONE)
        and sign > 0
        and np.nanmin(means) >= 0
        and np.nanmax(means) <= 1
    ):
        return np.asarray(np.maximum(1 - means, 0.0))
    size = float(np.nanmax(np.abs(means))) or 1.0
    best = np.nanmax(sign * means)
    gaps = np.maximum(best / 2 - sign * means / 2, 0.0)  # halves, which no subtraction takes out of range
    behind = np.sort(gaps[gaps > 1e-12 * size])  # NaN is not
    near = behind[gaps.size // 4 if gaps.size // 4 < behind.size else 0] if behind.size else 0.0
    with np.errstate(over="ignore"):
        errors = np.minimum(1 + gaps / near / 2, 1e300) if near else np.ones_like(gaps)
    return np.where(np.isnan(means), np.nan, errors)


def _over_images(
    points: Sequence[RankedPoint], *, peers: int, sign: float, read: Mapping[int, Measured]
) -> tuple[list[RankedPoint], Uncertainty]:
    best = read.get(0)
    if best is None:
        return list(points), Uncertainty(compared=peers, unread=1)
    p_values = _p_values(points[:peers], read, sign=sign)
    tied = p_values > LEVEL / peers
    tied[0] = True
    found = [dataclasses.replace(p, tied_with_best=bool(i < peers and tied[i])) for i, p in enumerate(points)]
    for i, r in read.items():
        found[i] = dataclasses.replace(found[i], ci_low=r.score.ci_low, ci_high=r.score.ci_high)
    return found, Uncertainty(
        basis=Basis.IMAGES,
        compared=peers,
        images=len(best.labels),
        unread=min(peers, MOST_READ) - len(read),
        beyond=max(0, peers - MOST_READ),
        runner_up_differs=bool(peers > 1 and not tied[1]),
    )


def _p_values(points: Sequence[RankedPoint], read: Mapping[int, Measured], *, sign: float) -> np.ndarray:
    """Return for each point how likely so large a lead of the best is, were both equally good [M].

    A point whose predictions were not read is judged by its value: where hits are counted by the most images that two
    networks can differ on, else like the nearest point above it that was read.
    """
    best = read[0]
    same = {i for i, r in read.items() if r.of_the_images_of(best)}
    if best.parts.hits is not None:
        means = np.array([p.mean for p in points], dtype=float)
        found = over_images.conservative_p_values(means[0], means, len(best.parts.hits))
        hits = {i: r.parts.hits for i, r in read.items() if i in same and r.parts.hits is not None}
        found[list(hits)] = over_images.p_values(best.parts.hits, np.stack(list(hits.values())))
        return found
    found = np.full(len(points), np.nan)
    first = best.parts.shares
    assert first is not None
    for i, r in read.items():
        assert r.parts.shares is not None
        found[i] = over_images.p_values_of_means(sign * first, sign * r.parts.shares, same=i in same)
    known = np.maximum.accumulate(np.where(np.isnan(found), 0, np.arange(len(points))))
    return np.asarray(found[known])


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What is kept of a trial's predictions: which images, the metric, and what each image contributes to it.

    Attributes:
        labels: int [N].
        indices: int [N], the images' places in the training set; None where they were not stored.
    """

    labels: np.ndarray
    indices: np.ndarray | None
    score: Score
    parts: Parts

    def of_the_images_of(self, other: Measured) -> bool:
        """Whether both are about the same images in the same order, as far as that was stored.

        Labels alone do not say it: where images are stored class by class all splits have the same ones.
        """
        known = self.indices is not None and other.indices is not None
        alike = not known or np.array_equal(self.indices, other.indices)  # type: ignore[arg-type]
        return alike and np.array_equal(self.labels, other.labels)

    @classmethod
    def of(
        cls,
        scores: ImageScores,
        stored: Predictions,
        metric: str,
        *,
        label: int | None,
        recorded: float | None,
    ) -> Measured:
        """Return a metric of a network with all that a ranking needs of it; see `ImageScores.score`."""
        score = scores.score(metric, label=label, recorded=recorded)
        return cls(stored.labels, stored.indices, score, scores.parts(metric, label=label))

    @property
    def nbytes(self) -> int:
        """Bytes of what is its own."""
        return sum(part.nbytes for part in (self.parts.hits, self.parts.shares) if part is not None)


def measured(
    point: RankedPoint, predictions: Callable[[int], Predictions | None], *, metric: str, label: int | None
) -> Measured | None:
    """Read the predictions of a point's first trial; None where they are gone, damaged or short of the metric."""
    stored = usable(predictions, point.complete[0].number)
    if stored is None:
        return None
    try:  # the value that is shown counts: rounding may have moved an image's class
        return Measured.of(ImageScores(stored), stored, metric, label=label, recorded=point.mean)
    except Unmeasured:
        return None
