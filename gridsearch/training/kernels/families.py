"""All operations that a plan can be made of, and which of them a run of stages gets where there are two.

Stands between the families of operations, each with its C sources, and a step plan.  Where a formula says that both
forms are near each other, this machine measures them, once for each shape (`choices`); `filtered_passes` likewise.

Shapes: C/O channels in and out, H/W height and width.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gridsearch.training.kernels import batch_inner, block_ops, compiler, pooled, small_ops, transposed
from gridsearch.training.kernels.choices import kept_choice
from gridsearch.training.kernels.filtered_passes import filtered_passes
from gridsearch.training.kernels.op import vector_numbers
from gridsearch.training.kernels.op_timing import passes
from gridsearch.training.kernels.stages import Conv, MaxPool, TorchPart, Transposed, shape_after
from gridsearch.training.kernels.torch_op import TorchOp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch

    from gridsearch.training.kernels.op import Op
    from gridsearch.training.kernels.stages import Shape, Stage

# Nanoseconds that a product of vectors takes in each family, forwards and backwards, as the 39 cases of
# `python -m tests.benchmarks.families` say (Zen 5): with these the choice costs least over all of them.
_POOLED = 0.175, 0.300
_INNER = 0.123, 0.144
_INNER_ONE_CHANNEL = 0.214, 0.350  # with one channel in
_INNER_NARROW = 0.07, 0.09  # where bfloat16 is multiplied

POOLED, INNER = "pooled", "images innermost"
"""The two forms of a convolution with its pooling."""

_SURE = 2.0  # times between the formula's two costs: beyond that nothing is measured
_TIMED = 5e6  # nanoseconds of one form's passes in a measurement, about


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
        bf16: convolutions may multiply bfloat16, which those with images innermost alone do.
    """
    first = stages[0]
    if isinstance(first, TorchPart):
        return None if bf16 else (TorchOp(first, dtype), 1)
    if isinstance(first, Transposed):
        turned = transposed.cover(first, dtype)
        return None if turned is None else (turned, 1)
    alone = block_ops.cover(first, shape, dtype)
    if alone is not None:
        return alone, 1
    found = small_ops.cover(stages, shape, dtype)
    if found is not None:
        if not isinstance(first, Conv):
            return found
        run, computes = stages[: found[1]], batch_inner.multiplies(dtype, bf16=bf16 and first.channels > 1)
        if computes and _takes_pooled(found[0], run, shape, dtype, images, input_grad=input_grad, bf16=bf16):
            return found
    return _inner(stages, shape, dtype, images, input_grad=input_grad, bf16=bf16)


def _inner(
    stages: Sequence[Stage], shape: Shape, dtype: torch.dtype, images: int, *, input_grad: bool, bf16: bool
) -> tuple[Op, int] | None:
    filtered = filtered_passes(stages, shape, dtype, images=images, input_grad=input_grad, bf16=bf16)
    return batch_inner.cover(stages, shape, dtype, bf16=bf16, filtered=filtered)


def _takes_pooled(
    op: Op,
    stages: Sequence[Stage],
    shape: Shape,
    dtype: torch.dtype,
    images: int,
    *,
    input_grad: bool,
    bf16: bool,
) -> bool:
    """Whether stages get the form with vectors of channels: as this machine measures, where the formula is not sure.

    Where the other form multiplies bfloat16 the formula alone says: what is rounded shall not depend on a clock.
    """
    costs = form_costs(stages, shape, dtype, images, input_grad=input_grad, bf16=bf16)
    by_formula = costs[0] < costs[1]
    if bf16 and shape[0] > 1:
        return by_formula
    inner = _inner(stages, shape, dtype, images, input_grad=input_grad, bf16=bf16)
    if inner is None or max(costs) > _SURE * min(costs):
        return by_formula
    v = vector_numbers(dtype)
    few = max(1, round(_TIMED / max(costs) / v)) * v
    timed = images if images <= 2 * few else few
    chosen = kept_choice(
        _key(stages, shape, timed, str(dtype).removeprefix("torch."), input_grad=input_grad),
        lambda: timed_forms((op, inner[0]), stages, shape, timed, dtype, input_grad=input_grad),
    )
    return by_formula if chosen is None else chosen == POOLED


def timed_forms(
    forms: tuple[Op, Op],
    stages: Sequence[Stage],
    shape: Shape,
    images: int,
    dtype: torch.dtype,
    *,
    input_grad: bool,
) -> dict[str, Callable[[], object]]:
    """Return a call of both passes of each form, `POOLED` and `INNER`; see `passes`."""
    return {
        name: _in_turn(passes(op, stages, shape, images, dtype, input_grad=input_grad))
        for name, op in zip((POOLED, INNER), forms, strict=True)
    }


def _in_turn(calls: Mapping[str, Callable[[], object]]) -> Callable[[], object]:
    return lambda: [call() for call in calls.values()]


def _key(stages: Sequence[Stage], shape: Shape, images: int, dtype: str, *, input_grad: bool) -> str:
    """Return all that the times of two forms depend on beside the processor, in words."""
    conv, pool = stages[0], next(stage for stage in stages if isinstance(stage, MaxPool))
    assert isinstance(conv, Conv)
    kernel, padding, sides, window = (
        "x".join(map(str, pair)) for pair in (conv.kernel, conv.padding, shape[1:], pool.kernel)
    )
    of = f"{conv.channels} -> {conv.outputs}, {kernel} padded by {padding}, pooled by {window}, {sides} px"
    rest = f"{images} images{'' if input_grad else ', weights alone'}, {dtype}"
    versions = " ".join(compiler.version_of(source, {}) for source in (pooled.SOURCE, batch_inner.SOURCE))
    return f"{of}, {rest}; {versions}"


def form_costs(
    stages: Sequence[Stage],
    shape: Shape,
    dtype: torch.dtype,
    images: int,
    *,
    input_grad: bool,
    bf16: bool = False,
) -> tuple[float, float]:
    """Return the nanoseconds of an image that the formula says: pooled, and with images innermost.

    The former computes gradients at the maxima alone, but needs many channels to fill its vectors; the latter needs
    many images.
    """
    pooled_form, inner = products(stages, shape, dtype, images, input_grad=input_grad)
    inner_costs = _INNER_ONE_CHANNEL if shape[0] == 1 else _INNER_NARROW if bf16 else _INNER
    return _cost(pooled_form, _POOLED), _cost(inner, inner_costs)


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
    # rows of a window as vectors, or as halves or quarters of one
    line = -(-row // v) * v if 2 * row > v else v / 2 if 4 * row > v else v / 4
    weights = math.ceil(conv.kernel[0] * line / v)
    data = (conv.kernel[0] + pool.kernel[0] - 1) * -(-field // v) if input_grad else 0
    dense = pixels * taps * conv.outputs * -(-images // v) / images
    pooled = (pixels * taps * vectors, windows * conv.outputs * (weights + data))
    return pooled, (dense, dense * (2 if input_grad else 1))


def _cost(products: tuple[float, float], costs: tuple[float, float]) -> float:
    return products[0] * costs[0] + products[1] * costs[1]
