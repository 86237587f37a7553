"""What the page holds for its script: small enough, the numbers of the tables, and answers that unpack to what was stored."""

import base64
import dataclasses
import json
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsearch.plugins import ImageData
from gridsearch.records import TrialState
from gridsearch.reporting import Predictions, rank, write_report
from gridsearch.reporting.output import answer_data as packing
from gridsearch.reporting.output.answer_data import Asked, answer_data
from gridsearch.reporting.output.figure_data import MOST_POINTS, as_script_json, figure_data, on_one_scale
from gridsearch.reporting.output.page import Drawn
from gridsearch.reporting.output.shown_metrics import shown_metrics
from gridsearch.reporting.stats.predictions import confident_mistakes
from gridsearch.reporting.stats.reliability import calibration_error, reliability


def some_answers(number, images=600, classes=10, indices=True):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, images)
    logits = rng.normal(0, 1, (images, classes)).astype(np.float32)
    logits += np.random.default_rng(number).normal(0, 0.7, logits.shape)
    logits[np.arange(images), labels] += np.where(rng.random(images) < 0.85, 6.0, 1.5)
    return Predictions(logits, labels, indices=np.arange(images) if indices else None)


def test_a_page_of_200_trials_with_images_and_curves_stays_below_two_megabytes(tmp_path, study):
    axes = {
        "lr": [0.1, 0.03, 0.01, 0.003, 0.001],
        "batch": [10, 20, 50, 100, 200],
        "norm": ["none", "standard"],
    }
    data = study({**axes, "model.width": [1, 2, 3, 4]}, epochs=30).data()
    labels = some_answers(0).labels
    pixels = np.random.default_rng(1).integers(0, 255, (600, 1, 28, 28), dtype=np.uint8)  # as large as any
    images = ImageData(
        train_images=pixels,
        train_labels=labels,
        test_images=None,
        test_labels=None,
        class_names=data.class_names,
    )
    files = write_report(data, folder=tmp_path, predictions=some_answers, images=lambda _: images)
    assert len(data.trials) == 200
    page = files.page.read_text()
    assert len(page.encode()) < 2_000_000
    answers = json.loads(page.partition('data-figures="answers">')[2].partition("</script>")[0])
    assert len(answers["groups"][0]["trials"]) == 200, "none had to be left out"


def answers_of(data, ranking, predictions):
    return answer_data([Asked(data=data, ranking=ranking, predictions=predictions)])


def unpacked(text, kind):
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), kind)


def whole_table(group, kind):
    """Unpack the table as the page does: a number of zeros before each that is not 0, 255 for as many and more."""
    zeros, others = unpacked(group["guesses"][0], "u1"), iter(unpacked(group["guesses"][1], kind))
    flat = []
    for count in zeros:
        flat += [0] * int(count)
        if count < 255:
            flat.append(int(next(others)))
    size = group["images"] * len(group["trials"])
    return np.array(flat + [0] * (size - len(flat))).reshape(group["images"], -1)


@pytest.mark.parametrize("classes", [3, 300])
def test_packed_answers_unpack_to_what_every_trial_chose(study, classes):
    data = study({"lr": [0.1, 0.01]}, seeds=2, class_names=()).data()
    ranking = rank(data)
    found = answers_of(data, ranking, lambda n: some_answers(n, 60, classes))
    (group,) = found["groups"]
    kind = "<u1" if group["bytes"] == 1 else "<u2"
    labels = unpacked(group["labels"], kind).astype(int)
    table = whole_table(group, kind)
    for column, key in enumerate(group["trials"]):
        stored = some_answers(int(key.removeprefix("0:")), 60, classes)
        assert ((labels + table[:, column]) % classes == stored.guesses).all()
        assert sum(images for _, images, *_ in found["bins"][key]) == 60
    assert (unpacked(group["places"], "<u4") == np.arange(60)).all()
    assert group["trials"][0] == f"0:{ranking.best_trial.number}"


def test_trials_of_other_images_stand_apart_and_the_best_stay_where_not_all_fit(study, monkeypatch):
    data = study({"lr": [0.1, 0.01, 0.001]}, seeds=2).data()
    ranking = rank(data)
    first = ranking.best_trial.number
    found = answers_of(data, ranking, lambda n: some_answers(n, 60 if n == first else 50))
    assert [len(g["trials"]) for g in found["groups"]] == [1, 5]
    monkeypatch.setattr(packing, "MOST_LETTERS", 120)
    (group,) = answers_of(data, ranking, lambda n: some_answers(n, 200))["groups"]
    order = [f"0:{t.number}" for p in ranking.points for t in p.complete]
    assert group["trials"] == order[: len(group["trials"])]
    assert 1 <= len(group["trials"]) < 6


def test_each_trial_has_its_most_confident_errors(study):
    data = study({"lr": [0.1, 0.01]}).data()
    (group,) = answers_of(data, rank(data), some_answers)["groups"]
    for key, errors in zip(group["trials"], group["errors"], strict=True):
        surest = confident_mistakes(some_answers(int(key[2:])), limit=8)
        assert [image for image, _ in errors] == [m.image for m in surest]
        assert [p for _, p in errors] == pytest.approx([m.probability for m in surest], rel=1e-3)


def test_trials_of_several_studies_on_the_same_images_stand_together_the_best_of_each_first(study):
    one, two = (
        study({"lr": rates}, name=name).data() for name, rates in (("a", [0.1, 0.01]), ("b", [0.001]))
    )
    sides = [Asked(data=d, ranking=rank(d), predictions=some_answers) for d in (one, two)]
    (group,) = answer_data(sides)["groups"]
    assert group["trials"] == ["0:1", "1:0", "0:0"]


def test_one_trial_is_drawn_as_it_stands_in_its_study(study):
    data = study({"lr": [0.1, 0.01]}, seeds=2).data()
    whole, alone = figure_data(data, rank(data)), figure_data(data, rank(data), only=0)
    (point,) = alone["points"]
    assert point["trials"] == [0] and list(alone["trials"]) == ["0"]
    assert {**point, "trials": [0, 1]} == next(p for p in whole["points"] if 0 in p["trials"])
    assert list(alone["curves"]["trials"]) == ["0"]


def test_studies_beside_each_other_have_one_scale(study):
    found = [figure_data(d, rank(d)) for d in (study({"lr": [lr, 0.002]}).data() for lr in (0.003, 0.001))]
    ends = {(s["metrics"][0]["low"], s["metrics"][0]["high"]) for s in found}
    assert len(ends) == 2
    on_one_scale(found)
    assert {(s["metrics"][0]["low"], s["metrics"][0]["high"]) for s in found} == {
        (min(low for low, _ in ends), max(high for _, high in ends))
    }


def test_figures_have_the_values_intervals_and_ties_of_the_ranking_by_each_metric(study):
    data = study({"lr": [0.1, 0.01]}, seeds=3).lose(0, TrialState.DIVERGED).data()
    by = shown_metrics(data, predictions=lambda n: some_answers(n, 200))
    found = figure_data(data, rank(data), by=by)
    names = [m["name"] for m in found["metrics"]]
    assert names[0] == "val_accuracy" and {"val_loss", "ece", "auc", "top3"} <= set(names)
    for one in by:
        column = names.index(one.metric.name)
        for point in one.ranking.points:
            drawn = next(
                p
                for p in found["points"]
                if p["trials"][-1] == point.trials[-1].number or point.trials[0].number in p["trials"]
            )
            value = drawn["values"][column]
            if point.drawable:
                assert value[0] == pytest.approx(point.mean, rel=1e-5)
                assert value[6] == (
                    "best" if point is one.ranking.best else "tied" if point.tied_with_best else ""
                )
            else:
                assert value is None and drawn["lost"].startswith("diverged")


def test_numbers_that_differ_in_late_digits_are_drawn_apart(study):
    builder = study({"lr": [0.1, 0.01, 0.001]}, epochs=4)
    losses = [-1_000_000.001, -1_000_000.002, -1_000_000.004]
    for number, loss in enumerate(losses):
        builder.score(number, 0.5, val_loss=loss)
        rows = builder.epochs[number]
        builder.epochs[number] = tuple(
            dataclasses.replace(row, val_loss=loss + 0.001 * (4 - row.epoch)) for row in rows
        )
    data = builder.data(metric="val_loss", direction="minimize")
    found = figure_data(data, rank(data))
    assert [p["values"][0][0] for p in found["points"]] == losses[::-1]
    assert (found["metrics"][0]["low"], found["metrics"][0]["high"]) == (min(losses), max(losses))
    curve = found["curves"]["trials"]["0"][0]
    assert curve == pytest.approx([losses[0] + 0.001 * (4 - e) for e in (1, 2, 3, 4)], rel=1e-12)
    assert len(set(curve)) == 4


def test_a_study_of_very_many_points_keeps_its_still_figures(study):
    data = study({"batch": list(range(1, MOST_POINTS + 2))}, epochs=1).data()
    found = figure_data(data, rank(data))
    assert found is None
    assert not Drawn.of([found]).studies


@given(st.text())
def test_no_text_ends_a_script_element(text):
    packed = as_script_json({text: [text]})
    assert "<" not in packed
    assert json.loads(packed) == {text: [text]}


def test_reliability_counts_every_image_once_and_its_error_is_that_of_the_ranking():
    stored = some_answers(3, 500)
    bins = reliability(stored)
    assert sum(b.images for b in bins) == 500
    assert sum(b.right for b in bins) == int(stored.right.sum())
    assert all(b.low < b.confidence <= b.high and b.ci_low <= b.accuracy <= b.ci_high for b in bins)
    from gridsearch.reporting.stats.prediction_scores import ImageScores

    assert calibration_error(bins) == pytest.approx(ImageScores(stored).value("ece"), rel=1e-9)
    broken = dataclasses.replace(stored, logits=np.full_like(stored.logits, np.nan))
    assert reliability(broken) == ()


@pytest.mark.parametrize("zeros", [0, 1, 254, 255, 256, 510, 511])
def test_a_long_run_of_right_answers_unpacks_to_as_many(study, zeros):
    labels = np.zeros(zeros + 2, dtype=int)
    guesses = np.array([1] + [0] * zeros + [2])
    stored = Predictions(np.eye(3)[guesses], labels)
    data = study({"lr": [0.1]}).data()
    (group,) = answers_of(data, rank(data), lambda _: stored)["groups"]
    assert whole_table(group, "u1").ravel().tolist() == guesses.tolist()


@pytest.mark.parametrize(("classes", "drawn"), [(100, True), (150, False)])
def test_a_matrix_of_very_many_classes_is_left_out_and_the_reliability_stays(study, classes, drawn):
    data = study({"lr": [0.1]}, class_names=()).data()
    found = figure_data(data, rank(data), winner=some_answers(0, 200, classes))["confusion"]
    assert (found["matrix"] is not None) == drawn == (len(found["names"]) == classes)
    assert sum(images for _, images, *_ in found["bins"]) == 200


def test_every_part_of_the_same_images_has_pictures_and_they_share_their_letters(study, monkeypatch):
    data = study({"lr": [0.1, 0.01]}, seeds=2).data()
    ranking = rank(data)
    pixels = np.random.default_rng(1).integers(0, 255, (60, 1, 12, 12), dtype=np.uint8)
    asked = Asked(data=data, ranking=ranking, predictions=lambda n: some_answers(n, 60 if n % 2 else 50))
    monkeypatch.setattr(packing, "MOST_PICTURE_LETTERS", 12_000)
    groups = answer_data([asked], pixels=pixels)["groups"]
    assert len(groups) == 2
    assert sum(len(g["pictures"]["source"]) for g in groups) < 12_100
