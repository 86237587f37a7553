"""How far two tensors are from each other, in double precision; below `agreement`, which says how far they may be.

A large network has gigabytes of gradients and weights to compare.  On a CPU they are taken piece by piece, each of
which stays in the core's own cache: that takes a tenth of the time, and no memory for a second copy of a tensor.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE = 2**15
"""Numbers of a tensor that are converted at a time."""


def largest(values: torch.Tensor) -> float:
    """Return the largest absolute value; NaN and infinities count as 0, and so does a tensor without numbers."""
    return max((float(piece.nan_to_num_(0, 0, 0).abs_().max()) for (piece,) in _pieces(values)), default=0.0)


def rms(values: torch.Tensor) -> float:
    """Return the root of the mean square; NaN counts as 0, an infinity as the largest number."""
    return _root(values, (piece.nan_to_num_() for (piece,) in _pieces(values)))


def distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Return the root of the mean square of a difference; what is not finite counts as in `rms`."""
    pieces = _pieces(ours, theirs)
    return _root(theirs, (one.nan_to_num_().sub_(other.nan_to_num_()) for one, other in pieces))


def is_close(ours: torch.Tensor, theirs: torch.Tensor, *, rtol: float, atol: float) -> bool:
    """Whether a tensor is as near to another as `torch.allclose` asks for, NaN at the same places included."""
    return all(_is_close(one, other, rtol, atol) for one, other in _pieces(ours, theirs))


def _is_close(one: torch.Tensor, other: torch.Tensor, rtol: float, atol: float) -> bool:
    if float((one - other).abs_().sub_(other.abs(), alpha=rtol).max()) <= atol:  # takes a third of the time
        return True
    return torch.allclose(one, other, rtol=rtol, atol=atol, equal_nan=True)  # knows NaN and infinities


def _root(values: torch.Tensor, pieces: Iterator[torch.Tensor]) -> float:
    total = sum(float(piece.square_().sum()) for piece in pieces)
    return math.sqrt(total / values.numel()) if values.numel() else 0.0


def _pieces(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Go through tensors of one shape side by side, some numbers of each at a time, copied to doubles.

    Raises:
        ValueError: their shapes differ.
    """
    if len({tensor.shape for tensor in tensors}) > 1:
        raise ValueError(f"tensors of shapes {', '.join(str(tuple(tensor.shape)) for tensor in tensors)}")
    size = tensors[0].numel()
    if size == 0:
        return
    at_a_time = _PIECE if tensors[0].device.type == "cpu" else size
    for pieces in zip(
        *(torch.split(tensor.detach().flatten(), at_a_time) for tensor in tensors), strict=True
    ):
        yield tuple(piece.to(torch.float64, copy=True) for piece in pieces)
