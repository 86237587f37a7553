"""From stored predictions of one trial a point to intervals and to the points tied with the best.

M points, N validation images.  All of it is about other images of the same kind, and says nothing about another
seed.

*Interval of an accuracy*: E. Wilson's ("Probable inference, the law of succession, and statistical inference",
Journal of the American Statistical Association 22, 1927), which holds its 95 % near 100 % too, where resampling the
images ends in a width of zero.

*Tied with the best*: the images on which exactly one of the two is right (McNemar's exact test, Psychometrika 12,
1947, one-sided), with the level shared among all points as over seeds.  For metrics that are no shares of images, the
differences of what each image contributes to them (`prediction_scores.Parts`).  It is what a paired bootstrap over the
images approximates; but at 5 % over 200 points a bootstrap would need 100,000 resamples to see the tail, and would
give another answer with other random numbers.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import special

LEVEL: Final = 0.05


def accuracy_intervals(right: np.ndarray, images: int | np.ndarray, *, level: float = LEVEL) -> np.ndarray:
    """Return the ends of the Wilson interval [M, 2].

    Args:
        right: how many images each point has right [M].
        images: N, or how many images each point has [M].
        level: share of such intervals that miss.
    """
    z = special.ndtri(1 - level / 2)
    share = right / images
    centre = (share + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z / (1 + z**2 / images) * np.sqrt(share * (1 - share) / images + z**2 / (4 * images**2))
    ends: np.ndarray = np.stack([centre - half, centre + half], axis=1)
    ends[right == images, 1] = 1.0  # exactly so, were it not for rounding
    ends[right == 0, 0] = 0.0
    return ends


def p_values(best_N: np.ndarray, others_MN: np.ndarray) -> np.ndarray:
    """Return for each point how likely so large a lead of the best is, were both equally good [M].

    Args:
        best_N: whether the best point is right, by image.
        others_MN: likewise for each of the others, on the same images.
    """
    won = (best_N & ~others_MN).sum(1)
    lost = (~best_N & others_MN).sum(1)
    # P(X >= won) where X is binomial(won + lost, 1/2), which is 1 for won = 0
    found: np.ndarray = np.where(won > 0, special.bdtrc(won - 1.0, won + lost, 0.5), 1.0)
    return found


def p_values_of_means(best_N: np.ndarray, other_N: np.ndarray, *, same: bool) -> float:
    """Return the same for a metric that is the mean of what each image contributes to it.

    Where images are the same, by the differences image by image and their scatter about zero, which for shares of
    images is McNemar's test without its correction for small numbers; else by the two standard errors.

    Args:
        best_N: what each image contributes to the best point's metric, larger is better.
        other_N: likewise of another point.
        same: whether these are the same images in the same order.
    """
    gap = float(best_N.mean() - other_N.mean())
    if same:
        variance = float(((best_N - other_N) ** 2).mean()) / len(best_N)
    else:
        variance = float(best_N.var() / len(best_N) + other_N.var() / len(other_N))
    if variance <= 0:
        return 1.0 if gap <= 0 else 0.0
    return float(special.ndtr(-gap / np.sqrt(variance)))


def conservative_p_values(best: float, others: np.ndarray, images: int) -> np.ndarray:
    """Return the same from accuracies alone: no pair of networks differs on more images than both err on.

    Args:
        best: accuracy of the best point.
        others: accuracies of the others [M].
        images: N.
    """
    behind = best - others
    variance = np.clip((1 - best) + (1 - others), 1 / images, 1.0) - behind**2
    found: np.ndarray = special.ndtr(-behind * np.sqrt(images / np.maximum(variance, 1 / images)))
    return found
