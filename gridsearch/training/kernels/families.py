"""All operations that a plan can be made of, and which of them a run of stages gets where there are two.

Stands between the families of operations, each with its C sources, and a step plan.

Shapes: C/O channels in and out, H/W height and width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsearch.training.kernels import batch_inner, small_ops
from gridsearch.training.kernels.op import vector_numbers
from gridsearch.training.kernels.stages import Conv, MaxPool, shape_after

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from gridsearch.training.kernels.op import Op
    from gridsearch.training.kernels.stages import Shape, Stage

# How much longer than their products of vectors alone the passes of each family take, forwards and backwards, as
# measured on 13 shapes (Zen 5): the choice is the same at each start, which a choice by the clock would not be.
_POOLED = 1.4, 2.4
_INNER = 1.1, 1.65
_ONE_CHANNEL = 1.8  # times that, with one channel in
_MARGIN = 1.2  # by which the former must be less, for what it is beside may have images innermost


def cover(
    stages: Sequence[Stage], shape: Shape, dtype: torch.dtype, *, images: int, input_grad: bool, bf16: bool
) -> tuple[Op, int] | None:
    """Return the operation for the stages that come next, and how many it covers; None where there is none.

    Args:
        stages: those to come, each the only reader of the one before.
        shape: of one image that comes in.
        dtype: of the weights.
        images: of a batch.
        input_grad: whether the gradient of what comes in is wanted.
        bf16: convolutions multiply bfloat16, which those with images innermost alone do.
    """
    pooled = small_ops.cover(stages, shape, dtype)
    if pooled is not None:
        first = stages[0]
        if not isinstance(first, Conv):
            return pooled
        narrows = bf16 and first.channels > 1
        if not narrows and _pooled_pays(stages, shape, dtype, images, input_grad=input_grad):
            return pooled
    return batch_inner.cover(stages, shape, dtype, bf16=bf16)


def _pooled_pays(
    stages: Sequence[Stage], shape: Shape, dtype: torch.dtype, images: int, *, input_grad: bool
) -> bool:
    """Whether a convolution and its pooling take less time as `pooled_convolution.c` than with images innermost.

    The former computes gradients at the maxima alone, but needs many channels to fill its vectors; the latter needs
    many images.
    """
    conv, pool = stages[0], next(stage for stage in stages if isinstance(stage, MaxPool))
    assert isinstance(conv, Conv)
    v = vector_numbers(dtype)
    _, height, width = shape_after(conv, shape)
    pixels, windows = height * width, (height // pool.kernel[0]) * (width // pool.kernel[1])
    taps = conv.kernel[0] * conv.kernel[1] * conv.channels
    row, field = conv.kernel[1] * conv.channels, (conv.kernel[1] + pool.kernel[1] - 1) * conv.channels
    vectors = (
        -(-conv.outputs // v) if conv.channels > 1 else min(-(-conv.outputs // v), 1.5 * conv.outputs / v)
    )
    weights = -(-taps // v) if row < v else conv.kernel[0] * -(-row // v)
    data = (conv.kernel[0] + pool.kernel[0] - 1) * -(-field // v) if input_grad else 0
    pooled = (pixels * taps * vectors, windows * conv.outputs * (weights + data))
    dense = pixels * taps * conv.outputs * -(-images // v) / images
    if conv.channels == 1:
        dense *= _ONE_CHANNEL
    inner = (dense, dense * (2 if input_grad else 1))
    return _MARGIN * _cost(pooled, _POOLED) < _cost(inner, _INNER)


def _cost(passes: tuple[float, float], factors: tuple[float, float]) -> float:
    return passes[0] * factors[0] + passes[1] * factors[1]
