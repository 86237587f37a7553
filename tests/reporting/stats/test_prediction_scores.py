"""Metrics from stored predictions: scikit-learn's values, intervals that hold the truth, parts that add up."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special
from sklearn import metrics as sk

from gridsearch.reporting.stats import over_images
from gridsearch.reporting.stats.prediction_scores import ImageScores, Unmeasured
from gridsearch.reporting.stats.predictions import Predictions

NAMES = ("val_accuracy", "balanced_accuracy", "macro_f1", "val_loss", "top3", "auc", "ece", "recall:1")
HITS = ("val_accuracy", "top3", "recall:1")
SAMPLES = 120


def answers(rng: np.random.Generator, images: int, *, classes: int = 5, skew: float = 3.0) -> Predictions:
    """Return the answers of a network whose images differ in difficulty, over classes of uneven size."""
    shares = np.ones(classes)
    shares[0] = skew
    labels = rng.choice(classes, images, p=shares / shares.sum())
    logits = rng.normal(size=(images, classes))
    logits[np.arange(images), labels] += 4 * rng.gamma(2, 0.5, images)
    return Predictions((2 * logits).astype(np.float32), labels)


@pytest.fixture(scope="module")
def some() -> Predictions:
    return answers(np.random.default_rng(5), 400)


@pytest.fixture(scope="module")
def probabilities(some) -> np.ndarray:
    odds = np.exp(some.logits.astype(float) - some.logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def test_each_value_is_that_of_scikit_learn(some, probabilities):
    labels, guesses, every = some.labels, some.guesses, range(5)
    expected = {
        "val_accuracy": sk.accuracy_score(labels, guesses),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, guesses),
        "macro_f1": sk.f1_score(labels, guesses, average="macro"),
        "val_loss": sk.log_loss(labels, probabilities, labels=every),
        "top3": sk.top_k_accuracy_score(labels, some.logits, k=3, labels=every),
        "auc": sk.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro"),
        "recall:1": sk.recall_score(labels, guesses, labels=[1], average=None)[0],
    }
    scores = ImageScores(some)
    found = {name: scores.value(name, label=1) for name in expected}
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_values_are_those_of_scikit_learn_where_classes_are_missing_and_scores_are_equal(seed):
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(4, 9))
    labels = rng.integers(0, rng.integers(2, classes + 1), 80)
    logits = rng.integers(-2, 3, (80, classes)).astype(np.float32)
    scores, there = ImageScores(Predictions(logits, labels)), np.unique(labels)
    guesses, shares = logits.argmax(1), special.softmax(logits.astype(float), axis=1)
    recalls = sk.recall_score(labels, guesses, labels=there, average=None, zero_division=0.0)
    expected = {
        "val_accuracy": sk.accuracy_score(labels, guesses),
        "balanced_accuracy": recalls.mean(),
        "macro_f1": sk.f1_score(labels, guesses, average="macro", zero_division=0.0),
        "val_loss": sk.log_loss(labels, shares, labels=range(classes)),
        "top3": sk.top_k_accuracy_score(labels, logits, k=3, labels=range(classes)),
        "auc": np.mean([sk.roc_auc_score(labels == c, shares[:, c]) for c in there]),
        "recall:x": recalls[-1],
    }
    found = {name: scores.value(name, label=int(there[-1])) for name in expected}
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_influences_that_follow_from_the_confusion_matrix_are_those_of_each_image(some):
    scores = ImageScores(some)
    of_label, of_guess = some.labels[:, None] == np.arange(5), some.guesses[:, None] == np.arange(5)
    both = of_label.sum(0) + of_guess.sum(0)
    f1 = 2 * (of_label & of_guess).sum(0) / both
    each = 2.0 * (of_label & of_guess) - f1 * (of_label.astype(float) + of_guess)
    each *= len(some.labels) / both
    centred = each - each.mean(0)
    assert scores._f1_covariance() == pytest.approx(centred.T @ centred, rel=1e-9)
    assert scores.parts("macro_f1").shares == pytest.approx(f1.mean() + each.mean(1), rel=1e-9)


def test_a_class_that_is_none_is_refused(some):
    with pytest.raises(ValueError, match=r"predicted classes outside 0\.\.4"):
        Predictions(some.logits, some.labels, predicted=np.where(some.labels == 0, 5, some.labels))


def test_the_auc_of_two_classes_is_that_of_either():
    two = answers(np.random.default_rng(1), 200, classes=2)
    score = two.logits[:, 1].astype(float) - two.logits[:, 0]
    assert ImageScores(two).value("auc") == pytest.approx(sk.roc_auc_score(two.labels, score), rel=1e-9)


def test_the_calibration_error_is_the_mean_gap_of_fifteen_equal_bins(some, probabilities):
    confidence, right = probabilities.max(1), some.guesses == some.labels
    gaps = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15 + 1e-12)
        if inside.any():
            gaps += inside.sum() * abs(confidence[inside].mean() - right[inside].mean())
    assert ImageScores(some).value("ece") == pytest.approx(gaps / len(right), rel=1e-9)
    sure = Predictions(np.where(np.eye(5)[some.labels] > 0, 50.0, 0.0), some.labels)
    assert ImageScores(sure).value("ece") == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_of_the_images_make_the_metric(some, name):
    scores = ImageScores(some)
    parts = scores.parts(name, label=1)
    mean = parts.hits if parts.hits is not None else parts.shares
    assert (parts.hits is not None) == (name in HITS)
    assert float(np.mean(mean)) == pytest.approx(scores.value(name, label=1), rel=1e-9)


def test_intervals_hold_the_truth_in_about_95_of_100_samples_of_images():
    """120 samples tell 95 % to within 4 points (two standard errors)."""
    rng = np.random.default_rng(11)
    big = ImageScores(answers(rng, 60_000))
    truth = {name: big.value(name, label=1) for name in NAMES}
    held = dict.fromkeys(NAMES, 0)
    for _ in range(SAMPLES):
        scores = ImageScores(answers(rng, 250))
        for name in NAMES:
            found = scores.score(name, label=1)
            assert found.ci_low <= found.value <= found.ci_high
            held[name] += found.ci_low <= truth[name] <= found.ci_high
    shares = {name: count / SAMPLES for name, count in held.items()}
    assert min(shares.values()) >= 0.9, shares
    assert np.mean([share for name, share in shares.items() if name != "ece"]) <= 0.985, shares


def sure(rng: np.random.Generator, images: int, *, off: float) -> Predictions:
    """Return the answers of a network of two classes that is right less often than it says, by so much."""
    confidence = 1 - 0.5 * rng.beta(1, 3, images)
    labels = (rng.random(images) > confidence - off).astype(int)
    return Predictions(np.stack([np.log(confidence), np.log(1 - confidence)], axis=1), labels)


@pytest.mark.parametrize("off", [0.0, 0.1])
def test_the_interval_of_a_calibration_error_holds_whether_a_network_is_calibrated_or_not(off):
    rng = np.random.default_rng(3)
    held, by_bootstrap = 0, 0
    for _ in range(SAMPLES // 2):
        scores = ImageScores(sure(rng, 250, off=off))
        found = scores.score("ece")
        held += found.ci_low <= off <= found.ci_high
        draws = rng.multinomial(250, np.full(250, 1 / 250), size=100)
        gaps, bins = scores._gaps
        in_bins = gaps[:, None] * (bins[:, None] == np.arange(15))
        ends = np.quantile(np.abs(draws @ in_bins).sum(1) / 250, [0.975, 0.025])
        low, high = 2 * found.value - ends
        by_bootstrap += max(0.0, low) <= off <= high
    assert held / (SAMPLES // 2) >= 0.9
    assert off or by_bootstrap / (SAMPLES // 2) < 0.85


@pytest.mark.parametrize("name", [n for n in NAMES if n not in HITS])
def test_of_two_networks_equally_good_one_is_ahead_beyond_luck_in_about_5_of_100_samples(name):
    rng = np.random.default_rng(23)
    ahead = 0
    for _ in range(SAMPLES):
        one = answers(rng, 150)
        other = Predictions(one.logits.copy(), one.labels)
        for answer in (one, other):
            answer.logits[:] += rng.normal(0, 1.5, one.logits.shape)
        first, second = (ImageScores(a).parts(name).shares for a in (one, other))
        ahead += over_images.p_values_of_means(first, second, same=True) < 0.05
    assert (0.0 if name == "ece" else 0.01) <= ahead / SAMPLES <= 0.09  # of a calibration error it is careful


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("val_loss", "ece")])
def test_a_perfect_network_has_an_interval_with_a_width(name):
    labels = np.repeat(np.arange(5), 4)
    found = ImageScores(Predictions(np.eye(5)[labels] * 9.0, labels)).score(name, label=1)
    assert found.value == found.ci_high == 1.0
    assert 0.4 < found.ci_low < 0.97


def test_what_predictions_cannot_give_is_said():
    labels = np.array([0, 1, 1])
    few = ImageScores(Predictions(np.eye(3)[labels], labels))
    with pytest.raises(Unmeasured, match="there are only 3 classes"):
        few.value("top3")
    with pytest.raises(Unmeasured, match="none of the validation images is of class 'x'"):
        few.value("recall:x", label=2)
    with pytest.raises(Unmeasured, match="all validation images are of one class"):
        ImageScores(Predictions(np.eye(3)[[1, 2]], np.array([1, 1]))).value("auc")
    cut = ImageScores(Predictions(np.array([[np.inf, 0.0, 0.0]]), np.array([0])))
    assert cut.value("val_accuracy") == 1.0
    with pytest.raises(Unmeasured, match="not finite"):
        cut.value("val_loss")
