"""What all kernels have alike: how tensors reach compiled code, and what they are for."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

REALS = (torch.float32, torch.float64)
"""What a kernel computes with; its source knows the place in this as DOUBLE."""

MOST_WEIGHTS = 32768
"""Weights of a lane's layer above which torch is faster: they no longer stay in a core's own cache."""

SIZE = ctypes.c_ssize_t
POINTER = ctypes.c_void_p


def function(found: Callable[..., int], result: type | None, *arguments: type) -> Callable[..., int]:
    """Return a library's function, told what it takes and gives."""
    found.restype = result  # type: ignore[attr-defined]
    found.argtypes = arguments  # type: ignore[attr-defined]
    return found


def address(tensor: torch.Tensor | None) -> int | None:
    """Return where a tensor's numbers begin; None, which is C's null, for none."""
    return None if tensor is None else tensor.data_ptr()


def strides(x: torch.Tensor) -> ctypes.Array[ctypes.c_ssize_t]:
    """Return a tensor's strides, in numbers."""
    return (SIZE * x.dim())(*x.stride())
