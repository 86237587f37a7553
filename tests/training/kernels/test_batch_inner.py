"""Operations with the images innermost, against torch: every form of their stages, forwards and backwards."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.training.kernels import batch_inner
from gridsearch.training.kernels.activation_curves import Activation, Curve
from gridsearch.training.kernels.batch_inner import MapStages, cover, multiplies_bfloat16
from gridsearch.training.kernels.compiler import load
from gridsearch.training.kernels.minimal_filtering import PASSES
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
    shape_after,
)
from tests.training.compilers import needs_compiler
from tests.training.kernels.op_calls import call

pytestmark = needs_compiler

EMULATED = Path(__file__).with_name("emulated_narrow.h")
HALVES = MaxPool((2, 2), (2, 2))
CUT_OFF = Activation(Curve.HARDTANH, 0.0, 0.5)
OVERLAPPING = MaxPool((3, 3), (2, 2), (1, 1))


@functools.cache
def emulating_library(dtype):
    return load(batch_inner.SOURCE, {"DOUBLE": 0, "NARROW_FROM": f'"{EMULATED}"'})


@pytest.fixture
def bfloat16(monkeypatch):
    """Products of bfloat16, emulated where the processor has none."""
    if not multiplies_bfloat16():
        monkeypatch.setattr(batch_inner, "library_of", emulating_library)
        monkeypatch.setattr(batch_inner, "multiplies_bfloat16", lambda: True)


def conv(channels, outputs, side, stride=1, padding=0, dilation=1, groups=1, *, bias=True):
    """Return a square convolution."""
    pairs = ((each, each) for each in (side, stride, padding, dilation))
    return Conv(channels, outputs, *pairs, groups, bias)


def by_torch(stages, xs, params, buffers, *, training):
    """Return what torch computes."""
    x, left = xs[0], iter(params)
    for stage in stages:
        match stage:
            case Conv():
                how = (stage.stride, stage.padding, stage.dilation, stage.groups)
                x = F.conv2d(x, next(left), next(left), *how)
            case BatchNorm():
                how = (training, stage.momentum, stage.eps)
                x = F.batch_norm(x, *buffers, next(left), next(left), *how)
            case Relu():
                x = torch.relu(x)
            case LeakyRelu():
                x = F.leaky_relu(x, stage.slope)
            case Activation():
                x = F.relu6(x) if stage.curve is Curve.RELU6 else F.hardtanh(x, stage.a, stage.b)
            case Add():
                x = x + xs[1]
            case AvgPool():
                x = F.avg_pool2d(x, stage.kernel, stage.stride, stage.padding)
            case GlobalMean():
                x = x.mean((2, 3))
            case MaxPool():
                x = F.max_pool2d(x, stage.kernel, stage.stride, stage.padding)
    return x


def drawn(stages, shape, images, dtype):
    """Return random inputs, parameters and buffers of an operation, and the shape of its result."""
    xs, params, buffers = [torch.randn(images, *shape, dtype=dtype)], [], []
    for stage in stages:
        match stage:
            case Conv():
                weight = torch.randn(stage.outputs, stage.channels // stage.groups, *stage.kernel)
                bias = torch.randn(stage.outputs, dtype=dtype) if stage.bias else None
                params += [weight.to(dtype) * 0.3, bias]
            case BatchNorm():
                params += [torch.randn(stage.channels, dtype=dtype) if stage.affine else None for _ in "wb"]
                draw = torch.randn, torch.rand
                buffers = [one(stage.channels, dtype=dtype) + 0.5 for one in draw]
            case Add():
                xs.append(torch.randn(images, *shape, dtype=dtype))
        shape = shape_after(stage, shape)
    return xs, params, buffers, shape


def check(stages, shape, images, dtype=torch.float64, tolerance=1e-9, *, adds=False, filtered=()):
    """Hold an operation against torch: results, buffers, all gradients."""
    torch.manual_seed(images)
    op, count = cover(stages, shape, dtype, filtered=filtered)
    assert count == len(stages)
    xs, params, buffers, result = drawn(stages, shape, images, dtype)
    gy = torch.randn(images, *result, dtype=dtype)
    before = [torch.randn_like(x) if adds else None for x in xs]
    got = call(op, xs, result, params, buffers, gy, before=before)
    close = {"rtol": tolerance, "atol": 10 * tolerance}
    moved = [b.clone() for b in buffers]
    torch.testing.assert_close(got.infer, by_torch(stages, xs, params, moved, training=False), **close)
    leaves = [None if t is None else t.clone().requires_grad_() for t in (*xs, *params)]
    y = by_torch(stages, leaves[: len(xs)], leaves[len(xs) :], moved, training=True)
    torch.testing.assert_close(got.y, y.detach(), **close)
    torch.testing.assert_close(got.buffers, moved, **close)
    expected = torch.autograd.grad(y, [t for t in leaves if t is not None], gy)
    found = [gx if b is None else gx - b for gx, b in zip(got.gx, before, strict=True)]
    found += [g for g in got.grads if g is not None]
    torch.testing.assert_close(found, list(expected), **close)
    assert not any(bool(p.any()) for p in got.padding)  # gradients of no image, which the next one sums up


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


PACKED = {
    "many taps": ([conv(11, 13, 5, padding=2)], (11, 6, 5)),
    "some taps of many": ([conv(12, 25, 7, padding=3)], (12, 2, 3)),
    "one tap of many": ([conv(21, 31, 3, padding=1)], (21, 1, 1)),
    "in groups": ([conv(36, 27, 3, groups=3)], (36, 4, 4)),
    "pointwise": ([conv(51, 50, 1)], (51, 2, 2)),
    "pointwise, of full vectors": ([conv(64, 48, 1)], (64, 2, 2)),
    "of full vectors": ([conv(32, 48, 3, padding=1)], (32, 2, 2)),
    "of a few": ([conv(3, 5, 3), HALVES], (3, 6, 6)),
}


@pytest.mark.parametrize("form", PACKED)
def test_weights_are_packed_in_vectors_as_torch_reads_them(form):
    stages, shape = PACKED[form]
    check(stages, shape, 2 * vector_numbers(torch.float32) + 3, torch.float32, 1e-5, adds=True)


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize("form", PACKED)
def test_weights_are_packed_in_pairs_for_products_of_bfloat16(form):
    (stage, *_), shape = PACKED[form]
    found = errors(stage, shape, 2 * vector_numbers(torch.float32) + 3, filtered=(), bf16=True)
    assert all(error < 2**-8 for error in found)


@pytest.mark.parametrize(
    ("form", "paired"), [("one tap of many", True), ("many taps", True), ("of a few", False)]
)
def test_an_image_is_the_same_whether_its_block_has_another_beside_it(form, paired):
    stages, shape = PACKED[form]
    op, _ = cover(stages, shape, torch.float32)
    assert bool(op._shapes.sums.pairs) == paired
    v = vector_numbers(torch.float32)
    xs, params, _, result = drawn(stages, shape, 3 * v, torch.float32)
    gy = torch.randn(3 * v, *result)
    whole = call(op, xs, result, params, gy=gy)
    for block in torch.arange(3 * v).split(v):
        alone = call(op, [x[block] for x in xs], result, params, gy=gy[block])
        assert torch.equal(alone.y, whole.y[block]) and torch.equal(alone.gx[0], whole.gx[0][block])


FILTERED = {
    "odd sides": ([conv(5, 7, 3, padding=1), Relu()], (5, 7, 5)),
    "even sides": ([conv(17, 33, 3), HALVES, Relu()], (17, 8, 6)),
    "one patch": ([conv(3, 4, 3)], (3, 3, 3)),
    "padded by two": ([Conv(2, 35, (3, 3), padding=(2, 0))], (2, 3, 9)),
    "many patches": ([conv(16, 16, 3, 1, 1), BatchNorm(16), Add(), Relu()], (16, 15, 16)),
}


@pytest.mark.parametrize("form", FILTERED)
def test_minimal_filtering_gives_what_torch_gives(form):
    v = vector_numbers(torch.float64)
    stages, shape = FILTERED[form]
    for images, adds in ((v - 1, False), (2 * v + 3, True)):
        check(stages, shape, images, tolerance=1e-12, adds=adds, filtered=PASSES)


@pytest.mark.parametrize("alone", PASSES)
def test_each_pass_of_a_convolution_may_be_filtered_alone(alone):
    stages, shape = FILTERED["odd sides"]
    check(stages, shape, 11, tolerance=1e-12, filtered={alone})


def errors(stage, shape, images, *, filtered, bf16=False):
    """Return how far a convolution's results and gradients are from float64, as shares of their norms."""
    torch.manual_seed(0)
    op, _ = cover([stage], shape, torch.float32, bf16=bf16, filtered=filtered)
    xs, params, _, result = drawn([stage], shape, images, torch.float32)
    gy = torch.randn(images, *result)
    leaves = [t.double().requires_grad_() for t in (*xs, *params)]
    y = by_torch([stage], leaves[:1], leaves[1:], [], training=True)
    expected = [y.detach(), *torch.autograd.grad(y, leaves, gy.double())]
    got = call(op, xs, result, params, gy=gy)
    found = (t.double() for t in (got.y, *got.gx, *got.grads))
    return [float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True)]


def test_minimal_filtering_is_exact_to_a_millionth_in_single_precision():
    case = conv(32, 32, 3, 1, 1), (32, 10, 10), 32
    taps, filtered = (errors(*case, filtered=each) for each in ((), PASSES))
    for by_taps, minimal in zip(taps, filtered, strict=True):
        assert minimal < 6 * by_taps and minimal < 1e-6


AMPLIFIED = 5.14
"""By what F(4x4, 3x3) amplifies independent relative errors at its points: with the rows a of A', b of B' and g of G the
root of the mean of sum(a^2 |b|^2 |g|^2) / 3, for each of two dimensions; the same for all three passes."""


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize(("channels", "outputs"), [(32, 32), (33, 19), (5, 40)])
def test_filtering_in_bfloat16_amplifies_its_rounding_as_derived(channels, outputs):
    case = conv(channels, outputs, 3, 1, 1), (channels, 9, 12), 33
    taps, filtered = (errors(*case, filtered=each, bf16=True)[:3] for each in ((), PASSES))  # not the bias
    for by_taps, minimal in zip(taps, filtered, strict=True):
        assert 1e-3 < by_taps < 2**-8  # two numbers, each rounded by 2^-9 at most
        assert 0.8 * AMPLIFIED < minimal / by_taps < 1.2 * AMPLIFIED


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize("form", FILTERED)
def test_each_form_is_filtered_in_bfloat16_pass_by_pass(form):
    stage, shape = FILTERED[form][0][0], FILTERED[form][1]
    for alone, own in zip(PASSES, (0, 1, 2), strict=True):
        found = errors(stage, shape, 21, filtered={alone}, bf16=True)[:3]
        assert all(error < 2**-8 for i, error in enumerate(found) if i != own)
        assert 2**-8 < found[own] < 2 * AMPLIFIED * 2**-8


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize("bf16", [False, True])
def test_a_filtered_image_is_the_same_whatever_lies_beside_it(bf16):
    stages, shape = FILTERED["odd sides"]
    op, _ = cover(stages, shape, torch.float32, bf16=bf16, filtered=PASSES)
    xs, params, _, result = drawn(stages, shape, 20, torch.float32)
    gy = torch.randn(20, *result)
    first = call(op, xs, result, params, gy=gy)
    xs[0][3], gy[3] = float("nan"), float("inf")
    second = call(op, xs, result, params, gy=gy)
    others = [i for i in range(20) if i != 3]
    assert torch.equal(first.y[others], second.y[others])
    assert torch.equal(first.gx[0][others], second.gx[0][others])
    assert second.y[3].isnan().any()


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
