"""What a point says of the images that were held out: of a cross-validation that of all its folds, pooled.

Between the stored predictions of trials and all that is made of a point's: confusion matrix, classes, ensembles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridsearch.reporting.stats.predictions import Predictions, usable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.records import TrialRecord
    from gridsearch.reporting.ranking.points import RankedPoint


def standing_for(point: RankedPoint) -> tuple[TrialRecord, ...]:
    """Return the trials whose predictions stand for a point: its first COMPLETE seed's, one or one for each fold.

    Of folds that is the first seed of which all are COMPLETE; none where there is no such seed.
    """
    if point.folds is None:
        return point.complete[:1]
    by_seed: dict[int, list[TrialRecord]] = {}
    for trial in point.complete:
        by_seed.setdefault(trial.seed, []).append(trial)
    return next((tuple(some) for some in by_seed.values() if len(some) == point.folds), ())


def predictions_of(
    point: RankedPoint, predictions: Callable[[int], Predictions | None]
) -> Predictions | None:
    """Return a point's predictions: every held-out image once, by the network that was not trained on it.

    Args:
        point: with COMPLETE trials.
        predictions: the stored validation predictions of a trial by its number.

    Returns:
        in order of the images; None where one of the folds is missing, or its predictions cannot be used.
    """
    found = [usable(predictions, trial.number) for trial in standing_for(point)]
    whole = [one for one in found if one is not None]
    if not whole or len(whole) < len(found):
        return None
    return whole[0] if point.folds is None else pooled(whole)


def pooled(folds: Sequence[Predictions]) -> Predictions | None:
    """Return the predictions of all folds of one partition together, in order of the images.

    None where they are of different classes, or where the images' places were not stored.
    """
    indices = [one.indices for one in folds if one.indices is not None]
    if len(indices) < len(folds) or len({one.logits.shape[1] for one in folds}) > 1:
        return None
    places = np.concatenate(indices)
    if len(np.unique(places)) < len(places):  # no partition
        return None
    order = np.argsort(places)
    return Predictions(
        np.concatenate([one.logits for one in folds])[order],
        np.concatenate([one.labels for one in folds])[order],
        places[order],
        np.concatenate([one.guesses for one in folds])[order],
    )
