"""An operation that torch computes, called from C as a plan calls it."""

from __future__ import annotations

import ctypes

import pytest
import torch

from gridsearch.training.kernels.op import OpArgs
from gridsearch.training.kernels.stages import TorchPart
from gridsearch.training.kernels.torch_op import TorchOp

IMAGES = 5


def computed(x, other, weight):
    return torch.fft.fft(x).abs() * other + weight


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return {
        "x": draw(IMAGES, 6),
        "other": draw(IMAGES, 6),
        "weight": draw(2, 3),
        "gy": draw(IMAGES, 6),
        "y": draw(IMAGES, 6),
        "gx": draw(IMAGES, 6),
        "g_other": draw(IMAGES, 6),
        "g_weight": draw(2, 3),
    }


def operands(tensors, *, wants_other=True):
    """The structure that C gives, of which the first gradient is added to what is there."""
    args = OpArgs(images=IMAGES)
    args.x[0], args.x[1] = tensors["x"].data_ptr(), tensors["other"].data_ptr()
    args.params[0], args.grads[0] = tensors["weight"].data_ptr(), tensors["g_weight"].data_ptr()
    args.y, args.gy = tensors["y"].data_ptr(), tensors["gy"].data_ptr()
    args.gx[0], args.adds[0] = tensors["gx"].data_ptr(), 1
    args.gx[1] = tensors["g_other"].data_ptr() if wants_other else None
    return args


def part(compute):
    return TorchPart("a part", (6,), (6, 6), ((2, 3),), compute)


def flat(compute):
    return lambda x, other, weight: compute(x, other, weight.reshape(6))


@pytest.mark.parametrize("wants_other", [True, False])
def test_it_gives_what_torch_gives_and_writes_or_adds_the_gradients_that_are_wanted(tensors, wants_other):
    op = TorchOp(part(flat(computed)), torch.float64)
    args = operands(tensors, wants_other=wants_other)
    before = {name: tensors[name].clone() for name in ("gx", "g_other")}
    leaves = [tensors[name].clone().requires_grad_() for name in ("x", "other", "weight")]
    expected = flat(computed)(*leaves)
    gx, g_other, g_weight = torch.autograd.grad(expected, leaves, tensors["gy"])
    with torch.inference_mode():
        op.library.infer(ctypes.byref(args))
        assert torch.equal(tensors["y"], expected)
        tensors["y"].zero_()
        op.library.forward(ctypes.byref(args))
        assert torch.equal(tensors["y"], expected)
        op.library.backward(ctypes.byref(args))
    assert torch.allclose(tensors["gx"], before["gx"] + gx, rtol=1e-14, atol=1e-14)
    assert torch.equal(tensors["g_other"], g_other if wants_other else before["g_other"])
    assert torch.equal(tensors["g_weight"], g_weight)
    op.raise_failure()


def test_torch_reads_from_places_of_its_own_wherever_a_lane_keeps_its_numbers(tensors):
    seen = []

    def compute(x, other, weight):
        y = computed(x, other, weight)
        y.register_hook(lambda gy: seen.append(gy.data_ptr()))
        seen.extend(tensor.data_ptr() for tensor in (x, other, weight))
        return y

    for name in ("x", "other", "weight", "gy"):
        memory = torch.empty(tensors[name].numel() + 1, dtype=torch.float64)
        tensors[name] = memory[1:].view(tensors[name].shape).copy_(tensors[name])
    op = TorchOp(TorchPart("a part", (6,), (6, 6), ((6,),), compute), torch.float64)
    args = operands(tensors)
    op.library.forward(ctypes.byref(args))
    op.library.backward(ctypes.byref(args))
    op.raise_failure()
    assert [address % 64 for address in seen] == [0, 0, 0, 0]


def test_what_has_no_gradient_gives_zeros(tensors):
    op = TorchOp(part(lambda x, other, weight: x.detach().round() + weight.detach().mean()), torch.float64)
    args, before = operands(tensors), tensors["gx"].clone()
    op.library.forward(ctypes.byref(args))
    op.library.backward(ctypes.byref(args))
    op.raise_failure()
    assert torch.equal(tensors["gx"], before)
    assert not tensors["g_other"].any()
    assert not tensors["g_weight"].any()


@pytest.mark.parametrize("error", [RuntimeError("of a batch"), KeyboardInterrupt()])
def test_an_error_reaches_who_called_the_plan_once_and_all_results_are_nan_until_then(tensors, error):
    def fails(x, *_):
        if x[0, 0] == 0:
            raise error
        return x

    op, args = TorchOp(part(fails), torch.float64), operands(tensors)
    kept = float(tensors["x"][0, 0])
    tensors["x"][0, 0] = 0
    op.library.forward(ctypes.byref(args))
    op.library.backward(ctypes.byref(args))
    assert tensors["y"].isnan().all()
    tensors["x"][0, 0] = kept
    op.library.infer(ctypes.byref(args))
    assert tensors["y"].isnan().all()
    with pytest.raises(type(error)):
        op.raise_failure()
    op.raise_failure()
    op.library.infer(ctypes.byref(args))
    assert torch.equal(tensors["y"], tensors["x"])
