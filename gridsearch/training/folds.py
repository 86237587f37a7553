"""Which fold of a cross-validation an image is in, and which groups of images are held out; beside `splits`.

Folds are stratified: each has its share of every class.  Where images are grouped (pictures of one patient), a group
stays whole.  Then shares cannot be exact: groups are given out one by one, those with the largest shares first, each to
the part whose shares of the classes come nearest to what they should be (in squares, summed over classes and parts), as
scikit-learn's `StratifiedGroupKFold` does.  All of it is whole numbers, so that every machine finds the same.

Shapes: N images, G groups, Y classes, P parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from gridsearch.errors import UsageError

if TYPE_CHECKING:
    from gridsearch.records import ImageSettings

Indices: TypeAlias = npt.NDArray[np.int64]

_DIGITS = 18
"""Bits behind the point of a share's square; with them a class of three million images fits into 64 bits."""

_WEIGHTS = 64


@dataclass(frozen=True, slots=True)
class Folding:
    """One fold of a cross-validation.

    Attributes:
        folds: how many there are, at least two.
        fold: which one is held out, counted from 1.
        partition: seed of the partition.
    """

    folds: int
    fold: int
    partition: int

    @classmethod
    def of(cls, settings: ImageSettings) -> Self | None:
        """Return what a trial holds out; None where it is not of a cross-validation."""
        if settings.folds is None:
            return None
        assert settings.fold is not None and settings.partition is not None, "the settings of a point"
        return cls(settings.folds, settings.fold, settings.partition)

    def epoch_images(self, images: int) -> int:
        """Return how many of so many images an epoch takes, the same in every fold of every partition.

        It is what the largest fold of equal ones leaves.  Of a training part that is larger each epoch leaves others
        out; of one that is smaller, as with folds of whole groups, some come twice.
        """
        return images - -(-images // self.folds)


def fold_numbers(
    labels: npt.NDArray[np.integer], folds: int, seed: int, groups: Indices | None = None
) -> Indices:
    """Part images into folds.

    Without groups the folds differ by at most one image in size, and in each class.

    Args:
        labels: int [N], the class of each image.
        folds: how many.
        seed: fixes the draw.
        groups: int [N], the group of each image; None where each is by itself.

    Returns:
        the fold of each image, 1 to `folds`, int64 [N].

    Raises:
        UsageError: a class, or the groups, are too few for so many folds.
    """
    numbers = np.empty(len(labels), np.int64)
    if groups is None:
        least = int(np.unique(labels, return_counts=True)[1].min())
        if folds > least:
            raise UsageError(
                f"folds={folds}: the smallest class has {least} image{'s' * (least != 1)}",
                hint=f"give at most {least} folds, or more images of that class"
                if least > 1
                else "give more images of that class",
            )
        keys = np.random.PCG64(seed).random_raw(len(labels))
        numbers[np.lexsort((keys, labels))] = np.arange(len(labels)) % folds + 1
        return numbers
    places, counts_GY = _counted(labels, groups)
    if folds > len(counts_GY):
        raise UsageError(
            f"folds={folds}: the images are of {len(counts_GY)} groups",
            hint=f"give at most {len(counts_GY)} folds, or leave --group out",
        )
    if (alone := int(((counts_GY > 0).sum(0) == 1).sum())) > 0:
        raise UsageError(
            f"folds={folds}: {alone} of {counts_GY.shape[1]} classes are in a single group "
            "each, so no network could be trained and validated on them",
            hint="group by something finer, or leave --group out",
        )
    parts_G = _share_out(counts_GY, np.ones(folds, np.int64), seed, kept=np.zeros(len(counts_GY), bool))
    numbers[:] = parts_G[places] + 1
    return numbers


def pick_groups(
    labels: npt.NDArray[np.integer], groups: Indices, fraction: float, seed: int, *, name: str
) -> Indices:
    """Pick whole groups that hold about a fraction of the images, and of each class.

    A class that lies within one group stays where the network is trained.

    Args:
        labels: int [N].
        groups: int [N], the group of each image.
        fraction: above 0 and below 1.
        seed: fixes the draw.
        name: what they are picked for, for the refusal.

    Returns:
        ascending positions in `labels`, int64.

    Raises:
        UsageError: no group can be picked.
    """
    places, counts_GY = _counted(labels, groups)
    sole = (counts_GY > 0).sum(0) == 1
    kept = np.asarray((counts_GY[:, sole] > 0).any(axis=1), dtype=bool)
    if kept.all():
        which = (
            "the only group of images cannot"
            if len(kept) == 1
            else f"none of the {len(kept)} groups of images can"
        )
        raise UsageError(
            f"{name}: {which} be held out, since {'it' if len(kept) == 1 else 'each'} has all images of a class",
            hint="group by something finer, or leave --group out",
        )
    inverse = np.array([round(_WEIGHTS / share) for share in (1 - fraction, fraction)], np.int64)
    parts_G = _share_out(counts_GY, inverse, seed, kept=kept)
    if not parts_G.any():  # all groups are large: the smallest is nearest
        sizes = np.where(kept, np.iinfo(np.int64).max, counts_GY.sum(1))
        parts_G[int(sizes.argmin())] = 1
    picked: Indices = np.flatnonzero(parts_G[places]).astype(np.int64)
    return picked


def _counted(labels: npt.NDArray[np.integer], groups: Indices) -> tuple[Indices, Indices]:
    """Return each image's place among the groups [N], and how many images of each class a group has [G, Y]."""
    _, places = np.unique(groups, return_inverse=True)
    classes, columns = np.unique(labels, return_inverse=True)
    counts_GY = np.zeros((places.max(initial=-1) + 1, len(classes)), np.int64)
    np.add.at(counts_GY, (places, columns), 1)
    return places, counts_GY


def _share_out(counts_GY: Indices, inverse_P: Indices, seed: int, *, kept: npt.NDArray[np.bool_]) -> Indices:
    """Give each group to a part.

    Args:
        counts_GY: images of each class.
        inverse_P: for each part a multiple of one over the share that it should have.
        seed: decides between groups of the same shares.
        kept: groups that go to the first part [G].

    Returns:
        the part of each group, 0 to P - 1.
    """
    squares_Y = counts_GY.sum(0) ** 2
    size_G = ((counts_GY**2 << _DIGITS) // squares_Y).sum(1)
    keys = np.random.PCG64(seed).random_raw(len(counts_GY))
    filled_PY = np.zeros((len(inverse_P), counts_GY.shape[1]), np.int64)
    images_P = np.zeros(len(inverse_P), np.int64)
    parts_G = np.zeros(len(counts_GY), np.int64)
    for group in np.lexsort((keys, -size_G, ~kept)):
        own_Y = counts_GY[group]
        part = 0
        if not kept[group]:
            # what the sum of squared shares grows by
            growth = ((2 * filled_PY + own_Y) * own_Y << _DIGITS) // squares_Y
            part = int(np.lexsort((images_P * inverse_P, growth.sum(1) * inverse_P))[0])
        parts_G[group] = part
        filled_PY[part] += own_Y
        images_P[part] += own_Y.sum()
    return parts_G
