"""From a ranked study to the numbers that the page's script draws: points, their values, curves; JSON-able.

What is text in a table is text here too, so that a number is written in one way.
"""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gridsearch.records import TrialState
from gridsearch.reporting.figures.marginals import marginal_axes
from gridsearch.reporting.figures.panels import MOST_PANELS, plan_layout, why_missing
from gridsearch.reporting.figures.scale import value_range
from gridsearch.reporting.output.headline import show_interval, show_result
from gridsearch.reporting.ranking.points import Levels, finite
from gridsearch.reporting.ranking.ranking import winners_classes
from gridsearch.reporting.stats.predictions import class_labels, confusion_matrix
from gridsearch.reporting.words.labels import distinct_labels, level_labels
from gridsearch.reporting.words.text import (
    exponent_of,
    is_share,
    metric_name,
    printable,
    show_params,
    show_replicate,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gridsearch.records import StudyData, TrialRecord
    from gridsearch.reporting.ranking.by_metric import ByMetric
    from gridsearch.reporting.ranking.points import RankedPoint
    from gridsearch.reporting.ranking.ranking import Ranking
    from gridsearch.reporting.stats.predictions import Predictions
    from gridsearch.reporting.words.digits import Digits

MOST_POINTS: Final = 2000
"""Of more points a browser draws no lines at ease: the still figures stay."""
MOST_CURVE_LETTERS: Final = 250_000
MOST_CLASSES: Final = 120
"""Of more, the cells of a confusion matrix cannot be pointed at."""
_ANY: Final = 1234567890
"""A number that stands for that of any trial in a command."""
_FEWEST_DIGITS: Final = 6
"""Significant digits of a number that is drawn; `_digits` says of which it has more."""
_ALL_DIGITS: Final = 17
"""So many give any float back."""
_MOST_STEP_PANELS: Final = 4
_IMAGE_PANELS: Final = (("loss", "val_loss", "train_loss"), ("accuracy", "val_accuracy", "train_accuracy"))


def figure_data(
    data: StudyData,
    ranking: Ranking,
    *,
    winner: Predictions | None = None,
    by: Sequence[ByMetric] = (),
    only: int | None = None,
    letters: int = MOST_CURVE_LETTERS,
) -> dict[str, Any] | None:
    """Return what the script draws of a study; None where it draws nothing, since the study is too large or empty.

    Args:
        data: the study.
        ranking: its ranking.
        winner: the predictions of `ranking.best_trial`, or of `only`, whose mistakes are shown; None without.
        by: the study by other metrics, which have intervals and ties then too.
        only: the number of the only trial that is shown, with its point as it stands in the whole study.
        letters: as many as the learning curves may take.

    Each trial has an address on the page, `trial-NUMBER` and `suffix`; `label` names what is shown, and `address` is
    that of the page of its study, where it is another one.
    """
    points = ranking.points
    kept = [i for i, p in enumerate(points) if only is None or any(t.number == only for t in p.trials)]
    if not kept or len(points) > MOST_POINTS:
        return None
    axes = ranking.varying
    levels = {a: Levels(points, a) for a in axes}
    columns = _columns(ranking, by)
    layout = plan_layout(ranking)
    return {
        "study": printable(data.name),
        "label": printable(data.name) if only is None else _trial_label(data, only),
        "suffix": "",
        "address": "",
        "inspect": data.again.trial(_ANY).split(str(_ANY)),
        "unit": data.kind.unit,
        "classifies": data.kind.classifies,
        "metrics": [_metric(c, data) for c in columns],
        "axes": [
            {"name": name, "levels": level_labels(levels[a].values), "joined": levels[a].joined}
            for a, name in zip(axes, distinct_labels(axes, 60), strict=True)
        ],
        "layout": None
        if layout is None
        else {
            "x": axes.index(layout.x),
            "y": axes.index(layout.y),
            "facets": [axes.index(a) for a in layout.facets],
            "mostPanels": MOST_PANELS,
        },
        "marginals": [axes.index(a) for a in marginal_axes(ranking)],
        "points": [_point(i, ranking, levels, columns, only) for i in kept],
        "trials": {
            str(t.number): [_replicate(t), t.state.value, place]
            for place, i in enumerate(kept)
            for t in _shown(points[i].trials, only)
        },
        "curves": _curves(data, ranking, only, letters),
        "confusion": _confusion(data, ranking, winner, only),
    }


def _trial_label(data: StudyData, number: int) -> str:
    """Return what a trial is called below its curves."""
    trial = next(t for t in data.trials if t.number == number)
    return f"trial {number}: {show_params(trial.params, data.axes, limit=160)} {show_replicate(trial)}"


def _shown(trials: Iterable[TrialRecord], only: int | None) -> list[TrialRecord]:
    return [t for t in trials if only in (None, t.number)]


def _replicate(trial: TrialRecord) -> int | str:
    """Return which replicate a trial is, as the page says it after "seed"."""
    settings = trial.settings
    return trial.seed if settings.fold is None else f"{trial.seed}, fold {settings.fold} of {settings.folds}"


def on_one_scale(studies: Sequence[dict[str, Any]]) -> None:
    """Give the metrics that several studies have the same ends of their scales."""
    for name in {metric["name"] for study in studies for metric in study["metrics"]}:
        found = [(s, i) for s in studies for i, m in enumerate(s["metrics"]) if m["name"] == name]
        values = [p["values"][i][0] for s, i in found for p in s["points"] if p["values"][i] is not None]
        better = {s["metrics"][i]["better"] for s, i in found}
        low, high, clipped = value_range(values, better_high=better == {1})
        for study, i in found if len(better) == 1 and values else ():
            study["metrics"][i] |= {"low": finite(low), "high": finite(high), "clipped": clipped}


def as_script_json(value: object) -> str:
    """Return JSON that is safe inside a script element: without "<" no name gives "</script>" or "<!--"."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


@dataclass(frozen=True)
class _Column:
    """A metric of all points: each point as it stands by this metric, in the order of the study's ranking.

    Attributes:
        ranking: by this metric; None where the means alone are known.
        points: None for a point without the metric.
    """

    name: str
    ranking: Ranking | None
    points: Sequence[RankedPoint | None]
    digits: Digits

    def short(self, value: float | None) -> float | None:
        """Return one of its numbers as it is drawn."""
        return _short(value, self._drawn)

    @functools.cached_property
    def _drawn(self) -> int:
        return _digits(self.mean(place) for place in range(len(self.points)))

    def mean(self, place: int) -> float | None:
        """Return a point's mean, None where there is none to draw."""
        point = self.points[place]
        if point is None or not point.drawable:
            return None
        return point.metric_mean(self.name) if self.ranking is None else point.mean


def _columns(ranking: Ranking, by: Sequence[ByMetric]) -> list[_Column]:
    """Return the metric that ranks, then those that rank the points as well, then the others."""
    found = [_Column(ranking.metric, ranking, ranking.points, ranking.digits_of())]
    for other in by:
        if other.metric.name == ranking.metric:
            continue
        own = {p.trials[0].number: p for p in other.ranking.listed}
        points = [own.get(p.trials[0].number) for p in ranking.points]
        found.append(_Column(other.metric.name, other.ranking, points, other.ranking.digits_of()))
    known = {column.name for column in found}
    found += [
        _Column(name, None, ranking.points, ranking.digits_of(name))
        for name in ranking.others
        if name not in known
    ]
    return found


def _metric(column: _Column, data: StudyData) -> dict[str, Any]:
    """Return a metric and the ends of its scale: `better` is 1 where higher is better, -1 where lower is, else 0."""
    name = column.name
    if column.ranking is not None:
        better = -1 if column.ranking.direction == "minimize" else 1
    elif not data.kind.classifies:
        better = 0
    else:
        better = 1 if is_share(name) else -1
    values = [v for i in range(len(column.points)) if (v := column.mean(i)) is not None]
    low, high, clipped = value_range(values, better_high=better > 0)
    if not better and values:
        low, high, clipped = min(values), max(values), ""
        low, high = (low, high) if low < high else value_range(values, better_high=True)[:2]
    return {
        "name": name,
        "title": metric_name(name),
        "share": is_share(name, values),
        "better": better,
        "low": column.short(low),
        "high": column.short(high),
        "clipped": clipped,
    }


def _point(
    place: int,
    ranking: Ranking,
    levels: dict[str, Levels],
    columns: Sequence[_Column],
    only: int | None,
) -> dict[str, Any]:
    point = ranking.points[place]
    others = [t for t in point.trials if t not in point.complete]
    return {
        "at": [own.place(point) for own in levels.values()],
        "words": show_params(point.params, ranking.varying, limit=200),
        "rank": point.rank,
        "replicates": point.replicates if point.n else "",
        "lost": "" if point.drawable else " ".join(why_missing(point).split()),
        **({"flattered": True} if point.pruned and point.drawable else {}),
        "trials": [t.number for t in _shown((*point.complete, *others), only)],
        "seconds": _short(point.seconds),
        "values": [_value(column, place) for column in columns],
    }


def _value(column: _Column, place: int) -> list[Any] | None:
    """Return a point's mean of a metric, the ends of its interval, both as text, its rank, and how it stands."""
    point, mean = column.points[place], column.mean(place)
    if point is None or mean is None:
        return None
    if column.ranking is None:
        return [column.short(mean), None, None, column.digits.show(mean), "", None, ""]
    ends = (column.short(point.ci_low), column.short(point.ci_high))
    texts = (show_result(point, column.digits), show_interval(point, column.digits))
    best = point is column.ranking.best
    return [
        column.short(mean),
        *ends,
        *texts,
        point.rank,
        "best" if best else "tied" if point.tied_with_best else "",
    ]


def _curves(data: StudyData, ranking: Ranking, only: int | None, most: int) -> dict[str, Any]:
    """Return the learning curves by trial, the best points' first, as many as the page has place for."""
    panels = _IMAGE_PANELS if data.kind.classifies else _step_panels(data)
    names = [name for _, *lines in panels for name in lines]
    found: dict[str, list[list[float | None]]] = {}
    letters = left_out = 0
    trials = _shown(_trials(ranking), only)
    digits = [_digits(v for t in trials for v in _line(data, t, name)) for name in names]
    for trial in trials:
        lines = _lines(data, trial, names, digits)
        if not any(lines):
            continue
        letters += len(json.dumps(lines))
        if letters > most:
            left_out += 1
        else:
            found[str(trial.number)] = lines
    drawn = []
    for title, *shown in panels:
        place = names.index(shown[0])
        share = is_share(shown[0], (value for each in found.values() for value in each[place]))
        drawn.append({"title": title, "share": share, "lines": [_line_name(n) for n in shown]})
    more = 0 if data.kind.classifies else len(_yielded(data)) - len(panels)
    return {"panels": drawn, "trials": found, "leftOut": left_out, "moreMetrics": max(0, more)}


def _confusion(
    data: StudyData, ranking: Ranking, winner: Predictions | None, only: int | None
) -> dict[str, Any] | None:
    """Return the confusion matrix of the winner, or of the only trial, and how far its probabilities can be trusted."""
    from gridsearch.reporting.stats.reliability import reliability  # brings scipy

    if winner is None:
        return None
    classes, of = winners_classes(data, ranking), whose(ranking)
    if only is not None:
        classes, of = (
            data.classes_of(next(t for t in data.trials if t.number == only).settings),
            f"trial {only}",
        )
    matrix = confusion_matrix(winner)
    drawable = len(matrix) <= MOST_CLASSES
    return {
        "of": of,
        "names": class_labels(classes, len(matrix)) if drawable else (),
        "matrix": matrix.tolist() if drawable else None,
        "bins": [b.to_json() for b in reliability(winner)],
    }


def whose(ranking: Ranking) -> str:
    """Return whose predictions stand for the winner: "trial 38", or those of all its folds."""
    if ranking.best is None or ranking.best_trial is None:
        return ""
    return (
        f"trial {ranking.best_trial.number}" if ranking.best.folds is None else "the winner's folds together"
    )


def _trials(ranking: Ranking) -> Iterator[TrialRecord]:
    for point in ranking.points:
        yield from (t for t in point.trials if t.state is not TrialState.FAILED)


def _step_panels(data: StudyData) -> list[tuple[str, str]]:
    shown = _yielded(data)[:_MOST_STEP_PANELS]
    return list(zip(distinct_labels([metric_name(n) for n in shown], 60), shown, strict=True))


def _yielded(data: StudyData) -> list[str]:
    """Return the names of all metrics that a function yielded, the ranking one first."""
    names = (name for rows in data.steps.values() for row in rows for name in row.metrics)
    return list(dict.fromkeys([data.metric, *names]))


def _line_name(metric: str) -> str:
    return {"val": "validation", "train": "train"}.get(metric.partition("_")[0], metric_name(metric))


def _lines(
    data: StudyData, trial: TrialRecord, names: Sequence[str], digits: Sequence[int]
) -> list[list[float | None]]:
    lines = [
        [_short(v, most) for v in _line(data, trial, name)] for name, most in zip(names, digits, strict=True)
    ]
    return [line if any(v is not None for v in line) else [] for line in lines]


def _line(data: StudyData, trial: TrialRecord, name: str) -> list[float | None]:
    """Return a trial's curve of a metric."""
    if data.kind.classifies:
        return [getattr(row, name) for row in data.epochs.get(trial.number, ())]
    return [row.metrics.get(name) for row in data.steps.get(trial.number, ())]


def _short(value: float | None, digits: int = _FEWEST_DIGITS) -> float | None:
    """Return a number with so many significant digits, None for none and for what is not finite."""
    found = finite(value)
    return None if found is None or not math.isfinite(found) else float(f"{found:.{digits}g}")


def _digits(values: Iterable[float | None]) -> int:
    """Return how many significant digits of some numbers can be seen where they are drawn on one scale.

    What is far off the others does not count: it is drawn at the end of the scale.
    """
    found = sorted(v for value in values if (v := finite(value)) is not None)
    if not found:
        return _FEWEST_DIGITS
    tenth = len(found) // 10
    spread = found[-1 - tenth] - found[tenth] or found[-1] - found[0]
    size = max(abs(found[tenth]), abs(found[-1 - tenth]))
    if not (spread and size and math.isfinite(spread)):
        return _FEWEST_DIGITS
    more = max(0, exponent_of(size) - exponent_of(spread))
    return min(_FEWEST_DIGITS + more, _ALL_DIGITS)
