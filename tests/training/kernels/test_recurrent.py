"""Recurrent layers as compiled operations, each called alone: torch's results and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gridsearch.training.kernels import small_ops
from gridsearch.training.kernels.stages import Cell, Recurrent
from tests.training.compilers import needs_compiler
from tests.training.kernels.op_calls import call

pytestmark = needs_compiler

LAYERS = {
    Cell.RNN_TANH: nn.RNN,
    Cell.RNN_RELU: lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k),
    Cell.LSTM: nn.LSTM,
    Cell.GRU: nn.GRU,
}
NAMES = "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize(
    ("steps", "inputs", "hidden", "how"), [(5, 7, 19, "plain"), (3, 16, 8, "reverse"), (1, 3, 5, "no bias")]
)
def test_a_recurrent_layer_is_torchs(cell, steps, inputs, hidden, how):
    torch.manual_seed(steps)
    images = 67 if how == "plain" else 6  # more than it takes at a time
    layer = LAYERS[cell](inputs, hidden, bias=how != "no bias", batch_first=True).double()
    params = [getattr(layer, name, None) for name in NAMES]
    there = [p for p in params if p is not None]
    x = torch.randn(images, steps, inputs, dtype=torch.float64, requires_grad=True)
    turn = (lambda t: t.flip(1)) if how == "reverse" else lambda t: t
    expected = turn(layer(turn(x))[0]).flatten(1)
    gradient, before = torch.randn_like(expected), torch.randn(images, steps * inputs, dtype=torch.float64)
    own, *grads = torch.autograd.grad(expected, [x, *there], gradient)
    stage = Recurrent(cell, steps, inputs, hidden, reverse=how == "reverse")
    op, covered = small_ops.cover([stage], (steps * inputs,), torch.float64)
    assert covered == 1
    for adds in (False, True):
        found = call(
            *(
                op,
                [x.detach().flatten(1)],
                (steps * hidden,),
                [None if p is None else p.detach() for p in params],
            ),
            gy=gradient,
            before=[before] if adds else None,
        )
        ours = [found.y, found.infer, found.gx[0], *(g for g in found.grads if g is not None)]
        theirs = [expected, expected, own.flatten(1) + (before if adds else 0), *grads]
        torch.testing.assert_close(ours, [t.detach() for t in theirs], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize(("steps", "hidden", "reverse"), [(4, 19, False), (1, 8, False), (3, 5, True)])
def test_a_recurrent_layer_begins_with_given_states_and_ends_with_its_cells(cell, steps, hidden, reverse):
    torch.manual_seed(steps)
    images, inputs, both = 67, 6, cell == Cell.LSTM
    layer = LAYERS[cell](inputs, hidden, batch_first=True).double()
    params = [getattr(layer, name) for name in NAMES]
    x, *begin = (
        torch.randn(images, *sides, dtype=torch.float64, requires_grad=True)
        for sides in [(steps, inputs), (hidden,), (hidden,)][: 2 + both]
    )
    states = tuple(each[None] for each in begin)
    turn = (lambda t: t.flip(1)) if reverse else lambda t: t
    found, last = layer(turn(x), states if both else states[0])
    expected = torch.cat([turn(found).flatten(1), *([last[1][0]] if both else [])], 1)
    gradient, before = torch.randn_like(expected), [torch.randn_like(each) for each in begin]
    own = torch.autograd.grad(expected, [x, *begin, *params], gradient)
    stage = Recurrent(cell, steps, inputs, hidden, reverse, begins=True, ends=both)
    op, _ = small_ops.cover([stage], (steps * inputs,), torch.float64)
    given = [x.detach().flatten(1), *(each.detach() for each in begin)]
    called = call(
        *(op, given, stage.shape, [p.detach() for p in params]), gy=gradient, before=[None, *before]
    )
    ours = [called.y, called.infer, *called.gx, *called.grads]
    added = (theirs + start for theirs, start in zip(own[1:], before, strict=False))
    theirs = [expected, expected, own[0].flatten(1), *added, *own[1 + len(begin) :]]
    torch.testing.assert_close(ours, [t.detach() for t in theirs], rtol=1e-10, atol=1e-10)
