"""Areas under ROC curves from scores and labels: values, intervals, each image's influence; below `prediction_scores`.

N images, C classes, each against all others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

_HALVINGS: Final = 50
"""Steps in which an end of an interval is found, to the last digit of a float."""


@dataclass(frozen=True, slots=True, eq=False)
class Aucs:
    """AUCs of classes.

    Attributes:
        values: of each class [C].
        influence: each image's influence on their mean [N] (components of E. DeLong, D. DeLong and D. Clarke-Pearson).
        covariance: how the influences on the classes go together [C, C].
    """

    values: np.ndarray
    influence: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, scores_NY: np.ndarray, labels_N: np.ndarray, classes: Sequence[int]) -> Aucs:
        """Return the AUC of each of these classes.

        Args:
            scores_NY: of each class, the larger the more likely.
            labels_N: the true classes.
            classes: which; each has images, and is not the class of all.
        """
        count, values = len(labels_N), []
        influence_CN = np.empty((len(classes), count))
        for place, column in enumerate(classes):
            own = labels_N == column
            placed, images = placements(scores_NY[:, column], own), int(own.sum())
            value = float(placed[own].mean())
            values.append(value)
            influence_CN[place] = (placed - value) * np.where(own, count / images, count / (count - images))
        centred = influence_CN - influence_CN.mean(axis=1, keepdims=True)
        return cls(np.array(values), influence_CN.mean(axis=0), centred @ centred.T)


def placements(scores_N: np.ndarray, own_N: np.ndarray) -> np.ndarray:
    """Return the share of the other side that each image is on the right side of; equal scores count half [N].

    Args:
        scores_N: the larger, the more likely an image is on the first side.
        own_N: whether it is; some are, and some are not.
    """
    order = np.argsort(scores_N)
    scores, own = scores_N[order], own_N[order]
    first = np.flatnonzero(np.concatenate(([True], scores[1:] != scores[:-1])))  # of each run of equal scores
    end = np.append(first[1:], len(order))
    below = np.concatenate(([0], np.cumsum(own)))
    own_half = (below[first] + below[end]) / 2  # how many are below the run, and half of those in it
    other_half = (first + end) / 2 - own_half
    images, run = int(below[-1]), end - first
    placed = np.empty(len(order))
    placed[order] = np.where(
        own, np.repeat(other_half / (len(order) - images), run), np.repeat(1 - own_half / images, run)
    )
    return placed


def newcombe_ends(
    values_C: np.ndarray, images_C: np.ndarray, others_C: np.ndarray, *, z: float
) -> np.ndarray:
    """Return Newcombe's interval of each AUC [C, 2]: the AUCs that are as far away as their own error allows.

    Args:
        values_C: the AUCs.
        images_C: how many images are of each class.
        others_C: how many are not.
        z: how many standard errors are allowed.
    """
    half = (images_C + others_C) / 2 - 1

    def beyond(auc: np.ndarray) -> np.ndarray:
        spread = 1 + half * (1 - auc) / (2 - auc) + half * auc / (1 + auc)
        far: np.ndarray = (values_C - auc) ** 2 > z**2 * auc * (1 - auc) * spread / (images_C * others_C)
        return far

    outer, inner = np.stack((np.zeros_like(values_C), np.ones_like(values_C))), np.stack((values_C, values_C))
    for _ in range(_HALVINGS):
        middle = (outer + inner) / 2
        far = beyond(middle)
        outer, inner = np.where(far, middle, outer), np.where(far, inner, middle)
    ends: np.ndarray = (outer + inner) / 2
    return ends.T
