"""What the test images showed is scored, given an interval and put on a card that names cannot spoil."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from gridsearch import reporting
from gridsearch.reporting.stats.evaluation import chosen_words, interval_words, reading_words

NAMES = ("T-shirt/top", "<script>alert(1)</script>", "a|b *c* [d](e)")


def predictions(seeds: int, images: int = 90) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, images)
    logits = random.normal(size=(seeds, images, 3))
    logits[:, np.arange(images), labels] += 2
    return logits, labels


def test_accuracy_and_its_interval_over_seeds_are_students():
    logits, labels = predictions(4)
    found = reporting.evaluate(logits, labels, seeds=[0, 1, 2, 5])
    each = [metrics.accuracy_score(labels, one.argmax(1)) for one in logits]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(each), scale=stats.sem(each))
    assert [one["accuracy"] for one in found["seeds"]] == pytest.approx(each)
    assert [one["seed"] for one in found["seeds"]] == [0, 1, 2, 5]
    assert (found["accuracy"], found["ci_low"], found["ci_high"]) == pytest.approx((np.mean(each), low, high))
    assert found["interval"] == "seeds"
    f1 = [metrics.f1_score(labels, one.argmax(1), average="macro") for one in logits]
    assert found["macro_f1"] == pytest.approx(np.mean(f1))
    balanced = [metrics.balanced_accuracy_score(labels, one.argmax(1)) for one in logits]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(balanced))


def test_one_seed_has_wilsons_interval_over_images():
    logits, labels = predictions(1)
    found = reporting.evaluate(logits, labels, seeds=[0])
    p, n, z = found["accuracy"], 90, stats.norm.ppf(0.975)
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert (found["ci_low"], found["ci_high"]) == pytest.approx((middle - half, middle + half))
    assert found["interval"] == "images"


def test_seeds_that_agree_have_the_interval_over_images_and_none_has_an_end_beyond_1():
    logits, labels = predictions(3)
    same = reporting.evaluate(np.stack([logits[0]] * 3), labels, seeds=[0, 1, 2])
    alone = reporting.evaluate(logits[:1], labels, seeds=[0])
    assert (same["ci_low"], same["ci_high"]) == pytest.approx((alone["ci_low"], alone["ci_high"]))
    assert same["ci_low"] < same["accuracy"] < same["ci_high"]
    assert "Student's t over 3 seeds of equal value has no width; Wilson's over the images" in interval_words(
        same
    )
    perfect = np.eye(3)[labels]
    wide = reporting.evaluate(np.stack([perfect, logits[0]]), labels, seeds=[0, 1])
    assert wide["ci_high"] == 1
    assert wide["ci_low"] == 0


def model(logits, labels, **changes):
    test = reporting.evaluate(logits, labels, seeds=range(len(logits)))
    return {
        "study": "s",
        "dataset": {"name": "folder:x", "fingerprint": "f" * 64},
        "model": {"name": "my_net.py:Net", "options": {}, "source": None, "parameters": 3},
        "classes": list(NAMES),
        "input": {"channels": 1, "height": 8, "width": 8, "network_height": 16, "network_width": 16},
        "normalization": {"norm": "standard", "mean": [0.2], "std": [0.3]},
        "graph": {"images": 64, "largest_difference": 1e-6, "tolerance": 1e-3},
        "seed": 0,
        "trained_on": 1497,
        "recipe": {"lr": 0.01, "batch": 64},
        "test": {
            **test,
            "params": {"lr": 0.01, "batch": 64},
            "clean": True,
            "reading": 1,
            "when": "2030-01-02T03:04:05+00:00",
        },
        "versions": {"torch": "2.13.0+cpu"},
    } | changes


def card(content, logits, labels, cautions=()):
    classes = reporting.classes(logits[0], labels, NAMES)
    return reporting.model_card(content, classes=classes, ranked_by="Won by 3 points.", cautions=cautions)


def test_names_on_the_card_are_text_and_no_markup():
    logits, labels = predictions(2)
    text = card(model(logits, labels), logits, labels, cautions=["<b>bold</b>\n# head"])
    assert "<script>" not in text.replace("\\<", "")
    assert "\n# head" not in text
    rows = [line for line in text.splitlines() if line.startswith("| a\\|b")]
    assert len(rows) == 1
    assert "\\[d\\]" in rows[0]


def test_the_card_says_what_a_reader_needs():
    logits, labels = predictions(2)
    text = card(model(logits, labels), logits, labels, cautions=["Two points tie."])
    for part in (
        "# my\\_net.py:Net on folder:x",
        "8x8 pixels, grey, resized to 16x16",
        "Trained on 1,497 images, tested on 90 others",
        "- Two points tie.",
        "Student's t over 2 seeds",
        "used once, on 2030-01-02",
        "Of lr=0.01 batch=64, on the 90 test images of folder:x: test accuracy",
        "not the one that tested best",
        "has to be inverted first",
        "## Limits",
    ):
        assert part in text, part
    bright = model(logits, labels, normalization={"norm": "none", "mean": [0.7], "std": [0.3]})
    assert "inverted" not in card(bright, logits, labels)


def test_every_table_of_the_card_has_as_many_cells_in_each_row():
    logits, labels = predictions(3)
    text = card(model(logits, labels), logits, labels)
    blocks = [b.splitlines() for b in text.split("\n\n") if b.startswith("|")]
    assert len(blocks) == 3
    for lines in blocks:
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1, lines


def test_a_card_without_a_graph_says_why():
    logits, labels = predictions(1)
    text = card(model(logits, labels, graph={"error": "loops"}), logits, labels)
    assert "cannot be exported (loops)" in text
    assert "not the one that tested best" not in text


def test_the_card_says_how_the_images_were_read_and_what_is_in_doubt():
    logits, labels = predictions(1)
    about = {
        "name": "folder:x",
        "fingerprint": "f" * 64,
        "described": "54 images, 2 classes: cat 27, dog 27; 6 rotated, 3 skipped; test: ds/test, 12",
        "doubts": ["5 of 12 test images are training images too"],
    }
    text = card(model(logits, labels, dataset=about), logits, labels)
    assert (
        "How it was read: 54 images, 2 classes: cat 27, dog 27; 6 rotated, 3 skipped; test: ds/test, 12."
        in text
    )
    assert "- 5 of 12 test images are training images too." in text


def test_the_day_of_the_test_is_that_of_the_clock_on_the_wall(monkeypatch):
    test = {"clean": True, "when": "2030-01-02T23:04:05+00:00"}
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "XXX-3")  # three hours ahead of UTC
        time.tzset()
        words = reading_words(test)
    time.tzset()
    assert words == "used once, on 2030-01-03"


def test_the_metric_that_a_point_was_chosen_by_is_given_of_the_test_images_with_its_interval():
    logits, labels = predictions(3)
    found = reporting.chosen_by(logits, labels, metric="val_loss", class_names=NAMES)
    each = [metrics.log_loss(labels, np.exp(one) / np.exp(one).sum(1, keepdims=True)) for one in logits]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(each), scale=stats.sem(each))
    assert (found["value"], found["ci_low"], found["ci_high"]) == pytest.approx((np.mean(each), low, high))
    assert chosen_words({"chosen_by": found}).startswith(
        f"Its loss, by which it was chosen, is {np.mean(each):.4f},"
    )
    recall = reporting.chosen_by(logits[:1], labels, metric=f"recall:{NAMES[1]}", class_names=NAMES)
    assert recall["value"] == pytest.approx(np.mean(logits[0].argmax(1)[labels == 1] == 1))
    assert recall["ci_low"] < recall["value"] < recall["ci_high"]
    lacking = reporting.chosen_by(logits, labels, metric="top3", class_names=NAMES)
    assert "which cannot be computed on these images" in chosen_words({"chosen_by": lacking})
    plain = reporting.chosen_by(logits, labels, metric="val_accuracy", class_names=NAMES)
    assert plain["value"] == reporting.evaluate(logits, labels, seeds=[0, 1, 2])["accuracy"]
    assert chosen_words({"chosen_by": plain}) == chosen_words({}) == ""
