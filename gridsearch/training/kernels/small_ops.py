"""The operations of small layers: pooled convolutions, dense layers, dropout, and the conversions between layouts.

Stands between their C sources and a plan; see `op`.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from gridsearch.training.kernels import dense, pooled
from gridsearch.training.kernels.calling import POINTER, REALS, SIZE, function
from gridsearch.training.kernels.compiler import load
from gridsearch.training.kernels.dense import DenseShape
from gridsearch.training.kernels.op import INPUTS, Layout, activation_numbers
from gridsearch.training.kernels.pooled import PooledShape
from gridsearch.training.kernels.stages import (
    Activation,
    Concat,
    Conv,
    Curve,
    Dropout,
    Gate,
    LeakyRelu,
    Linear,
    MaxPool,
    Relu,
    numbers,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.training.kernels.stages import Shape, Stage

_FOLDER = Path(__file__).parent
_LAYOUTS = (Layout.FEATURES, Layout.CHANNELS_LAST, Layout.BATCH_INNER)  # their numbers in C


@dataclass(frozen=True, slots=True)
class CompiledOp:
    """An operation whose inputs have one layout; see `Op`."""

    inputs: tuple[Layout, ...]
    output: Layout
    library: Any
    saved: Callable[[int], int]
    workspace: Callable[[int], int]
    shape: ctypes.Structure | None = None
    in_place: bool = False

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
            return _dense(stages, dtype) or _narrow_dense(stages, dtype)
        case Relu() | LeakyRelu() if len(shape) == 1:
            return _rectifier(stages[0], shape, dtype)
        case Activation():
            return _activation(stages[0], shape, dtype)
        case Gate():
            return _gate(shape, dtype)
        case Concat():
            return _concat(stages[0], shape, dtype)
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
    sides = {"channels": conv.channels, "outputs": conv.outputs, "height": height, "width": width}
    found = PooledShape(**sides, kernel=conv.kernel, padding=conv.padding, pool=side, relu=relu)
    if not found.pays():
        return None
    library = load(pooled.SOURCE, found.constants(dtype))
    if library is None:
        return None
    spaces = [
        function(getattr(library, f"{way}_workspace"), SIZE, SIZE)(conv.outputs)
        for way in ("forward", "backward")
    ]
    results = conv.outputs * found.pooled[0] * found.pooled[1]
    maps = Layout.CHANNELS_LAST
    op = CompiledOp(
        (maps,),
        maps,
        _calls(library, "op"),
        lambda images: images * results,
        lambda _: max(spaces) * _size(dtype),
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
    library = load(dense.SOURCE, {"DOUBLE": REALS.index(dtype)}) if relus else None
    if library is None:
        return None
    layers = _Chain(len(relus), (_INT * _MOST_LAYERS)(*relus), (_INT * (_MOST_LAYERS + 1))(*sizes))
    place, size = ctypes.addressof(layers), _size(dtype)
    saved, workspace = (
        function(getattr(library, f"op_{what}"), SIZE, POINTER, SIZE) for what in ("saved", "workspace")
    )
    op = CompiledOp(
        (Layout.FEATURES,),
        Layout.FEATURES,
        _calls(library, "op"),
        lambda images: saved(place, images) * size,
        lambda images: workspace(place, images) * size,
        shape=layers,
    )
    return op, covered


def _narrow_dense(stages: Sequence[Stage], dtype: torch.dtype) -> tuple[CompiledOp, int] | None:
    """Return a dense layer of few inputs, and perhaps ReLU."""
    layer = stages[0]
    if not isinstance(layer, Linear):
        return None
    relu = len(stages) > 1 and isinstance(stages[1], Relu)
    shape = _Narrow(layer.inputs, layer.outputs, int(relu))
    space = (layer.inputs + 1) * layer.outputs * _size(dtype)
    op = _small("narrow", shape, (Layout.FEATURES, Layout.FEATURES), dtype, workspace=space)
    return None if op is None else (op, 2 if relu else 1)


def _rectifier(stage: Relu | LeakyRelu, shape: Shape, dtype: torch.dtype) -> tuple[CompiledOp, int] | None:
    """Return an activation of features."""
    slope = stage.slope if isinstance(stage, LeakyRelu) else 0.0
    op = _small("rectify", _Rectifier(shape[0], slope), (Layout.FEATURES, Layout.FEATURES), dtype)
    return None if op is None else (op, 1)


def _activation(stage: Activation, shape: Shape, dtype: torch.dtype) -> tuple[CompiledOp, int] | None:
    """Return an activation of maps or features."""
    layout = Layout.FEATURES if len(shape) == 1 else Layout.BATCH_INNER
    own = _Activation(list(Curve).index(stage.curve), numbers(shape), int(layout is Layout.BATCH_INNER))
    op = _small("activation", own, (layout, layout), dtype, source="gates.c")
    return None if op is None else (op, 1)


def _gate(shape: Shape, dtype: torch.dtype) -> tuple[CompiledOp, int] | None:
    """Return the product of maps and a number for each channel."""
    inner = Layout.BATCH_INNER
    op = _small("gate", _Gated(*_sides(shape)), (inner, inner), dtype, source="gates.c", inputs=2)
    return None if op is None else (op, 1)


def _concat(stage: Concat, shape: Shape, dtype: torch.dtype) -> tuple[CompiledOp, int] | None:
    """Return maps of several inputs as one."""
    count, inner = len(stage.channels), Layout.BATCH_INNER
    own = _Concat(count, numbers(shape[1:]), (_INT * INPUTS)(*stage.channels))
    op = _small("concat", own, (inner, inner), dtype, source="gates.c", inputs=count)
    return None if op is None else (op, 1)


_INT = ctypes.c_int64
_MOST_LAYERS = 8  # their weights and biases are the operation's parameters


class _Chain(ctypes.Structure):
    _fields_ = (
        ("count", _INT),
        ("relus", _INT * _MOST_LAYERS),
        ("sizes", _INT * (_MOST_LAYERS + 1)),
    )


class _Narrow(ctypes.Structure):
    _fields_ = tuple((name, _INT) for name in ("inputs", "outputs", "relu"))


class _Rectifier(ctypes.Structure):
    _fields_ = (("features", _INT), ("slope", ctypes.c_double))


class _Activation(ctypes.Structure):
    _fields_ = tuple((name, _INT) for name in ("kind", "numbers", "inner"))


class _Gated(ctypes.Structure):
    _fields_ = tuple((name, _INT) for name in ("channels", "pixels"))


class _Concat(ctypes.Structure):
    _fields_ = (("count", _INT), ("pixels", _INT), ("channels", _INT * INPUTS))


class _Dropout(ctypes.Structure):
    _fields_ = (
        *((name, _INT) for name in ("layout", "channels", "pixels", "whole", "last", "from_recipe")),
        ("rate", ctypes.c_double),
    )


class _Conversion(ctypes.Structure):
    _fields_ = tuple((name, _INT) for name in ("before", "after", "channels", "pixels"))


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
    channels, pixels = _sides(shape)
    last = len(shape) > 1 and channels_last
    how = int(stage.features), int(last), int(stage.from_recipe), stage.rate
    own = _Dropout(_LAYOUTS.index(layout), channels, pixels, *how)
    drawn = channels if stage.features else channels * pixels

    def saved(images: int) -> int:
        return images * drawn + _LINE + activation_numbers(layout, shape, images, dtype)

    return _small("dropout", own, (layout, layout), dtype, saved)


_LINE = 64  # where the mask in the activation's layout begins, behind the mask as it was drawn


def conversion(before: Layout, after: Layout, shape: Shape, dtype: torch.dtype) -> CompiledOp | None:
    """Return the operation that brings an activation into another layout.

    Args:
        before: the layout that it has.
        after: the one that it gets.
        shape: of one image, [C, H, W] or [F].
        dtype: of the weights.
    """
    own = _Conversion(_LAYOUTS.index(before), _LAYOUTS.index(after), *_sides(shape))
    return _small("convert", own, (before, after), dtype)


def _sides(shape: Shape) -> tuple[int, int]:
    """Return an image's channels, and how many numbers each has."""
    return (numbers(shape), 1) if len(shape) == 1 else (shape[0], numbers(shape[1:]))


def _small(
    name: str,
    shape: ctypes.Structure,
    layouts: tuple[Layout, Layout],
    dtype: torch.dtype,
    saved: Callable[[int], int] = lambda _: 0,
    *,
    source: str = "small_ops.c",
    inputs: int = 1,
    workspace: int = 0,
) -> CompiledOp | None:
    """Return an operation of a source for all shapes, with its layouts before and after; None without a compiler."""
    library = load(_FOLDER / source, {"DOUBLE": REALS.index(dtype)})
    if library is None:
        return None
    calls = _calls(library, name)
    return CompiledOp(layouts[:1] * inputs, layouts[1], calls, saved, lambda _: workspace, shape=shape)


def same_memory(before: Layout, after: Layout, shape: Shape) -> bool:
    """Whether an activation's numbers lie alike in two layouts."""
    inner = Layout.BATCH_INNER
    if before is after:
        return True
    return inner not in (before, after) and (len(shape) == 1 or shape[0] == 1 or numbers(shape[1:]) == 1)


def _calls(library: Any, name: str) -> SimpleNamespace:
    """Return a library's functions of an operation under the names that all operations have."""
    functions = {call: getattr(library, f"{name}_{call}") for call in ("forward", "infer", "backward")}
    return SimpleNamespace(**functions)
