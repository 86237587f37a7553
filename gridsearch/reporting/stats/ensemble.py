"""From the best points' stored predictions to what they say together: one line below the ranking.

N images, Y classes.  An ensemble's probabilities are the mean of its members' (softmax of the logits); each point
gives one network, its first seed, so that k points cost k networks to ask, whatever the number of seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gridsearch.reporting.stats.predictions import Predictions, usable
from gridsearch.reporting.words.text import show_metric

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.reporting.stats.predictions import Predictions

SIZES: Final = (2, 3, 5, 10)
"""So many of the best points are taken together; no more are read, however many there are."""

FLATTERED: Final = "The points and their number were chosen on these same images, so expect less on new ones."


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """The best k points asked together.

    Attributes:
        trials: the numbers of its members, the best point's first.
        accuracy: share of the validation images that it has right.
        ci_low: lower end of the 95 % interval over other images of the same kind (Wilson's); likewise ci_high.
        images: how many validation images there are.
        alone: accuracy of its first member alone, on the same images.
    """

    trials: tuple[int, ...]
    accuracy: float
    ci_low: float
    ci_high: float
    images: int
    alone: float

    def to_json(self) -> dict[str, Any]:
        """Return one entry of `report --json`."""
        return {
            "points": len(self.trials),
            "trials": list(self.trials),
            "val_accuracy": self.accuracy,
            "ci_low": self.ci_low,
            "ci_high": self.ci_high,
            "images": self.images,
            "alone": self.alone,
        }


def ensembles(
    numbers: Sequence[int], predictions: Callable[[int], Predictions | None]
) -> tuple[Ensemble, ...]:
    """Return the ensembles of the best 2, 3, 5 and 10 points.

    They end where a point's predictions are missing or damaged, or are about other images than the first one's:
    an ensemble that skipped a point would not be that of the best k.

    Args:
        numbers: of the trials that stand for the points, the best point's first.
        predictions: the stored validation predictions of a trial by its number.
    """
    from gridsearch.reporting.stats.over_images import accuracy_intervals  # brings scipy

    found: list[Ensemble] = []
    if len(numbers) < SIZES[0]:
        return ()
    trials: list[int] = []
    first: Predictions | None = None
    total_NY = np.zeros(0)
    alone = 0.0
    for number in numbers[: SIZES[-1]]:
        stored = usable(predictions, number)
        if stored is None or (first is not None and not same_images(first, stored)):
            break
        share_NY = probabilities(stored.logits)
        trials.append(number)
        if first is None:
            first, total_NY = stored, share_NY
            alone = int(stored.right.sum()) / len(stored.labels)
            continue
        total_NY = total_NY + share_NY
        if len(trials) in SIZES:
            right, images = _right(total_NY, first.labels), len(first.labels)
            low, high = accuracy_intervals(np.array([right]), images)[0]
            found.append(
                Ensemble(
                    trials=tuple(trials),
                    accuracy=right / images,
                    ci_low=float(low),
                    ci_high=float(high),
                    images=images,
                    alone=alone,
                )
            )
    return tuple(found)


def ensembles_in_words(found: Sequence[Ensemble]) -> str:
    """Return the line of a report, "" where there is no ensemble."""
    if not found:
        return ""

    def shown(share: float) -> str:
        return show_metric(share, "val_accuracy", unit=False)

    sizes = ", ".join(
        f"{len(e.trials)} points {shown(e.accuracy)} % [{shown(e.ci_low)}, {shown(e.ci_high)}]" for e in found
    )
    return (
        f"Ensembles of the best points (mean of the probabilities, one network per point): {sizes}; "
        f"the best network alone {shown(found[0].alone)} %. {FLATTERED}"
    )


def probabilities(logits_NY: np.ndarray) -> np.ndarray:
    """Return the softmax of each row, in double precision."""
    logits_NY = logits_NY.astype(np.float64)
    odds_NY: np.ndarray = np.exp(logits_NY - logits_NY.max(axis=1, keepdims=True))
    odds_NY /= odds_NY.sum(axis=1, keepdims=True)
    return odds_NY


def same_images(one: Predictions, other: Predictions) -> bool:
    """Whether two networks were asked about the same images in the same order, as far as that was stored."""
    if one.logits.shape != other.logits.shape or not np.array_equal(one.labels, other.labels):
        return False
    if one.indices is None or other.indices is None:
        return True
    return np.array_equal(one.indices, other.indices)


def _right(scores_NY: np.ndarray, labels_N: np.ndarray) -> int:
    return int((scores_NY.argmax(axis=1) == labels_N).sum())
