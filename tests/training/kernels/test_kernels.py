"""The compiled kernels: equal to torch, safe beside bad numbers, and strict about their tensors."""

from __future__ import annotations

import itertools
import os
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.training.kernels import PooledConvolution, PooledShape
from tests.training.compilers import needs_compiler, wrapped

SHAPES = {
    "lenet, first": ((1, 6), (28, 28), 5, 0, 2),
    "lenet, second": ((6, 12), (12, 12), 5, 0, 2),
    "padded, rows and columns left over": ((3, 5), (13, 10), 3, 1, 2),
    "wide, in parts": ((40, 17), (6, 6), 3, 1, 2),
    "one pixel at a time": ((20, 33), (5, 4), 1, 0, 2),
    "windows of three": ((2, 4), (11, 12), 4, 2, 3),
    "one window": ((4, 3), (3, 3), 2, 0, 2),
    "no square": ((2, 50), (9, 30), 3, 1, 2),
    "four rows in a vector, in strips": ((1, 5), (31, 26), 3, 1, 2),
    "two rows in a vector, windows of three": ((1, 4), (32, 40), 5, 0, 3),
}
IN_STRIPS = [name for name in SHAPES if "rows in a vector" in name]  # of single precision


def shape_of(name, *, relu=True):
    (channels, outputs), (height, width), side, zeros, pool = SHAPES[name]
    return PooledShape(
        channels=channels,
        outputs=outputs,
        height=height,
        width=width,
        kernel=(side, side),
        padding=(zeros, zeros),
        pool=pool,
        relu=relu,
    )


def built(shape, dtype=torch.float64):
    kernel = PooledConvolution.build(shape, dtype)
    assert kernel is not None
    return kernel


def case(name, *, groups=3, batch=4, dtype=torch.float64, layout=torch.channels_last):
    """Maps, weights, bias and gradients by the result."""
    (channels, outputs), size, side, zeros, pool = SHAPES[name]
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(batch, groups * channels, *size, generator=draw, dtype=dtype).contiguous(
        memory_format=layout
    )
    w = torch.randn(groups * outputs, channels, side, side, generator=draw, dtype=dtype)
    b = torch.randn(groups * outputs, generator=draw, dtype=dtype)
    sides = [(s + 2 * zeros - side + 1) // pool for s in size]
    gradient = torch.randn(batch, groups * outputs, *sides, generator=draw, dtype=dtype)
    return x, w, b, gradient


def by_torch(shape, x, w, b, gradient, *, groups):
    """Result and gradients by autograd."""
    own = [t if t is None else t.detach().requires_grad_() for t in (x, w, b)]
    y = F.max_pool2d(F.conv2d(*own, padding=shape.padding, groups=groups), shape.pool)
    y = torch.relu(y) if shape.relu else y
    wanted = [t for t in own if t is not None]
    return y.detach(), *torch.autograd.grad(y, wanted, gradient)


def in_a_pack(tensor, lanes):
    """The lanes' numbers as they lie in a pack: among those of other layers."""
    each = tensor.reshape(lanes, -1, *tensor.shape[1:])
    rows = tensor.new_full((lanes, each[0].numel() + 5), float("nan"))[:, 3:-2]
    return rows.copy_(each.flatten(1)).view(each.shape)


def by_kernel(kernel, x, w, b, gradient, *, groups, lanes=None, images=True):
    """Result, gradient by the images, gradients by weights and bias; None where there are none."""
    lanes = lanes or groups
    weights, biases = in_a_pack(w, lanes), None if b is None else in_a_pack(b, lanes)
    y, saved = kernel.forward(x, weights, biases, return_indices=True)
    gw = in_a_pack(torch.full_like(w, float("nan")), lanes)
    gb = None if b is None else in_a_pack(torch.full_like(b, float("nan")), lanes)
    gx = kernel.backward(gradient, saved, gw, gb, input_grad=images)
    return y, gx, gw.reshape(w.shape), None if b is None or gb is None else gb.reshape(b.shape)


# RELU decides on the last step of each window alone: three shapes go without.
WITHOUT_RELU = ("lenet, first", "wide, in parts", "windows of three")


@needs_compiler
@pytest.mark.parametrize(
    ("name", "relu"),
    [*((name, True) for name in SHAPES if name not in IN_STRIPS), *((name, False) for name in WITHOUT_RELU)],
)
def test_a_kernel_equals_torch(name, relu):
    shape = shape_of(name, relu=relu)
    kernel = built(shape)
    for groups, layout in itertools.product((1, 3), (torch.channels_last, torch.contiguous_format)):
        given = case(name, groups=groups, layout=layout)
        for ours, theirs in zip(
            by_kernel(kernel, *given, groups=groups), by_torch(shape, *given, groups=groups), strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@needs_compiler
@pytest.mark.parametrize("name", ["lenet, first", "lenet, second", "wide, in parts", *IN_STRIPS])
def test_a_kernel_equals_torch_in_single_precision(name):
    shape = shape_of(name)
    given = case(name, dtype=torch.float32)
    ours = by_kernel(built(shape, torch.float32), *given, groups=3)
    theirs = by_torch(shape, *(t.double() for t in given), groups=3)
    for a, b in zip(ours, theirs, strict=True):
        assert float((a - b).abs().max()) < 1e-5 * float(b.abs().max())


@needs_compiler
def test_shared_images_and_outputs_that_fill_no_vector():
    kernel = built(shape_of("lenet, first"))
    for lanes in (1, 2, 3, 5, 8):  # 6 to 48 channels of one group
        x, _, _, _ = case("lenet, first", groups=1)
        w, b = torch.randn(6 * lanes, 1, 5, 5).double(), torch.randn(6 * lanes).double()
        gradient = torch.randn(len(x), 6 * lanes, 12, 12).double()
        for ours, theirs in zip(
            by_kernel(kernel, x, w, b, gradient, groups=1, lanes=lanes),
            by_torch(kernel.shape, x, w, b, gradient, groups=1),
            strict=True,
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@needs_compiler
def test_without_a_bias_and_without_a_gradient_of_the_images():
    shape = shape_of("lenet, second")
    x, w, _, gradient = case("lenet, second")
    y, _, gw = by_torch(shape, x, w, None, gradient, groups=3)
    kernel = built(shape)
    ours, none, weights, no_bias = by_kernel(kernel, x, w, None, gradient, groups=3, images=False)
    assert none is None
    assert no_bias is None
    torch.testing.assert_close(ours, y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(weights, gw, rtol=1e-12, atol=1e-12)
    assert kernel.forward(x, in_a_pack(w, 3), None, return_indices=False)[1].indices is None


@needs_compiler
def test_the_first_of_equal_values_counts_as_with_torch():
    shape = shape_of("padded, rows and columns left over")
    x, w, b, gradient = case("padded, rows and columns left over")
    # Whole numbers sum to the same in any order: what is equal here is equal with torch, on every processor.
    x, w, b = torch.ones_like(x), (8 * w).round(), (8 * b).round().abs() + 1000  # nothing is cut off by ReLU
    _, gx, _, _ = by_kernel(built(shape), x, w, b, gradient, groups=3)
    torch.testing.assert_close(gx, by_torch(shape, x, w, b, gradient, groups=3)[1], rtol=1e-12, atol=1e-12)


@needs_compiler
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_numbers_stay_in_their_lane_and_are_seen(bad):
    shape, kernel = shape_of("lenet, second"), built(shape_of("lenet, second"))
    x, w, b, gradient = case("lenet, second")
    before = by_kernel(kernel, x, w, b, gradient, groups=3)
    w[12:24] = bad
    after = by_kernel(kernel, x, w, b, gradient, groups=3)
    others = [*range(12), *range(24, 36)]
    assert torch.equal(before[0][:, others], after[0][:, others])
    assert torch.equal(before[1][:, [*range(6), *range(12, 18)]], after[1][:, [*range(6), *range(12, 18)]])
    assert torch.equal(before[2][others], after[2][others])
    assert torch.equal(before[3][others], after[3][others])
    expected = by_torch(shape, x, w, b, gradient, groups=3)[0]
    assert torch.equal(after[0].isfinite(), expected.isfinite())
    assert torch.equal(after[0].isnan(), expected.isnan())


@needs_compiler
def test_a_window_with_one_bad_value_is_bad_as_with_torch():
    shape = shape_of("lenet, first")
    x, w, b, gradient = case("lenet, first")
    x[1, 1, 6, 9] = float("nan")
    y, saved = built(shape).forward(x, in_a_pack(w, 3), in_a_pack(b, 3), return_indices=True)
    expected = by_torch(shape, x, w, b, gradient, groups=3)[0]
    assert 0 < int(y.isnan().sum()) < y.numel() // 10
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12, equal_nan=True)
    assert saved.indices is not None
    assert int(saved.indices.max()) == 3


@needs_compiler
def test_the_same_bytes_each_time_and_for_each_image_alone():
    kernel = built(shape_of("lenet, second"), torch.float32)
    x, w, b, gradient = case("lenet, second", dtype=torch.float32)
    once, again = (by_kernel(kernel, x, w, b, gradient, groups=3) for _ in range(2))
    assert all(map(torch.equal, once, again))
    for i in range(len(x)):
        alone = by_kernel(kernel, x[i : i + 1], w, b, gradient[i : i + 1], groups=3)
        assert torch.equal(alone[0], once[0][i : i + 1])
        assert torch.equal(alone[1], once[1][i : i + 1])


@needs_compiler
def test_a_lanes_result_does_not_depend_on_how_many_there_are():
    kernel = built(shape_of("lenet, first"), torch.float32)
    x, w, b, _ = case("lenet, first", groups=1, dtype=torch.float32)
    more_w, more_b = torch.cat([w, -w, 2 * w]), torch.cat([b, -b, 2 * b])
    y, _ = kernel.forward(x, in_a_pack(w, 1), in_a_pack(b, 1), return_indices=True)
    lanes = in_a_pack(more_w, 3), in_a_pack(more_b, 3)
    many, _ = kernel.forward(x, *lanes, return_indices=True)
    assert torch.equal(many[:, :6], y)
    packed, _ = kernel.forward(x.repeat(1, 3, 1, 1), *lanes, return_indices=True)
    assert torch.equal(packed, many)


def test_large_weights_and_maps_without_a_window_are_torchs():
    shape = PooledShape(
        channels=64, outputs=32, height=14, width=14, kernel=(3, 3), padding=(1, 1), pool=2, relu=True
    )
    assert shape.pays()
    assert not replace(shape, outputs=128).pays()
    small = replace(shape_of("lenet, first"), outputs=4, height=5, width=5)
    assert small.pooled == (0, 0)
    assert not small.pays()
    assert PooledConvolution.build(shape, torch.bfloat16) is None


# What must not reach compiled code


@needs_compiler
@pytest.mark.parametrize(
    "what", ["height", "channels", "type", "weight", "outputs", "layout", "bias", "bias's type"]
)
def test_a_kernel_refuses_tensors_that_it_was_not_compiled_for(what):
    kernel = built(shape_of("lenet, second"), torch.float32)
    x, w, b = torch.zeros(2, 12, 12, 12), torch.zeros(2, 12, 6, 5, 5), torch.zeros(2, 12)
    kernel.forward(x, w, b, return_indices=False)
    with pytest.raises(ValueError, match=r"a kernel needs|kernel of 2 lanes needs"):
        match what:
            case "height":
                kernel.forward(x[:, :, 1:], w, b, return_indices=False)
            case "channels":
                kernel.forward(x[:, :9], w, b, return_indices=False)
            case "type":
                kernel.forward(x.double(), w, b, return_indices=False)
            case "weight":
                kernel.forward(x, w[..., 1:], b, return_indices=False)
            case "outputs":
                kernel.forward(x, w[:, :9], b[:, :9], return_indices=False)
            case "layout":
                kernel.forward(x, w.mT, b, return_indices=False)
            case "bias":
                kernel.forward(x, w, b[:, :9], return_indices=False)
            case _:
                kernel.forward(x, w, b.double(), return_indices=False)


@needs_compiler
def test_a_backward_pass_refuses_gradients_of_another_shape_and_a_forward_pass_without_indices():
    kernel = built(shape_of("lenet, second"), torch.float32)
    x, w, b = torch.zeros(2, 12, 12, 12), torch.zeros(2, 12, 6, 5, 5), torch.zeros(2, 12)
    y, saved = kernel.forward(x, w, b, return_indices=True)
    _, unsaved = kernel.forward(x, w, b, return_indices=False)
    for wrong in (
        (y[1:], saved, torch.empty_like(w), torch.empty_like(b)),
        (y, saved, torch.empty_like(w)[1:], torch.empty_like(b)),
        (y, saved, torch.empty_like(w), torch.empty_like(b)[1:]),
        (y.double(), saved, torch.empty_like(w), torch.empty_like(b)),
        (y, unsaved, torch.empty_like(w), torch.empty_like(b)),
    ):
        with pytest.raises(ValueError, match=r"kernel needs|backward pass needs"):
            kernel.backward(*wrong, input_grad=True)


@needs_compiler
@pytest.mark.skipif(sys.platform != "linux", reason="needs the narrower instructions of x86")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="needs the narrower instructions of x86")
@pytest.mark.parametrize("words", [("-march=x86-64-v3",), ("-march=x86-64",)])
@pytest.mark.parametrize("name", ["lenet, first", "lenet, second", "windows of three", "wide, in parts"])
def test_narrower_vectors_give_the_same(monkeypatch, tmp_path, words, name):
    if words == ("-march=x86-64-v3",) and not torch.cpu._is_avx2_supported():
        pytest.skip("needs AVX2")
    monkeypatch.setenv("CC", wrapped(tmp_path, *words))
    shape, given = shape_of(name), case(name)
    for ours, theirs in zip(
        by_kernel(built(shape), *given, groups=3), by_torch(shape, *given, groups=3), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
