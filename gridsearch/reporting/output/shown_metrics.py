"""Which metrics the page's figures can be switched to: as many as are computed while its reader waits.

Every metric of a trial costs a millisecond for ten thousand images, the area under the ROC curve more than all others
together: what is too much is left to `report --by`, which computes a single one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gridsearch.records import TrialState
from gridsearch.records.image_metrics import METRICS
from gridsearch.reporting.ranking.by_metric import ByMetric, every_metric
from gridsearch.reporting.stats.predictions import usable

if TYPE_CHECKING:
    from collections.abc import Callable

    from gridsearch.records import StudyData
    from gridsearch.reporting.stats.predictions import Predictions

MOST_TRIALS: Final = 300
MOST_ANSWERS: Final = 3_000_000
"""Of more trials, or images times trials, none is computed: the recorded metrics are shown."""
MOST_SORTED: Final = 500_000
"""Of more, the metric that sorts all images once a class is left out."""
_SORTS: Final = "auc"


def shown_metrics(
    data: StudyData, *, predictions: Callable[[int], Predictions | None], among: int = 1
) -> tuple[ByMetric, ...]:
    """Return a study by the metrics that its page shows; none of a function, or of one without predictions.

    Args:
        data: the study.
        predictions: the stored validation predictions of a trial by its number.
        among: so many studies on one page, which share what it may cost.
    """
    complete = [t for t in data.trials if t.state is TrialState.COMPLETE]
    if not 0 < len(complete) <= MOST_TRIALS // among or not data.kind.classifies:
        return ()
    first = next((found for t in complete[:3] if (found := usable(predictions, t.number)) is not None), None)
    answers = among * len(complete) * (0 if first is None else len(first.labels))
    if not answers or answers > MOST_ANSWERS:
        return ()
    names = [m.name for m in METRICS if answers <= MOST_SORTED or m.name != _SORTS]
    return every_metric(data, predictions=predictions, names=names)
