"""Operations with the images innermost, against torch: every form of their stages, forwards and backwards."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.training.kernels.activation_curves import Activation, Curve
from gridsearch.training.kernels.batch_inner import MapStages, cover, multiplies_bfloat16
from gridsearch.training.kernels.op import vector_numbers
from gridsearch.training.kernels.stages import (
    Add,
    AvgPool,
    BatchNorm,
    Conv,
    GlobalMean,
    LeakyRelu,
    MaxPool,
    Relu,
)
from tests.training.compilers import needs_compiler
from tests.training.kernels.maps_by_torch import HALVES, by_torch, check, conv, drawn
from tests.training.kernels.op_calls import call

pytestmark = needs_compiler

CUT_OFF = Activation(Curve.HARDTANH, 0.0, 0.5)
OVERLAPPING = MaxPool((3, 3), (2, 2), (1, 1))

FORMS = {
    "one channel": ([conv(1, 6, 5), Relu()], (1, 9, 8)),
    "padded": ([conv(3, 10, 3, padding=1)], (3, 7, 6)),
    "padded by more than the kernel": ([conv(2, 3, 2, padding=3)], (2, 3, 4)),
    "strided": ([conv(4, 7, 3, 2, 1), BatchNorm(7), Relu()], (4, 7, 9)),
    "strided over gaps": ([conv(3, 9, 2, 3)], (3, 8, 7)),
    "pointwise and strided": ([conv(4, 8, 1, 2), BatchNorm(8, affine=False)], (4, 7, 7)),
    "pointwise, of many inputs": ([conv(41, 17, 1)], (41, 5, 9)),
    "pointwise, in groups": ([conv(46, 34, 1, groups=2, bias=False), Relu()], (46, 3, 4)),
    "pointwise, strided, of many inputs": ([conv(41, 17, 1, 2)], (41, 7, 9)),
    "wide and strided": ([conv(32, 7, 3, 2, 1)], (32, 7, 9)),
    "wide and dilated": ([conv(32, 5, 3, 1, 2, 2), BatchNorm(5)], (32, 6, 7)),
    "wide, some rows at a time": ([conv(31, 13, 3, padding=1), Relu()], (31, 12, 11)),
    "wide, some rows at a time, strided": ([conv(32, 6, 5, 2, 2)], (32, 23, 21)),
    "wide, one row at a time": ([conv(32, 3, 3, 1, 1)], (32, 3, 140)),
    "wide, padded by more than the kernel": ([conv(32, 3, 2, padding=3)], (32, 2, 3)),
    "wide, pointwise and strided": ([conv(32, 17, 1, 2, bias=False)], (32, 7, 9)),
    "depthwise": ([conv(6, 6, 3, 1, 1, groups=6)], (6, 5, 5)),
    "depthwise of one pixel": ([conv(6, 6, 3, 1, 1, groups=6)], (6, 1, 1)),
    "depthwise of many pixels": ([conv(7, 7, 5, 1, 2, groups=7)], (7, 12, 13)),
    "depthwise, padded by more than the kernel": ([conv(3, 3, 2, padding=3, groups=3)], (3, 4, 5)),
    "depthwise and strided": ([conv(5, 5, 3, 2, 1, groups=5), Relu()], (5, 9, 11)),
    "grouped and dilated": ([conv(6, 4, 3, 1, 2, 2, 2), Relu(), HALVES], (6, 7, 7)),
    "oblong": ([Conv(2, 5, (1, 3), (2, 1), (0, 2), (1, 2))], (2, 5, 6)),
    "of one pixel": ([conv(20, 30, 3, 1, 1)], (20, 1, 1)),
    "of four pixels": ([conv(20, 30, 3, 2, 1)], (20, 2, 2)),
    "pooled": ([conv(2, 13, 3, 1, 1), HALVES, Relu()], (2, 6, 5)),
    "pooled, then normed": ([conv(2, 13, 3, 1, 1), HALVES, BatchNorm(13), Relu()], (2, 6, 5)),
    "normed, then pooled": ([conv(2, 5, 3, 1, 1), BatchNorm(5), Relu(), OVERLAPPING], (2, 6, 7)),
    "leaky": ([conv(2, 13, 3, 1, 1), HALVES, BatchNorm(13), LeakyRelu(0.1)], (2, 6, 5)),
    "leaky before pooling": ([conv(2, 13, 3, 1, 1), LeakyRelu(0.1), HALVES], (2, 6, 5)),
    "mean of windows": ([AvgPool((3, 2), (2, 2), (1, 0))], (5, 7, 6)),
    "mean of maps": ([GlobalMean()], (5, 3, 4)),
    "cut off": ([conv(2, 13, 3, 1, 1), BatchNorm(13), CUT_OFF], (2, 6, 5)),
    "cut off, then pooled": ([conv(2, 5, 3, 1, 1), CUT_OFF, HALVES], (2, 6, 8)),
    "a sum of 6 at most": ([conv(9, 9, 3, 1, 1), Add(), Activation(Curve.RELU6)], (9, 6, 5)),
    "pooled twice": ([conv(2, 5, 3, 1, 1), HALVES, BatchNorm(5), Relu(), HALVES], (2, 9, 8)),
    "residual": ([conv(4, 7, 3, 1, 1, bias=False), BatchNorm(7), Add(), Relu()], (4, 5, 6)),
    "norm alone": ([BatchNorm(5, momentum=0.3, eps=0.01), Relu()], (5, 4, 3)),
    "norm of features": ([BatchNorm(5), Add(), Relu()], (5,)),
    "sum alone": ([Add(), Relu()], (5, 4, 3)),
    "pooling alone": ([OVERLAPPING], (5, 7, 6)),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_operation_on_maps_gives_what_torch_gives(form):
    v = vector_numbers(torch.float64)
    stages, shape = FORMS[form]
    for images, adds in ((v - 1, False), (2 * v + 3, True)):
        check(stages, shape, images, adds=adds)


@pytest.mark.parametrize(
    ("form", "by_channel"), [("wide and strided", 1), ("one channel", 0), ("pointwise, in groups", 0)]
)
def test_weights_gradients_are_summed_in_vectors_of_channels_where_these_are_full(form, by_channel):
    stages, shape = FORMS[form]
    assert cover(stages, shape, torch.float64)[0]._shapes.by_channel == by_channel


def test_an_operation_on_maps_is_as_exact_as_torch_in_single_precision():
    check([conv(10, 12, 3, 1, 1), BatchNorm(12), Relu(), HALVES], (10, 9, 8), 37, torch.float32, 2e-4)


def test_gradients_of_parameters_that_nobody_wants_are_left_out():
    stages, shape = [conv(3, 4, 3), Relu()], (3, 6, 6)
    op, _ = cover(stages, shape, torch.float32)
    xs, params, _, result = drawn(stages, shape, 5, torch.float32)
    gy = torch.randn(5, *result)
    whole = call(op, xs, result, params, gy=gy)
    part = call(op, xs, result, params, gy=gy, frozen=True)
    assert torch.equal(part.gx[0], whole.gx[0])
    assert all(bool(g.isnan().all()) for g in part.grads)


@pytest.mark.skipif(multiplies_bfloat16(), reason="the processor multiplies bfloat16")
def test_nothing_is_compiled_for_bfloat16_where_the_processor_does_not_multiply_it():
    assert cover([conv(20, 30, 3)], (20, 5, 5), torch.float32, bf16=True) is None


def rounded(x):
    """Return a tensor rounded to bfloat16, for exact products."""
    return x.bfloat16().double()


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize(
    "form", ["padded", "grouped and dilated", "pointwise and strided", "of four pixels", "of one pixel"]
)
def test_products_of_bfloat16_are_exact_and_added_in_single_precision(form):
    stage, shape = FORMS[form][0][0], FORMS[form][1]
    op, _ = cover([stage], shape, torch.float32, bf16=True)
    images = 2 * vector_numbers(torch.float32) + 5
    (x,), (w, b), _, result = drawn([stage], shape, images, torch.float32)
    gy = torch.randn(images, *result)
    got = call(op, [x], result, [w, b], [], gy)
    how = (stage.stride, stage.padding, stage.dilation, stage.groups)
    leaves = rounded(x).requires_grad_(), rounded(w).requires_grad_()
    y = F.conv2d(*leaves, b.double(), *how)
    gx, gw = torch.autograd.grad(y, leaves, rounded(gy))
    if min(result[1:]) < 3:  # too narrow to take two columns at a time: these products are not rounded at all
        exact = x.double(), w.double().requires_grad_()
        (gw,) = torch.autograd.grad(F.conv2d(*exact, None, *how), exact[1], gy.double())
    for own, expected in (
        (got.y, y),
        (got.gx[0], gx),
        (got.grads[0], gw),
        (got.grads[1], gy.double().sum((0, 2, 3))),
    ):
        assert (own - expected).abs().max() <= 2e-6 * expected.abs().max()


def test_batch_norm_keeps_its_digits_where_the_mean_is_large():
    op, _ = cover([BatchNorm(2)], (2, 5, 5), torch.float32)
    x = torch.randn(40, 2, 5, 5, dtype=torch.float64) * 0.01 + 100
    exact = F.batch_norm(x, None, None, training=True)
    buffers = torch.zeros(2), torch.ones(2)
    got = call(op, [x.float()], (2, 5, 5), [torch.ones(2), torch.zeros(2)], buffers).y
    theirs = F.batch_norm(x.float(), None, None, training=True)
    assert (got - exact).abs().max() <= 1.5 * (theirs - exact).abs().max()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_goes_where_it_goes_in_torch(value):
    stages = [conv(2, 5, 3, 1, 1), Relu(), HALVES]
    op, _ = cover(stages, (2, 6, 6), torch.float32)
    xs, params, _, shape = drawn(stages, (2, 6, 6), 20, torch.float32)
    xs[0][3, 1, 2, 2] = value
    got = call(op, xs, shape, params, [], torch.ones(20, *shape))
    expected = by_torch(stages, xs, params, [], training=True)
    torch.testing.assert_close(got.y, expected, equal_nan=True, rtol=1e-4, atol=1e-4)
    assert bool(got.grads[0].isfinite().all()) == bool(expected.isfinite().all())


def test_the_largest_of_equal_values_is_the_first_and_nan_the_largest():
    op, _ = cover([HALVES], (1, 2, 4), torch.float32)
    x = torch.tensor([[[[1.0, 1.0, 2.0, float("nan")], [1.0, 0.0, 3.0, 4.0]]]])
    got = call(op, [x], (1, 1, 2), gy=torch.ones(1, 1, 1, 2))
    assert got.gx[0].flatten().tolist() == [1, 0, 0, 1, 0, 0, 0, 0]


def test_a_run_of_stages_ends_where_the_code_has_no_form_of_the_next():
    stages = [conv(1, 4, 3), Relu(), HALVES, conv(4, 4, 3)]
    assert cover(stages, (1, 9, 9), torch.float32)[1] == 3
    assert cover([conv(1, 4, 3), BatchNorm(4, tracked=False)], (1, 9, 9), torch.float32)[1] == 1
    assert cover([conv(1, 4, 3), Add(), HALVES], (1, 9, 9), torch.float32)[1] == 2
    assert cover([MaxPool((16, 16), (16, 16))], (1, 32, 32), torch.float32) is None


def test_channels_that_are_convolved_alone_are_taken_one_by_one_whatever_the_processor(monkeypatch):
    narrow = {1: 8, 2: 6, 3: 4, 4: 3, 5: 2, 6: 2}  # tiles where vectors have 32 bytes
    monkeypatch.setattr(MapStages, "_tile_pixels", lambda _, channels: narrow.get(channels, 0))
    op, _ = cover([conv(6, 6, 3, 1, 1, groups=6)], (6, 1, 1), torch.float32)
    assert (op._shapes.sums.channels, op._shapes.data.channels) == (1, 1)
    grouped, _ = cover([conv(6, 6, 3, 1, 1, groups=3)], (6, 1, 1), torch.float32)
    assert grouped._shapes.sums.channels > 1
