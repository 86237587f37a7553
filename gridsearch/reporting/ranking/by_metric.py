"""From a study and its stored predictions to the same study by any other metric of the validation images.

`ranked_by` gives the study as it would be, had that metric ranked it from the start: all that reads a study's metric
and direction follows.  `every_metric` gives all metrics at once, each trial's predictions read once: value and
interval of each trial, and the ranking of the points with intervals and ties.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from gridsearch.errors import ArtifactError
from gridsearch.records import TrialState
from gridsearch.records.image_metrics import (
    METRICS,
    TRAIN_ACCURACY,
    ImageMetric,
    image_metric,
    label_of,
    require_class,
)
from gridsearch.reporting.ranking.own_metrics import ranked_by_own
from gridsearch.reporting.ranking.points import finite
from gridsearch.reporting.ranking.ranking import Ranking, rank
from gridsearch.reporting.words.text import alike, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gridsearch.records import StudyData, TrialRecord
    from gridsearch.reporting.ranking.inference import Measured
    from gridsearch.reporting.stats.prediction_scores import Score
    from gridsearch.reporting.stats.predictions import Predictions

NOT_STORED: Final = "it has no stored validation predictions"
MOST_NAMED: Final = 3
MOST_KEPT: Final = 200 * 2**20
"""Bytes of what images contribute to metrics that are kept until the points are ranked; of more it is computed anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByMetric:
    """A study by one metric.

    Attributes:
        metric: which.
        data: the study, as `ranked_by` gives it.
        ranking: its points by this metric, with intervals and ties.
        scores: value and 95 % interval over the images of each trial that has it, by number; the interval is None
            where only the value was recorded.
        missing: why a COMPLETE trial does not have it, by number.
    """

    metric: ImageMetric
    data: StudyData
    ranking: Ranking
    scores: Mapping[int, Score]
    missing: Mapping[int, str]


def ranked_by(
    data: StudyData, asked: str, *, predictions: Callable[[int], Predictions | None]
) -> tuple[StudyData, tuple[str, ...]]:
    """Return a study with another metric as the one that ranks, and what to say of trials that do not have it.

    Args:
        data: the study.
        asked: the metric's word or name; that of the study gives the study itself.  Of a function one that it returned,
            see `ranked_by_own`.
        predictions: the stored validation predictions of a trial by its number.

    Raises:
        UsageError: no such metric, or no such class.
        ArtifactError: no trial's stored predictions can give it.
    """
    if not data.kind.classifies:
        return ranked_by_own(data, asked)
    metric = _asked_of(data, asked)
    if metric.name == data.metric:
        return data, ()
    found: dict[int, float] = {}
    missing: dict[int, str] = {}
    for trial in data.trials:
        if trial.state is TrialState.COMPLETE:
            value, why = _value(trial, metric, data, predictions)
            if value is None:
                missing[trial.number] = why
            else:
                found[trial.number] = value
    if not found and missing:
        raise ArtifactError(
            f"no trial of study {data.name!r} can be ranked by {metric.word}: {_whose(missing)}"
        )
    notes = (f"not ranked by {metric.word}: {_whose(missing)}",) if missing else ()
    return _with_values(data, metric, found), notes


def every_metric(
    data: StudyData,
    *,
    predictions: Callable[[int], Predictions | None],
    names: Iterable[str] | None = None,
) -> tuple[ByMetric, ...]:
    """Return a study by each metric that any of its trials has; none of a function, or where nothing was held out.

    Args:
        data: the study.
        predictions: the stored validation predictions of a trial by its number.
        names: which metrics; default: all but the recalls of single classes.

    Raises:
        UsageError: no such metric, or no such class.
    """
    if not data.kind.classifies or data.metric == TRAIN_ACCURACY:
        return ()
    metrics = METRICS if names is None else [_asked_of(data, name) for name in names]
    kept = {metric.name: _Kept() for metric in metrics}
    left = MOST_KEPT
    for trial in data.trials:
        if trial.state is not TrialState.COMPLETE:
            continue
        for metric, found in _scores(trial, metrics, data, predictions):
            left -= kept[metric.name].add(trial.number, found, most=left)
    by = []
    for metric in metrics:
        own = kept[metric.name]
        if own.scores:
            values = {number: score.value for number, score in own.scores.items()}
            study = data if metric.name == data.metric else _with_values(data, metric, values)
            ranking = rank(study, predictions=predictions, known=own.measured)
            by.append(
                ByMetric(metric=metric, data=study, ranking=ranking, scores=own.scores, missing=own.missing)
            )
    return tuple(by)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What trials have of one metric, by number: what a ranking needs, value and interval, or why there is none."""

    measured: dict[int, Measured] = field(default_factory=dict)
    scores: dict[int, Score] = field(default_factory=dict)
    missing: dict[int, str] = field(default_factory=dict)

    def add(self, number: int, found: Measured | Score | str, *, most: int) -> int:
        """Keep what a trial has; return the bytes that this took, at most so many."""
        from gridsearch.reporting.stats.prediction_scores import Score

        if isinstance(found, str):
            self.missing[number] = found
            return 0
        self.scores[number] = found if isinstance(found, Score) else found.score
        if isinstance(found, Score) or found.nbytes > most:
            return 0
        self.measured[number] = found
        return found.nbytes


def _asked_of(data: StudyData, asked: str) -> ImageMetric:
    """Return the metric that is meant.

    Raises:
        UsageError: the metric or the class is not known.
    """
    metric = image_metric(asked)
    names = dict.fromkeys(
        name or str(label)
        for settings in {t.settings.data_fingerprint: t.settings for t in data.trials}.values()
        for label, name in enumerate(data.classes_of(settings))
    )
    require_class(metric, names, of=f"study {data.name!r}")
    return metric


def _with_values(data: StudyData, metric: ImageMetric, values: Mapping[int, float]) -> StudyData:
    def trial(old: TrialRecord) -> TrialRecord:
        value = values.get(old.number)
        # None where it has none: no other metric stands in for it
        metrics = old.metrics if value is None else {**old.metrics, metric.name: value}
        return replace(old, value=value, metrics=metrics)

    own = data.own_metric or data.metric
    return replace(
        data,
        metric=metric.name,
        direction=metric.direction,
        own_metric="" if metric.name == own else own,
        trials=tuple(trial(t) for t in data.trials),
    )


def _value(
    trial: TrialRecord,
    metric: ImageMetric,
    data: StudyData,
    predictions: Callable[[int], Predictions | None],
) -> tuple[float | None, str]:
    """Return a trial's value of a metric, or None and why it has none."""
    from gridsearch.reporting.stats.prediction_scores import ImageScores, Unmeasured

    if metric.recorded and (value := finite(trial.metrics.get(metric.name))) is not None:
        return value, ""
    stored = _read(trial, predictions)
    if isinstance(stored, str):
        return None, stored
    try:
        return ImageScores(stored).value(metric.name, label=_label(trial, metric, data)), ""
    except Unmeasured as error:
        return None, str(error)


def _scores(
    trial: TrialRecord,
    metrics: Sequence[ImageMetric],
    data: StudyData,
    predictions: Callable[[int], Predictions | None],
) -> list[tuple[ImageMetric, Measured | Score | str]]:
    """Return of each metric what a trial shows by it, as far as that is known, or why it has none."""
    from gridsearch.reporting.ranking.inference import Measured
    from gridsearch.reporting.stats.prediction_scores import ImageScores, Score, Unmeasured

    stored = _read(trial, predictions)
    images = None if isinstance(stored, str) else (ImageScores(stored), stored)
    found: list[tuple[ImageMetric, Measured | Score | str]] = []
    for metric in metrics:
        recorded = finite(trial.metrics.get(metric.name)) if metric.recorded else None
        if images is None:
            why = stored if isinstance(stored, str) else ""
            found.append((metric, why if recorded is None else Score(recorded, None, None)))
            continue
        try:
            label = _label(trial, metric, data)
            found.append((metric, Measured.of(*images, metric.name, label=label, recorded=recorded)))
        except Unmeasured as error:
            found.append((metric, str(error)))
    return found


def _read(trial: TrialRecord, predictions: Callable[[int], Predictions | None]) -> Predictions | str:
    """Return a trial's predictions, or why there are none."""
    try:
        stored = predictions(trial.number)
    except ArtifactError as error:
        return error.message
    except (OSError, ValueError) as error:
        return str(error)
    return stored if stored is not None and len(stored.labels) else NOT_STORED


def _label(trial: TrialRecord, metric: ImageMetric, data: StudyData) -> int | None:
    return label_of(metric.name, data.classes_of(trial.settings))


def _whose(missing: Mapping[int, str]) -> str:
    """Say which trials lack a metric, and why: "trial 3 and 2 more (it has no stored validation predictions)"."""
    numbers = {why: number for number, why in reversed(list(missing.items()))}
    words = []
    for group in alike(missing.values()).values():
        more = f" and {plural(len(group) - 1, 'other')}" if len(group) > 1 else ""
        words.append(f"trial {numbers[group[0]]}{more} ({group[0]})")
    left = len(words) - MOST_NAMED
    return "; ".join([*words[:MOST_NAMED], *([f"{plural(left, 'other reason')}"] if left > 0 else [])])
