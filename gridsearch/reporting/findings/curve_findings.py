"""The finding that more epochs would still help: curves of the winner and of what is tied with it still rise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from gridsearch.reporting.findings.finding import LEVEL, Finding
from gridsearch.reporting.words.text import plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gridsearch.records import EpochRow, StudyData
    from gridsearch.reporting.findings.next_grids import NextGrids
    from gridsearch.reporting.ranking.ranking import Ranking

_FEWEST_EPOCHS = 6
_FEWEST_TRIALS = 3


def about_curves(data: StudyData, ranking: Ranking, grids: NextGrids) -> Iterator[Finding]:
    """Find that the ranking accuracy still rose in the last quarter of the epochs.

    Of each trial the slope over its last quarter is fitted by least squares, and the trials' mean slope is tested
    against zero (t-test, one-sided); where there are fewer than three trials, the slope of the winner's curve against
    its residuals.  Only with a constant learning rate: one that falls makes any curve rise at its end.
    """
    best = ranking.best
    if best is None or not data.kind.classifies or "epochs" in ranking.varying:
        return
    settings = best.settings
    if settings.get("schedule") != "constant" or (settings.length or 0) < _FEWEST_EPOCHS:
        return
    trials = [
        t for p in (best, *ranking.tied) for t in p.complete if p.settings.get("schedule") == "constant"
    ]
    curves = [
        c for t in trials if len(c := _curve(data.epochs.get(t.number, ()), ranking.metric)) >= _FEWEST_EPOCHS
    ]
    last = max(3, -(-(settings.length or 0) // 4))
    slopes = np.array([_slope(curve[-last:])[0] for curve in curves])
    if len(slopes) >= _FEWEST_TRIALS:
        mean, error, freedom = (
            float(slopes.mean()),
            float(slopes.std(ddof=1) / math.sqrt(len(slopes))),
            len(slopes) - 1,
        )
    elif curves and len(curves[0]) >= 2 * _FEWEST_EPOCHS:
        longer = curves[0][-max(last, _FEWEST_EPOCHS) :]
        (mean, error), freedom, last = _slope(longer), len(longer) - 2, len(longer)
    else:
        return
    from scipy import special

    low = mean - float(special.stdtrit(freedom, 1 - LEVEL)) * error
    if not low > 0:
        return
    digits = ranking.digits_of().finer(low)
    of = plural(max(len(slopes), 1), "trial") if len(slopes) >= _FEWEST_TRIALS else "the winner's trial"
    yield Finding(
        code="GS103",
        sentence=f"Accuracy still rises: by {digits.difference(mean)} an epoch over the last {last} of "
        f"{settings.length} epochs (at least {digits.difference(low, unit=False)}, 95 % confidence; {of} of the winner "
        "and of what is tied with it): more epochs would help.",
        command=grids.around(best, {"epochs": [2 * (settings.length or 0)]}),
    )


def _curve(rows: tuple[EpochRow, ...], metric: str) -> np.ndarray:
    name = "train_accuracy" if metric == "train_accuracy" else "val_accuracy"
    values = [getattr(row, name) for row in rows]
    return np.array([v for v in values if v is not None and math.isfinite(v)])


def _slope(values: np.ndarray) -> tuple[float, float]:
    """Return the least-squares slope of a curve, and its standard error."""
    x = np.arange(len(values)) - (len(values) - 1) / 2
    slope = float(x @ values / (x @ x))
    rest = values - values.mean() - slope * x
    return slope, math.sqrt(float(rest @ rest) / max(len(values) - 2, 1) / float(x @ x))
