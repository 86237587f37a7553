"""A point's folds by themselves, for the table that shows how far they are apart; beside the ranking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gridsearch.reporting.ranking.points import metric_value
from gridsearch.reporting.stats import moments

if TYPE_CHECKING:
    from gridsearch.reporting.ranking.points import RankedPoint


@dataclass(frozen=True, slots=True)
class FoldResult:
    """One fold of a point.

    Attributes:
        fold: its number, from 1.
        mean: of the metric over its seeds; None where none counts.  Each seed has a partition of its own, so that
            the folds of one number hold other images.
        trials: the numbers of its trials, in whatever state.
    """

    fold: int
    mean: float | None
    trials: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return one entry of `report --json`."""
        return {"fold": self.fold, "mean": self.mean, "trials": list(self.trials)}


def folds_of(point: RankedPoint, metric: str) -> tuple[FoldResult, ...]:
    """Return the folds of a point in their order; none without a cross-validation."""
    found = []
    for fold in range(1, (point.folds or 0) + 1):
        trials = [t for t in point.trials if t.settings.fold == fold]
        values = [v for t in trials if (v := metric_value(t, metric)) is not None]
        found.append(FoldResult(fold, moments.mean(values), tuple(t.number for t in trials)))
    return tuple(found)
