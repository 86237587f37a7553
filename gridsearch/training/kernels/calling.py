"""What all kernels share: how tensors reach compiled code, and the checks before.

Compiled code reads and writes whatever lies at an address: what is checked here would else be memory of others.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

REALS = (torch.float32, torch.float64)
"""What a kernel computes with; its source gets the position in this as DOUBLE."""

SIZE = ctypes.c_ssize_t
POINTER = ctypes.c_void_p


def function(found: Callable[..., int], result: type | None, *arguments: type) -> Callable[..., int]:
    """Return a library's function with the types of its arguments and its result."""
    found.restype = result  # type: ignore[attr-defined]
    found.argtypes = arguments  # type: ignore[attr-defined]
    return found


def address(tensor: torch.Tensor | None) -> int | None:
    """Return where a tensor's numbers begin; None, which is C's null, for none."""
    return None if tensor is None else tensor.data_ptr()


def place_of(found: Callable[..., int]) -> int:
    """Return where a library's function lies, for other compiled code to call."""
    place = ctypes.cast(found, POINTER).value  # type: ignore[arg-type]
    assert place is not None
    return place


def strides(x: torch.Tensor) -> ctypes.Array[ctypes.c_ssize_t]:
    """Return a tensor's strides, in numbers."""
    return (SIZE * x.dim())(*x.stride())


def require(name: str, tensor: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Check a tensor [K, ...] of which compiled code takes each lane's numbers as one block of memory.

    Raises:
        ValueError: it has another shape, dtype, layout or device.
    """
    if tuple(tensor.shape) != shape or not tensor[0].is_contiguous():
        given = f"{tuple(tensor.shape)} with the strides {tensor.stride()}"
        raise ValueError(f"{name} is {given}, where a kernel needs {shape}, each lane's in one block")
    require_type(name, tensor, dtype)


def require_type(name: str, tensor: torch.Tensor, dtype: torch.dtype) -> None:
    """Check what a tensor's numbers are and where.

    Raises:
        ValueError: they are of another type, or not in the CPU's memory.
    """
    if tensor.dtype != dtype or not tensor.is_cpu:
        raise ValueError(
            f"{name} is {tensor.dtype} on {tensor.device}, where a kernel needs {dtype} on a CPU"
        )
