"""Splits of which nothing can be learned are refused before anything is trained or written."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image


def fill(folder, classes, count):
    for label in range(classes):
        (folder / f"c{label}").mkdir(parents=True)
        for i in range(count):
            pixels = np.random.default_rng(100 * label + i).integers(0, 255, (4, 4), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"c{label}" / f"{i}.png")


@pytest.mark.parametrize("classes", [2, 12])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("own_test", [True, False])
@pytest.mark.parametrize("command", ["plan", "run"])
def test_one_image_or_two_of_a_class_are_refused_before_training(
    cli, tmp_path, home, classes, count, own_test, command
):
    fill(tmp_path / "few" / "train" if own_test else tmp_path / "few", classes, count)
    if own_test:
        fill(tmp_path / "few" / "test", classes, 3)
    words = ("--dataset", "folder:few", "--model", "mlp", "--grid", "lr=.1", "--executor", "inline")
    found = cli(command, *words)
    assert found.code in (2, 4), found.out
    assert not home.exists()
    if count == 1:
        assert f"{classes} images of {classes} classes are too few to train on" in found.error


def test_a_class_without_images_gets_no_weight(cli, tmp_path, home):
    """The plan says so too, before anything is written."""
    (tmp_path / "pets.py").write_text(PETS)
    words = ("--dataset", "pets.py:Pets", "--model", "mlp", "--executor", "inline")
    for command in ("plan", "run"):
        found = cli(command, *words, "--grid", "class_weight=none,balanced")
        assert found.code == 2
        assert "class_weight=balanced: class 'owl' has no image to train on" in found.error
        assert len(found.error.strip().splitlines()) <= 2
    assert not home.exists()
    assert cli("plan", *words, "--grid", "lr=.1").code == 0


PETS = """
import numpy as np

class Pets:
    def __init__(self, root):
        del root
        labels = np.array([0] * 12 + [1] * 6)
        self.train_images = np.random.default_rng(0).integers(0, 255, (18, 1, 8, 8), dtype=np.uint8)
        self.train_labels = labels
        self.class_names = ("cat", "dog", "owl")
"""


def test_enough_images_are_taken(cli, tmp_path):
    fill(tmp_path / "few", 2, 6)
    assert cli("plan", "--dataset", "folder:few", "--model", "mlp", "--grid", "lr=.1").code == 0


def write_grouped(place, groups_of_val, **more):
    """Write images of two classes and six groups of four, and validation images of given groups."""
    labels = np.tile([0, 1], 12)
    pixels = np.random.default_rng(0).integers(0, 255, (24 + len(groups_of_val), 4, 4), dtype=np.uint8)
    np.savez(
        place,
        x_train=pixels[:24],
        y_train=labels,
        x_val=pixels[24:],
        y_val=np.arange(len(groups_of_val)) % 2,
        groups=np.array([*np.repeat(np.arange(6), 4), *groups_of_val]),
        **more,
    )


def test_validation_images_of_its_own_whose_groups_are_trained_on_are_refused(cli, tmp_path, home):
    write_grouped(tmp_path / "apart.npz", [6, 6, 7, 7])
    write_grouped(tmp_path / "mixed.npz", [0, 0, 7, 7])
    words = ("--model", "mlp", "--grid", "lr=.1", "--group", "groups")
    assert cli("plan", "--dataset", "npz:apart.npz", *words).code == 0
    refused = cli("plan", "--dataset", "npz:mixed.npz", *words)
    assert refused.code == 2
    assert (
        "1 of the 2 groups of validation images of 'npz:mixed.npz' are in its training images too"
        in refused.error
    )
    assert len(refused.error.strip().splitlines()) <= 2
    for how in (("--val", "0"), ("--folds", "3")):
        assert cli("plan", "--dataset", "npz:mixed.npz", *words, *how).code == 0
    assert not home.exists()


def test_groups_are_said_to_be_divided_only_where_a_split_is_drawn(cli, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 255, (4, 4, 4), dtype=np.uint8)
    write_grouped(tmp_path / "own.npz", [6, 6, 7, 7], x_test=pixels, y_test=np.arange(4) % 2)
    words = ("plan", "--dataset", "npz:own.npz", "--model", "mlp", "--grid", "lr=.1")
    assert "keeps them together" not in cli(*words).err
    assert "--group groups keeps them together" in cli(*words, "--folds", "3").err
    assert "keeps them together" not in cli(*words, "--folds", "3", "--group", "groups").err
