"""From a ranking to the JSON (schema 1) that scripts read: `report --json`, `ranking.json`, `export`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gridsearch.reporting.findings.study_findings import find
from gridsearch.reporting.ranking.effects import decompose
from gridsearch.reporting.ranking.fold_results import folds_of
from gridsearch.reporting.ranking.points import RankedPoint, finite, levels_of, metric_value
from gridsearch.reporting.ranking.ranking import TRIAL_METRICS, Ranking, rank
from gridsearch.reporting.words.typed import ABSENT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gridsearch.records import Part, StudyData, TrialRecord

SCHEMA = 1

_OF_POINTS = ("n", "mean", "spread", "ci_low", "ci_high", "tied_with_best", "seconds", "diverged", "pruned")


def report_json(data: StudyData, *, ranking: Ranking | None = None) -> dict[str, Any]:
    """Return the report as a JSON-able mapping of schema 1.

    Args:
        data: the study.
        ranking: `rank(data)` where the caller has it already.
    """
    ranking = ranking or rank(data)
    decomposition = decompose(ranking)
    best, best_trial = ranking.best, ranking.best_trial
    return {
        "schema": SCHEMA,
        "study": data.name,
        "dataset": data.dataset,
        "objective": data.dataset if data.kind.subject == "objective" else None,
        "metric": data.metric,
        "direction": data.direction,
        **({"study_metric": data.own_metric} if data.own_metric else {}),
        **({} if data.part is None else {"part": _part(data.part)}),
        **_recipes(ranking),
        **_sample(data),
        "counts": dict(ranking.counts),
        "points": [
            *(_point(p, data.metric) for p in ranking.points),
            *({**_point(p, data.metric), **_apart(p, ranking)} for p in ranking.incomparable),
        ],
        "trials": [_trial(t, data.metric) for t in sorted(data.trials, key=lambda t: t.number)],
        "effects": [{"axis": e.axis, "share": e.share} for e in decomposition.effects],
        "residual_share": decomposition.residual_share,
        **({} if decomposition.exact else {"confounded_share": decomposition.confounded_share}),
        "findings": [f.to_json() for f in find(data, ranking)],
        "ensembles": [e.to_json() for e in ranking.ensembles],
        **({} if ranking.pareto is None else {"pareto": ranking.pareto.to_json()}),
        "best": {"params": dict(best.params), "trial": best_trial.number} if best and best_trial else None,
        "test": dict(data.test) if data.test is not None else None,
    }


def export_json(data: StudyData, *, ranking: Ranking | None = None) -> str:
    """Return `report_json` as text; see `as_lines`."""
    return as_lines(report_json(data, ranking=ranking))


def as_lines(content: Mapping[str, Any]) -> str:
    """Return the content of a report as text, one key or list item a line; strict JSON, without NaN."""
    parts = []
    for key, value in content.items():
        if isinstance(value, list) and value:
            items = ",\n  ".join(json.dumps(item, allow_nan=False) for item in value)
            parts.append(f"{json.dumps(key)}: [\n  {items}\n ]")
        else:
            parts.append(f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}")
    return "{\n " + ",\n ".join(parts) + "\n}\n"


def _part(part: Part) -> dict[str, Any]:
    """Return which trials these are; that a point lacks an axis is `{"absent": true}`."""
    return {
        "where": {name: {"absent": True} if v == ABSENT else v for name, v in part.where.items()},
        "words": part.words,
        "trials": part.trials,
        "of": part.of,
    }


def _recipes(ranking: Ranking) -> dict[str, Any]:
    """Return the settings in which the study's recipes differ, with their values; nothing where there is one."""
    mixed = {axis: [v for v in levels_of(ranking.points, axis) if v != ABSENT] for axis in ranking.mixed}
    return {"recipes": mixed} if mixed else {}


def _sample(data: StudyData) -> dict[str, Any]:
    """Return how many points of the grid were asked for, and in which order; nothing where all were, as given."""
    order = {"order": data.spec["order"]} if "order" in data.spec else {}
    if data.sample is None:
        return order
    count, of = data.sample
    return {"sample": {"points": count, "of": of}, **order}


def _point(point: RankedPoint, metric: str) -> dict[str, Any]:
    names = dict.fromkeys(name for trial in point.complete for name in trial.metrics)
    return {
        "rank": point.rank,
        "params": dict(point.params),
        **{name: getattr(point, name) for name in _OF_POINTS},
        "metrics": {name: point.metric_mean(name) for name in names},
        **({} if point.folds is None else {"folds": [fold.to_json() for fold in folds_of(point, metric)]}),
    }


def _apart(point: RankedPoint, ranking: Ranking) -> dict[str, Any]:
    """Say with which points a point is ranked separately, and whether that is because of its images."""
    images = {p.settings.data_fingerprint for p in ranking.points}
    other = {"other_images": True} if point.settings.data_fingerprint not in images else {}
    return {"apart": point.apart, **other}


def _trial(trial: TrialRecord, metric: str) -> dict[str, Any]:
    value = metric_value(trial, metric)
    return {
        "number": trial.number,
        "params": dict(trial.params),
        **trial.settings.replicate(trial.seed),
        "state": trial.state.value,
        "value": value,
        "metrics": {name: finite(x) for name, x in trial.metrics.items()},
        **{name: finite(trial.metrics.get(name)) for name in TRIAL_METRICS},
        "epochs": trial.epochs,
        "stopped_early": trial.stopped_early,
        "seconds": finite(trial.seconds),
        "attempts": trial.attempts,
        "error": trial.error,
        "pruned_by": trial.pruner,
    }
