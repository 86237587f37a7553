"""Which images are for training, for validation and for test: decided once per study, before any training.

The order is fixed: first a sixth is held out as test where the dataset has no test set, then the validation
fraction of what is left, then the subset of what is left of that.  Each step is stratified and seeded.  Validation
images of the dataset's own take the place of that fraction; none of them is ever held out as test.

A draw ranks the images by 64-bit words straight from PCG64, whose bit stream numpy keeps stable over its
versions; the methods of `numpy.random.Generator` carry no such promise (NEP 19).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gridsearch.errors import UsageError
from gridsearch.training.seeds import stream

Indices = npt.NDArray[np.int64]

TEST_FRACTION = 1 / 6


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Split:
    """Indices into the training set, each ascending and no index in two of them.

    Attributes:
        train: images to train on, after validation and subset were taken.
        val: held out for ranking; empty where everything is trained on.
        test_from_train: held out as test before all else; empty where the dataset has a test set.
    """

    train: Indices
    val: Indices
    test_from_train: Indices


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
        own_val: the dataset's own validation images, ascending: they are held out unless `val` is 0.

    Raises:
        UsageError: `val` leaves nothing on one of its sides, or `subset` is out of range.
    """
    rest = np.arange(len(labels), dtype=np.int64)
    if own_val is not None:
        rest = np.setdiff1d(rest, own_val, assume_unique=True)
    classes = len(np.unique(labels[rest]))
    test = np.empty(0, np.int64)
    if hold_out_test:
        count = _held_out(len(rest), classes, TEST_FRACTION)
        if count > len(rest) - classes:
            raise UsageError(
                f"{len(rest)} images of {classes} classes are too few to hold out a sixth as test",
                hint="give the dataset a test set of its own, or more images",
            )
        test = rest[stratified_pick(labels[rest], count, stream(split_seed, "split test"), spare_one=True)]
        rest = np.setdiff1d(rest, test, assume_unique=True)
    held_out = np.empty(0, np.int64)
    if own_val is not None:
        if val != 0:
            held_out = own_val
        else:
            rest = np.union1d(rest, own_val)
    elif val != 0:
        count = _validation_count(len(rest), classes, val)
        held_out = rest[stratified_pick(labels[rest], count, stream(split_seed, "split val"), spare_one=True)]
        rest = np.setdiff1d(rest, held_out, assume_unique=True)
    if subset is not None:
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
        rest = rest[stratified_pick(labels[rest], subset, stream(split_seed, "split subset"))]
    return Split(train=rest, val=held_out, test_from_train=test)


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
