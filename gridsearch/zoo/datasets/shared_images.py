"""One copy of a dataset's images for all processes of a machine, as training reads them: [N, H, W, C].

Between a loaded dataset and those who train on it.  Small datasets are not shared: a copy for each process costs less
than the files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, Any

from gridsearch.plugins import ImageData, Reading
from gridsearch.zoo.datasets import shared_arrays

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

SHARED_FROM = 32 << 20
"""Bytes of images from which they are shared."""

_IMAGES = ("train_images", "test_images")
_LABELS = ("train_labels", "test_labels", "val_indices", "groups")


def key_of(data: ImageData, fingerprint: str) -> str | None:
    """Return the key under which a dataset's images are shared; None where it is too small for that.

    A fingerprint is of images and labels; how many classes there are is in the names.
    """
    if sum(array.nbytes for name in _IMAGES if (array := getattr(data, name)) is not None) < SHARED_FROM:
        return None
    names = hashlib.sha256(json.dumps(data.class_names).encode()).hexdigest()
    return f"{fingerprint[:32]}-{names[:16]}"


def find(key: str) -> ImageData | None:
    """Return the images that some process has shared, verified byte by byte; None if none has."""
    found = shared_arrays.find(key)
    return None if found is None else _data(found)


def share(data: ImageData, fingerprint: str) -> ImageData:
    """Return a dataset whose images are shared, or the dataset itself where it is small.

    Args:
        data: the loaded dataset.
        fingerprint: of just these images.

    Returns:
        the dataset with arrays that cannot be written to; a note says so if the cache cannot hold them.
    """
    key = key_of(data, fingerprint)
    if key is None:
        return data
    try:
        shared = _data(shared_arrays.find_or_make(key, lambda _: _arrays(data)))
    except OSError as error:
        note = f"each worker keeps a copy of the images: {error.filename}: {error.strerror or error}"
        return dataclasses.replace(data, notes=(*data.notes, note))
    return dataclasses.replace(shared, notes=data.notes, reading=data.reading)


def share_resized(key: str | None, size: tuple[int, int], make: Callable[[], np.ndarray]) -> np.ndarray:
    """Return images in another size, shared as those of the dataset are.

    Args:
        key: of the dataset, see `key_of`.
        size: (H, W).
        make: gives them as [N, H, W, C].
    """
    if key is None:
        return make()
    try:
        key = f"{key}-{size[0]}x{size[1]}"
        return shared_arrays.find_or_make(key, lambda _: ({"images": make()}, {})).arrays["images"]
    except OSError:
        return make()


def _arrays(data: ImageData) -> shared_arrays.Made:
    images = {n: a.transpose(0, 2, 3, 1) for n in _IMAGES if (a := getattr(data, n)) is not None}
    labels = {n: a for n in _LABELS if (a := getattr(data, n)) is not None}
    about = {
        "class_names": data.class_names,
        "notes": data.notes,
        "reading": None if data.reading is None else dataclasses.asdict(data.reading),
    }
    return images | labels, about


def _data(found: shared_arrays.SharedArrays) -> ImageData:
    about, arrays = found.about, found.arrays
    images: dict[str, Any] = {
        n: a.transpose(0, 3, 1, 2) if (a := arrays.get(n)) is not None else None for n in _IMAGES
    }
    labels: dict[str, Any] = {name: arrays.get(name) for name in _LABELS}
    reading: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in (about["reading"] or {}).items()
    }
    return ImageData(
        **images,
        **labels,
        class_names=tuple(about["class_names"]),
        notes=tuple(about["notes"]),
        reading=None if about["reading"] is None else Reading(**reading),
    )
