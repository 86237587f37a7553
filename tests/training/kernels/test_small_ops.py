"""The small operations of a plan, each called alone: torch's results and gradients, and torch's own dropout masks."""

from __future__ import annotations

import ctypes
import itertools
import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.training.kernels import small_ops
from gridsearch.training.kernels.op import Layout, OpArgs, activation_numbers, to_layout
from gridsearch.training.kernels.plan import PlanLibrary
from gridsearch.training.kernels.stages import (
    Conv,
    Dropout,
    LeakyRelu,
    Linear,
    MaxPool,
    Relu,
)
from tests.training.compilers import needs_compiler
from tests.training.kernels.op_calls import call, drawn, from_layout, hold_against

pytestmark = needs_compiler

DOUBLE = torch.float64
INNER, LAST, ROWS = Layout.BATCH_INNER, Layout.CHANNELS_LAST, Layout.FEATURES


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_conversions_lose_nothing_and_leave_zeros_where_no_image_is(dtype):
    for before, after in itertools.permutations(Layout, 2):
        for shape, images in itertools.product(((3, 4, 5), (2, 1, 3), (70,)), (1, 21)):
            op = small_ops.conversion(before, after, shape, dtype)
            x, gradient = drawn(images, *shape, dtype=dtype), drawn(images, *shape, dtype=dtype) + 1
            for start in (None, [x * 3]):
                found = call(op, [x], shape, gy=gradient, before=start)
                assert torch.equal(found.y, x)
                assert torch.equal(found.gx[0], gradient if start is None else gradient + start[0])
                assert all(not padding.any() for padding in found.padding)


@pytest.mark.parametrize("adds", [False, True])
def test_dense_layers_and_activations_of_features_are_torchs(adds):
    weights = [drawn(16, 33), drawn(16), drawn(17, 16), drawn(17)]
    stages = [Linear(33, 16), Relu(), Linear(16, 17)]
    op, covered = small_ops.cover(stages, (33,), DOUBLE)
    assert covered == 3
    chain = lambda x, w, b, v, c: F.linear(F.linear(x, w, b).relu(), v, c)  # noqa: E731
    hold_against(op, [drawn(7, 33)], chain, weights, adds=adds)
    few = [drawn(21, 9), drawn(21)]
    op, covered = small_ops.cover([Linear(9, 21), Relu()], (9,), DOUBLE)
    assert covered == 2
    hold_against(op, [drawn(7, 9)], lambda x, w, b: F.linear(x, w, b).relu(), few, adds=adds)
    op, _ = small_ops.cover([Linear(9, 21)], (9,), DOUBLE)
    hold_against(op, [drawn(7, 9)], F.linear, few, adds=adds)
    for stage in (Relu(), LeakyRelu(0.1)):
        op, _ = small_ops.cover([stage], (33,), DOUBLE)
        slope = getattr(stage, "slope", 0.0)
        hold_against(op, [drawn(7, 33)], lambda x, slope=slope: F.leaky_relu(x, slope), adds=adds)


def test_relu_of_infinity_and_of_no_number_is_torchs():
    x = torch.tensor([[float("-inf"), float("inf"), float("nan"), -0.0]], dtype=DOUBLE)
    op, _ = small_ops.cover([Relu()], (4,), DOUBLE)
    torch.testing.assert_close(call(op, [x], (4,)).y, x.relu(), equal_nan=True)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_pooled_convolution_is_torchs_by_columns_and_by_channels(channels):
    weights = [drawn(5, channels, 3, 3), drawn(5)]
    stages = [Conv(channels, 5, (3, 3), padding=(1, 1)), Relu(), MaxPool((2, 2), (2, 2))]
    op, covered = small_ops.cover(stages, (channels, 19, 19), DOUBLE)
    assert covered == 3
    net = lambda x, w, b: F.max_pool2d(F.conv2d(x, w, b, padding=1).relu(), 2)  # noqa: E731
    hold_against(op, [drawn(3, channels, 19, 19)], net, weights, adds=channels > 1)


@pytest.mark.parametrize(("layout", "shape"), [(ROWS, (50,)), (LAST, (5, 4, 3)), (INNER, (5, 4, 3))])
def test_dropout_has_the_mask_that_torch_would_draw(layout, shape):
    images, seed = 19, 2**40 + 7
    whole_plan = PlanLibrary.build(torch.float32)
    orders = itertools.permutations(range(1 + len(shape)))
    whole = [None, "channels", "images"] if len(shape) > 1 else [None, "images"]
    for order, dropped_whole, rate in itertools.product(orders, whole, (0.0, 0.3, 1.0)):
        if dropped_whole and order[0]:
            continue
        sides, stage = mask_of(images, shape, order, dropped_whole)
        op = small_ops.dropout(stage, layout, shape, torch.float32)
        x, gradient = drawn(images, *shape, dtype=torch.float32), drawn(images, *shape, dtype=torch.float32)
        y, gx = dropped(op, x, gradient, seed, rate, whole_plan)
        noise = torch.empty([sides[d] for d in order]).permute([order.index(d) for d in range(len(order))])
        if 0 < rate < 1:
            noise.bernoulli_(1 - rate, generator=torch.Generator().manual_seed(seed)).div_(1 - rate)
        else:
            noise.fill_(rate == 0)
        torch.testing.assert_close(y, x * noise, rtol=1e-6, atol=0)
        torch.testing.assert_close(gx, gradient * noise, rtol=1e-6, atol=0)


def mask_of(images, shape, order, whole):
    """Return the sides of a mask whose dimensions lie in an order, and the stage that draws it."""
    sides = {None: shape, "channels": (shape[0], 1, 1), "images": (1,) * len(shape)}[whole]
    laid = [sides[d - 1] for d in order if d]
    back = [[d for d in order if d].index(d) for d in range(1, 1 + len(shape))]
    places = torch.arange(math.prod(sides)).view(laid).permute(back).expand(shape)
    by_pixel = places.permute(1, 2, 0) if len(shape) > 1 else places
    step = math.prod(sides[d - 1] for d in order[order.index(0) + 1 :])
    table = by_pixel.flatten().to(torch.int32).numpy().tobytes()
    stage = Dropout(0.5, from_recipe=True, layer=1, drawn=math.prod(sides), step=step, order=table)
    return (images, *sides), stage


def dropped(op, x, gradient, seed, rate, plan):
    """Return a dropout's result and the gradient of its argument, with masks of a seed."""
    shape, images = tuple(x.shape[1:]), len(x)
    random = torch.zeros(plan.random_bytes // 8 + 1, dtype=torch.int64)
    plan.seed(random.data_ptr(), seed, rate)
    count = activation_numbers(op.output, shape, images, x.dtype)
    given, y, gy, gx = (
        to_layout(x, op.output),
        torch.empty(count),
        to_layout(gradient, op.output),
        torch.empty(count),
    )
    saved = torch.empty(op.saved_bytes(images), dtype=torch.uint8)
    args = OpArgs(
        images=images, constants=op.constants, y=y.data_ptr(), saved=saved.data_ptr(), gy=gy.data_ptr()
    )
    args.x[0], args.gx[0], args.buffers[0] = given.data_ptr(), gx.data_ptr(), random.data_ptr()
    op.library.forward(ctypes.byref(args))
    op.library.backward(ctypes.byref(args))
    return from_layout(y, op.output, shape, images), from_layout(gx, op.output, shape, images)
