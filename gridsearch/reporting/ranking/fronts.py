"""From ranked points and what they cost to the Pareto front: the points that none beats in everything asked for.

Between the rankings by each metric, the parameters and the measured latencies on one side, and `pareto` on the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gridsearch.errors import ArtifactError
from gridsearch.reporting.ranking.by_metric import every_metric
from gridsearch.reporting.ranking.pareto import (
    COSTS,
    LATENCY,
    PARAMETERS,
    SECONDS,
    Candidate,
    Ends,
    ParetoFront,
    Quantity,
)
from gridsearch.reporting.ranking.points import RankedPoint, point_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gridsearch.records import StudyData
    from gridsearch.reporting.ranking.ranking import Ranking
    from gridsearch.reporting.stats.predictions import Predictions


def pareto_front(
    data: StudyData,
    ranking: Ranking,
    quantities: Sequence[Quantity],
    *,
    predictions: Callable[[int], Predictions | None],
    latencies: Mapping[str, tuple[float, float, float]],
    measured: Mapping[str, Any],
) -> ParetoFront:
    """Compare the ranked points of a study by several quantities.

    Args:
        data: the study.
        ranking: its ranking.
        quantities: by which.
        predictions: the stored validation predictions of a trial by its number.
        latencies: median and quartiles in milliseconds, by `point_key`.
        measured: how they were measured.

    Raises:
        UsageError: no such class.
        ArtifactError: no point has all of the quantities.
    """
    metrics = [q.name for q in quantities if q.name not in COSTS]
    by_metric = {
        found.metric.name: {point_key(p.settings): p for p in found.ranking.ranked}
        for found in (every_metric(data, predictions=predictions, names=metrics) if metrics else ())
    }
    rows = []
    whole = [p for p in ranking.ranked if not p.pruned] or ranking.ranked  # what pruning left is too good
    for point in whole:
        key = point_key(point.settings)
        found = [_cell(q, point, by_metric.get(q.name, {}).get(key), latencies.get(key)) for q in quantities]
        cells = [cell for cell in found if cell is not None]
        if len(cells) == len(quantities):
            rows.append((point, cells))
    if not rows:
        names = ", ".join(q.words for q in quantities)
        raise ArtifactError(
            f"no point of study {data.name!r} has all of {names}: there is nothing to compare"
        )
    return ParetoFront(
        quantities=tuple(quantities),
        candidates=tuple(_candidates(rows, quantities)),
        left_out=len(ranking.ranked) - len(rows),
        pruned=len(whole) < len(ranking.ranked),
        measured=measured,
    )


def _candidates(
    rows: Sequence[tuple[RankedPoint, Sequence[Cell]]], quantities: Sequence[Quantity]
) -> list[Candidate]:
    """Return the points with what is known of each: those of the front first, then by the first quantity."""
    compared = np.array(
        [[_oriented(c, q) for c, q in zip(cells, quantities, strict=True)] for _, cells in rows]
    )
    candidates = []
    for i, (point, cells) in enumerate(rows):
        beaten = _beat(compared[:, :, _VALUE], compared[i, :, _VALUE])
        surely = _beat(compared[:, :, _WORSE], compared[i, :, _BETTER])
        candidates.append(
            Candidate(
                point=point,
                values=tuple(value for value, _ in cells),
                ends=tuple(ends for _, ends in cells),
                front=not beaten,
                open=beaten and not surely,
            )
        )
    sign = 1.0 if quantities[0].smaller else -1.0
    return sorted(candidates, key=lambda c: (not c.front, sign * c.values[0]))


Cell = tuple[float, Ends]


def _cell(
    quantity: Quantity,
    point: RankedPoint,
    by_metric: RankedPoint | None,
    latency: tuple[float, float, float] | None,
) -> Cell | None:
    """Return a point's value of a quantity and its interval, None where it has none."""
    if quantity.name == LATENCY:
        return None if latency is None else (latency[0], latency[1:])
    if quantity.name in COSTS:
        value = point.seconds if quantity.name == SECONDS else point.metric_mean(PARAMETERS)
        return None if value is None else (value, None)
    if by_metric is None or by_metric.mean is None:
        return None
    known = by_metric.ci_low is not None and by_metric.ci_high is not None
    return by_metric.mean, (by_metric.ci_low, by_metric.ci_high) if known else None  # type: ignore[return-value]


def _oriented(cell: Cell, quantity: Quantity) -> tuple[float, float, float]:
    """Return a value and its interval's ends so that larger is better: value, worse end, better end."""
    sign = -1.0 if quantity.smaller else 1.0
    value, ends = cell
    low, high = sorted(sign * end for end in (ends or (value, value)))
    return sign * value, low, high


_VALUE, _WORSE, _BETTER = range(3)


def _beat(others_MQ: np.ndarray, own_Q: np.ndarray) -> bool:
    """Whether one of the others is as good in all quantities and better in one; larger is better."""
    as_good = (others_MQ >= own_Q).all(1)
    return bool((as_good & (others_MQ > own_Q).any(1)).any())
