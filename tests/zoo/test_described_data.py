"""A dataset of many classes is described by a few of their names, and by how uneven they are."""

from __future__ import annotations

import numpy as np
import pytest

from gridsearch.plugins import ImageData
from gridsearch.zoo.datasets.summary import described


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ([3] * 9, "27 images, 9 classes: a, b, c, d, e, f, ..., 3 images each"),
        (
            [3] * 7 + [5, 1],
            "27 images, 9 classes: a, b, c, d, e, f, ..., from 1 image of class i to 5 of class h",
        ),
        ([2, 1], "3 images, 2 classes: a 2, b 1"),
    ],
)
def test_classes_are_named_with_their_numbers_of_images(counts, said):
    assert described(labelled(counts, "abcdefghi")) == f"{said}; no test set, so a sixth is held out as test"


def test_a_line_s_end_in_a_label_ends_no_line():
    assert described(labelled([2, 1], ["a", "b\nc"])).startswith("3 images, 2 classes: a 2, b c 1;")


def labelled(counts, names):
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.zeros((len(labels), 1, 2, 2), np.uint8)
    train = {"train_images": images, "train_labels": labels}
    return ImageData(**train, test_images=None, test_labels=None, class_names=tuple(names[: len(counts)]))
