"""Which images are for training, for validation and for test: decided once per study, before any training.

The order is fixed: first a sixth is held out as test where the dataset has no test set, then the validation
fraction of what is left, or one of its folds, then the subset of what is left of that.  Each step is stratified and
seeded, and none but the last divides a group of images.  Validation images of the dataset's own take the place of that
fraction; none of them is ever held out as test.

A draw ranks the images by 64-bit words straight from PCG64, whose bit stream numpy keeps stable over its
versions; the methods of `numpy.random.Generator` carry no such promise (NEP 19).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gridsearch.errors import UsageError
from gridsearch.training.folds import Folding, Indices, fold_numbers, pick_groups
from gridsearch.training.seeds import stream

TEST_FRACTION = 1 / 6


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Split:
    """Indices into the training set, each ascending and no index in two of them.

    Attributes:
        train: images to train on, after validation and subset were taken.
        val: held out for ranking; empty where everything is trained on.
        test_from_train: held out as test before all else; empty where the dataset has a test set.
        epoch_images: how many of the images to train on an epoch takes: all, but for the folds of a cross-validation,
            in which it is the same for all folds.
    """

    train: Indices
    val: Indices
    test_from_train: Indices
    epoch_images: int


def stratified_pick(
    labels: npt.NDArray[np.integer], count: int, seed: int, *, spare_one: bool = False
) -> Indices:
    """Pick `count` items so that each class has its share, to within one item.

    The shares are those of the largest remainder; then every class that can has at least one item, given up
    by the classes that were rounded up most.

    Args:
        labels: int [N], the class of each item.
        count: how many to pick.
        seed: fixes the draw.
        spare_one: leave at least one item of every class behind.

    Returns:
        ascending positions in `labels`, int64 [count].

    Raises:
        ValueError: there are not so many items to pick from.
    """
    _, positions, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    most = sizes - 1 if spare_one else sizes
    if not 0 <= count <= most.sum():
        raise ValueError(f"cannot pick {count} of {most.sum()} items")
    quotas = _quotas(sizes, most, count)
    keys = np.random.PCG64(seed).random_raw(len(labels))
    by_class = np.lexsort((keys, positions))  # class after class, each in its drawn order
    starts = np.cumsum(sizes) - sizes
    picked = [by_class[start : start + quota] for start, quota in zip(starts, quotas, strict=True)]
    return np.sort(np.concatenate(picked)).astype(np.int64) if picked else np.empty(0, np.int64)


def split(
    labels: npt.NDArray[np.integer],
    *,
    val: float,
    split_seed: int,
    subset: int | None = None,
    hold_out_test: bool = False,
    own_val: Indices | None = None,
    groups: Indices | None = None,
    folding: Folding | None = None,
) -> Split:
    """Split a training set; see the module's docstring for the order of the steps.

    A class has at least one image in the test, validation and subset parts where it has enough of them, also
    where its share rounds to none; and always at least one to train on.

    Args:
        labels: int [N], the class of each training image.
        val: fraction of the images (less the test part) held out for validation; 0 for none.
        split_seed: fixes all the draws.
        subset: train on that many of the rest; None for all.
        hold_out_test: hold out a sixth as test.
        own_val: the dataset's own validation images, ascending: they are held out unless `val` is 0 or there are folds.
        groups: int [N], the group of each image, which is not divided; None where each is by itself.
        folding: hold out this fold, in the place of `val`.

    Raises:
        UsageError: `val` leaves nothing on one of its sides, `subset` is out of range, or there cannot be such folds.
    """
    images = _Images(labels, groups)
    rest = np.arange(len(labels), dtype=np.int64)
    if own_val is not None:
        rest = np.setdiff1d(rest, own_val, assume_unique=True)
    test = np.empty(0, np.int64)
    if hold_out_test:
        free = rest if own_val is None else images.apart_from(rest, own_val)
        test = _test_part(images, free, stream(split_seed, "split test"))
        rest = np.setdiff1d(rest, test, assume_unique=True)
    if own_val is not None and (val == 0 or folding is not None):
        rest = np.union1d(rest, own_val)
    epoch = None if folding is None else folding.epoch_images(len(rest))
    held_out = np.empty(0, np.int64)
    if folding is not None:
        drawn = stream(split_seed, "split folds", folding.partition)
        held_out = rest[images.folds(rest, folding.folds, drawn) == folding.fold]
    elif val != 0:
        held_out = own_val if own_val is not None else _validation_part(images, rest, val, split_seed)
    rest = np.setdiff1d(rest, held_out, assume_unique=True)
    if subset is not None:
        rest = _subset(labels, rest, subset, stream(split_seed, "split subset"))
    if epoch is None or subset is not None:
        epoch = len(rest)
    return Split(train=rest, val=held_out, test_from_train=test, epoch_images=epoch)


@dataclass(frozen=True, slots=True, eq=False)
class _Images:
    """The classes of all images, and their groups where they have some."""

    labels: npt.NDArray[np.integer]
    groups: Indices | None

    def pick(self, rest: Indices, fraction: float, count: int, seed: int, *, name: str) -> Indices:
        """Pick a fraction of some images: so many, or whole groups that hold about as many."""
        if self.groups is None:
            return rest[stratified_pick(self.labels[rest], count, seed, spare_one=True)]
        return rest[pick_groups(self.labels[rest], self.groups[rest], fraction, seed, name=name)]

    def apart_from(self, rest: Indices, others: Indices) -> Indices:
        """Return those of some images of whose groups others are not."""
        if self.groups is None:
            return rest
        return rest[~np.isin(self.groups[rest], self.groups[others])]

    def folds(self, rest: Indices, folds: int, seed: int) -> Indices:
        """Return the fold of each of some images."""
        return fold_numbers(
            self.labels[rest], folds, seed, None if self.groups is None else self.groups[rest]
        )


def _test_part(images: _Images, rest: Indices, seed: int) -> Indices:
    classes = len(np.unique(images.labels[rest]))
    count = _held_out(len(rest), classes, TEST_FRACTION)
    if count > len(rest) - classes:
        raise UsageError(
            f"{len(rest)} images of {classes} classes are too few to hold out a sixth as test",
            hint="give the dataset a test set of its own, or more images",
        )
    return images.pick(rest, TEST_FRACTION, count, seed, name="a sixth as test")


def _validation_part(images: _Images, rest: Indices, val: float, split_seed: int) -> Indices:
    classes = len(np.unique(images.labels[rest]))
    count = _validation_count(len(rest), classes, val)
    return images.pick(rest, val, count, stream(split_seed, "split val"), name=f"val={val:g}")


def _subset(labels: npt.NDArray[np.integer], rest: Indices, subset: int, seed: int) -> Indices:
    classes = len(np.unique(labels[rest]))
    if subset > len(rest):
        raise UsageError(
            f"subset={subset}: the training split has {len(rest)} images",
            hint=f"leave subset away to train on all, or give a number from {classes} to {len(rest)}",
        )
    if subset < classes:
        raise UsageError(
            f"subset={subset}: fewer than one image for each of {classes} classes",
            hint=f"give a number from {classes} to {len(rest)}",
        )
    return rest[stratified_pick(labels[rest], subset, seed)]


def _validation_count(images: int, classes: int, val: float) -> int:
    if not 0 < val < 1:
        raise UsageError(
            f"val={val:g}: not a fraction", hint="give a number from 0 (no validation) to below 1"
        )
    if round(val * images) < 1:
        raise UsageError(
            f"val={val:g}: holds out none of {images} images",
            hint=f"give at least {1 / images:.2g}, or 0 for no validation",
        )
    count = _held_out(images, classes, val)
    if count > images - classes:
        raise UsageError(
            f"val={val:g}: takes {count} of {images} images, and {classes} classes need one each to train",
            hint=f"give less than {max(0, images - classes) / images:.2g}",
        )
    return count


def _held_out(images: int, classes: int, fraction: float) -> int:
    """The size of a held-out part: its share, but one image for each class where it is that small."""
    return max(int(fraction * images + 0.5), min(classes, images - classes))


def _quotas(sizes: Indices, most: Indices, count: int) -> Indices:
    """Share `count` among classes: largest remainder, within `most`, no class empty where that can be."""
    exact = sizes * (count / max(1, sizes.sum()))
    quotas: Indices = np.minimum(np.floor(exact).astype(np.int64), most)
    while (missing := count - int(quotas.sum())) > 0:
        open_ = np.flatnonzero(quotas < most)
        neediest = open_[np.argsort(quotas[open_] - exact[open_], kind="stable")]
        quotas[neediest[:missing]] += 1
    for empty in np.flatnonzero((quotas == 0) & (most > 0)):
        if quotas.max() <= 1:
            break
        richest = int(np.argmax(np.where(quotas > 1, quotas - exact, -np.inf)))
        quotas[richest] -= 1
        quotas[empty] += 1
    return quotas
