"""An operation of a plan as the small C sources have them: functions that read their shape from a structure.

Stands between `small_ops` and `block_ops`, which know shapes, and the compiled libraries.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from gridsearch.training.kernels.calling import REALS
from gridsearch.training.kernels.compiler import load
from gridsearch.training.kernels.stages import numbers

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from gridsearch.training.kernels.op import Layout
    from gridsearch.training.kernels.stages import Shape

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class CompiledOp:
    """An operation whose inputs have one layout; see `Op`.

    Attributes:
        shape: what its functions read; None where they are compiled for it.
        kept: memory that the shape points to.
    """

    inputs: tuple[Layout, ...]
    output: Layout
    library: Any
    saved: Callable[[int], int]
    workspace: Callable[[int], int]
    shape: ctypes.Structure | None = None
    in_place: bool = False
    kept: object = None

    @property
    def constants(self) -> int | None:
        """Where the shape is that its functions read; None where they are compiled for it."""
        return None if self.shape is None else ctypes.addressof(self.shape)

    def saved_bytes(self, images: int) -> int:
        """Return the size of what `forward` leaves for `backward`, for a batch of so many images."""
        return self.saved(images)

    def workspace_bytes(self, images: int) -> int:
        """Return the size of the memory that any of its calls needs besides."""
        return self.workspace(images)


def small_op(  # noqa: PLR0913  (what an operation is made of, each by its name)
    name: str,
    shape: ctypes.Structure,
    layouts: tuple[Layout, Layout],
    dtype: torch.dtype,
    saved: Callable[[int], int] = lambda _: 0,
    *,
    source: str = "small_ops.c",
    inputs: int = 1,
    workspace: int = 0,
    kept: object = None,
) -> CompiledOp | None:
    """Return an operation of a source for all shapes, with its layouts before and after; None without a compiler."""
    library = load(_FOLDER / source, {"DOUBLE": REALS.index(dtype)})
    if library is None:
        return None
    calls = calls_of(library, name)
    return CompiledOp(layouts[:1] * inputs, layouts[1], calls, saved, lambda _: workspace, shape, kept=kept)


def sides(shape: Shape) -> tuple[int, int]:
    """Return an image's channels, and how many numbers each has."""
    return (numbers(shape), 1) if len(shape) == 1 else (shape[0], numbers(shape[1:]))


def calls_of(library: Any, name: str) -> SimpleNamespace:
    """Return a library's functions of an operation under the names that all operations have."""
    functions = {call: getattr(library, f"{name}_{call}") for call in ("forward", "infer", "backward")}
    return SimpleNamespace(**functions)
