"""From logits of the test images to what is recorded of them: accuracy with its interval, and every class.

`best` calls it once for a study; what it returns is JSON-able and is shown by report, page and model card.

K seeds, N images, Y classes.
"""

from __future__ import annotations

import math
import statistics
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from gridsearch.records.image_metrics import ACCURACY, LOSS, TRAIN_ACCURACY, label_of
from gridsearch.reporting.stats.predictions import (
    Predictions,
    balanced_accuracy,
    confusion_matrix,
    describe_pairs,
    macro_f1,
    most_confused,
    per_class,
)
from gridsearch.reporting.words.digits import Digits
from gridsearch.reporting.words.text import metric_name, plural, show_params

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CONFIDENCE = 0.95


def evaluate(logits_KNY: np.ndarray, labels_N: np.ndarray, *, seeds: Sequence[int]) -> dict[str, Any]:
    """Score networks that differ in their seed alone on the test images.

    Args:
        logits_KNY: float [K, N, Y].
        labels_N: int [N].
        seeds: of the K networks.

    Returns:
        `accuracy` (mean over seeds), `ci_low`, `ci_high` and `interval` (what kind it is), `images`, `seeds`
        (seed, accuracy, balanced_accuracy and macro_f1 of each), and the means `balanced_accuracy`, `macro_f1`.
    """
    matrices = [confusion_matrix(Predictions(logits_NY, labels_N)) for logits_NY in logits_KNY]
    each = [
        {
            "seed": int(seed),
            "accuracy": int(matrix.trace()) / len(labels_N),
            "balanced_accuracy": balanced_accuracy(matrix),
            "macro_f1": macro_f1(matrix),
        }
        for seed, matrix in zip(seeds, matrices, strict=True)
    ]
    accuracies = [float(one["accuracy"]) for one in each]
    low, high, kind = _interval(accuracies, images=len(labels_N))
    return {
        "metric": "test_accuracy",
        **{
            name: statistics.fmean(one[name] for one in each)
            for name in ("accuracy", "balanced_accuracy", "macro_f1")
        },
        "ci_low": low,
        "ci_high": high,
        "interval": kind,
        "images": len(labels_N),
        "seeds": each,
    }


def chosen_by(
    logits_KNY: np.ndarray, labels_N: np.ndarray, *, metric: str, class_names: Sequence[str]
) -> dict[str, Any]:
    """Return the metric by which a point was chosen, on the test images.

    Args:
        logits_KNY: float [K, N, Y].
        labels_N: int [N].
        metric: its name; of the training images their accuracy stands for that of the test images.
        class_names: by label.

    Returns:
        `metric`, `value` (mean over seeds), `ci_low` and `ci_high`: over seeds where these differ, else over images;
        `value` None where the test images cannot give it.
    """
    from gridsearch.reporting.stats.over_seeds import mean_intervals  # scipy.stats, which few need
    from gridsearch.reporting.stats.prediction_scores import ImageScores, Unmeasured

    label, asked = label_of(metric, class_names), ACCURACY if metric == TRAIN_ACCURACY else metric
    try:
        scores = [ImageScores(Predictions(one, labels_N)).score(asked, label=label) for one in logits_KNY]
    except Unmeasured:
        return {"metric": metric, "value": None, "ci_low": None, "ci_high": None}
    values = np.array([[score.value for score in scores]])
    low, high = map(float, mean_intervals(values)[0])
    if math.isnan(low):
        found = scores[0].ci_low, scores[0].ci_high
    else:
        found = max(0.0, low), high if metric == LOSS else min(1.0, high)
    return {"metric": metric, "value": float(values.mean()), "ci_low": found[0], "ci_high": found[1]}


def _interval(accuracies: Sequence[float], *, images: int) -> tuple[float, float, str]:
    """Return the ends of a 95 % interval and what it is.

    Over several seeds Student's t interval of the mean; with one seed, or where all seeds give one value and so
    show no scatter, Wilson's interval of a proportion (E. B. Wilson, "Probable inference, the law of succession, and
    statistical inference", JASA 22, 1927).
    """
    from scipy.special import stdtrit
    from scipy.stats import binomtest  # type: ignore[attr-defined]

    if len(set(accuracies)) == 1:
        hits = round(accuracies[0] * images)
        found = binomtest(hits, images).proportion_ci(CONFIDENCE, method="wilson")
        return float(found.low), float(found.high), "images"
    mean = statistics.fmean(accuracies)
    half = float(stdtrit(len(accuracies) - 1, (1 + CONFIDENCE) / 2))
    half *= statistics.stdev(accuracies) / math.sqrt(len(accuracies))
    return max(0.0, mean - half), min(1.0, mean + half), "seeds"


def classes(logits_NY: np.ndarray, labels_N: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """Return one network's results class by class, and its commonest mistakes in words, for the model card."""
    matrix = confusion_matrix(Predictions(logits_NY, labels_N))
    return {
        "classes": [
            {
                "class": r.name,
                "images": r.images,
                "recall": r.recall,
                "precision": r.precision,
                "f1": r.f1,
                "taken_for": r.taken_for,
            }
            for r in per_class(matrix, class_names)
        ],
        "mistakes": list(describe_pairs(most_confused(matrix, class_names, limit=5))),
    }


def in_words(test: Mapping[str, Any]) -> str:
    """Return the result in words: whose it is, how good, how sure, and whether it was a clean test."""
    width = test["ci_high"] - test["ci_low"]
    digits = Digits.of([test["accuracy"]], "test_accuracy").finer(width)
    low, high = digits.show(test["ci_low"], unit=False), digits.show(test["ci_high"])
    whose = f" {show_params(test['params'], limit=160)}" if test.get("params") else ""
    reading, chosen = reading_words(test), chosen_words(test)
    return (
        f"On the test set ({plural(test['images'], 'image')}){whose}: {digits.show(test['accuracy'])} accuracy, 95 % "
        f"interval {low} to {high} ({interval_words(test)}). {chosen}{' ' * bool(chosen)}"
        f"The test set was {reading}."
    )


def chosen_words(test: Mapping[str, Any]) -> str:
    """Return the metric by which the point was chosen in a sentence; "" where that is the accuracy."""
    chosen = test.get("chosen_by")  # which older stores do not have
    if chosen is None or chosen["metric"] in (ACCURACY, TRAIN_ACCURACY):
        return ""
    name = metric_name(chosen["metric"].removeprefix("val_"))
    if chosen["value"] is None:
        return f"The point was chosen by its {name}, which cannot be computed on these images."
    digits = Digits.of([chosen["value"]], chosen["metric"]).finer(chosen["ci_high"] - chosen["ci_low"])
    low, high = digits.show(chosen["ci_low"], unit=False), digits.show(chosen["ci_high"])
    return f"Its {name}, by which it was chosen, is {digits.show(chosen['value'])}, 95 % interval {low} to {high}."


def interval_words(test: Mapping[str, Any]) -> str:
    """Return what the interval covers."""
    seeds = plural(len(test["seeds"]), "seed")
    if test["interval"] == "seeds":
        return f"Student's t over {seeds}"
    luck = "Wilson's over the images, which does not cover variation between seeds"
    if len(test["seeds"]) == 1:
        return f"one seed; {luck}"
    return f"Student's t over {seeds} of equal value has no width; {luck}"


def reading_words(test: Mapping[str, Any]) -> str:
    """Return when the test images were read, and whether for the first time."""
    day = f"{datetime.fromisoformat(test['when']).astimezone():%Y-%m-%d}"  # as on the wall, not in UTC
    if test["clean"]:
        return f"used once, on {day}"
    return f"used {test['reading']} times, last on {day}: no longer a clean test"
