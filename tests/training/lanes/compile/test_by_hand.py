"""Gradients that a stage finds by hand are those that autograd finds."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from gridsearch.training.lanes.compile import network as network_module
from gridsearch.training.lanes.compile.compiled_graph import ByAutograd
from gridsearch.training.lanes.compile.lane_values import Form
from gridsearch.training.lanes.compile.network import AutogradPass, ManualPass, StackedNetwork
from gridsearch.training.lanes.runtime.storage import Storage

LANES = 3


class Tail(nn.Module):
    """Some layers for images 2x9x9, then ten logits."""

    def __init__(self, *layers):
        super().__init__()
        self.front = nn.Sequential(*layers)
        self.tail = nn.Linear(self.front(torch.zeros(2, 2, 9, 9)).flatten(1).shape[1], 10)

    def forward(self, x):
        return self.tail(self.front(x).flatten(1))


class Forked(Tail):
    """A map that a ReLU, two poolings and a sum read; a weight that two layers share."""

    def __init__(self):
        super().__init__(nn.Conv2d(2, 4, 3, padding=1))
        self.other = nn.Conv2d(4, 4, 3, padding=1)
        self.tail = nn.Linear(4 * 16, 10)

    def forward(self, x):
        x = self.front(x)
        y = F.relu(x) + torch.sigmoid(self.other(x)) * x
        first, second = y.chunk(2, 1)
        y = self.other(F.relu(self.other(torch.cat((second, first), 1))))
        y = F.max_pool2d(y, 3, 2) + F.max_pool2d(y, 3, stride=2, padding=0)
        return self.tail(F.relu(y).flatten(1))


def frozen():
    model = Tail(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, bias=False), nn.ReLU())
    model.front[0].weight.requires_grad_(requires_grad=False)
    model.front[2].weight.requires_grad_(requires_grad=False)
    return model


def tied():
    model = Tail(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1), nn.MaxPool2d(3))
    model.front[2].weight = model.front[0].weight
    return model


MODELS = {
    "pooling after ReLU": lambda: Tail(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 2, 2)),
    "windows that overlap": lambda: Tail(nn.Conv2d(2, 3, 3), nn.MaxPool2d(3, 2, 1, ceil_mode=True)),
    "windows with holes": lambda: Tail(nn.Conv2d(2, 3, 2), nn.MaxPool2d(2, dilation=2), nn.ReLU()),
    "groups and strides": lambda: Tail(nn.Conv2d(2, 4, 3, groups=2, stride=2), nn.Conv2d(4, 4, 2, groups=4)),
    "the same size": lambda: Tail(
        nn.Conv2d(2, 3, 3, padding="same", dilation=2),
        nn.Conv2d(3, 3, (2, 3), padding="same"),
        nn.Conv2d(3, 3, 2, padding="valid", bias=False),
    ),
    "norms and dropout": lambda: Tail(
        nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.GroupNorm(2, 4), nn.MaxPool2d(2)
    ),
    "dense layers": lambda: Tail(
        nn.Flatten(), nn.Linear(162, 8, bias=False), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 8), nn.ReLU()
    ),
    "rows of features": lambda: Tail(nn.Flatten(2), nn.Linear(81, 5), nn.ReLU(), nn.Linear(5, 4)),
    "layers that rest": frozen,
    "a tied weight": tied,
    "a map that many read": Forked,
}


def networks(build, dtype):
    """A network by hand and the one by autograd, over one storage, and some images."""
    torch.manual_seed(0)
    models = [build().to(dtype) for _ in range(LANES)]
    trained = [n for n, p in models[0].named_parameters() if p.requires_grad]
    storage = Storage(models, trained)
    x = torch.randn(3, 2, 9, 9, dtype=dtype)
    both = [StackedNetwork(models[0], storage, x, by_hand=by_hand) for by_hand in (True, False)]
    return both, storage, models


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("affine", [False, True], ids=["", "own normalization"])
@pytest.mark.parametrize("form", [Form.SHARED, Form.PACKED])
@pytest.mark.parametrize("name", MODELS)
def test_gradients_by_hand_are_those_of_autograd(name, form, affine):
    both, storage, models = networks(MODELS[name], torch.float64)
    if affine:
        if not both[0].folds:
            pytest.skip("its first layer takes no normalization")
        for network in both:
            network.affine.set(
                torch.tensor([[1.0, 2.0], [0.5, 1.0], [3.0, 0.1]], dtype=torch.float64),
                torch.tensor([[0.0, 0.3], [-1.0, 0.0], [0.2, 2.0]], dtype=torch.float64),
            )
    flats = [torch.full_like(storage.flat, torch.nan) for _ in both]
    for batch, layout in ((4, torch.contiguous_format), (3, torch.channels_last), (4, torch.channels_last)):
        # few different values, so that windows have ties, and a unit that is dead
        x = torch.randint(-1, 2, (batch, 2 * (LANES if form is Form.PACKED else 1), 9, 9)).double()
        x = x.contiguous(memory_format=layout)
        gradients = torch.randn(LANES, batch, 10, dtype=torch.float64)
        passes = [network.forward_pass(x, form) for network in both]
        assert [type(d) for d in passes] == [ManualPass, AutogradPass]
        for forward, flat in zip(passes, flats, strict=True):
            forward.gradients(gradients, flat)
        if form is Form.SHARED and not affine:
            alone = torch.stack([model(x) for model in models])
            torch.testing.assert_close(passes[0].logits, alone, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(*(d.logits for d in passes), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(*flats, rtol=1e-12, atol=1e-12)
        assert flats[0].abs().max() > 0


def test_of_equal_values_in_a_window_the_first_gets_the_gradient():
    """As in torch, also where a ReLU comes before the pooling and makes the ties, and after it."""
    for order in ((nn.ReLU(), nn.MaxPool2d(2)), (nn.MaxPool2d(2), nn.ReLU())):
        both, storage, _ = networks(lambda order=order: Tail(nn.Conv2d(2, 3, 1), *order), torch.float64)
        with torch.no_grad():
            storage.tensors["front.0.bias"].zero_()
        x = torch.zeros(2, 2, 9, 9, dtype=torch.float64)
        x[1] = 1.0
        gradients = torch.randn(LANES, 2, 10, dtype=torch.float64)
        flats = [torch.empty_like(storage.flat) for _ in both]
        for network, flat in zip(both, flats, strict=True):
            network.forward_pass(x, Form.SHARED).gradients(gradients, flat)
        assert torch.equal(*flats)


def test_a_parameter_that_a_step_does_not_reach_gets_no_gradient():
    class Bypassed(Tail):
        def __init__(self):
            super().__init__(nn.Flatten())
            self.unused = nn.Linear(3, 4)

    both, storage, _ = networks(Bypassed, torch.float64)
    flat = torch.full_like(storage.flat, torch.nan)
    forward = both[0].forward_pass(torch.randn(2, 2, 9, 9, dtype=torch.float64), Form.SHARED)
    forward.gradients(torch.ones_like(forward.logits), flat)
    found = storage.split(flat)
    assert not found["unused.weight"].any()
    assert found["tail.weight"].isfinite().all()


def test_by_hand_nothing_keeps_the_maps_before_a_pooling():
    both, _, _ = networks(lambda: Tail(nn.Conv2d(2, 3, 3), nn.MaxPool2d(2)), torch.float32)
    with torch.no_grad():
        _, record = both[0]._graphs[True, Form.SHARED].record(torch.randn(5, 2, 9, 9))
    kept = [t for saved in record if saved for t in saved if isinstance(t, torch.Tensor)]
    assert (5, 3 * LANES, 7, 7) not in [tuple(t.shape) for t in kept]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_one_operation_by_autograd_needs_no_module_that_imports_sympy(monkeypatch, mode):
    operation = ByAutograd(lambda x, y, n: x.sigmoid() * y + n, [True, False, False])
    x, y, gradient = torch.randn(3, 4), torch.randn(3, 4), torch.randn(3, 4)
    with torch.no_grad():
        _, saved = operation.forward(x, y, 2)
    monkeypatch.setitem(sys.modules, "torch.fx.experimental.symbolic_shapes", None)
    with mode():
        found = operation.backward(gradient, saved, [True, False, False], [None] * 3)
    monkeypatch.undo()
    expected = gradient * y * x.sigmoid() * (1 - x.sigmoid())
    torch.testing.assert_close(found[0], expected)
    assert found[1:] == [None, None]


def known(*, kernel=3, bias=True, act=nn.ReLU):
    """A network of torch's own modules alone, for images 2x9x9."""
    side = 10 - kernel
    return nn.Sequential(
        nn.Conv2d(2, 3, kernel, bias=bias), act(), nn.Flatten(), nn.Linear(3 * side * side, 10)
    )


def test_a_network_of_known_code_takes_a_lane_by_its_modules_and_is_not_traced_again(monkeypatch):
    models = [known() for _ in range(LANES)]
    storage = Storage(models, [n for n, _ in models[0].named_parameters()])
    network = StackedNetwork(models[0], storage, torch.randn(3, 2, 9, 9), by_hand=True)
    monkeypatch.setattr(network_module, "trace", None)
    assert network.alike(known())
    for other in (
        known(kernel=2),
        known(bias=False),
        known(act=nn.Tanh),
        known(act=lambda: nn.ReLU(inplace=True)),
    ):
        assert not network.alike(other)
    tied = known()
    tied[0].bias = tied[0].weight
    assert not network.alike(tied)
    hooked = known()
    hooked[1].register_forward_hook(lambda *_: None)
    assert not network.alike(hooked)
