"""Operations on blocks of images, each called alone: torch's results and gradients in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.training.kernels import block_ops
from gridsearch.training.kernels.activation_curves import Activation, Curve
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
)
from tests.training.compilers import needs_compiler
from tests.training.kernels.op_calls import call, drawn, hold_against

pytestmark = needs_compiler

DOUBLE = torch.float64
IMAGES = 19


def hold_stage(stage, xs, function, params=(), **how):
    """Compare a stage's operation with a function of torch."""
    hold_against(block_ops.cover(stage, tuple(xs[0].shape[1:]), xs[0].dtype), xs, function, params, **how)


def without_gradient(x, result):
    """A result as that of a function whose gradient is zero."""
    return torch.where(torch.ones_like(x, dtype=torch.bool), result, x)


COMPARISONS = {
    Curve.GREATER: torch.gt,
    Curve.GREATER_EQUAL: torch.ge,
    Curve.LESS: torch.lt,
    Curve.LESS_EQUAL: torch.le,
    Curve.EQUAL: torch.eq,
    Curve.NOT_EQUAL: torch.ne,
}
CURVES = {
    Curve.RELU6: F.relu6,
    Curve.HARDSIGMOID: F.hardsigmoid,
    Curve.HARDSWISH: F.hardswish,
    Curve.HARDTANH: lambda x: F.hardtanh(x, -0.5, 2.0),
    Curve.GELU: F.gelu,
    Curve.GELU_TANH: lambda x: F.gelu(x, approximate="tanh"),
    Curve.SILU: F.silu,
    Curve.SIGMOID: F.sigmoid,
    Curve.TANH: torch.tanh,
    Curve.ELU: lambda x: 2.0 * F.elu(x, -0.25),
    Curve.MISH: F.mish,
    Curve.AFFINE: lambda x: -0.5 * x + 2.0,
    Curve.CELU: lambda x: F.celu(x, 0.5),
    Curve.SOFTPLUS: lambda x: F.softplus(x, 0.5, 5.0),
    Curve.LOG_SIGMOID: F.logsigmoid,
    Curve.SOFTSIGN: F.softsign,
    Curve.TANHSHRINK: F.tanhshrink,
    Curve.HARDSHRINK: lambda x: F.hardshrink(x, 0.5),
    Curve.SOFTSHRINK: lambda x: F.softshrink(x, 0.5),
    Curve.THRESHOLD: lambda x: F.threshold(x, -0.5, 2.0),
    Curve.CLAMP: lambda x: x.clamp(-3.0, 2.0),
    Curve.ABSOLUTE: torch.abs,
    Curve.EXPONENTIAL: torch.exp,
    Curve.LOGARITHM: torch.log,
    Curve.SQUARE: torch.square,
    Curve.ROOT: torch.sqrt,
    Curve.RECIPROCAL: torch.reciprocal,
    Curve.POWER: lambda x: x**1.75,
    Curve.SINE: torch.sin,
    Curve.COSINE: torch.cos,
    Curve.SIGN: torch.sign,
    Curve.ROUND: torch.round,
    Curve.FLOOR: torch.floor,
    Curve.CEILING: torch.ceil,
    **{
        curve: lambda x, compare=compare: without_gradient(x, compare(x, 0.5).to(x.dtype))
        for curve, compare in COMPARISONS.items()
    },
    Curve.DETACHED: lambda x: without_gradient(x, x.detach()),
}


def activation(curve):
    """A stage of a curve, with bounds or factors where it has any."""
    given = {
        **dict.fromkeys((Curve.HARDTANH, Curve.AFFINE, Curve.THRESHOLD), (-0.5, 2.0)),
        **dict.fromkeys((Curve.HARDSHRINK, Curve.SOFTSHRINK, *COMPARISONS), (0.5,)),
        Curve.ELU: (-0.25, 2.0),
        Curve.CELU: (0.5,),
        Curve.SOFTPLUS: (0.5, 5.0),
        Curve.POWER: (1.75,),
        Curve.CLAMP: (-3.0, 2.0),
    }
    return Activation(curve, *given.get(curve, ()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("curve", Curve)
def test_activations_are_torchs_where_their_pieces_meet_too(curve, dtype):
    near = 1e-10 if dtype == DOUBLE else 1e-5
    x = drawn(IMAGES, 3, 5, 4, dtype=dtype) * 4
    x[0, 0, 0] = torch.tensor([-3.0, 0.0, 3.0, 6.0])
    x[0, 0, 1] = torch.tensor([2.0, 9.0, -9.0, 0.5])
    x[0, 0, 2], x[0, 0, 3] = torch.tensor([1e-5, -1e-5, 21.0, -100.0]), torch.tensor([90.0, -88.0, 0.4, -0.5])
    rows = drawn(7, 33, dtype=dtype) * 4
    if curve in (Curve.LOGARITHM, Curve.ROOT, Curve.RECIPROCAL, Curve.POWER):
        x, rows = x.abs() + 1e-6, rows.abs()
    if curve == Curve.EXPONENTIAL:
        x = x.clamp(max=20.0)
    for adds in (False, True):
        hold_stage(activation(curve), [x], CURVES[curve], adds=adds, near=near)
    hold_stage(activation(curve), [rows], CURVES[curve], near=near)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("curve", Curve)
def test_activations_of_infinities_and_of_no_number_are_torchs(curve, dtype):
    strange = torch.tensor([[float("-inf"), float("nan"), float("inf")]], dtype=dtype)
    op = block_ops.cover(activation(curve), (3,), dtype)
    expected = CURVES[curve](strange.double()).to(
        dtype
    )  # in single precision torch's GELU of infinity is none
    torch.testing.assert_close(call(op, [strange], (3,)).y, expected, equal_nan=True)


def test_sines_of_large_numbers_are_as_near_as_single_precision_allows():
    sides = [drawn(1, 4000, dtype=DOUBLE) * size for size in (2, 300, 8000, 1e6)]
    x = torch.cat([*sides, torch.arange(-4000, 4000)[None] * (torch.pi / 4)], 1).float()
    for curve, function in ((Curve.SINE, torch.sin), (Curve.COSINE, torch.cos)):
        y = call(block_ops.cover(activation(curve), (x.shape[1],), x.dtype), [x], (x.shape[1],)).y
        assert (y - function(x.double())).abs().max() < 2e-7


@pytest.mark.parametrize("adds", [False, True])
def test_maps_times_a_number_for_each_channel_are_torchs(adds):
    op = block_ops.cover(Gate(), (5, 3, 2), DOUBLE)
    maps, gate, gradient = drawn(19, 5, 3, 2), drawn(19, 5), drawn(19, 5, 3, 2) + 1
    gated = lambda maps, gate: maps * gate[:, :, None, None]  # noqa: E731
    hold_stage(Gate(), [maps, gate], gated, adds=adds)
    leaf = gate.clone().requires_grad_()
    (own,) = torch.autograd.grad(gated(maps, leaf), leaf, gradient)
    alone = call(op, [maps, gate], (5, 3, 2), gy=gradient, wants=[False, True])
    torch.testing.assert_close(alone.gx[1], own)


@pytest.mark.parametrize("adds", [False, True])
def test_products_of_two_values_are_torchs(adds):
    hold_stage(Multiply(), [drawn(IMAGES, 4, 3, 2), drawn(IMAGES, 4, 3, 2) + 1], torch.mul, adds=adds)


@pytest.mark.parametrize("adds", [False, True])
def test_choices_between_two_values_are_torchs(adds):
    condition = (drawn(IMAGES, 4, 3, 2) > 0).double()
    chosen = lambda c, a, b: torch.where(c > 0, a, b) + without_gradient(c, 0 * c)  # noqa: E731
    hold_stage(Where(), [condition, drawn(IMAGES, 4, 3, 2), drawn(IMAGES, 4, 3, 2) + 1], chosen, adds=adds)
    strange, plain = (
        torch.tensor([[float("nan"), float("inf")]]).double(),
        torch.tensor([[1.0, 2.0]]).double(),
    )
    op = block_ops.cover(Where(), (2,), DOUBLE)
    assert call(op, [torch.zeros(1, 2).double(), strange, plain], (2,)).y.tolist() == plain.tolist()
    assert call(op, [torch.ones(1, 2).double(), plain, strange], (2,)).y.tolist() == plain.tolist()


def table(*rows):
    """The table of an arrangement: of each number its input and its place there."""
    return np.array(rows, np.int32).tobytes()


@pytest.mark.parametrize("adds", [False, True])
def test_numbers_are_chosen_repeated_and_put_side_by_side_as_a_table_says(adds):
    places = [(1, 0), (1, 1), (0, 5), (-1, 0), (0, 0), (0, 0), (2, 1), (2, 0)]
    stage = Arrange((8,), (6, 2, 2), table(*places))
    xs = [drawn(IMAGES, 6), drawn(IMAGES, 2), drawn(IMAGES, 2) + 1]

    def arranged(*xs):
        zero = torch.zeros(IMAGES, dtype=DOUBLE)
        return torch.stack([zero if i < 0 else xs[i][:, at] for i, at in places], 1)

    hold_stage(stage, xs, arranged, adds=adds)


@pytest.mark.parametrize("adds", [False, True])
def test_shuffled_channels_are_torchs(adds):
    channels, pixels = 6, 4
    wanted = torch.arange(channels).view(2, 3).t().flatten()
    rows = [(0, p * channels + int(c)) for p in range(pixels) for c in wanted]
    stage = Arrange((channels, 2, 2), (channels * pixels,), table(*rows))
    hold_stage(stage, [drawn(IMAGES, channels, 2, 2)], lambda x: torch.channel_shuffle(x, 2), adds=adds)


def test_a_parameter_is_the_same_for_all_images_and_gets_the_sum_of_their_gradients():
    op, p, gradient = block_ops.cover(Learned((5,)), (), DOUBLE), drawn(5), drawn(IMAGES, 5)
    for kept in ({"params": [p]}, {"params": [None], "buffers": [p]}):
        found = call(op, [], (5,), gy=gradient, images=IMAGES, dtype=DOUBLE, **kept)
        assert torch.equal(found.y, p.expand(IMAGES, 5))
    found = call(op, [], (5,), [p], gy=gradient, images=IMAGES, dtype=DOUBLE)
    torch.testing.assert_close(found.grads[0], gradient.sum(0))


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("kept", ["weight and bias", "weight", "none"])
def test_norms_of_each_image_are_torchs(kept, adds):
    params = {"weight and bias": [drawn(6) + 2, drawn(6)], "weight": [drawn(6) + 2], "none": []}[kept]

    def layer(x, *params):
        return F.layer_norm(x.permute(0, 2, 3, 1), (6,), *params, eps=1e-3).permute(0, 3, 1, 2)

    def root(x, *params):
        return F.rms_norm(x.permute(0, 2, 3, 1), (6,), *params[:1], eps=1e-3).permute(0, 3, 1, 2)

    x = drawn(IMAGES, 6, 3, 5) + 1
    hold_stage(ImageNorm(6, 0, 1e-3), [x], layer, params, adds=adds)
    for groups in (1, 2, 6):
        group = lambda x, *params, groups=groups: F.group_norm(x, groups, *params, eps=1e-3)  # noqa: E731
        hold_stage(ImageNorm(6, groups, 1e-3), [x], group, params, adds=adds)
    if kept != "weight and bias":
        hold_stage(ImageNorm(6, 0, 1e-3, centers=False), [x], root, params, adds=adds)
    features = lambda x, *params: F.layer_norm(x, (6,), *params, eps=1e-3)  # noqa: E731
    hold_stage(ImageNorm(6, 0, 1e-3), [drawn(IMAGES, 6)], features, params, adds=adds)


@pytest.mark.parametrize("adds", [False, True])
def test_softmax_is_torchs(adds):
    x = drawn(IMAGES, 5, 1, 3)
    x[0, :, 0, 0], x[1, 2, 0, 1] = torch.tensor([900.0, -900.0, 900.0, 0.0, 1.0]), float("-inf")
    hold_stage(Softmax(), [x], lambda x: x.softmax(1), adds=adds)
    hold_stage(Softmax(), [drawn(IMAGES, 4)], lambda x: x.softmax(1), adds=adds)
    x[0, :, 0, 0] = torch.tensor([900.0, -900.0, 900.0, 0.0, 1.0])
    for own in (x[:1], drawn(IMAGES, 4), drawn(IMAGES, 4, dtype=torch.float32)):
        near = 1e-10 if own.dtype == DOUBLE else 1e-6
        hold_stage(Softmax(logarithm=True), [own], lambda x: x.log_softmax(1), adds=adds, near=near)


@pytest.mark.parametrize("adds", [False, True])
def test_sums_and_maxima_of_windows_are_torchs(adds):
    x = drawn(IMAGES, 3, 4, 2).mul(4).round()  # equal numbers too
    places = np.arange(24).reshape(8, 3).astype(np.int32).tobytes()  # pixels of three channels

    def windows(pick, weights=b""):
        return Windows(pick, (1, 4, 2), 24, places, weights)

    hold_stage(windows(Pick.ALL), [x], lambda x: x.amax(1, keepdim=True), adds=adds)
    hold_stage(windows(Pick.FIRST), [x], lambda x: x.max(1, keepdim=True).values, adds=adds)
    factors = np.tile([0.5, -1.0, 2.0], 8).tobytes()
    weighted = lambda x: (x * torch.tensor([0.5, -1.0, 2.0])[:, None, None]).sum(1, keepdim=True)  # noqa: E731
    hold_stage(windows(Pick.SUM, factors), [x], weighted, adds=adds)
    of_maps = np.full((3, 8), -1, np.int32)
    of_maps[:, :8] = np.arange(24).reshape(8, 3).T
    hold_stage(Windows(Pick.ALL, (3,), 24, of_maps.tobytes()), [x], lambda x: x.amax((2, 3)), adds=adds)


def test_the_largest_of_a_window_with_no_number_is_none():
    x = drawn(IMAGES, 4)
    x[2, 1] = float("nan")
    for pick in (Pick.FIRST, Pick.ALL):
        stage = Windows(pick, (2,), 4, np.array([[0, 1], [2, 3]], np.int32).tobytes())
        found = call(block_ops.cover(stage, (4,), DOUBLE), [x], (2,), gy=torch.ones(IMAGES, 2, dtype=DOUBLE))
        assert found.y.isnan().nonzero().tolist() == [[2, 0]]
        assert found.gx[0].isnan().any() == (pick == Pick.ALL)


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize(("rows", "columns", "depth"), [(7, 9, 3), (1, 1, 1), (6, 4, 8), (2, 5, 13)])
def test_products_of_an_images_own_matrices_are_torchs(rows, columns, depth, adds):
    heads = 3
    # rows of tokens: the heads of a token side by side
    places = torch.stack([torch.arange(heads) * depth, torch.arange(heads) * columns])
    stage = Product(
        *(heads, rows, columns, depth, 0.5, (rows * heads * depth, depth * heads * columns)),
        *(((heads * depth, 1), (heads * columns, 1)), places.numpy().tobytes()),
    )

    def product(a, b):
        a = a.flatten(2).transpose(1, 2).reshape(IMAGES, rows, heads, depth).transpose(1, 2)
        b = b.flatten(2).transpose(1, 2).reshape(IMAGES, depth, heads, columns).transpose(1, 2)
        y = (a @ b / 2).transpose(1, 2).reshape(IMAGES, rows * heads, columns)
        return y.transpose(1, 2)[:, :, None]

    xs = [drawn(IMAGES, heads * depth, 1, rows), drawn(IMAGES, heads * columns, 1, depth) + 1]
    hold_stage(stage, xs, product, adds=adds)


def test_what_is_no_number_in_one_image_stays_in_it():
    x = drawn(IMAGES, 4, 1, 3)
    x[2, 1, 0, 1] = float("nan")
    for stage in (Softmax(), ImageNorm(4, 0, 1e-5), ImageNorm(4, 2, 1e-5)):
        op = block_ops.cover(stage, (4, 1, 3), DOUBLE)
        found = call(op, [x], (4, 1, 3), [None, None], gy=torch.ones_like(x))
        assert found.y.isnan().flatten(1).any(1).nonzero().flatten().tolist() == [2]
        assert found.gx[0].isnan().flatten(1).any(1).nonzero().flatten().tolist() == [2]
