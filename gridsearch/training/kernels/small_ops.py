"""The operations of small layers: pooled convolutions, dense and recurrent layers, dropout, conversions of layouts.

Stands between their C sources and a plan; see `op`.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gridsearch.training.kernels import dense, pooled
from gridsearch.training.kernels.calling import POINTER, REALS, SIZE, function
from gridsearch.training.kernels.compiled_op import CompiledOp, calls_of, sides, small_op
from gridsearch.training.kernels.compiler import load
from gridsearch.training.kernels.dense import DenseShape
from gridsearch.training.kernels.op import Layout, activation_numbers
from gridsearch.training.kernels.pooled import PooledShape
from gridsearch.training.kernels.stages import (
    Cell,
    Conv,
    Dropout,
    LeakyRelu,
    Linear,
    MaxPool,
    Recurrent,
    Relu,
    numbers,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from gridsearch.training.kernels.stages import Shape, Stage

RECURRENT = Path(__file__).with_name("recurrent.c")
_LAYOUTS = (Layout.FEATURES, Layout.CHANNELS_LAST, Layout.BATCH_INNER)  # their numbers in C


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
        case Recurrent():
            return _recurrent(stages[0], dtype)
        case Relu() | LeakyRelu() if len(shape) == 1:
            return _rectifier(stages[0], shape, dtype)
    return None


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
        calls_of(library, "op"),
        lambda images: images * results,
        lambda _: max(spaces) * dtype.itemsize,
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
    return _features_op(library, "op", layers, dtype), covered


def _narrow_dense(stages: Sequence[Stage], dtype: torch.dtype) -> tuple[CompiledOp, int] | None:
    """Return a dense layer of few inputs, and perhaps ReLU."""
    layer = stages[0]
    if not isinstance(layer, Linear):
        return None
    relu = len(stages) > 1 and isinstance(stages[1], Relu)
    shape = _Narrow(layer.inputs, layer.outputs, int(relu))
    space = (layer.inputs + 1) * layer.outputs * dtype.itemsize
    op = small_op("narrow", shape, (Layout.FEATURES, Layout.FEATURES), dtype, workspace=space)
    return None if op is None else (op, 2 if relu else 1)


def _recurrent(stage: Recurrent, dtype: torch.dtype) -> tuple[CompiledOp, int] | None:
    """Return a recurrent layer in one direction."""
    library = load(RECURRENT, {"DOUBLE": REALS.index(dtype)})
    if library is None:
        return None
    cell = list(Cell).index(stage.cell)
    how = int(stage.reverse), int(stage.begins), int(stage.ends)
    shape = _Recurrent(cell, stage.steps, stage.inputs, stage.hidden, *how)
    given = 0 if not stage.begins else 2 if stage.cell is Cell.LSTM else 1
    return _features_op(library, "recurrent", shape, dtype, inputs=1 + given), 1


def _features_op(
    library: ctypes.CDLL, prefix: str, shape: ctypes.Structure, dtype: torch.dtype, *, inputs: int = 1
) -> CompiledOp:
    """Return an operation on features of a library that says itself what space it takes, in numbers.

    Args:
        library: holds its functions.
        prefix: of their names.
        shape: what they are given of it.
        dtype: of the numbers.
        inputs: how many it takes.
    """
    place, size = ctypes.addressof(shape), dtype.itemsize
    saved, workspace = (
        function(getattr(library, f"{prefix}_{what}"), SIZE, POINTER, SIZE) for what in ("saved", "workspace")
    )
    return CompiledOp(
        (Layout.FEATURES,) * inputs,
        Layout.FEATURES,
        calls_of(library, prefix),
        lambda images: saved(place, images) * size,
        lambda images: workspace(place, images) * size,
        shape=shape,
    )


def _rectifier(stage: Relu | LeakyRelu, shape: Shape, dtype: torch.dtype) -> tuple[CompiledOp, int] | None:
    """Return an activation of features."""
    slope = stage.slope if isinstance(stage, LeakyRelu) else 0.0
    op = small_op("rectify", _Rectifier(shape[0], slope), (Layout.FEATURES, Layout.FEATURES), dtype)
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


class _Recurrent(ctypes.Structure):
    _fields_ = tuple(
        (name, _INT) for name in ("cell", "steps", "inputs", "hidden", "reverse", "begins", "ends")
    )


class _Rectifier(ctypes.Structure):
    _fields_ = (("features", _INT), ("slope", ctypes.c_double))


class _Dropout(ctypes.Structure):
    _fields_ = (
        *((name, _INT) for name in ("inner", "numbers", "drawn", "step", "from_recipe", "alpha")),
        ("rate", ctypes.c_double),
        ("places", POINTER),
    )


class _Conversion(ctypes.Structure):
    _fields_ = tuple((name, _INT) for name in ("before", "after", "channels", "pixels"))


def dropout(stage: Dropout, layout: Layout, shape: Shape, dtype: torch.dtype) -> CompiledOp | None:
    """Return the operation of a dropout layer.

    Args:
        stage: the layer.
        layout: in which it has its input and output.
        shape: of one image, [C, H, W] or [F].
        dtype: of the weights.
    """
    channels, pixels = sides(shape)
    places = np.frombuffer(stage.order, np.int32).reshape(pixels, channels)
    places = np.ascontiguousarray(places.T if layout is Layout.FEATURES else places)
    inner = int(layout is Layout.BATCH_INNER)
    how = int(stage.from_recipe), int(stage.alpha), stage.rate, places.ctypes.data
    own = _Dropout(inner, channels * pixels, stage.drawn, stage.step, *how)

    def saved(images: int) -> int:
        return images * stage.drawn + _LINE + activation_numbers(layout, shape, images, dtype)

    return small_op("dropout", own, (layout, layout), dtype, saved, kept=places)


_LINE = 64  # where the mask in the activation's layout begins, behind the mask as it was drawn


def conversion(before: Layout, after: Layout, shape: Shape, dtype: torch.dtype) -> CompiledOp | None:
    """Return the operation that brings an activation into another layout.

    Args:
        before: the layout that it has.
        after: the one that it gets.
        shape: of one image, [C, H, W] or [F].
        dtype: of the weights.
    """
    own = _Conversion(_LAYOUTS.index(before), _LAYOUTS.index(after), *sides(shape))
    return small_op("convert", own, (before, after), dtype)


def same_memory(before: Layout, after: Layout, shape: Shape) -> bool:
    """Whether an activation's numbers lie alike in two layouts."""
    inner = Layout.BATCH_INNER
    if before is after:
        return True
    return inner not in (before, after) and (len(shape) == 1 or shape[0] == 1 or numbers(shape[1:]) == 1)
