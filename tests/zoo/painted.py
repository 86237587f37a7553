"""A folder of images that a test paints, and what is read of it."""

import numpy as np
from PIL import Image

from gridsearch.zoo import datasets


def paint(path, *, size=(6, 8), seed=0, grey=False, mode=None, **options):
    """Write an image of (height, width) with random pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size if grey else (*size, 3)
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def load(path, **options):
    return datasets.load(datasets.open_dataset(f"folder:{path}"), path.parent / "root", options)


def fingerprint(path, **options):
    return datasets.fingerprint(datasets.open_dataset(f"folder:{path}"), path.parent / "root", options)
