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

# Nanoseconds that a product of vectors takes in each family, forwards and backwards, as the 39 cases of
# `python -m tests.benchmarks.families` say (Zen 5): with these the choice costs least over all of them.  They are kept
# here, so that a choice is the same at each start; only their ratios matter.
_POOLED = 0.175, 0.300
_INNER = 0.123, 0.144
_INNER_ONE_CHANNEL = 0.214, 0.350  # with one channel in


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
        if not narrows and pooled_pays(stages, shape, dtype, images, input_grad=input_grad):
            return pooled
    return batch_inner.cover(stages, shape, dtype, bf16=bf16)


def pooled_pays(
    stages: Sequence[Stage], shape: Shape, dtype: torch.dtype, images: int, *, input_grad: bool
) -> bool:
    """Whether a convolution and its pooling take less time as `pooled_convolution.c` than with images innermost.

    The former computes gradients at the maxima alone, but needs many channels to fill its vectors; the latter needs
    many images.
    """
    pooled, inner = products(stages, shape, dtype, images, input_grad=input_grad)
    inner_costs = _INNER_ONE_CHANNEL if shape[0] == 1 else _INNER
    return _cost(pooled, _POOLED) < _cost(inner, inner_costs)


def products(
    stages: Sequence[Stage], shape: Shape, dtype: torch.dtype, images: int, *, input_grad: bool
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return how many products of vectors an image takes, forwards and backwards: pooled, and with images innermost."""
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
    dense = pixels * taps * conv.outputs * -(-images // v) / images
    pooled = (pixels * taps * vectors, windows * conv.outputs * (weights + data))
    return pooled, (dense, dense * (2 if input_grad else 1))


def _cost(products: tuple[float, float], costs: tuple[float, float]) -> float:
    return products[0] * costs[0] + products[1] * costs[1]
