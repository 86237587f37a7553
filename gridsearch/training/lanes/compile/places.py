"""Where the numbers of an activation lie: each is a code, and what only moves numbers moves their codes.

Stands below `stage_reader`.  A layer that views, turns, cuts or joins activations is called with tensors of codes in
the place of its activations, whatever it is.  What comes out says which numbers of which values the next layer reads,
and in which order.

A code is a value's number, an image of the sample and a place in the image, which are in the order [pixels][channels];
0 is the number 0, and codes of the value `CONSTANTS` are places in a list of numbers.

Shapes: B batch, C/H/W channels, height, width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from gridsearch.training.kernels.stages import numbers
from gridsearch.training.lanes.compile.step_graph import NoPlan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.training.kernels.stages import Shape

PARAMETERS = 2**20
"""Values from this number on are parameters or buffers, which have no images."""

CONSTANTS = 2**21
"""The value of all numbers that are known before anything runs."""

_IMAGE, _SOURCE = 32, 36  # bits in front of an image, and of a value
_PLACE = 2**_IMAGE - 1
_MAP = 3  # dimensions of one image's maps


def encode(value: int, places: torch.Tensor, images: int | None) -> torch.Tensor:
    """Return the codes of a value's numbers.

    Args:
        value: its number.
        places: of the numbers, in whatever shape an image of it has.
        images: of a batch; None for a parameter.
    """
    own = places + (value + 1 << _SOURCE)
    if images is None:
        return own
    return torch.stack([own + (image << _IMAGE) for image in range(images)])


def one_image(codes: torch.Tensor, images: int) -> torch.Tensor:
    """Return the codes of the first image, in the image's own shape.

    Raises:
        NoPlan: the first dimension is not that of the images, or they are not treated alike.
    """
    if codes.dim() < 1 or len(codes) != images:
        raise NoPlan("an activation without a dimension of images")
    if not _are_alike(codes, images):
        raise NoPlan("an activation that mixes images")
    return codes[0]


def _are_alike(codes: torch.Tensor, images: int) -> bool:
    """Whether all images in the first dimension have the same places."""
    first = codes[0]
    steps = torch.arange(images).view(-1, *(1,) * first.dim()) << _IMAGE
    return torch.equal(codes, first + steps * (is_activation(first)).to(torch.int64))


@dataclass(frozen=True, slots=True)
class ImagesAt:
    """Where the images of an activation are: in a dimension, where each has so many parts (windows, say) in a row."""

    dim: int
    parts: int

    @classmethod
    def of(cls, codes: torch.Tensor, images: int) -> ImagesAt:
        """Find them.

        Raises:
            NoPlan: they are nowhere.
        """
        for dim, side in enumerate(codes.shape):
            found = cls(dim, side // images)
            if side and side % images == 0 and _are_alike(found.first(codes, images), images):
                return found
        raise NoPlan("an activation without a dimension of images")

    def first(self, codes: torch.Tensor, images: int) -> torch.Tensor:
        """Return an activation with its images first, their parts behind them if there are several."""
        moved = codes.movedim(self.dim, 0)
        return moved if self.parts == 1 else moved.reshape(images, self.parts, *moved.shape[1:])

    def back(self, codes: torch.Tensor) -> torch.Tensor:
        """Return an activation as it was; other dimensions may have other sides."""
        joined = codes if self.parts == 1 else codes.flatten(0, 1)
        return joined.movedim(0, self.dim)

    def dims(self, dim: int) -> tuple[int, ...]:
        """Return the dimensions that one has become."""
        more = self.parts > 1
        if dim == self.dim:
            return (0, 1) if more else (0,)
        return ((dim if dim > self.dim else dim + 1) + more,)


def is_activation(codes: torch.Tensor) -> torch.Tensor:
    """Return which codes are those of activations."""
    values = values_of(codes)
    found: torch.Tensor = torch.logical_and(values >= 0, values < PARAMETERS)
    return found


def is_known(codes: torch.Tensor) -> torch.Tensor:
    """Return which codes are those of numbers that are known before anything runs."""
    values = values_of(codes)
    found: torch.Tensor = torch.logical_or(values < 0, values >= CONSTANTS)
    return found


def values_of(codes: torch.Tensor) -> torch.Tensor:
    """Return each code's value; -1 where it is the number 0."""
    found: torch.Tensor = (codes >> _SOURCE) - 1
    return found


def places_of(codes: torch.Tensor) -> torch.Tensor:
    """Return each code's place."""
    found: torch.Tensor = codes & _PLACE
    return found


def only_value(codes: torch.Tensor) -> int | None:
    """Return the one value that all codes are of; None where they are of several, or the number 0."""
    values = values_of(codes)
    first = int(values.flatten()[0])
    return first if first >= 0 and bool((values == first).all()) else None


def all_values(codes: torch.Tensor) -> list[int]:
    """Return the values that codes are of, in the order of their numbers."""
    one = only_value(codes)
    if one is not None:
        return [one]
    found: torch.Tensor = values_of(codes).unique()  # type: ignore[no-untyped-call]
    return [value for value in found.tolist() if value >= 0]


def is_permutation(places: torch.Tensor, count: int) -> bool:
    """Whether places are those of so many numbers, each of them once."""
    if places.numel() != count or int(places.max()) >= count:
        return False
    seen = torch.zeros(count, dtype=torch.bool)
    seen[places.flatten()] = True
    return bool(seen.all())


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """A tensor whose content is known, in the place of an activation's codes."""

    content: torch.Tensor


def map_places(shape: Shape) -> torch.Tensor:
    """Return where the numbers of maps [C, H, W] lie, which are [H, W, C], or of features [F]."""
    if len(shape) != _MAP:
        return torch.arange(numbers(shape)).view(shape)
    channels, height, width = shape
    return torch.arange(numbers(shape)).view(height, width, channels).permute(2, 0, 1)


def renumbered(table: np.ndarray, constants: Sequence[float]) -> tuple[tuple[float, ...], np.ndarray]:
    """Return the numbers that a table's places of no input are of, and the places with those numbered anew."""
    of_none = table[:, 0] < 0
    found, places = np.unique(table[of_none, 1], return_inverse=True)
    at = table[:, 1].copy()
    at[of_none] = places
    return tuple(constants[i] for i in found), at


def in_rows(rows: torch.Tensor, channels: int) -> torch.Tensor:
    """Return where the numbers [..., D] of rows lie, each of so many channels."""
    return rows[..., None] * channels + torch.arange(channels)
