"""A finished study on digits and its exported winner, made once for the tests that only read it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Exported:
    home: Path
    folder: Path
    test: dict

    def images(self, place: Path) -> list[Path]:
        """Write the test images as PNG files whose names end in their class."""
        from PIL import Image

        pixels, labels = test_images()
        place.mkdir(exist_ok=True)
        paths = []
        for i, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            path = place / f"{i:03d}_{label}.png"
            Image.fromarray(image).save(path)
            paths.append(path)
        return paths


def test_images() -> tuple[np.ndarray, np.ndarray]:
    """The images of digits that are held out as test, uint8 [N, H, W], and their labels."""
    from gridsearch.training import split
    from gridsearch.zoo import datasets

    data = datasets.load(datasets.open_dataset("digits"), Path("unused"), {})
    held_out = split(data.train_labels, val=0, split_seed=0, subset=None, hold_out_test=True).test_from_train
    return data.train_images[held_out, 0], data.train_labels[held_out]


test_images.__test__ = False


@pytest.fixture(scope="session")
def _searched(tmp_path_factory):
    """A study with two points of two seeds, and `best` of it; lenet, so that images are resized for it."""
    import gridsearch as gs

    home = tmp_path_factory.mktemp("searched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRIDSEARCH_CACHE", str(home / "cache"))
        how = {"home": home / "home", "executor": "inline", "quiet": True}
        grid = {"lr": [0.01, 0.00001]}
        gs.run(grid=grid, dataset="digits", model="lenet", epochs=2, seeds=2, report=False, **how)
        found = gs.best("digits", **how)
    return Exported(home / "home", found.folder, dict(found.test))


@pytest.fixture
def exported(_searched, tmp_path) -> Exported:
    """A copy that a test may do with as it likes."""
    home = tmp_path / "home"
    shutil.copytree(_searched.home, home)
    return Exported(home, home / "digits" / "best", _searched.test)
