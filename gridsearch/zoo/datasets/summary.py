"""A dataset in one line, as it was understood: said before training, by a plan, and in a model's card."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsearch.zoo.datasets.image_groups import own_doubts
from gridsearch.zoo.datasets.scan import SUB_FOLDERS

if TYPE_CHECKING:
    import numpy as np

    from gridsearch.plugins import ImageData

_CLASSES_NAMED = 8


def described(data: ImageData) -> str:
    """Return "54 images, 2 classes: cat 27, dog 27; 6 rotated, 3 skipped; test: ds/test, 12"."""
    import numpy as np

    counts = np.bincount(data.train_labels, minlength=len(data.class_names))
    parts = [
        f"{_images(len(data.train_labels))}, {len(counts)} classes: {_by_class(counts, data.class_names)}"
    ]
    if data.reading is not None and data.reading.changes:
        parts.append(", ".join(data.reading.changes))
    if data.val_indices is not None:
        where = data.reading.val_from if data.reading is not None else ""
        parts.append(f"validation: {where}{', ' if where else ''}{len(data.val_indices):,} of these")
    what = data.reading.group_from if data.reading is not None else ""
    if data.groups is not None and what != SUB_FOLDERS:  # which nested folders have, whatever they mean
        parts.append(f"{len(set(data.groups.tolist())):,} groups{f' ({what})' if what else ''}")
    if data.test_labels is None:
        parts.append("no test set, so a sixth is held out as test")
    else:
        where = data.reading.test_from if data.reading is not None else ""
        parts.append(
            f"test: {where}{', ' if where else ''}{len(data.test_labels):,}{'' if where else ' images'}"
        )
    return "; ".join(parts)


def cautions(data: ImageData) -> tuple[str, ...]:
    """Return what puts results on this data in doubt, in sentences."""
    if data.reading is not None:
        return (*data.reading.warnings, *own_doubts(data, grouped=False))
    from gridsearch.zoo.datasets import checks

    parts = [(data.train_images, data.train_labels)]
    if data.test_images is not None and data.test_labels is not None:
        parts.append((data.test_images, data.test_labels))
    val = [] if data.val_indices is None else data.val_indices.tolist()
    return checks.cautions(parts, data.class_names, val=val)


def _by_class(counts: np.ndarray, names: tuple[str, ...]) -> str:
    names = tuple(" ".join(name.split()) for name in names)  # a label may hold a line's end
    if len(counts) <= _CLASSES_NAMED:
        return ", ".join(f"{name} {count:,}" for name, count in zip(names, counts.tolist(), strict=True))
    shown = ", ".join(names[: _CLASSES_NAMED - 2])
    low, high = int(counts.min()), int(counts.max())
    if low == high:
        return f"{shown}, ..., {low:,} images each"
    fewest, most = names[int(counts.argmin())], names[int(counts.argmax())]
    return f"{shown}, ..., from {_images(low)} of class {fewest} to {high:,} of class {most}"


def _images(count: int) -> str:
    return f"{count:,} image{'s' * (count != 1)}"
