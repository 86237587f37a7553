"""The operations of small layers: pooled convolutions, dense layers, dropout, and the conversions between layouts.

Stands between their C sources and a plan; see `op`.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from gridsearch.training.kernels import dense, pooled
from gridsearch.training.kernels.calling import POINTER, REALS, SIZE, function, place_of
from gridsearch.training.kernels.compiler import load
from gridsearch.training.kernels.dense import DenseShape
from gridsearch.training.kernels.op import Layout
from gridsearch.training.kernels.pooled import PooledShape
from gridsearch.training.kernels.stages import Conv, Dropout, LeakyRelu, Linear, MaxPool, Relu, numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.training.kernels.stages import Shape, Stage

_FOLDER = Path(__file__).parent
_LAYOUTS = (Layout.FEATURES, Layout.CHANNELS_LAST, Layout.BATCH_INNER)  # their numbers in C


@dataclass(frozen=True, slots=True)
class CompiledOp:
    """An operation with one input; see `Op`."""

    inputs: tuple[Layout, ...]
    output: Layout
    library: Any
    saved: Callable[[int], int]
    workspace: Callable[[int], int]
    in_place: bool = False
    constants: int | None = None

    def saved_bytes(self, images: int) -> int:
        """Return the size of what `forward` leaves for `backward`, for a batch of so many images."""
        return self.saved(images)

    def workspace_bytes(self, images: int) -> int:
        """Return the size of the memory that any of its calls needs besides."""
        return self.workspace(images)


def cover(stages: Sequence[Stage], shape: Shape, dtype: torch.dtype) -> tuple[CompiledOp, int] | None:
    """Return the operation of the longest run of stages that starts here, and how many it covers; None for none.

    Args:
        stages: those to come, each the only reader of the one before.
        shape: of one image that comes in.
        dtype: of the weights.
    """
    match stages[0]:
        case Conv():
            return _pooled(stages, shape, dtype)
        case Linear():
            return _dense(stages, dtype) or _large_dense(stages, dtype)
        case Relu() | LeakyRelu() if len(shape) == 1:
            return _rectifier(stages[0], shape, dtype)
    return None


def _size(dtype: torch.dtype) -> int:
    return torch.empty(0, dtype=dtype).element_size()


def _pooled(stages: Sequence[Stage], shape: Shape, dtype: torch.dtype) -> tuple[CompiledOp, int] | None:
    """Return a convolution with its max pooling, and perhaps ReLU, before it or after."""
    conv, *after = stages[:3]
    relu = any(isinstance(stage, Relu) for stage in after)
    after = [stage for stage in after if not isinstance(stage, Relu)]
    pool = after[0] if after else None
    plain = isinstance(conv, Conv) and conv.stride == conv.dilation == (1, 1) and conv.groups == 1
    if not plain or not isinstance(conv, Conv) or not isinstance(pool, MaxPool):
        return None
    side = pool.kernel[0]
    if pool.kernel != (side, side) or pool.stride != pool.kernel or pool.padding != (0, 0):
        return None
    _, height, width = shape
    sides = {"channels": conv.channels, "height": height, "width": width}
    found = PooledShape(**sides, kernel=conv.kernel, padding=conv.padding, pool=side, relu=relu)
    if not found.pays(conv.outputs):
        return None
    library = load(pooled.SOURCE, found.constants(dtype) | {"OUTPUTS": conv.outputs})
    if library is None:
        return None
    spaces = [
        function(getattr(library, f"{way}_workspace"), SIZE, SIZE)(conv.outputs)
        for way in ("forward", "backward")
    ]
    results = conv.outputs * found.pooled[0] * found.pooled[1]
    maps = Layout.CHANNELS_LAST
    op = CompiledOp(
        (maps,), maps, _calls(library), lambda images: images * results, lambda _: max(spaces) * _size(dtype)
    )
    return op, 3 if relu else 2


def _dense(stages: Sequence[Stage], dtype: torch.dtype) -> tuple[CompiledOp, int] | None:
    """Return dense layers that follow each other, each with ReLU after it or not."""
    sizes: list[int] = []
    relus: list[int] = []
    covered = 0
    while covered < len(stages) and len(relus) < _MOST_LAYERS:
        layer = stages[covered]
        if not isinstance(layer, Linear) or not DenseShape((layer.inputs, layer.outputs), (False,)).pays():
            break
        sizes = sizes or [layer.inputs]
        sizes.append(layer.outputs)
        relus.append(int(isinstance(stages[covered + 1], Relu)) if covered + 1 < len(stages) else 0)
        covered += 1 + relus[-1]
    if not relus:
        return None
    constants = {
        "DOUBLE": REALS.index(dtype),
        "COUNT": len(relus),
        "SIZES": ",".join(map(str, sizes)),
        "RELUS": ",".join(map(str, relus)),
    }
    library = load(dense.SOURCE, constants)
    if library is None:
        return None
    saved, workspace = (
        function(getattr(library, f"op_{what}"), SIZE, SIZE) for what in ("saved", "workspace")
    )
    size = _size(dtype)
    rows = Layout.FEATURES
    op = CompiledOp(
        (rows,),
        rows,
        _calls(library),
        lambda images: saved(images) * size,
        lambda images: workspace(images) * size,
    )
    return op, covered


def _large_dense(stages: Sequence[Stage], dtype: torch.dtype) -> tuple[CompiledOp, int] | None:
    """Return a dense layer by the BLAS that torch has, and perhaps ReLU."""
    layer, blas = stages[0], _blas()
    if blas is None or not isinstance(layer, Linear):
        return None
    relu = len(stages) > 1 and isinstance(stages[1], Relu)
    constants = {
        "DOUBLE": REALS.index(dtype),
        "INPUTS": layer.inputs,
        "OUTPUTS": layer.outputs,
        "RELU": int(relu),
    }
    library = load(_FOLDER / "large_dense.c", constants)
    if library is None:
        return None
    function(library.op_use, None, POINTER)(place_of(blas.dgemm_ if dtype == torch.float64 else blas.sgemm_))
    rows = Layout.FEATURES
    return CompiledOp((rows,), rows, _calls(library), lambda _: 0, lambda _: 0), 2 if relu else 1


def _rectifier(stage: Relu | LeakyRelu, shape: Shape, dtype: torch.dtype) -> tuple[CompiledOp, int] | None:
    """Return an activation of features."""
    slope = stage.slope if isinstance(stage, LeakyRelu) else 0.0
    constants = {"DOUBLE": REALS.index(dtype), "FEATURES": shape[0], "SLOPE": slope}
    library = load(_FOLDER / "rectifier.c", constants)
    rows = Layout.FEATURES
    return None if library is None else (CompiledOp((rows,), rows, library, lambda _: 0, lambda _: 0), 1)


@functools.cache
def _blas() -> ctypes.CDLL | None:
    """Return the library that has torch's matrix product; None where it exports none."""
    folder = Path(torch.__file__).parent / "lib"
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(str(folder / name))
            if hasattr(library, "sgemm_") and hasattr(library, "dgemm_"):
                return library
    return None


_MOST_LAYERS = 8  # their weights and biases are the operation's parameters


def dropout(
    stage: Dropout, layout: Layout, shape: Shape, dtype: torch.dtype, *, channels_last: bool
) -> CompiledOp | None:
    """Return the operation of a dropout layer.

    Args:
        stage: the layer.
        layout: in which it has its input and output.
        shape: of one image, [C, H, W] or [F].
        dtype: of the weights.
        channels_last: the layout of a lone lane's maps, in whose order torch draws a mask.
    """
    maps = len(shape) == 3
    channels, pixels = (shape[0], numbers(shape[1:])) if maps else (numbers(shape), 1)
    library = load(
        _FOLDER / "dropout.c",
        {
            "DOUBLE": REALS.index(dtype),
            "LAYOUT": _LAYOUTS.index(layout),
            "C": channels,
            "PIXELS": pixels,
            "WHOLE": int(stage.features),
            "LAST": int(maps and channels_last),
            "RATE": stage.rate,
            "RECIPE": int(stage.from_recipe),
        },
    )
    if library is None:
        return None
    mask = channels if stage.features else channels * pixels
    return CompiledOp((layout,), layout, library, lambda images: images * mask, lambda _: 0, in_place=True)


def conversion(before: Layout, after: Layout, shape: Shape, dtype: torch.dtype) -> CompiledOp | None:
    """Return the operation that brings an activation into another layout.

    Args:
        before: the layout that it has.
        after: the one that it gets.
        shape: of one image, [C, H, W] or [F].
        dtype: of the weights.
    """
    maps = len(shape) == 3
    channels, pixels = (shape[0], numbers(shape[1:])) if maps else (numbers(shape), 1)
    library = load(
        _FOLDER / "convert.c",
        {
            "DOUBLE": REALS.index(dtype),
            "FROM": _LAYOUTS.index(before),
            "TO": _LAYOUTS.index(after),
            "C": channels,
            "PIXELS": pixels,
        },
    )
    return None if library is None else CompiledOp((before,), after, library, lambda _: 0, lambda _: 0)


def same_memory(before: Layout, after: Layout, shape: Shape) -> bool:
    """Whether an activation's numbers lie alike in two layouts."""
    inner = Layout.BATCH_INNER
    if before is after:
        return True
    return inner not in (before, after) and (len(shape) == 1 or shape[0] == 1 or numbers(shape[1:]) == 1)


def _calls(library: Any) -> SimpleNamespace:
    """Return a library's functions for a plan under the names that all operations have."""
    return SimpleNamespace(
        forward=library.op_forward, infer=library.op_infer, backward=library.op_backward, kept=library
    )
