"""How far one study's winner is ahead of another's, as an interval; below `comparison`, which ranks the winners.

The interval is the first of these that there is:

*the same seeds* (two or more, one split): Student's t of the differences seed by seed; of folds fold by fold;
*seeds of their own* (two or more each): Welch's t (B. L. Welch, Biometrika 34, 1947);
*one network each, the same validation images*: the images on which just one of the two is right (A. Agresti and
Y. Min, "Improving the confidence interval for differences of matched-pairs proportions", Statistics in Medicine 24,
2005);
*one network each, other validation images*: the difference of two proportions (R. G. Newcombe, "Interval estimation
for the difference between independent proportions", Statistics in Medicine 17, 1998).

The first two compare the means that are shown; of the others, which go by one seed each, the means are given beside.
The winners differ where the interval does not hold zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import special

from gridsearch.records.image_metrics import known_metric, label_of
from gridsearch.reporting.ranking.out_of_fold import predictions_of
from gridsearch.reporting.ranking.points import RankedPoint, point_key, values_by_replicate
from gridsearch.reporting.stats import moments
from gridsearch.reporting.stats.ensemble import same_images
from gridsearch.reporting.stats.over_folds import Partitions, share
from gridsearch.reporting.stats.over_images import accuracy_intervals
from gridsearch.reporting.stats.prediction_scores import ImageScores, Unmeasured
from gridsearch.reporting.words.text import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gridsearch.records import StudyData
    from gridsearch.reporting.ranking.points import Replicate
    from gridsearch.reporting.ranking.ranking import Ranking
    from gridsearch.reporting.stats.prediction_scores import Parts
    from gridsearch.reporting.stats.predictions import Predictions

_ROUNDING: Final = 1e-12
"""Relative to the largest value: a smaller standard deviation is rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the studies that are compared; it has a winner.

    Attributes:
        predictions: the stored validation predictions of a trial by its number.
    """

    data: StudyData
    ranking: Ranking
    predictions: Callable[[int], Predictions | None]

    @property
    def winner(self) -> RankedPoint:
        """The study's best point."""
        assert self.ranking.best is not None
        return self.ranking.best

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the winner's classes, by label."""
        return self.data.classes_of(self.winner.settings)

    def stored_predictions(self) -> Predictions | None:
        """Return the predictions of the winner's first seed, None where they cannot be used; of folds all of them."""
        return predictions_of(self.winner, self.predictions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far a study's winner is behind the first one.

    Attributes:
        study: whose winner.
        behind: by how much, the metric's unit; above zero where it is the worse.
        ci_low: lower end of the 95 % interval, None where it is unknown; likewise ci_high.
        differs: whether luck does not explain it, None where it is unknown.
        method: where the interval comes from.
        means: of the first winner and of this one, as they were compared, where these are not the means that are
            shown of them; None where they are.
    """

    study: str
    behind: float
    ci_low: float | None
    ci_high: float | None
    differs: bool | None
    method: str
    means: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class _Interval:
    """First minus other, the ends of its interval, where they come from, and the means where they are not the shown."""

    gap: float
    low: float
    high: float
    method: str
    means: tuple[float, float] | None = None


def sign_of(side: Side) -> float:
    """Return 1, or -1 where less is better."""
    return -1.0 if side.data.direction == "minimize" else 1.0


def mean_of(side: Side) -> float:
    """Return the mean of the winner, as it is shown."""
    assert side.winner.mean is not None
    return side.winner.mean


def difference(first: Side, other: Side, *, level: float) -> Difference:
    """Return how far the winner of a study is behind the first one, with an interval of coverage 1 - `level`."""
    sign, name = sign_of(first), other.data.name
    if point_key(first.winner.settings) == point_key(other.winner.settings):
        behind = sign * (mean_of(first) - mean_of(other))
        same = "both winners are the same point"
        return Difference(study=name, behind=behind, ci_low=None, ci_high=None, differs=False, method=same)
    found = _over_replicates(first, other, level) or _over_images(first, other, level)
    behind = sign * (mean_of(first) - mean_of(other))
    if found is None:
        who = "each" if max(first.winner.n, other.winner.n) == 1 else "one of them"
        unread = " and there are no stored predictions to compare" if first.data.kind.classifies else ""
        method = f"{who} has one seed{unread}, so it may be chance"
        if min(first.winner.n, other.winner.n) > 1:
            method = "the seeds of each give one value, so there is no variation to measure it by"
        return Difference(study=name, behind=behind, ci_low=None, ci_high=None, differs=None, method=method)
    low, high = sorted((sign * found.low, sign * found.high))
    compared = (
        None if found.means is None or _close(found.means, (mean_of(first), mean_of(other))) else found.means
    )
    return Difference(
        study=name,
        behind=sign * found.gap,
        ci_low=low,
        ci_high=high,
        differs=not low <= 0 <= high,
        method=found.method,
        means=compared,
    )


def _close(one: Sequence[float], two: Sequence[float]) -> bool:
    return all(math.isclose(a, b, rel_tol=1e-9) for a, b in zip(one, two, strict=True))


def _same_split(first: Side, other: Side) -> bool:
    return first.winner.settings.split() == other.winner.settings.split()


def _over_replicates(first: Side, other: Side, level: float) -> _Interval | None:
    """Compare the means that are shown, those over all replicates of each; None without enough of them.

    Of folds the variances are those of `stats.over_folds`, since they share images to train on.
    """
    one, two = (values_by_replicate(s.winner.complete, s.data.metric) for s in (first, other))
    if min(len(one), len(two)) < 2:
        return None
    exponent = moments.unit([*one.values(), *two.values()])
    a, b = (np.ldexp([own[r] for r in sorted(own)], -exponent) for own in (one, two))
    folds = [s.winner.folds or 1 for s in (first, other)]
    noun = "seed" if max(folds) == 1 else "fold"
    paired = set(one) == set(two)
    corrected = "" if noun == "seed" else ", corrected for folds that share images (Nadeau and Bengio)"
    if paired and (a - b).var(ddof=1) > _ROUNDING**2:
        centre, variance = float((a - b).mean()), _variance_of_mean(a - b, one, folds[0])
        df = len(a) - 1.0
        method = f"paired over {plural(len(a), f'shared {noun}')} (Student's t{corrected})"
    else:
        centre = float(a.mean() - b.mean())
        parts = [_variance_of_mean(v, own, k) for v, own, k in zip((a, b), (one, two), folds, strict=True)]
        variance = sum(parts)
        if variance <= _ROUNDING**2:
            return None
        weights = sum(p**2 / (len(v) - 1) for p, v in zip(parts, (a, b), strict=True))
        df = variance**2 / weights
        why = "they have other seeds" if _same_split(first, other) else "the validation images differ"
        why = f"their {noun}s are apart by one difference" if paired else why
        method = f"over the {noun}s of each, unpaired because {why} (Welch's t{corrected})"
    half = float(special.stdtrit(df, 1 - level / 2)) * math.sqrt(variance)
    low, high, gap = (math.ldexp(x, exponent) for x in (centre - half, centre + half, centre))
    return _Interval(gap, low, high, method)


def _variance_of_mean(values: np.ndarray, replicates: Iterable[Replicate], folds: int) -> float:
    """Return the variance of the mean of values over replicates, which are in order."""
    partitions = Partitions.by([folds], [replicate.partition for replicate in sorted(replicates)])
    averaged = partitions.averaged(values[None]) if folds > 1 else 0.0
    return float(values.var(ddof=1) * share(len(values), folds, averaged))


def _over_images(first: Side, other: Side, level: float) -> _Interval | None:
    """Compare the predictions of each winner's first seed; None where they are not there."""
    if known_metric(first.data.metric) is None:
        return None
    stored = first.stored_predictions(), other.stored_predictions()
    if stored[0] is None or stored[1] is None:
        return None
    try:
        one, two = (
            _parts(side, own) for side, own in zip((first, other), stored, strict=True) if own is not None
        )
    except Unmeasured:
        return None
    z = float(special.ndtri(1 - level / 2))
    if one.shares is not None and two.shares is not None:
        same = _same_split(first, other) and same_images(stored[0], stored[1])
        return _of_shares(one.shares, two.shares, z, same=same)
    assert one.hits is not None and two.hits is not None
    a_N, b_N = one.hits, two.hits
    means = float(a_N.mean()), float(b_N.mean())
    luck = "of the first seed of each, which says nothing about variation between seeds"
    if _same_split(first, other) and same_images(stored[0], stored[1]):
        won, lost, images = int((a_N & ~b_N).sum()), int((~a_N & b_N).sum()), len(a_N)
        plus, minus, total = won + 0.5, lost + 0.5, images + 2.0
        centre = (plus - minus) / total
        half = z * math.sqrt(plus + minus - (plus - minus) ** 2 / total) / total
        method = f"paired over the {images:,} validation images that both were asked about, {luck}"
        return _Interval((won - lost) / images, centre - half, centre + half, method, means)
    (low_a, high_a), (low_b, high_b) = (
        accuracy_intervals(np.array([x.sum()]), len(x), level=level)[0].tolist() for x in (a_N, b_N)
    )
    gap = means[0] - means[1]
    below, above = (
        math.hypot(means[0] - low_a, high_b - means[1]),
        math.hypot(high_a - means[0], means[1] - low_b),
    )
    method = f"over the validation images of each, unpaired because they are not the same ones, {luck}"
    return _Interval(gap, gap - below, gap + above, method, means)


def _of_shares(a_N: np.ndarray, b_N: np.ndarray, z: float, *, same: bool) -> _Interval:
    """Compare metrics that are means of what each image contributes to them, by its standard error."""
    means = float(a_N.mean()), float(b_N.mean())
    luck = "of the first seed of each, which says nothing about the luck of the seed"
    if same:
        error = float((a_N - b_N).std()) / math.sqrt(len(a_N))
        method = f"paired over the {len(a_N):,} validation images that both were asked about, {luck}"
    else:
        error = math.sqrt(a_N.var() / len(a_N) + b_N.var() / len(b_N))
        method = f"over the validation images of each, unpaired because they are not the same ones, {luck}"
    gap = means[0] - means[1]
    return _Interval(gap, gap - z * error, gap + z * error, method, means)


def _parts(side: Side, stored: Predictions) -> Parts:
    """Return what each image contributes to a winner's metric.

    Raises:
        Unmeasured: its predictions cannot give it.
    """
    metric = side.data.metric
    return ImageScores(stored).parts(metric, label=label_of(metric, side.class_names))
