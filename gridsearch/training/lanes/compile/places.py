"""Where the numbers of an activation lie: each is a code, and what only moves numbers moves their codes.

Stands below `stage_reader`.  A layer that views, turns, cuts or joins activations is called with tensors of codes in
the place of its activations, whatever it is.  What comes out says which numbers of which values the next layer reads,
and in which order.

A code is a value's number, an image of the sample and a place in the image, which are in the order [pixels][channels];
0 is the number 0.

Shapes: B batch, C/H/W channels, height, width.
"""

from __future__ import annotations

import torch

from gridsearch.training.lanes.compile.step_graph import NoPlan

PARAMETERS = 2**20
"""Values from this number on are parameters or buffers, which have no images."""

_IMAGE, _SOURCE = 32, 36  # bits in front of an image, and of a value
_PLACE = 2**_IMAGE - 1


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
    if codes.dim() < 2 or len(codes) != images:
        raise NoPlan("an activation without a dimension of images")
    first = codes[0]
    steps = torch.arange(images).view(-1, *(1,) * first.dim()) << _IMAGE
    if not torch.equal(codes, first + steps * (is_activation(first)).to(torch.int64)):
        raise NoPlan("an activation that mixes images")
    return first


def is_activation(codes: torch.Tensor) -> torch.Tensor:
    """Return which codes are those of activations."""
    values = values_of(codes)
    found: torch.Tensor = torch.logical_and(values >= 0, values < PARAMETERS)
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
