"""A study's trials as experiment trackers have runs: params, metrics by step, tags, files.

What `mlflow_export` and `wandb_export` write; each run has a digest, so that one that is there is written but once.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gridsearch.reporting.figures.fast_png import quick_confusion_png
from gridsearch.reporting.stats.predictions import confusion_matrix, csv_text, usable
from gridsearch.reporting.words.text import show_params, show_replicate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gridsearch.records import StudyData, TrialRecord, Value
    from gridsearch.reporting.stats.predictions import Predictions

CONFUSION: Final = "confusion"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedRun:
    """A trial that has ended.

    Attributes:
        key: its content address.
        title: "3 lr=0.1 batch=16 seed=0".
        params: all settings, and the seed.
        tags: what else is known of it, as text.
        steps: by epoch or step from 1 on, the metrics that are finite.
        final: the metrics that it ended with, likewise.
        files: by name: the confusion matrix as a picture and as a table.
        digest: of all this; the same for the same content.
    """

    key: str
    title: str
    params: Mapping[str, Value]
    tags: Mapping[str, str]
    steps: Sequence[tuple[int, Mapping[str, float]]]
    final: Mapping[str, float]
    files: Mapping[str, bytes]
    digest: str

    def beyond_steps(self) -> dict[str, float]:
        """Return those of the final metrics that are not what the steps end with, be it for want of any."""
        return _beyond(self.steps, self.final)


def exported_runs(data: StudyData, predictions: Callable[[int], Predictions | None]) -> Iterator[ExportedRun]:
    """Give the trials that have ended, in order of their numbers.

    Args:
        data: the study.
        predictions: the stored validation predictions of a trial by its number.
    """
    for trial in sorted(data.trials, key=lambda trial: trial.number):
        if not trial.state.ended:
            continue
        content: dict[str, Any] = {
            "key": trial.key,
            "title": f"{trial.number} {show_params(trial.params, data.axes, limit=100)} {show_replicate(trial)}",
            "params": {**trial.settings.flat(), **trial.settings.replicate(trial.seed)},
            "tags": _tags(data, trial),
            "steps": [(step, _finite(metrics)) for step, metrics in _steps(data, trial)],
            "final": _finite(trial.metrics),
        }
        files = _confusion(data, trial, predictions)
        shown = {name for _, metrics in content["steps"] for name in metrics}
        text = "" if shown.isdisjoint(_beyond(content["steps"], content["final"])) else "final last "
        text += json.dumps(content, sort_keys=True, default=str) + "".join(
            f"{name} {hashlib.sha256(kept).hexdigest()}" for name, kept in files.items()
        )
        yield ExportedRun(**content, files=files, digest=hashlib.sha256(text.encode()).hexdigest())


def _beyond(steps: Sequence[tuple[int, Mapping[str, float]]], final: Mapping[str, float]) -> dict[str, float]:
    last: dict[str, float] = {}
    for _, metrics in steps:
        last |= metrics
    return {name: value for name, value in final.items() if last.get(name) != value}


def _tags(data: StudyData, trial: TrialRecord) -> dict[str, str]:
    tags = {
        "study": data.name,
        "trial": str(trial.number),
        "state": trial.state.value,
        "ranked_by": data.metric,
    }
    return {**tags, **({"error": trial.error} if trial.error else {})}


def _steps(data: StudyData, trial: TrialRecord) -> Iterator[tuple[int, dict[str, float | None]]]:
    for row in data.epochs.get(trial.number, ()):
        names = [name for name in row.__slots__ if name != "epoch"]
        yield row.epoch, {name: getattr(row, name) for name in names}
    for step in data.steps.get(trial.number, ()):
        yield step.step, dict(step.metrics)


def _finite(metrics: Mapping[str, float | None]) -> dict[str, float]:
    return {
        name: float(value) for name, value in metrics.items() if value is not None and math.isfinite(value)
    }


def _confusion(
    data: StudyData, trial: TrialRecord, predictions: Callable[[int], Predictions | None]
) -> dict[str, bytes]:
    """Return the confusion matrix of a trial as a picture and as CSV, nothing where there are no predictions."""
    found = usable(predictions, trial.number) if data.kind.classifies else None
    if found is None:
        return {}
    matrix = confusion_matrix(found)
    names = data.classes_of(trial.settings) or tuple(map(str, range(len(matrix))))
    text = io.StringIO()
    table = csv.writer(text)
    cells = [csv_text(name) for name in names]
    table.writerow(["true class", *cells])
    table.writerows([name, *map(int, row)] for name, row in zip(cells, matrix, strict=True))
    picture = quick_confusion_png(found, class_names=names, title=f"Trial {trial.number}")
    return {f"{CONFUSION}.png": picture, f"{CONFUSION}.csv": text.getvalue().encode("utf-8", "replace")}
