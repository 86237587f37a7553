"""How images are split for training, validation and test: checked before anything is trained, and refused if hopeless.

Between the catalog, which has the images, and `training.split`, which splits them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsearch.errors import DataError, UsageError
from gridsearch.records import ImageSettings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gridsearch.plugins import ImageData
    from gridsearch.training import Split

_DEFAULT_VAL = ImageSettings().val


def check_splits(images: ImageData, settings: Iterable[ImageSettings]) -> None:
    """Refuse splits that the data does not allow, or of which nothing can be learned; once for each distinct one.

    Raises:
        UsageError: `val` or `subset` cannot be had.
        DataError: there are too few images to train on, or to test with.
    """
    for each in {(s.val, s.split_seed, s.subset): s for s in settings}.values():
        _check(images, each)


def _check(images: ImageData, settings: ImageSettings) -> None:
    if images.val_indices is not None and settings.val not in (0, _DEFAULT_VAL):
        raise UsageError(
            f"val={settings.val:g}: {settings.dataset!r} has {len(images.val_indices)} validation images of its own",
            hint="leave --val out to rank by these, or give --val 0 to train on them too",
        )
    count, classes = len(images.train_labels), len(images.class_names)
    there = f"{settings.dataset!r}: {count} images of {classes} classes are too few"
    if count <= classes:
        raise DataError(f"{there} to train on", hint="give the dataset more images of each class")
    parts = _split(images, settings, settings.subset)
    if images.test_images is None and not len(parts.test_from_train):
        raise DataError(
            f"{there}: none is left to test with",
            hint="give the dataset more images, or a test set of its own",
        )
    if settings.subset is None and len(parts.train) <= classes:
        apart = [
            name for name, part in (("validation", parts.val), ("test", parts.test_from_train)) if len(part)
        ]
        without = f" beside those for {' and '.join(apart)}" if apart else ""
        raise DataError(
            f"{there}: {len(parts.train)} would be left to train on{without}, one for each class at most",
            hint="give the dataset more images of each class",
        )


def split_sizes(images: ImageData, settings: ImageSettings) -> tuple[int, int]:
    """Return how many images a trial's training and validation splits hold, before `subset`."""
    parts = _split(images, settings, None)
    return len(parts.train), len(parts.val)


def _split(images: ImageData, settings: ImageSettings, subset: int | None) -> Split:
    from gridsearch.training import split

    return split(
        images.train_labels,
        val=settings.val,
        split_seed=settings.split_seed,
        subset=subset,
        hold_out_test=images.test_images is None,
        own_val=images.val_indices,
    )
