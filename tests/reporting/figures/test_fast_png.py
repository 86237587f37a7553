"""The small pictures of a trial: what they say is checked in their pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from gridsearch.reporting import Predictions, quick_confusion_png, quick_samples_png


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def said(labels, guesses, classes: int) -> Predictions:
    logits = np.zeros((len(labels), classes), dtype=np.float32)
    logits[np.arange(len(labels)), guesses] = 1.0
    return Predictions(logits, np.asarray(labels), np.arange(len(labels)))


def reds(picture: np.ndarray) -> int:
    return int(((picture[..., 0] > 180) & (picture[..., 1] < 90)).sum())


def test_the_diagonal_of_a_perfect_trial_is_dark_and_the_rest_white():
    labels = np.repeat(np.arange(10), 5)
    picture = pixels(quick_confusion_png(said(labels, labels, 10), class_names=list("abcdefghij"), title="t"))
    dark = (picture.sum(axis=-1) < 200).astype(int)
    cells = [dark[y : y + 40, x : x + 40].mean() for y, x in diagonal(picture)]
    assert min(cells) > 0.6


def diagonal(picture):
    """The upper left corners of the diagonal's cells: the first rows and columns that are mostly dark blue."""
    blue = (abs(picture - [42, 27, 51]).sum(axis=-1) < 12).astype(int)
    rows, columns = np.flatnonzero(blue.sum(axis=1) > 20), np.flatnonzero(blue.sum(axis=0) > 20)
    first = np.flatnonzero(np.diff(rows, prepend=-9) > 1)
    left = np.flatnonzero(np.diff(columns, prepend=-9) > 1)
    assert len(first) == len(left) == 10
    return zip(rows[first], columns[left], strict=True)


def test_another_mistake_is_another_picture():
    labels = np.repeat(np.arange(3), 5)
    wrong = labels.copy()
    wrong[0] = 2
    one, two = (
        quick_confusion_png(said(labels, g, 3), class_names=["a", "b", "c"], title="t")
        for g in (labels, wrong)
    )
    assert one != two
    assert one == quick_confusion_png(said(labels, labels, 3), class_names=["a", "b", "c"], title="t")


@pytest.mark.parametrize("classes", [1, 2, 13, 40, 150])
def test_any_number_of_classes_and_any_names_are_drawn_without_a_name_cut_off(classes, hostile):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 400)
    names = [hostile[i % len(hostile)] * (1 + i // 20) for i in range(classes)]
    found = said(labels, rng.integers(0, classes, 400), classes)
    picture = pixels(quick_confusion_png(found, class_names=names, title="\x1b[31m</b>"))
    ink = picture.sum(axis=-1) < 600
    edges = (ink[:3], ink[-3:], ink[:, :3], ink[:, -3:])
    assert not any(edge.any() for edge in edges), "nothing touches the sheet's edge"
    assert picture.shape[0] * picture.shape[1] < 4_000_000
    shown = quick_samples_png(
        found, rng.integers(0, 255, (400, 3, 9, 14)).astype(np.uint8), class_names=names
    )
    assert shown is not None


def test_a_wrong_guess_is_red_and_a_right_one_is_not():
    labels = np.repeat(np.arange(3), 4)
    images = np.full((12, 1, 8, 8), 128, dtype=np.uint8)
    right = quick_samples_png(said(labels, labels, 3), images, class_names=["a", "b", "c"])
    wrong = quick_samples_png(said(labels, (labels + 1) % 3, 3), images, class_names=["a", "b", "c"])
    assert reds(pixels(right)) == 0
    assert reds(pixels(wrong)) > 20


def test_samples_are_the_images_at_the_places_of_the_validation_split():
    images = np.zeros((50, 1, 8, 8), dtype=np.uint8)
    images[[7, 9]] = 200  # the only ones that are for validation
    found = said([0, 1], [0, 1], 2)
    found = Predictions(found.logits, found.labels, np.array([7, 9]))
    picture = pixels(quick_samples_png(found, images, class_names=["a", "b"]))
    assert (picture == 200).all(axis=-1).sum() == 2 * 48 * 48
    assert quick_samples_png(Predictions(found.logits, found.labels), images, class_names=["a", "b"]) is None
