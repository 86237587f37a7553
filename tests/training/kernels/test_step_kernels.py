"""The compiled dense layers and optimizer steps: equal to torch, lane by lane."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from gridsearch.records import ImageSettings
from gridsearch.training.kernels import (
    CrossEntropy,
    DenseLayers,
    DenseShape,
    OptimizerStep,
    compiler,
)
from gridsearch.training.lanes.compile.lane_values import SAMPLE, Form
from gridsearch.training.lanes.compile.network_choice import choose
from gridsearch.training.lanes.runtime.optimizers import PackOptimizer
from gridsearch.training.lanes.runtime.products import FusedLinear
from gridsearch.training.precision import Precision
from gridsearch.zoo import models
from tests.training.compilers import needs_compiler

pytestmark = needs_compiler

CHAINS = {
    "lenet": ((256, 120, 84, 10), (True, True, False)),
    "one layer": ((16, 10), (False,)),
    "relu at the end": ((17, 31), (True,)),
    "a row that ends with a part of a vector": ((20, 18, 3), (True, False)),
    "one number comes out": ((40, 64, 1), (False, False)),
    "wide": ((129, 200), (True,)),
    "more inputs than are summed at a time": ((2051, 6), (True,)),
}
MAPS = {"lenet": (16, 4, 4), "one layer": (4, 2, 2), "a row that ends with a part of a vector": (2, 5, 2)}


class Chain:
    """Dense layers of some lanes whose weights lie one behind the other, as in a pack."""

    def __init__(self, name, *, lanes=3, batch=7, dtype=torch.float64, bias=True, maps=None, seed=0):
        self.sizes, self.relu = CHAINS[name]
        pairs = list(zip(self.sizes[:-1], self.sizes[1:], strict=True))
        draw = torch.Generator().manual_seed(seed)
        count = sum(f * g + g for f, g in pairs)
        self.flat = torch.randn(lanes, count, generator=draw, dtype=dtype) / 4
        self.gradients = torch.full_like(self.flat, float("nan"))
        self.bias = bias
        if maps is None:
            self.x = torch.randn(lanes, batch, self.sizes[0], generator=draw, dtype=dtype)
        else:
            channels, height, width = MAPS[name]
            x = torch.randn(batch, lanes * channels, height, width, generator=draw, dtype=dtype)
            self.x = x.contiguous(memory_format=maps)
        self.gradient = torch.randn(lanes, batch, self.sizes[-1], generator=draw, dtype=dtype)
        kernel = DenseLayers.build(DenseShape(self.sizes, self.relu), dtype)
        assert kernel is not None
        self.kernel = kernel

    def split(self, flat):
        weights, biases, at = [], [], 0
        for f, g in zip(self.sizes[:-1], self.sizes[1:], strict=True):
            weights.append(flat[:, at : at + f * g].view(len(flat), g, f))
            biases.append(flat[:, at + f * g : at + f * g + g] if self.bias else None)
            at += f * g + g
        return weights, biases

    def ours(self, *, inputs=True):
        """Result, gradient by x, gradients by the weights; what has no bias keeps its place."""
        weights, biases = self.split(self.flat)
        y, kept = self.kernel.forward(self.x, weights, biases)
        gx = self.kernel.backward(
            self.gradient, y, kept, self.x, weights, *self.split(self.gradients), input_grad=inputs
        )
        return y, gx, self.gradients

    def theirs(self):
        flat, x = self.flat.clone().requires_grad_(), self.x.detach().clone().requires_grad_()
        lanes = len(flat)
        y = x if x.dim() == 3 else x.unflatten(1, (lanes, -1)).transpose(0, 1).flatten(2)
        for w, b, relu in zip(*self.split(flat), self.relu, strict=True):
            y = torch.bmm(y, w.transpose(1, 2))
            y = y if b is None else y + b.unsqueeze(1)
            y = torch.relu(y) if relu else y
        y.backward(self.gradient)
        return y.detach(), x.grad, flat.grad


@pytest.mark.parametrize("batch", [1, 3, 10, 33])
@pytest.mark.parametrize("name", CHAINS)
def test_dense_layers_equal_torch(name, batch):
    chain = Chain(name, batch=batch)
    for ours, theirs in zip(chain.ours(), chain.theirs(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_dense_layers_of_more_images_than_are_taken_at_a_time_equal_torch():
    chain = Chain("wide", lanes=2, batch=259)
    for ours, theirs in zip(chain.ours(), chain.theirs(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("name", MAPS)
def test_dense_layers_read_maps_in_any_layout(name, layout):
    chain = Chain(name, maps=layout)
    y, gx, gradients = chain.ours()
    assert gx.stride() == chain.x.stride()
    for ours, theirs in zip((y, gx, gradients), chain.theirs(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_dense_layers_without_biases_and_without_a_gradient_of_what_comes_in():
    chain = Chain("lenet", bias=False)
    y, gx, gradients = chain.ours(inputs=False)
    wanted, _, all_gradients = chain.theirs()
    assert gx is None
    torch.testing.assert_close(y, wanted, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(chain.split(gradients)[0], chain.split(all_gradients)[0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    chain.bias = True  # nobody has asked for these
    assert all(b.isnan().all() for b in chain.split(gradients)[1])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["lenet", "a row that ends with a part of a vector"])
def test_a_bad_weight_or_number_stays_in_its_lane(name, bad):
    for spoil in ("flat", "x"):
        good, poor = Chain(name), Chain(name)
        getattr(poor, spoil)[1].fill_(bad)
        for ours, theirs in zip(poor.ours(), good.ours(), strict=True):
            torch.testing.assert_close(ours[[0, 2]], theirs[[0, 2]], rtol=0, atol=0)
        y, _, gradients = poor.ours()
        assert not y[1].isfinite().all()
        assert not gradients[1].isfinite().all()


def test_one_bad_weight_is_as_bad_as_with_torch():
    chain = Chain("lenet")
    chain.flat[1, 300] = float("nan")
    chain.x[2, 3, 5] = float("nan")
    for ours, theirs in zip(chain.ours(), chain.theirs(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_a_lanes_dense_layers_do_not_depend_on_the_others():
    many = Chain("lenet", lanes=5, dtype=torch.float32)
    y, gx, gradients = many.ours()
    for lane in range(5):
        one = Chain("lenet", lanes=1, dtype=torch.float32)
        one.flat, one.x, one.gradient = many.flat[[lane]], many.x[[lane]], many.gradient[[lane]]
        one.gradients = torch.empty_like(one.flat)
        for alone, among in zip(one.ours(), (y, gx, gradients), strict=True):
            assert torch.equal(alone[0], among[lane])


def test_weights_that_move_to_another_place_are_found_there():
    chain, other = Chain("lenet"), Chain("lenet", seed=1)
    chain.ours()
    other.kernel = chain.kernel
    for ours, theirs in zip(other.ours(), other.theirs(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


# In a network


class Called(nn.Module):
    """Dense layers as many write them: without modules for what has no weights."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.first, self.second = nn.Linear(4 * 6 * 6, 32), nn.Linear(32, 10)

    def forward(self, x):
        x = self.conv(x).view(x.size(0), -1)
        return self.second(F.relu(self.first(x)))


class ReadTwice(Called):
    """What the first layer gives is wanted twice."""

    def forward(self, x):
        y = self.first(self.conv(x).flatten(1))
        return self.second(torch.relu(y)) + self.second(torch.tanh(y))


class Tied(Called):
    """One layer, used twice."""

    def __init__(self):
        super().__init__()
        self.middle = nn.Linear(32, 32)

    def forward(self, x):
        y = torch.relu(self.first(self.conv(x).flatten(1)))
        return self.second(torch.relu(self.middle(torch.relu(self.middle(y)))))


class Dropped(Called):
    """Dropout between the layers."""

    def forward(self, x):
        y = torch.relu(self.first(self.conv(x).flatten(1)))
        return self.second(F.dropout(y, 0.25, self.training))


class Large(Called):
    """A layer whose weights do not stay in a core's own cache, among others."""

    def __init__(self):
        super().__init__()
        self.first, self.middle = nn.Linear(4 * 6 * 6, 300), nn.Linear(300, 32)

    def forward(self, x):
        y = torch.relu(self.middle(torch.relu(self.first(self.conv(x).flatten(1)))))
        return self.second(y)


class EverySecond(Called):
    """Features that lie apart in memory."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4 * 6 * 6, 64)

    def forward(self, x):
        return self.second(self.first(self.conv(x).flatten(1))[:, ::2])


class InTwoDimensions(Called):
    """Dense layers over the rows of maps."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Linear(16, 16)

    def forward(self, x):
        y = self.rows(self.rows(torch.cat([x, x], 3)[..., :16]))
        return self.second(y.flatten(1)[:, :32])


def network_of(model, lanes=3, **how):
    torch.manual_seed(0)
    built = [model() for _ in range(lanes)]
    x = torch.randn(SAMPLE, 1, 8, 8)
    network, storage = choose(built, x, Precision.of("float32", torch.device("cpu")), **how)
    return network, storage, built, x


def joined(network, *, training=True):
    """How many dense layers each joined instruction has."""
    stage = network._graphs[training, Form.SHARED]
    return [len(one.operands) // 2 for one in stage.instructions if isinstance(one.function, FusedLinear)]


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (Called, [2]),
        (ReadTwice, [1, 1, 1]),
        (Tied, [2, 2]),
        (Dropped, [1, 1]),
        (Large, [3]),
        (EverySecond, [1, 1]),
        (InTwoDimensions, [1]),
    ],
)
def test_what_is_joined_and_that_it_is_the_same_function(model, found):
    network, storage, built, x = network_of(model, compiles=True)
    assert joined(network) == found
    for lane, own in enumerate(built):
        own.eval()
        torch.testing.assert_close(
            network(x, Form.SHARED, training=False)[lane], own(x), rtol=1e-5, atol=1e-6
        )
    if model is Dropped:
        return
    forward = network.forward_pass(x, Form.SHARED)
    gradient = torch.empty_like(storage.flat)
    draw = torch.Generator().manual_seed(0)
    gradients = torch.randn(forward.logits.shape, generator=draw)
    forward.gradients(gradients, gradient)
    for lane, own in enumerate(built):
        own.train()
        own(x).backward(gradients[lane])
        for name, ours in storage.split(gradient).items():
            theirs = own.get_parameter(name).grad
            torch.testing.assert_close(ours[lane], theirs, rtol=1e-4, atol=1e-5)


def test_nothing_is_joined_where_kernels_are_not_wanted(monkeypatch):
    assert joined(network_of(Called)[0]) == []
    monkeypatch.setenv("GRIDSEARCH_KERNELS", "off")
    assert joined(network_of(Called, compiles=True)[0]) == []


def test_layers_of_few_inputs_are_torchs():
    assert DenseShape((4096, 512), (True,)).pays()
    assert not DenseShape((256, 15, 10), (True, False)).pays()


def test_a_layer_that_reads_the_images_stays_torchs():
    network, *_ = network_of(lambda: models.mlp(1, 10, (8, 8)), compiles=True)
    dense = sum(isinstance(m, nn.Linear) for m in models.mlp(1, 10, (8, 8)).modules())
    assert sum(joined(network)) == dense - 1


def test_dense_layers_of_other_shapes_and_types_are_refused():
    chain = Chain(next(iter(CHAINS)), dtype=torch.float32)
    weights, biases = chain.split(chain.flat)
    kernel = DenseLayers.build(chain.kernel.shape, torch.float32)
    for wrong in (
        (chain.x[..., 1:], weights, biases),
        (chain.x.double(), weights, biases),
        (chain.x, [weights[0][:, 1:], *weights[1:]], biases),
        (chain.x, [w.double() for w in weights], biases),
        (chain.x, weights, [None if b is None else b[:1] for b in biases]),
    ):
        with pytest.raises(ValueError, match=r"a kernel needs|the input is"):
            kernel.forward(*wrong)


def test_an_optimizers_step_refuses_other_shapes_and_types():
    step = OptimizerStep.build("sgd", torch.float32)
    recipe = ImageSettings(dataset="d", model="m", optimizer="sgd")
    step.set_lanes([recipe] * 2, [0, 0], [1.0, 1.0])
    flat = torch.zeros(2, 6)
    step(flat, flat.clone(), [flat.clone()], [0.1, 0.1])
    for weights, gradient, state in (
        (flat, flat[:, 1:], flat.clone()),
        (flat[:1], flat[:1], flat[:1]),
        (flat, flat, torch.zeros(6, 2).T),
        (flat, flat.double(), flat.clone()),
    ):
        with pytest.raises(ValueError, match=r"lanes|a kernel needs"):
            step(weights, gradient, [state], [0.1, 0.1])


# Optimizer steps


def test_a_lanes_step_does_not_depend_on_the_others():
    recipes = [
        ImageSettings(dataset="d", model="m", lr=0.1 / (k + 1), weight_decay=0.01 * k) for k in range(3)
    ]
    draw = torch.Generator().manual_seed(0)
    flat = torch.randn(3, 50, generator=draw)
    gradients = torch.randn(4, 3, 50, generator=draw)
    alone = [row.clone().unsqueeze(0) for row in flat]
    together = PackOptimizer(recipes, SimpleNamespace(flat=flat))
    apart = [PackOptimizer([r], SimpleNamespace(flat=row)) for r, row in zip(recipes, alone, strict=True)]
    for gradient in gradients:
        together.step(gradient)
        for lane, one in enumerate(apart):
            one.step(gradient[[lane]])
    assert torch.equal(flat, torch.cat(alone))


# On other processors


@pytest.mark.skipif(sys.platform != "linux", reason="needs the narrower instructions of x86")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="needs the narrower instructions of x86")
@pytest.mark.parametrize("words", [("-march=x86-64-v3",), ("-march=x86-64",)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_dense_layers_on_narrower_vectors(monkeypatch, tmp_path, words, dtype):
    monkeypatch.setenv("GRIDSEARCH_KERNELS", str(tmp_path / "narrow"))
    monkeypatch.setattr(compiler, "_FOR_THIS_MACHINE", (words,))
    tolerance = 1e-13 if dtype is torch.float64 else 1e-5
    for name in CHAINS:
        chain = Chain(name, dtype=dtype)
        for ours, theirs in zip(chain.ours(), chain.theirs(), strict=True):
            assert float((ours - theirs).abs().max()) < tolerance * float(theirs.abs().max())


def test_without_a_compiler_there_is_no_kernel(monkeypatch):
    monkeypatch.setenv("GRIDSEARCH_KERNELS", "off")
    assert DenseLayers.build(DenseShape((16, 16), (True,)), torch.float32) is None
    assert CrossEntropy.build(torch.float32) is None
    assert OptimizerStep.build("adam", torch.float32) is None
    monkeypatch.delenv("GRIDSEARCH_KERNELS")
    assert CrossEntropy.build(torch.bfloat16) is None
