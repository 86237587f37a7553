"""From one network's stored predictions to any metric: its value, its 95 % interval, and each image's part in it.

N images, Y classes, C of them that matter to a metric, B bins.  Values are those of scikit-learn where it has the
metric.  They are computed here, from one confusion matrix where they count images, and once for value, interval and
parts: scikit-learn would check its arguments anew for each, which cost a report of 200 trials more than all else.
Intervals are about other images of the same kind and say nothing about another seed.

*Shares of images* (accuracy, top3, the recall of a class): E. Wilson's interval of a proportion, as in `over_images`.

*Means over classes* (balanced accuracy, macro F1, AUC): each class has an interval that holds near 0 and 1 too, and
these are joined by the method of variance estimates recovery (G. Zou, W. Huang and X. Zhang, "A note on confidence
interval estimation for a linear function of binomial proportions", Computational Statistics and Data Analysis 53,
2009; with correlated parts: A. Donner and G. Zou, Statistical Methods in Medical Research 21, 2012).  Of a recall it is
Wilson's.  An F1 is 2J / (1 + J) where J is the share of hits among the images that are of the class or were taken for
it, so that it has Wilson's of J.  Of an AUC it is the score interval of R. Newcombe ("Confidence intervals for an
effect size measure based on the Mann-Whitney statistic, part 2", Statistics in Medicine 25, 2006, method 5).

*Means over images* (loss, calibration error): the value plus and minus 1.96 standard errors; of a loss on a
logarithmic scale, where the few images with large losses weigh less.

*Parts*: numbers of which the mean over the images is the metric, but for what vanishes against its standard error: its
value plus each image's influence on it (the infinitesimal jackknife; of an AUC the components of E. DeLong, D. DeLong
and D. Clarke-Pearson, Biometrics 44, 1988).  Two networks on the same images are compared by the difference of their
parts (`over_images`).

*Calibration error* (ece): C. Guo, G. Pleiss, Y. Sun and K. Weinberger, "On calibration of modern neural networks",
ICML 2017: images in 15 bins of equal width by the probability of the class that was chosen; the mean gap, over the
images, between a bin's mean probability and its share of hits.  scikit-learn has no function for it.  With few images
a bin's gap is partly chance, so the value is too large rather than too small; its interval reaches down by as much.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import special

from gridsearch.records.image_metrics import ACCURACY, LOSS, RECALL, TOP
from gridsearch.reporting.stats.over_images import LEVEL, accuracy_intervals
from gridsearch.reporting.stats.predictions import confusion_matrix
from gridsearch.reporting.stats.roc_auc import Aucs, newcombe_ends

if TYPE_CHECKING:
    from gridsearch.reporting.stats.predictions import Predictions

BINS: Final = 15
"""Of the calibration error, as in its source."""
_Z: Final = float(special.ndtri(1 - LEVEL / 2))


class Unmeasured(ValueError):
    """The predictions of a trial cannot give a metric; the message says why, to follow "because"."""


@dataclass(frozen=True, slots=True)
class Score:
    """A metric of one network.

    Attributes:
        value: of the validation images.
        ci_low: lower end of the 95 % interval over other images of the same kind, None where only the value is known;
            likewise ci_high.
    """

    value: float
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What each image contributes to a metric of one network; one of the two is there.

    Attributes:
        hits: whether the network did what counts, bool, of the images that matter to the metric.
        shares: float [N], whose mean is the metric.
    """

    hits: np.ndarray | None = None
    shares: np.ndarray | None = None


class ImageScores:
    """The metrics of one network, computed when they are asked for.

    Args:
        predictions: its answers about one image or more.
    """

    def __init__(self, predictions: Predictions) -> None:
        self._given = predictions
        self._labels = predictions.labels.astype(np.int64)
        self._guesses = predictions.guesses
        self._right = self._guesses == self._labels
        self._classes = predictions.logits.shape[1]

    def score(self, metric: str, *, label: int | None = None, recorded: float | None = None) -> Score:
        """Return a metric with its interval.

        Args:
            metric: its name, see `records.image_metrics`.
            label: of the class that a recall is of.
            recorded: the value that training recorded, where it did: logits are stored rounded.

        Raises:
            Unmeasured: these predictions cannot give it.
        """
        value = self.value(metric, label=label) if recorded is None else recorded
        low, high = self._interval(metric, value, label)
        return Score(value, low, high)

    def value(self, metric: str, *, label: int | None = None) -> float:
        """Return a metric; see `score`."""
        if metric == ACCURACY:
            return int(self._right.sum()) / len(self._labels)
        if metric == "balanced_accuracy":
            return float(self._recalls.mean())
        if metric == "macro_f1":
            return float(self._f1.mean())
        if metric == LOSS:
            return float(self._losses.mean())
        if metric == "top3":
            return int(self._among_top.sum()) / len(self._labels)
        if metric == "auc":
            return float(self._auc.values.mean())
        if metric == "ece":
            return float(np.abs(self._gap_sums).sum() / len(self._labels))
        return float(self._recalls[self._there.index(self._of_class(metric, label))])

    def parts(self, metric: str, *, label: int | None = None) -> Parts:
        """Return what each image contributes to a metric; see `score`."""
        if metric == ACCURACY:
            return Parts(hits=self._right)
        if metric == "top3":
            return Parts(hits=self._among_top)
        if metric.startswith(RECALL):
            return Parts(hits=self._right[self._labels == self._of_class(metric, label)])
        if metric == LOSS:
            return Parts(shares=self._losses)
        if metric == "balanced_accuracy":
            weight_Y = len(self._labels) / (len(self._there) * np.maximum(self._images, 1))
            return Parts(shares=np.where(self._right, weight_Y[self._labels], 0.0))
        if metric == "ece":
            gaps_N, bins_N = self._gaps
            return Parts(shares=gaps_N * np.sign(self._gap_sums)[bins_N])
        if metric == "macro_f1":
            return Parts(shares=self._f1.mean() + self._f1_influence())
        return Parts(shares=self._auc.values.mean() + self._auc.influence)

    def _interval(self, metric: str, value: float, label: int | None) -> tuple[float, float]:
        if metric == "balanced_accuracy":
            images = self._images[self._there]
            ends = accuracy_intervals(self._matrix.diagonal()[self._there], images)
            return _joined(value, self._recalls, ends, np.eye(len(images)))
        if metric == "macro_f1":
            hit, both = self._f1_counts
            ends = accuracy_intervals(hit, both - hit)
            return _joined(value, self._f1, 2 * ends / (1 + ends), _correlation(self._f1_covariance()))
        if metric == "auc":
            images = self._images[self._there]
            ends = newcombe_ends(self._auc.values, images, len(self._labels) - images, z=_Z)
            return _joined(value, self._auc.values, ends, _correlation(self._auc.covariance))
        parts = self.parts(metric, label=label)
        if parts.hits is not None:  # around the value that is shown: rounding may have moved an image
            low, high = accuracy_intervals(np.array([round(value * len(parts.hits))]), len(parts.hits))[0]
            return float(low), float(high)
        assert parts.shares is not None
        error = _Z * float(parts.shares.std()) / math.sqrt(len(parts.shares))
        if metric == LOSS:
            factor = math.exp(min(error / value, 700.0)) if value > 0 else 1.0
            return value / factor, value * factor
        return max(0.0, value - self._chance_gaps() - error), min(1.0, value + error)

    def _chance_gaps(self) -> float:
        """Return how much of a calibration error may be chance: a gap's size is on average larger than the gap.

        By the mean of a folded normal distribution (F. Leone, L. Nelson and R. Nottingham, Technometrics 3, 1961); the
        true gap of a bin is taken to be a standard error smaller than it seems, which is the careful side.
        """
        gaps_N, bins_N = self._gaps
        gaps_B, errors_B = self._gap_sums, np.sqrt(np.bincount(bins_N, gaps_N**2, BINS))
        smaller = np.maximum(np.abs(gaps_B) - errors_B, 0.0)
        folded = np.divide(smaller, errors_B, out=np.zeros(BINS), where=errors_B > 0)
        means = errors_B * math.sqrt(2 / math.pi) * np.exp(-(folded**2) / 2)
        means += smaller * (1 - 2 * special.ndtr(-folded))
        return float((means - smaller).sum() / len(gaps_N))

    # What the metrics are made of

    @functools.cached_property
    def _matrix(self) -> np.ndarray:
        """The confusion matrix [Y, Y]."""
        return confusion_matrix(self._given)

    @functools.cached_property
    def _images(self) -> np.ndarray:
        """How many images each class has [Y]."""
        found: np.ndarray = self._matrix.sum(axis=1)
        return found

    @functools.cached_property
    def _there(self) -> list[int]:
        """The classes that have images."""
        return [int(c) for c in np.flatnonzero(self._images)]

    @functools.cached_property
    def _recalls(self) -> np.ndarray:
        """The recall of each class that has images [C]."""
        found: np.ndarray = self._matrix.diagonal()[self._there] / self._images[self._there]
        return found

    def _of_class(self, metric: str, label: int | None) -> int:
        if label is None or label not in self._there:
            raise Unmeasured(f"none of the validation images is of class {metric.removeprefix(RECALL)!r}")
        return label

    @functools.cached_property
    def _finite(self) -> np.ndarray:
        """The logits in double precision [N, Y]."""
        logits = self._given.logits.astype(np.float64)
        if not np.isfinite(logits).all():
            raise Unmeasured("their logits are not finite: an earlier version cut large ones")
        return logits

    @functools.cached_property
    def _odds(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The largest logit of each image [N], the exponentials of all less that one [N, Y], and their sums [N]."""
        largest_N = self._finite.max(axis=1)
        odds_NY = self._finite - largest_N[:, None]
        np.exp(odds_NY, out=odds_NY)
        return largest_N, odds_NY, odds_NY.sum(axis=1)

    @functools.cached_property
    def _losses(self) -> np.ndarray:
        """Each image's cross-entropy; from the logits, since a probability rounds to 0 and its logarithm does not."""
        largest_N, _, sums_N = self._odds
        of_label = self._finite[np.arange(len(self._labels)), self._labels]
        found: np.ndarray = np.log(sums_N) + (largest_N - of_label)
        return found

    @functools.cached_property
    def _among_top(self) -> np.ndarray:
        """Whether each image's class is among the best; of equal logits the later class is the better one.

        That is the order of scikit-learn's `top_k_accuracy_score`.
        """
        if self._classes <= TOP:
            raise Unmeasured(
                f"there are only {self._classes} classes, and the best {TOP} are always all of them"
            )
        own_N1 = self._finite[np.arange(len(self._labels)), self._labels][:, None]
        later_NY = np.arange(self._classes) > self._labels[:, None]
        better_NY = (self._finite > own_N1) | ((self._finite == own_N1) & later_NY)
        found: np.ndarray = better_NY.sum(axis=1) < TOP
        return found

    @functools.cached_property
    def _gaps(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each image the probability of the chosen class minus hit [N], and that probability's bin [N]."""
        chosen_N = 1 / self._odds[2]  # the largest exponential is 1
        bins_N = np.clip(np.ceil(chosen_N * BINS).astype(np.int64) - 1, 0, BINS - 1)
        return chosen_N - self._right, bins_N

    @functools.cached_property
    def _gap_sums(self) -> np.ndarray:
        """The sum of the gaps in each bin [B]."""
        gaps_N, bins_N = self._gaps
        return np.bincount(bins_N, gaps_N, BINS)

    @functools.cached_property
    def _occurring(self) -> np.ndarray:
        """The classes that have images or were guessed [C]."""
        return np.flatnonzero(self._images + self._matrix.sum(axis=0))

    @functools.cached_property
    def _f1_counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the classes that occur: hits, and images of the class plus guesses of it [C]."""
        both = self._images + self._matrix.sum(axis=0)
        return self._matrix.diagonal()[self._occurring], both[self._occurring]

    @functools.cached_property
    def _f1(self) -> np.ndarray:
        """The F1 of each class that occurs [C]."""
        hit, both = self._f1_counts
        found: np.ndarray = 2 * hit / both
        return found

    def _f1_weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what one image adds to the influences on F1: w [C] and v [C].

        An image's influence on the F1 of class c is 2 w (label and guess are c) - v (label is c) - v (guess is c).
        """
        weight = len(self._labels) / self._f1_counts[1]
        return weight, weight * self._f1

    def _f1_influence(self) -> np.ndarray:
        """Return each image's influence on the mean F1 [N]."""
        w, v = np.zeros(self._classes), np.zeros(self._classes)
        w[self._occurring], v[self._occurring] = self._f1_weights()
        influence = 2 * np.where(self._right, w[self._labels], 0.0) - v[self._labels] - v[self._guesses]
        found: np.ndarray = influence / len(self._f1)
        return found

    def _f1_covariance(self) -> np.ndarray:
        """Return how the images' influences on the classes' F1 go together [C, C].

        All images of one cell of the confusion matrix have the same influences: a hit on its class alone, a mistake on
        two classes.
        """
        matrix, (w, v) = self._matrix[np.ix_(self._occurring, self._occurring)], self._f1_weights()
        hit = matrix.diagonal().astype(float)
        wrong = matrix - np.diag(matrix.diagonal())
        mistakes = wrong.sum(axis=0) + wrong.sum(axis=1)
        squares = np.diag(hit * (2 * w - 2 * v) ** 2 + mistakes * v**2) + np.outer(v, v) * (wrong + wrong.T)
        sums = hit * (2 * w - 2 * v) - mistakes * v
        found: np.ndarray = squares - np.outer(sums, sums) / len(self._labels)
        return found

    @functools.cached_property
    def _auc(self) -> Aucs:
        """The AUC of each class that has images, against the others."""
        if len(self._there) < 2:
            raise Unmeasured("all validation images are of one class")
        _, odds_NY, sums_N = self._odds
        return Aucs.of(odds_NY / sums_N[:, None], self._labels, self._there)


def _joined(
    value: float, values_C: np.ndarray, ends_C2: np.ndarray, correlation_CC: np.ndarray
) -> tuple[float, float]:
    """Return the interval of a mean of parts that have an interval each."""
    count = len(values_C)
    below, above = np.maximum(values_C - ends_C2[:, 0], 0), np.maximum(ends_C2[:, 1] - values_C, 0)
    low, high = (math.sqrt(max(0.0, float(d @ correlation_CC @ d))) / count for d in (below, above))
    return max(0.0, value - low), min(1.0, value + high)


def _correlation(covariance_CC: np.ndarray) -> np.ndarray:
    """Return how the influences on the classes go together [C, C]; 1 where one has none, which is the careful side."""
    sizes = np.sqrt(np.maximum(covariance_CC.diagonal(), 0.0))
    known = sizes > 1e-7 * max(
        1.0, float(sizes.max(initial=0.0))
    )  # a difference of squares rounds to 1e-8 of them
    found = np.ones_like(covariance_CC)
    found[np.ix_(known, known)] = covariance_CC[np.ix_(known, known)] / np.outer(sizes[known], sizes[known])
    return found
