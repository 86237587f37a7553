"""The finding that more epochs would still help: curves of the winner and of what is tied with it still improve."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from gridsearch.records.image_metrics import ACCURACY, LOSS, TRAIN_ACCURACY
from gridsearch.reporting.findings.finding import LEVEL, Finding
from gridsearch.reporting.stats.over_folds import share
from gridsearch.reporting.words.text import capitalized, metric_name, plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gridsearch.records import StudyData
    from gridsearch.reporting.findings.next_grids import NextGrids
    from gridsearch.reporting.ranking.points import RankedPoint
    from gridsearch.reporting.ranking.ranking import Ranking

_FEWEST_EPOCHS = 6
_FEWEST_TRIALS = 3

_CURVES: Final = (ACCURACY, LOSS, TRAIN_ACCURACY)
"""Metrics that are recorded after each epoch."""

_UNLIKE: Final = ("ece",)
"""Metrics of which accuracy says nothing: a network may become more accurate and less calibrated."""


def about_curves(data: StudyData, ranking: Ranking, grids: NextGrids) -> Iterator[Finding]:
    """Find that the metric that ranks still became better in the last quarter of the epochs.

    Of each trial the slope over its last quarter is fitted by least squares, and the trials' mean slope is tested
    against zero (t-test, one-sided; folds are not independent); where there are fewer than three trials, the slope of
    the winner's curve against its residuals.  Only with a constant learning rate: one that falls makes any curve rise
    at its end, and of trials that trained all their epochs.  A metric that is not recorded after each epoch is judged
    by the accuracy.
    """
    best = ranking.best
    if best is None or not data.kind.classifies or "epochs" in ranking.varying or ranking.metric in _UNLIKE:
        return
    settings, epochs = best.settings, best.settings.length or 0
    if settings.get("schedule") != "constant" or epochs < _FEWEST_EPOCHS:
        return
    metric = ranking.metric if ranking.metric in _CURVES else ACCURACY
    own = _curves(data, (best,), metric, epochs)
    if not own or (metric != LOSS and all(curve[-1] == 1.0 for curve in own)):  # it cannot become better
        return
    curves = [*own, *_curves(data, ranking.tied, metric, epochs)]
    last = max(3, -(-epochs // 4))
    slopes = np.array([_slope(curve[-last:])[0] for curve in curves])
    if len(slopes) >= _FEWEST_TRIALS:
        mean, df = float(slopes.mean()), len(slopes) - 1
        error = float(slopes.std(ddof=1)) * math.sqrt(share(len(slopes), best.folds or 1, 0.0))
    elif epochs >= 2 * _FEWEST_EPOCHS:
        longer = own[0][-max(last, _FEWEST_EPOCHS) :]
        (mean, error), df, last = _slope(longer), len(longer) - 2, len(longer)
    else:
        return
    from scipy import special

    low = mean - float(special.stdtrit(df, 1 - LEVEL)) * error
    if not low > 0:
        return
    digits = ranking.digits_of(metric).finer(low)
    of = "the winner's trial"
    if len(slopes) >= _FEWEST_TRIALS:
        of = f"{plural(len(slopes), 'trial')} of the winner and the points tied with it"
    name = metric_name(metric)
    help_too = "would help" if metric == ranking.metric else f"may help {metric_name(ranking.metric)} too"
    yield Finding(
        code="GS103",
        sentence=f"{capitalized(name)} still {'falls' if metric == LOSS else 'rises'}: by "
        f"{digits.difference(mean)} per epoch over the last {last} of {epochs} epochs (at least "
        f"{digits.difference(low, unit=False)}, with 95 % confidence; {of}). "
        f"More epochs {help_too}.",
        command=grids.around(best, {"epochs": [2 * epochs]}),
    )


def _curves(data: StudyData, points: tuple[RankedPoint, ...], metric: str, epochs: int) -> list[np.ndarray]:
    """Return the curves of points' COMPLETE trials by constant learning rates, larger is better."""
    found = []
    for trial in (t for p in points for t in p.complete if t.settings.get("schedule") == "constant"):
        values = [getattr(row, metric) for row in data.epochs.get(trial.number, ())]
        curve = np.array([v for v in values if v is not None and math.isfinite(v)])
        if len(curve) == epochs:  # one that was stopped early has no last epochs
            found.append(-curve if metric == LOSS else curve)
    return found


def _slope(values: np.ndarray) -> tuple[float, float]:
    """Return the least-squares slope of a curve, and its standard error."""
    x = np.arange(len(values)) - (len(values) - 1) / 2
    slope = float(x @ values / (x @ x))
    rest = values - values.mean() - slope * x
    return slope, math.sqrt(float(rest @ rest) / max(len(values) - 2, 1) / float(x @ x))
