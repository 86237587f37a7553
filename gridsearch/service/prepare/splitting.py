"""How images are split for training, validation and test: checked before anything is trained, and refused if hopeless.

Between the catalog, which has the images, and `training.split`, which splits them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gridsearch.errors import DataError, UsageError
from gridsearch.records import ImageSettings
from gridsearch.zoo import datasets

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gridsearch.plugins import ImageData
    from gridsearch.training import Split

_DEFAULT_VAL = ImageSettings().val


def check_splits(images: ImageData, settings: Iterable[ImageSettings]) -> None:
    """Refuse splits that the data does not allow, or of which nothing can be learned; once for each distinct one.

    Raises:
        UsageError: `val` or `subset` cannot be had, or weights for a class without images.
        DataError: there are too few images to train on, or to test with.
    """
    distinct = {(s.split(), s.fold, s.partition, s.subset, s.class_weight): s for s in settings}
    for each in distinct.values():
        _check(images, each)


def _check(images: ImageData, settings: ImageSettings) -> None:
    if settings.group is not None:
        datasets.check_groups(images, settings.group, dataset=settings.dataset)
        _check_own_validation(images, settings)
    no_default = settings.folds is None and settings.val not in (0, _DEFAULT_VAL)
    if images.val_indices is not None and no_default:
        raise UsageError(
            f"val={settings.val:g}: {settings.dataset!r} has {len(images.val_indices)} validation images of its own",
            hint="leave --val out to rank by these, or give --val 0 to train on them too",
        )
    count, classes = len(images.train_labels), len(images.class_names)
    there = f"{settings.dataset!r}: {count} images of {classes} classes are too few"
    if count <= classes:
        raise DataError(f"{there} to train on", hint="give the dataset more images of each class")
    try:
        parts = _split(images, settings, settings.subset)
    except UsageError:
        _check_folds(images, settings)
        raise
    if images.test_images is None and not len(parts.test_from_train):
        raise DataError(
            f"{there}: none is left to test with",
            hint="give the dataset more images, or a test set of its own",
        )
    if settings.class_weight == "balanced":
        _check_classes(images, images.train_labels[parts.train])
    if settings.subset is None and len(parts.train) <= classes:
        apart = [
            name for name, part in (("validation", parts.val), ("test", parts.test_from_train)) if len(part)
        ]
        without = f" beside those for {' and '.join(apart)}" if apart else ""
        raise DataError(
            f"{there}: {len(parts.train)} would be left to train on{without}, one for each class at most",
            hint="give the dataset more images of each class",
        )


def _check_own_validation(images: ImageData, settings: ImageSettings) -> None:
    """Refuse to rank by validation images of the dataset's own whose groups are trained on."""
    if images.val_indices is None or images.groups is None or settings.val == 0 or settings.folds is not None:
        return
    held_out = np.zeros(len(images.groups), bool)
    held_out[images.val_indices] = True
    both = np.intersect1d(images.groups[held_out], images.groups[~held_out])
    if both.size:
        count = len(np.unique(images.groups[held_out]))
        raise UsageError(
            f"--group {settings.group}: {len(both)} of the {count} groups of validation images "
            f"of {settings.dataset!r} are in its training images too",
            hint="give --folds K, which splits all images by group; or ignore the dataset's own validation "
            "images (csv: --set data.split=none)",
        )


def _check_folds(images: ImageData, settings: ImageSettings) -> None:
    """Refuse more folds than the smallest class has images, by its name."""
    if settings.folds is None or settings.group is not None:
        return
    whole = _split(images, replace(settings.point(), folds=None, val=0.0), None)
    counts = np.bincount(images.train_labels[whole.train], minlength=len(images.class_names))
    least = int(np.where(counts > 0, counts, counts.max()).argmin())
    if counts[least] < settings.folds:
        few = int(counts[least])
        raise UsageError(
            f"folds={settings.folds}: class {images.class_names[least]!r} has {few} image{'s' * (few != 1)}",
            hint=f"give at most {few} folds, or more images of that class"
            if few > 1
            else "give it more images",
        )


def _check_classes(images: ImageData, labels: np.ndarray) -> None:
    """Refuse class weights where a class has no image: its weight would be infinite."""
    counts = np.bincount(labels, minlength=len(images.class_names))
    missing = [repr(name) for name, count in zip(images.class_names, counts, strict=True) if not count]
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UsageError(
            f"class_weight=balanced: class {missing[0]}{others} has no image to train on, so its weight is undefined",
            hint="leave class_weight out, or the classes without images",
        )


def split_sizes(images: ImageData, settings: ImageSettings) -> tuple[int, int]:
    """Return how many images a trial trains on in an epoch, before `subset`, and how many validate it."""
    parts = _split(images, settings, None)
    return parts.epoch_images, len(parts.val)


def _split(images: ImageData, settings: ImageSettings, subset: int | None) -> Split:
    from gridsearch.training import Folding, split

    return split(
        images.train_labels,
        val=settings.val,
        split_seed=settings.split_seed,
        subset=subset,
        hold_out_test=images.test_images is None,
        own_val=images.val_indices,
        groups=None if settings.group is None else images.groups,
        folding=Folding.of(settings),
    )
