"""Operations on blocks of images that need no more than their shape: activations, gates, orders, norms, attention.

Stands between their C sources and a plan; see `op`.  A value of theirs is [blocks][pixels][channels][V].

Shapes: C channels, V numbers in a vector.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gridsearch.training.kernels.activation_curves import Activation, Curve
from gridsearch.training.kernels.calling import POINTER, REALS
from gridsearch.training.kernels.compiled_op import CompiledOp, sides, small_op
from gridsearch.training.kernels.compiler import load
from gridsearch.training.kernels.op import INPUTS, Layout, vector_numbers
from gridsearch.training.kernels.stages import (
    Arrange,
    Gate,
    ImageNorm,
    Learned,
    Multiply,
    Pick,
    Product,
    Softmax,
    Where,
    Windows,
    numbers,
)

if TYPE_CHECKING:
    import torch

    from gridsearch.training.kernels.stages import Pair, Shape, Stage

_INT = ctypes.c_int64
_PAIR = _INT * 2
_INNER = (Layout.BATCH_INNER, Layout.BATCH_INNER)


def cover(stage: Stage, shape: Shape, dtype: torch.dtype) -> CompiledOp | None:
    """Return the operation of a stage; None where it is none of these, or nothing can be compiled.

    Args:
        stage: the stage.
        shape: of one image that comes in.
        dtype: of the weights.
    """
    match stage:
        case Activation():
            found = _activation(stage, shape, dtype)
        case Gate():
            found = small_op("gate", _Gated(*sides(shape)), _INNER, dtype, source="gates.c", inputs=2)
        case Multiply():
            own = _Numbers(numbers(shape))
            found = small_op("multiply", own, _INNER, dtype, source="gates.c", inputs=2)
        case Where():
            own = _Numbers(numbers(shape))
            found = small_op("where", own, _INNER, dtype, source="gates.c", inputs=3)
        case Arrange():
            found = _arrange(stage, dtype)
        case Learned():
            own = _Numbers(numbers(stage.shape))
            found = small_op("learned", own, _INNER, dtype, source="arrange.c", inputs=0)
        case ImageNorm():
            found = _norm(stage, shape, dtype)
        case Softmax():
            channels, pixels = sides(shape)
            how = _Softmax(pixels, channels, int(stage.logarithm))
            found = small_op("softmax", how, _INNER, dtype, source="attention.c")
        case Windows():
            found = _windows(stage, dtype)
        case Product():
            found = _product(stage, dtype)
        case _:
            found = None
    return found


def gradient_sum(count: int, dtype: torch.dtype) -> tuple[Any, ctypes.Structure]:
    """Return what adds so many numbers of a gradient to another, and what it reads.

    Raises:
        RuntimeError: nothing can be compiled here.
    """
    library = load(Path(__file__).with_name("gates.c"), {"DOUBLE": REALS.index(dtype)})
    if library is None:
        raise RuntimeError("no compiler for kernels")
    return library.gradient_sum, _Numbers(count)


def _activation(stage: Activation, shape: Shape, dtype: torch.dtype) -> CompiledOp | None:
    layout = Layout.FEATURES if len(shape) == 1 else Layout.BATCH_INNER
    kind, inner = list(Curve).index(stage.curve), int(layout is Layout.BATCH_INNER)
    own = _Activation(kind, numbers(shape), inner, stage.a, stage.b)
    return small_op("activation", own, (layout, layout), dtype, source="gates.c")


def _arrange(stage: Arrange, dtype: torch.dtype) -> CompiledOp | None:
    places = np.frombuffer(stage.places, np.int32).reshape(-1, 2)
    inputs, at = places.T
    count = len(stage.sizes)
    # a run goes on as long as the next number is of the same input, and the next one there
    goes_on = (inputs[1:] == inputs[:-1]) & (at[1:] == at[:-1] + (inputs[1:] >= 0))
    first = np.flatnonzero(np.concatenate([[True], ~goes_on]))
    lengths = np.diff(np.append(first, len(places)))
    runs = np.ascontiguousarray(np.stack([inputs[first], at[first], first, lengths], 1), dtype=np.int32)
    constants = np.array(stage.constants)
    whole = [np.array_equal(np.sort(at[inputs == i]), np.arange(size)) for i, size in enumerate(stage.sizes)]
    own = _Arrangement(
        *(count, len(places)),
        *((_INT * INPUTS)(*each) for each in (stage.sizes, whole)),
        *(len(runs), runs.ctypes.data, constants.ctypes.data),
    )
    return small_op("arrange", own, _INNER, dtype, source="arrange.c", inputs=count, kept=(runs, constants))


def _norm(stage: ImageNorm, shape: Shape, dtype: torch.dtype) -> CompiledOp | None:
    channels, pixels = sides(shape)
    own = _Norm(channels, pixels, stage.groups, int(stage.centers), stage.eps)
    vector = vector_numbers(dtype)
    sets = stage.groups or pixels

    def saved(images: int) -> int:
        return -(-images // vector) * sets * 2 * vector * dtype.itemsize

    workspace = 2 * channels * vector * dtype.itemsize
    return small_op("norm", own, _INNER, dtype, saved, source="image_norms.c", workspace=workspace)


def _product(stage: Product, dtype: torch.dtype) -> CompiledOp | None:
    places = np.frombuffer(stage.places, np.int64)
    sides = (stage.rows, stage.depth), (stage.depth, stage.columns)
    whole = [
        _covers(begins, side, steps, size)
        for begins, side, steps, size in zip(
            places.reshape(2, -1), sides, stage.steps, stage.sizes, strict=True
        )
    ]
    own = _Product(
        *(stage.count, stage.rows, stage.columns, stage.depth, _PAIR(*stage.sizes), _PAIR(*whole)),
        *((_PAIR * 2)(*(_PAIR(*each) for each in stage.steps)), stage.scale, places.ctypes.data),
    )
    return small_op("product", own, _INNER, dtype, source="attention.c", inputs=2, kept=places)


def _windows(stage: Windows, dtype: torch.dtype) -> CompiledOp | None:
    count = numbers(stage.shape)
    places = np.frombuffer(stage.places, np.int32).reshape(count, -1)
    weights = np.frombuffer(stage.weights).reshape(count, -1) if stage.weights else np.ones(places.shape)
    there = places >= 0
    # a run goes on as long as each place of the next window is the next one, with the same weight
    same = (there[1:] == there[:-1]) & (weights[1:] == weights[:-1])
    goes_on = (same & (~there[1:] | (places[1:] == places[:-1] + 1))).all(1)
    first = np.flatnonzero(np.concatenate([[True], ~goes_on]))
    ends = there[first].sum(1).cumsum()
    lengths = np.diff(np.append(first, count))
    runs = np.stack([first, lengths, np.append(0, ends[:-1]), ends], 1).astype(np.int32)
    taps = np.empty(ends[-1], [("from", np.int64), ("weight", np.float64)])
    taps["from"], taps["weight"] = places[first][there[first]], weights[first][there[first]]
    own = _Windows(
        *(list(Pick).index(stage.pick), count, stage.size, len(runs), runs.ctypes.data, taps.ctypes.data)
    )
    return small_op("windows", own, _INNER, dtype, source="windows.c", kept=(runs, taps))


def _covers(begins: np.ndarray, sides: Pair, steps: Pair, size: int) -> bool:
    """Whether matrices that begin at some places have each of an input's numbers once."""
    inside = np.arange(sides[0])[:, None] * steps[0] + np.arange(sides[1]) * steps[1]
    return np.array_equal(np.sort((begins[:, None] + inside.reshape(-1)).reshape(-1)), np.arange(size))


class _Activation(ctypes.Structure):
    _fields_ = (
        *((name, _INT) for name in ("kind", "numbers", "inner")),
        *((name, ctypes.c_double) for name in ("a", "b")),
    )


class _Gated(ctypes.Structure):
    _fields_ = tuple((name, _INT) for name in ("channels", "pixels"))


class _Numbers(ctypes.Structure):
    _fields_ = (("numbers", _INT),)


class _Arrangement(ctypes.Structure):
    _fields_ = (
        *((name, _INT) for name in ("count", "numbers")),
        *((name, _INT * INPUTS) for name in ("sizes", "whole")),
        ("run_count", _INT),
        *((name, POINTER) for name in ("runs", "constants")),
    )


class _Norm(ctypes.Structure):
    _fields_ = (
        *((name, _INT) for name in ("channels", "pixels", "groups", "centers")),
        ("eps", ctypes.c_double),
    )


class _Softmax(ctypes.Structure):
    _fields_ = tuple((name, _INT) for name in ("rows", "columns", "logarithm"))


class _Windows(ctypes.Structure):
    _fields_ = (
        *((name, _INT) for name in ("pick", "numbers", "size", "run_count")),
        *((name, POINTER) for name in ("runs", "taps")),
    )


class _Product(ctypes.Structure):
    _fields_ = (
        *((name, _INT) for name in ("count", "rows", "columns", "depth")),
        *((name, _PAIR) for name in ("sizes", "whole")),
        ("steps", _PAIR * 2),
        ("scale", ctypes.c_double),
        ("places", POINTER),
    )
