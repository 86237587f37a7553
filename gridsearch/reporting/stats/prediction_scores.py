"""From one network's stored predictions to any metric: its value, its 95 % interval, and each image's part in it.

N images, Y classes.  Values are scikit-learn's where it has the metric.  Intervals are about other images of the same
kind and say nothing about another seed.

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
from scipy import special, stats

from gridsearch.records.image_metrics import ACCURACY, LOSS, RECALL, TOP
from gridsearch.reporting.stats.over_images import LEVEL, accuracy_intervals

if TYPE_CHECKING:
    from gridsearch.reporting.stats.predictions import Predictions

BINS: Final = 15
"""Of the calibration error, as in its source."""
_Z: Final = float(special.ndtri(1 - LEVEL / 2))
_HALVINGS: Final = 50
"""Steps in which an end of an AUC's interval is found, to the last digit of a float."""


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
        from sklearn import metrics as sk  # a second to import, and few reports need it

        if metric == ACCURACY:
            return float(sk.accuracy_score(self._labels, self._given.guesses))
        if metric == "balanced_accuracy":
            return float(np.mean(self._recalls(self._there)))
        if metric == "macro_f1":
            return float(sk.f1_score(self._labels, self._given.guesses, average="macro", zero_division=0.0))
        if metric == LOSS:
            return float(self._losses.mean())
        if metric == "top3":
            self._require_more_classes()
            every = range(self._classes)
            return float(sk.top_k_accuracy_score(self._labels, self._finite, k=TOP, labels=every))
        if metric == "auc":
            columns = self._separable
            return float(
                np.mean([sk.roc_auc_score(self._labels == c, self._probabilities[:, c]) for c in columns])
            )
        if metric == "ece":
            return float(np.abs(self._gaps.sum(0)).sum() / len(self._labels))
        return float(self._recalls([self._of_class(metric, label)])[0])

    def parts(self, metric: str, *, label: int | None = None) -> Parts:
        """Return what each image contributes to a metric; see `score`."""
        if metric == ACCURACY:
            return Parts(hits=self._given.right)
        if metric == "top3":
            self._require_more_classes()
            return Parts(hits=self._among_top)
        if metric.startswith(RECALL):
            return Parts(hits=self._given.right[self._labels == self._of_class(metric, label)])
        if metric == LOSS:
            return Parts(shares=self._losses)
        if metric == "balanced_accuracy":
            images_Y = np.bincount(self._labels, minlength=self._classes)
            weight = len(self._labels) / (len(self._there) * images_Y[self._labels])
            return Parts(shares=np.where(self._given.right, weight, 0.0))
        if metric == "ece":
            signs = np.sign(self._gaps.sum(0))
            return Parts(shares=(self._gaps * signs).sum(1))
        values, shares_NC = self._f1 if metric == "macro_f1" else self._auc
        return Parts(shares=values.mean() + shares_NC.mean(1))

    def _interval(self, metric: str, value: float, label: int | None) -> tuple[float, float]:
        hits = self.parts(metric, label=label).hits
        if hits is not None:  # around the value that is shown: rounding may have moved an image
            low, high = accuracy_intervals(np.array([round(value * len(hits))]), len(hits))[0]
            return float(low), float(high)
        if metric == "balanced_accuracy":
            right = np.bincount(self._labels, self._given.right, self._classes)[self._there]
            images = np.bincount(self._labels, minlength=self._classes)[self._there]
            ends = np.array(
                [accuracy_intervals(np.array([r]), n)[0] for r, n in zip(right, images, strict=True)]
            )
            return _joined(value, right / images, ends, np.eye(len(images)))
        if metric == "macro_f1":
            values, shares_NC = self._f1
            hit, both = self._f1_counts
            ends = np.array(
                [accuracy_intervals(np.array([h]), b - h)[0] for h, b in zip(hit, both, strict=True)]
            )
            return _joined(value, values, 2 * ends / (1 + ends), _correlation(shares_NC))
        if metric == "auc":
            values, shares_NC = self._auc
            images = np.bincount(self._labels, minlength=self._classes)[self._separable]
            ends = _auc_ends(values, images, len(self._labels) - images)
            return _joined(value, values, ends, _correlation(shares_NC))
        shares = self.parts(metric).shares
        assert shares is not None
        error = _Z * float(shares.std()) / math.sqrt(len(shares))
        if metric == LOSS:
            factor = math.exp(min(error / value, 700.0)) if value > 0 else 1.0
            return value / factor, value * factor
        return max(0.0, value - self._chance_gaps() - error), min(1.0, value + error)

    def _chance_gaps(self) -> float:
        """Return how much of a calibration error may be chance: a gap's size is on average larger than the gap.

        By the mean of a folded normal distribution (F. Leone, L. Nelson and R. Nottingham, Technometrics 3, 1961); the
        true gap of a bin is taken to be a standard error smaller than it seems, which is the careful side.
        """
        count = len(self._labels)
        gaps_B = self._gaps.sum(0)
        errors_B = np.sqrt((self._gaps**2).sum(0))
        smaller = np.maximum(np.abs(gaps_B) - errors_B, 0.0)
        folded = np.divide(smaller, errors_B, out=np.zeros(BINS), where=errors_B > 0)
        means = errors_B * math.sqrt(2 / math.pi) * np.exp(-(folded**2) / 2)
        means += smaller * (1 - 2 * special.ndtr(-folded))
        return float((means - smaller).sum() / count)

    # What the metrics are made of

    @functools.cached_property
    def _there(self) -> list[int]:
        """The classes that have images."""
        return [int(c) for c in np.unique(self._labels)]

    def _recalls(self, classes: list[int]) -> np.ndarray:
        from sklearn.metrics import recall_score

        found: np.ndarray = recall_score(
            self._labels, self._given.guesses, labels=classes, average=None, zero_division=0.0
        )
        return found

    def _of_class(self, metric: str, label: int | None) -> int:
        if label is None or label not in self._there:
            raise Unmeasured(f"none of the validation images is of class {metric.removeprefix(RECALL)!r}")
        return label

    def _require_more_classes(self) -> None:
        if self._classes <= TOP:
            raise Unmeasured(
                f"there are only {self._classes} classes, and the best {TOP} are always all of them"
            )

    @functools.cached_property
    def _finite(self) -> np.ndarray:
        """The logits in double precision."""
        logits = self._given.logits.astype(np.float64)
        if not np.isfinite(logits).all():
            raise Unmeasured("their logits are not finite: an earlier version cut large ones")
        return logits

    @functools.cached_property
    def _probabilities(self) -> np.ndarray:
        found: np.ndarray = special.softmax(self._finite, axis=1)
        return found

    @functools.cached_property
    def _losses(self) -> np.ndarray:
        """Each image's cross-entropy; from the logits, since a probability rounds to 0 and its logarithm does not."""
        of_label = self._finite[np.arange(len(self._labels)), self._labels]
        found: np.ndarray = special.logsumexp(self._finite, axis=1) - of_label
        return found

    @functools.cached_property
    def _among_top(self) -> np.ndarray:
        """Whether each image's class is among the best; equal scores in the order that scikit-learn gives them."""
        order = np.argsort(self._finite, axis=1, kind="mergesort")[:, ::-1][:, :TOP]
        found: np.ndarray = (order == self._labels[:, None]).any(1)
        return found

    @functools.cached_property
    def _gaps(self) -> np.ndarray:
        """Probability of the chosen class minus hit, each in the column of its bin [N, 15], zero elsewhere."""
        chosen = self._probabilities.max(1)
        bins = np.clip(np.ceil(chosen * BINS).astype(np.int64) - 1, 0, BINS - 1)
        gaps = np.zeros((len(chosen), BINS))
        gaps[np.arange(len(chosen)), bins] = chosen - self._given.right
        return gaps

    @functools.cached_property
    def _f1_counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the classes that have images or were guessed: hits, and images of the class plus guesses of it."""
        hit = np.bincount(self._labels, self._given.right, self._classes)
        both = np.bincount(self._labels, minlength=self._classes)
        both = both + np.bincount(self._given.guesses, minlength=self._classes)
        return hit[both > 0], both[both > 0]

    @functools.cached_property
    def _f1(self) -> tuple[np.ndarray, np.ndarray]:
        """The F1 of each class that occurs or was guessed [C], and each image's influence on it [N, C]."""
        hit, both = self._f1_counts
        values = 2 * hit / both
        seen = np.union1d(self._labels, self._given.guesses)
        of_label = self._labels[:, None] == seen
        of_guess = self._given.guesses[:, None] == seen
        shares = 2.0 * (of_label & of_guess) - values * (of_label.astype(float) + of_guess)
        return values, shares * (len(self._labels) / both)

    @functools.cached_property
    def _separable(self) -> list[int]:
        """The classes that some images have and others have not."""
        if len(self._there) < 2:
            raise Unmeasured("all validation images are of one class")
        return self._there

    @functools.cached_property
    def _auc(self) -> tuple[np.ndarray, np.ndarray]:
        """The AUC of each class against the others [C], and each image's influence on it [N, C]."""
        count, values, shares = len(self._labels), [], []
        for column in self._separable:
            own = self._labels == column
            scores = self._probabilities[:, column]
            ranks = stats.rankdata(scores)
            images = int(own.sum())
            placed = np.empty(count)  # the share of the other side that an image is on the right side of
            placed[own] = (ranks[own] - stats.rankdata(scores[own])) / (count - images)
            placed[~own] = 1 - (ranks[~own] - stats.rankdata(scores[~own])) / images
            value = float(placed[own].mean())
            values.append(value)
            shares.append((placed - value) * np.where(own, count / images, count / (count - images)))
        return np.array(values), np.stack(shares, axis=1)


def _joined(
    value: float, values_C: np.ndarray, ends_C2: np.ndarray, correlation_CC: np.ndarray
) -> tuple[float, float]:
    """Return the interval of a mean of parts that have an interval each."""
    count = len(values_C)
    below, above = np.maximum(values_C - ends_C2[:, 0], 0), np.maximum(ends_C2[:, 1] - values_C, 0)
    low, high = (math.sqrt(max(0.0, float(d @ correlation_CC @ d))) / count for d in (below, above))
    return max(0.0, value - low), min(1.0, value + high)


def _correlation(shares_NC: np.ndarray) -> np.ndarray:
    """Return how the influences on the classes go together [C, C]; 1 where one has none, which is the careful side."""
    centred = shares_NC - shares_NC.mean(0)
    sizes = np.sqrt((centred**2).sum(0))
    known = sizes > 1e-12 * max(1.0, float(sizes.max(initial=0.0)))
    found = np.ones((len(sizes), len(sizes)))
    scaled = centred[:, known] / sizes[known]
    found[np.ix_(known, known)] = scaled.T @ scaled
    return found


def _auc_ends(values_C: np.ndarray, images_C: np.ndarray, others_C: np.ndarray) -> np.ndarray:
    """Return Newcombe's interval of each AUC [C, 2]: the AUCs that are as far away as their own error allows."""

    def beyond(auc: np.ndarray) -> np.ndarray:
        half = (images_C + others_C) / 2 - 1
        spread = 1 + half * (1 - auc) / (2 - auc) + half * auc / (1 + auc)
        far: np.ndarray = (values_C - auc) ** 2 > _Z**2 * auc * (1 - auc) * spread / (images_C * others_C)
        return far

    ends = []
    for edge in (0.0, 1.0):
        outer, inner = np.full_like(values_C, edge), values_C.copy()
        for _ in range(_HALVINGS):
            middle = (outer + inner) / 2
            far = beyond(middle)
            outer, inner = np.where(far, middle, outer), np.where(far, inner, middle)
        ends.append((outer + inner) / 2)
    return np.stack(ends, axis=1)
