"""Compiled operations of one lane: what a plan is made of, and how one is called; see `op.h`.

Stands between the families of operations, which compile C for the stages they cover, and the plan, which gives them
memory and calls them from C.

Shapes: B batch, C/H/W channels, height, width, F features, V numbers in a vector of this machine.
"""

from __future__ import annotations

import ctypes
import functools
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gridsearch.training.kernels.calling import POINTER, REALS, SIZE, function
from gridsearch.training.kernels.compiler import load
from gridsearch.training.kernels.stages import numbers

if TYPE_CHECKING:
    import torch

    from gridsearch.training.kernels.stages import Shape

SLACK = 256
"""Bytes that vectors may touch behind the end of a buffer."""

INPUTS, PARAMS, BUFFERS = 3, 32, 4  # as in op.h


class Layout(StrEnum):
    """How an activation lies in memory; see op.h."""

    FEATURES = "features"
    CHANNELS_LAST = "channels last"
    BATCH_INNER = "batch inner"


class OpArgs(ctypes.Structure):
    """`struct op_args`."""

    _fields_ = (
        ("x", POINTER * INPUTS),
        ("y", POINTER),
        ("params", POINTER * PARAMS),
        ("buffers", POINTER * BUFFERS),
        ("saved", POINTER),
        ("workspace", POINTER),
        ("gy", POINTER),
        ("gx", POINTER * INPUTS),
        ("grads", POINTER * PARAMS),
        ("images", SIZE),
        ("constants", POINTER),
        ("adds", ctypes.c_int * INPUTS),
    )


class Op(Protocol):
    """An operation of one lane, compiled for its shape.

    Attributes:
        inputs: layout of each input, and of its gradient.
        output: layout of the output, and of its gradient.
        in_place: y may be x[0], and gx[0] may be gy.
        library: exports `forward`, `infer` and `backward`.
        constants: address of what they read of the operation's shapes; None where they are compiled for them.
    """

    @property
    def inputs(self) -> tuple[Layout, ...]: ...  # noqa: D102
    @property
    def output(self) -> Layout: ...  # noqa: D102
    @property
    def in_place(self) -> bool: ...  # noqa: D102
    @property
    def library(self) -> Any: ...  # noqa: D102
    @property
    def constants(self) -> int | None: ...  # noqa: D102

    def saved_bytes(self, images: int) -> int:
        """Return the size of what `forward` leaves for `backward`, for a batch of so many images."""
        ...

    def workspace_bytes(self, images: int) -> int:
        """Return the size of the memory that any of its calls needs besides."""
        ...


@functools.cache
def vector_numbers(dtype: torch.dtype) -> int:
    """Return how many numbers a vector of this machine has: V.

    Raises:
        RuntimeError: nothing can be compiled here.
    """
    library = load(Path(__file__).with_name("vector_size.c"), {"DOUBLE": REALS.index(dtype)})
    if library is None:
        raise RuntimeError("no compiler for kernels")
    return function(library.vector_numbers, SIZE)()


def activation_numbers(layout: Layout, shape: Shape, images: int, dtype: torch.dtype) -> int:
    """Return how many numbers an activation has in a layout."""
    if layout is not Layout.BATCH_INNER:
        return images * numbers(shape)
    v = vector_numbers(dtype)
    return -(-images // v) * v * numbers(shape)


def to_layout(x: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Return an activation [B, C, H, W] or [B, F] as the numbers of a layout, in one dimension."""
    if layout is Layout.FEATURES or (x.dim() == 2 and layout is Layout.CHANNELS_LAST):
        return x.reshape(-1).clone()
    if layout is Layout.CHANNELS_LAST:
        return x.permute(0, 2, 3, 1).reshape(-1).clone()
    v = vector_numbers(x.dtype)
    padded = x.new_zeros(-(-len(x) // v) * v, *x.shape[1:])
    padded[: len(x)] = x
    if x.dim() == 4:
        padded = padded.permute(0, 2, 3, 1)
    return padded.reshape(-1, v, numbers(tuple(x.shape[1:]))).transpose(1, 2).reshape(-1).clone()
