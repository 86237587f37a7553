"""From stored predictions to how far a network's probabilities can be trusted: the reliability diagram's numbers.

Bins of equal width over the probability of the class that was chosen, those of the calibration error in
`prediction_scores`.  N images, Y classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gridsearch.reporting.stats.over_images import accuracy_intervals
from gridsearch.reporting.stats.prediction_scores import BINS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.reporting.stats.predictions import Predictions


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """The images to whose chosen class the network gave a probability between two ends.

    Attributes:
        low: lower end of the bin, itself out (but for the first bin's); likewise high, itself in.
        images: how many there are; above 0.
        right: how many of them it has right.
        confidence: their mean probability.
        ci_low: lower end of the 95 % interval of their accuracy (Wilson's), likewise ci_high.
    """

    low: float
    high: float
    images: int
    right: int
    confidence: float
    ci_low: float
    ci_high: float

    @property
    def accuracy(self) -> float:
        """The share that it has right."""
        return self.right / self.images

    def to_json(self) -> list[float]:
        """Return mean probability, images, hits, and the ends of the interval, as the page's script reads them."""
        return [
            round(self.confidence, 4),
            self.images,
            self.right,
            round(self.ci_low, 4),
            round(self.ci_high, 4),
        ]


def confidences(predictions: Predictions) -> np.ndarray:
    """Return the probability of the class that the network chose, float64 [N]; NaN where it gave none."""
    odds_NY = predictions.logits.astype(np.float64)
    with np.errstate(invalid="ignore"):
        odds_NY -= odds_NY.max(axis=1, keepdims=True)
        np.exp(odds_NY, out=odds_NY)  # the largest of each image is 1
        largest: np.ndarray = 1 / odds_NY.sum(axis=1)
    return largest


def reliability(predictions: Predictions) -> tuple[ReliabilityBin, ...]:
    """Return the bins that hold images, by rising probability; images without a finite one are left out."""
    confidence, right = confidences(predictions), predictions.right
    there = np.isfinite(confidence)
    confidence, right = confidence[there], right[there]
    place = np.clip(np.ceil(confidence * BINS) - 1, 0, BINS - 1).astype(np.int64)
    images = np.bincount(place, minlength=BINS)
    hits = np.bincount(place, weights=right, minlength=BINS).astype(np.int64)
    sums = np.bincount(place, weights=confidence, minlength=BINS)
    there = np.flatnonzero(images)
    ends = accuracy_intervals(hits[there], images[there])
    return tuple(
        ReliabilityBin(
            low=i / BINS,
            high=(i + 1) / BINS,
            images=int(images[i]),
            right=int(hits[i]),
            confidence=float(sums[i] / images[i]),
            ci_low=float(low),
            ci_high=float(high),
        )
        for i, (low, high) in zip(there, ends, strict=True)
    )


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Return the expected calibration error: the mean gap of accuracy and probability, weighted by images."""
    total = sum(b.images for b in bins)
    return sum(b.images * abs(b.accuracy - b.confidence) for b in bins) / total if total else float("nan")
