"""The table of the page that shows the best points fold by fold; between the ranking and its template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gridsearch.reporting.ranking.fold_results import folds_of
from gridsearch.reporting.words.text import show_params

if TYPE_CHECKING:
    from gridsearch.reporting.ranking.ranking import Ranking

MOST_POINTS: Final = 20
MOST_FOLDS: Final = 20
"""Folds that get a column of their own; `ranking.json` has all of them."""


@dataclass(frozen=True, slots=True)
class FoldTable:
    """The best points and their folds, as text.

    Attributes:
        folds: the numbers of the folds that are shown.
        rows: a point's rank and params, and its mean in each of these folds.
        hidden: points with folds that are not shown.
        beyond: folds without a column.
    """

    folds: tuple[int, ...]
    rows: tuple[tuple[str, str, tuple[str, ...]], ...]
    hidden: int
    beyond: int = 0


def fold_table(ranking: Ranking) -> FoldTable | None:
    """Return the table; None where no ranked point has folds."""
    points = [p for p in ranking.points if p.folds is not None and p.mean is not None]
    if not points:
        return None
    shown = points[:MOST_POINTS]
    every = max(p.folds or 0 for p in shown)
    count = min(every, MOST_FOLDS)
    digits = ranking.digits_of()
    rows = []
    for point in shown:
        means = [digits.show(fold.mean, unit=False) for fold in folds_of(point, ranking.metric)[:count]]
        means += [""] * (count - len(means))
        name = show_params(point.params, ranking.varying or None, limit=120)
        rows.append((str(point.rank), name, tuple(means)))
    return FoldTable(tuple(range(1, count + 1)), tuple(rows), len(points) - len(shown), every - count)
