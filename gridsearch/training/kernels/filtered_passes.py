"""Which passes of a convolution of 3x3 taps this machine computes by minimal filtering (winograd.h), which tap by tap.

Stands between `families` and the operations with the images innermost.  As there, a formula chooses where it is sure,
else this machine measures, once for each shape (`choices`); what is not clearly faster stays tap by tap.

Shapes: C channels that a pass reads, O that it writes, H/W height and width.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gridsearch.training.kernels import batch_inner, compiler
from gridsearch.training.kernels.choices import kept_choice
from gridsearch.training.kernels.convolution_tables import forward_side
from gridsearch.training.kernels.minimal_filtering import FORWARD, INPUT, PASSES, POINTS, WEIGHTS, patches_of
from gridsearch.training.kernels.op import vector_numbers
from gridsearch.training.kernels.op_timing import passes
from gridsearch.training.kernels.stages import Conv, shape_after

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from gridsearch.training.kernels.stages import Shape, Stage

FILTERED, BY_TAPS = "minimal filtering", "tap by tap"
"""The two forms of a pass."""

# Nanoseconds, fitted to 297 shapes (Zen 5): of a product of vectors and, for each weight and batch, of packing it; by
# minimal filtering besides for each patch and channel that is read, and that is written.  Packing tap by tap has become
# faster since (Zen 3: 2 to 4.5 and .5 to 2); between that and what AVX-512 was fitted to, machines measure.
_BY_TAPS = {FORWARD: (0.13, 2.5), INPUT: (0.13, 2.5), WEIGHTS: (0.16, 6)}
_FILTERED = {FORWARD: (0.16, 6, 48, 35), INPUT: (0.16, 6, 48, 35), WEIGHTS: (0.2, 8, 10, 10)}
# Likewise where bfloat16 is multiplied, fitted to 139 shapes.
_BY_TAPS_NARROW = {FORWARD: (0.07, 5.0), INPUT: (0.077, 5.0), WEIGHTS: (0.107, 15)}
_FILTERED_NARROW = {FORWARD: (0.076, 6, 38, 37), INPUT: (0.084, 6, 38, 42), WEIGHTS: (0.112, 4, 13, 38)}

# Times between the formula's two costs: beyond that nothing is measured.  Gradients of the weights tap by tap are up to
# 2.5 times as fast (channel_gradients.h) as when the formula was fitted.
_SURE = {FORWARD: 1.3, INPUT: 1.3, WEIGHTS: 2.0}
_TIMED = 5e6  # nanoseconds of one form's pass in a measurement, about


def filtered_passes(
    stages: Sequence[Stage], shape: Shape, dtype: torch.dtype, *, images: int, input_grad: bool, bf16: bool
) -> frozenset[str]:
    """Return the passes of the convolution at the beginning of some stages that are faster by minimal filtering.

    Args:
        stages: those to come.
        shape: of one image that comes in.
        dtype: of the weights.
        images: of a batch.
        input_grad: whether the gradient of what comes in is wanted.
        bf16: bfloat16 is multiplied, in both forms.
    """
    conv = stages[0] if stages else None
    if not isinstance(conv, Conv) or not batch_inner.can_filter(conv, shape):
        return frozenset()
    if not batch_inner.multiplies(dtype, bf16=bf16):
        return frozenset()
    wanted = (each for each in PASSES if input_grad or each != INPUT)
    return frozenset(each for each in wanted if _is_faster(each, conv, shape, dtype, images, bf16=bf16))


def _is_faster(which: str, conv: Conv, shape: Shape, dtype: torch.dtype, images: int, *, bf16: bool) -> bool:
    v = vector_numbers(dtype)
    by_taps, filtered = costs(which, conv, shape, images, v, bf16=bf16)
    if max(by_taps, filtered) > _SURE[which] * min(by_taps, filtered):
        return filtered < by_taps
    blocks = max(1, round(_TIMED / by_taps * math.ceil(images / v)))
    timed = min(images, blocks * v)
    words = "bfloat16" if bf16 else str(dtype).removeprefix("torch.")
    chosen = kept_choice(
        _key(which, conv, shape, timed, words),
        lambda: forms(which, conv, shape, dtype, timed, bf16=bf16),
    )
    return chosen == FILTERED


def costs(
    which: str, conv: Conv, shape: Shape, images: int, numbers: int, *, bf16: bool = False
) -> tuple[float, float]:
    """Return the nanoseconds of a batch that the formula says: tap by tap, and by minimal filtering.

    Args:
        which: the pass.
        conv: the convolution.
        shape: of one image that comes in.
        images: of the batch.
        numbers: of a vector.
        bf16: bfloat16 is multiplied.
    """
    blocks = -(-images // numbers)
    _, *out = shape_after(conv, shape)
    sides = zip(shape[1:], out, conv.kernel, conv.stride, conv.padding, conv.dilation, strict=True)
    taps = math.prod(sum(map(len, forward_side(*side).places)) for side in sides)
    height, width = shape[1:] if which == INPUT else out
    patches = blocks * patches_of((height, width))
    read, written = (conv.outputs, conv.channels) if which == INPUT else (conv.channels, conv.outputs)
    if which == WEIGHTS:  # whose vectors hold outputs, some at a time
        written = -(-written // (2 * numbers)) * 2 * numbers
    narrows = bf16 and conv.channels > 1
    product, weight = (_BY_TAPS_NARROW if narrows else _BY_TAPS)[which]
    by_taps = conv.channels * conv.outputs * (product * blocks * taps + weight)
    product, weight, reading, writing = (_FILTERED_NARROW if narrows else _FILTERED)[which]
    filtered = read * written * (product * POINTS * patches + weight)
    return by_taps, filtered + patches * (reading * read + writing * written)


def forms(
    which: str, conv: Conv, shape: Shape, dtype: torch.dtype, images: int, *, bf16: bool = False
) -> dict[str, Callable[[], object]]:
    """Return a call of a pass in each form."""
    found = {}
    for name, filtered in ((FILTERED, {which}), (BY_TAPS, ())):
        covered = batch_inner.cover([conv], shape, dtype, bf16=bf16, filtered=filtered)
        assert covered is not None
        wanted = {"input_grad": which == INPUT, "parameter_grads": which == WEIGHTS}
        calls = passes(covered[0], [conv], shape, images, dtype, **wanted)
        found[name] = calls["forward" if which == FORWARD else "backward"]
    return found


def _key(which: str, conv: Conv, shape: Shape, images: int, dtype: str) -> str:
    """Return all that the times of two forms depend on beside the processor, in words."""
    padding, sides = ("x".join(map(str, pair)) for pair in (conv.padding, shape[1:]))
    of = f"{which} of {conv.channels} -> {conv.outputs}, 3x3 padded by {padding}, {sides} px, {images} images"
    version = compiler.version_of(batch_inner.SOURCE, {})
    return f"{of}, {dtype}; {version}"
