"""What torch computes for a run of stages over maps, and how far an operation is from it."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.training.kernels.activation_curves import Activation, Curve
from gridsearch.training.kernels.batch_inner import cover
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
from tests.training.kernels.op_calls import call

HALVES = MaxPool((2, 2), (2, 2))


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
