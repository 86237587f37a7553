"""A study ranked by another metric than its own, from what its trials recorded and from their stored predictions."""

from __future__ import annotations

import numpy as np
import pytest

from gridsearch.errors import ArtifactError, UsageError
from gridsearch.records import TrialState
from gridsearch.reporting.ranking.by_metric import every_metric, ranked_by
from gridsearch.reporting.ranking.ranking import rank
from gridsearch.reporting.stats.prediction_scores import ImageScores
from gridsearch.reporting.stats.predictions import Predictions

CLASSES = ("0", "odd: class=1, 'x'", "T-shirt/top", "")


def answers(number: int, images: int = 300) -> Predictions:
    """Return answers that get better with the number, and that are too sure with an even one."""
    rng = np.random.default_rng(4)
    labels = rng.integers(0, len(CLASSES), images)
    logits = rng.normal(size=(images, len(CLASSES)))
    logits[np.arange(images), labels] += 0.7 * (number + 1)
    return Predictions((logits * (4 if number % 2 == 0 else 1)).astype(np.float32), labels)


@pytest.fixture
def graded(study):
    """Four points of one seed with accuracies and losses as their predictions say."""
    built = study({"lr": [0.1, 0.01, 0.001, 0.0001]}, class_names=CLASSES)
    for number in range(4):
        scores = ImageScores(answers(number))
        built.score(number, scores.value("val_accuracy"), val_loss=scores.value("val_loss"))
    return built


def by(data, metric):
    return ranked_by(data, metric, predictions=answers)[0]


def test_accuracy_is_the_study_itself(graded):
    data = graded.data()
    assert by(data, "accuracy") is data


@pytest.mark.parametrize("metric", ["macro_f1", "balanced_accuracy", "loss", "ece", "top3", "auc"])
def test_points_rank_by_the_metric_and_in_its_direction(graded, metric):
    data = by(graded.data(), metric)
    ranking = rank(data, predictions=answers)
    values = [ImageScores(answers(n)).value(data.metric) for n in range(4)]
    expected = sorted(range(4), key=lambda n: values[n] if metric in ("loss", "ece") else -values[n])
    assert [p.trials[0].number for p in ranking.points] == expected
    assert ranking.points[0].mean == pytest.approx(values[expected[0]])
    assert ranking.direction == data.direction == ("minimize" if metric in ("loss", "ece") else "maximize")
    assert all(p.ci_low < p.mean <= p.ci_high for p in ranking.points)
    assert ranking.points[0].tied_with_best and not ranking.points[-1].tied_with_best


def test_the_recall_of_a_class_is_asked_for_by_its_name_whatever_that_holds(graded):
    data = graded.data()
    for label, name in enumerate(CLASSES):
        found = by(data, f"recall:{name or label}")
        assert found.metric == f"recall:{name or label}"
        recall = ImageScores(answers(2)).value(found.metric, label=label)
        assert found.trials[2].metrics[found.metric] == found.trials[2].value == recall


def test_an_unknown_metric_or_class_is_an_error_that_names_the_nearest(graded):
    data = graded.data()
    with pytest.raises(UsageError, match="'macro_f2' is not known; did you mean 'macro_f1'"):
        by(data, "macro_f2")
    with pytest.raises(UsageError, match="no class 't-shirt'; did you mean 'T-shirt/top'"):
        by(data, "recall:t-shirt")
    with pytest.raises(UsageError, match="did you mean 'recall:CLASS'"):
        by(data, "recall:")


def test_over_seeds_intervals_and_ties_are_those_of_student_for_any_metric(study):
    built = study({"lr": [0.1, 0.01]}, seeds=3, class_names=CLASSES)
    data = by(built.data(), "ece")
    ranking = rank(data, predictions=answers)
    assert ranking.uncertainty.basis == "seeds"
    for point in ranking.points:
        assert 0 <= point.ci_low < point.mean < point.ci_high
        assert point.n == 3


def test_what_was_recorded_counts_and_not_what_rounded_logits_say(graded):
    data = graded.score(3, 0.5, val_loss=0.125).data()
    found = by(data, "loss")
    assert found.trials[3].value == 0.125
    point = rank(found, predictions=answers).points[0]
    assert point.mean == 0.125 and point.ci_low < 0.125 < point.ci_high


def test_a_trial_without_the_metric_is_named_and_never_stands_in_by_its_accuracy(graded):
    data = graded.data()
    found, notes = ranked_by(data, "ece", predictions=lambda n: None if n in (1, 2) else answers(n))
    assert found.trials[1].value is None
    ranking = rank(found, predictions=answers)
    assert [p.trials[0].number for p in ranking.points if p.mean is None] == [1, 2]
    assert notes == ("not ranked by ece: trial 1 and 1 other (it has no stored validation predictions)",)


def test_a_metric_that_no_stored_predictions_give_is_one_error_with_the_reason(graded, study):
    with pytest.raises(ArtifactError, match=r"ranked by auc: trial 0 and 3 others \(it has no stored"):
        ranked_by(graded.data(), "auc", predictions=lambda _: None)

    def gone(number: int) -> None:
        raise ArtifactError(f"trials/{number}/predictions cannot be read")

    with pytest.raises(ArtifactError, match=r"trial 0 and 3 others \(trials/0/predictions cannot be read\)$"):
        ranked_by(graded.data(), "auc", predictions=gone)
    two = study({"lr": [0.1]}, class_names=("a", "b")).data()

    def pairs(_: int) -> Predictions:
        labels = np.array([0, 1, 1, 0])
        return Predictions(np.eye(2)[labels], labels)

    with pytest.raises(ArtifactError, match="there are only 2 classes"):
        ranked_by(two, "top3", predictions=pairs)
    none_held_out = study({"lr": [0.1]}, val=0).data()
    with pytest.raises(ArtifactError, match="no stored validation predictions"):
        ranked_by(none_held_out, "macro_f1", predictions=lambda _: None)


def test_every_metric_gives_each_trial_its_value_and_interval_and_each_point_its_ranking(graded):
    data = graded.lose(1, TrialState.FAILED, "boom").data()
    found = {m.metric.word: m for m in every_metric(data, predictions=answers)}
    assert list(found) == ["accuracy", "balanced_accuracy", "macro_f1", "loss", "top3", "auc", "ece"]
    for each in found.values():
        assert sorted(each.scores) == [0, 2, 3] and not each.missing
        assert all(s.ci_low <= s.value <= s.ci_high for s in each.scores.values())
        assert each.ranking.metric == each.metric.name == each.data.metric
        assert each.ranking.points[0].mean == each.scores[each.ranking.best_trial.number].value
    assert found["accuracy"].data is data
    only = every_metric(data, predictions=answers, names=["recall:T-shirt/top"])
    assert [m.metric.name for m in only] == ["recall:T-shirt/top"]


def test_every_metric_leaves_out_what_nothing_gives_and_keeps_what_was_recorded(graded, study):
    found = every_metric(graded.data(), predictions=lambda _: None)
    assert [m.metric.word for m in found] == ["accuracy", "loss"]
    assert found[0].scores[2].ci_low is None
    assert every_metric(study({"lr": [0.1]}, val=0).data(), predictions=answers) == ()


def test_what_was_measured_once_gives_the_ranking_that_reading_anew_gives(graded):
    for one in every_metric(graded.data(), predictions=answers):
        assert one.ranking == rank(one.data, predictions=answers)
