"""Whatever a module carries: its lanes give what a plain loop gives, stacked, vmapped or one after the other.

Each network has one oddity that a rewrite or a copy could lose, most of them from some step on and not at the first.
The loop shares nothing with the product but the names of the streams and the split.
"""

# ruff: noqa: ARG004  (signatures of torch)

from __future__ import annotations

import collections
import functools
import itertools
import random
import time
import types
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from gridsearch.records import TrialFailed
from gridsearch.training import method_of
from gridsearch.training.resident_data import ResidentCache
from tests.training.plain_loop import train_plainly

LATE = 7
"""Calls after which something changes: later than any check of the first steps."""

ODDITIES = {}


def oddity(method, reason=""):
    """Note a network by its name, the method it may train by ("stacked", "vmap", "solo"), and a word of the reason."""

    def note(make):
        ODDITIES[make.__name__] = (make, method, reason)
        return make

    return note


class Net(nn.Module):
    """Two dense layers and a batch norm."""

    def __init__(self):
        super().__init__()
        self.one, self.norm, self.two = nn.Linear(64, 10), nn.BatchNorm1d(10), nn.Linear(10, 3)

    def hidden(self, x):
        return self.norm(self.one(x.flatten(1))).relu()

    def forward(self, x):
        return self.two(self.hidden(x))


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.two = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.two(self.conv(x).relu().mean((2, 3)))


# Hooks


@oddity("solo", "hook on its gradient")
def hook_on_a_parameter():
    net = Net()
    kept = torch.zeros(10, 64)
    kept[:, :6] = 1
    net.one.weight.register_hook(lambda g: g * kept.to(g.dtype))
    return net


@oddity("solo", "hook on its gradient")
def hook_on_a_parameter_that_acts_late():
    net, calls = Net(), itertools.count()
    net.one.weight.register_hook(lambda g: g * (next(calls) < LATE))
    return net


@oddity("solo", "hook on its gradient")
def hook_that_clips_what_is_large_alone():
    net = Net()
    net.two.weight.register_hook(lambda g: g.clamp(-0.02, 0.02))
    return net


@oddity("solo", "hook on its gradient")
def post_accumulate_hook():
    net = Net()

    def halve(p):
        p.grad.mul_(0.5)

    net.one.weight.register_post_accumulate_grad_hook(halve)
    return net


@oddity("solo", "hooks")
def forward_hook():
    net = Net()
    net.one.register_forward_hook(lambda m, i, o: o * 2)
    return net


@oddity("solo", "hooks")
def forward_hook_of_the_whole_model():
    net = Net()
    net.register_forward_hook(lambda m, i, o: o * 2)
    return net


@oddity("solo", "hooks")
def forward_hook_that_acts_late():
    net, calls = Net(), []

    def hook(module, given, result):
        calls.append(1)
        return result * (1 if len(calls) < LATE else 0.5)

    net.norm.register_forward_hook(hook)
    return net


@oddity("solo", "hooks")
def forward_pre_hook():
    net = Net()
    net.two.register_forward_pre_hook(lambda m, i: (i[0] * 3,))
    return net


@oddity("solo", "hooks")
def full_backward_hook():
    net = Net()
    net.two.register_full_backward_hook(lambda m, gi, go: (gi[0] * 0.1,))
    return net


@oddity("solo", "hooks")
def full_backward_pre_hook():
    net = Net()
    net.two.register_full_backward_pre_hook(lambda m, go: (go[0] * 0.1,))
    return net


@oddity("solo", "hooks")
def state_dict_hook():
    net = Net()
    net.register_state_dict_post_hook(lambda m, state, prefix, meta: state.update({"more": torch.ones(1)}))
    return net


class HookOnAnActivation(Net):
    def forward(self, x):
        h = self.hidden(x)
        if h.requires_grad:
            h.register_hook(lambda g: g * 0.1)
        return self.two(h)


oddity("solo", "register_hook")(HookOnAnActivation)


# Weights that are more than tensors


@oddity("any")
def weight_norm_by_hooks():
    net = Net()
    nn.utils.weight_norm(net.one)
    return net


@oddity("any")
def weight_norm():
    net = Net()
    parametrizations.weight_norm(net.one)
    return net


@oddity("any")
def spectral_norm():
    net = Net()
    parametrizations.spectral_norm(net.one)
    return net


@oddity("any")
def spectral_norm_by_hooks():
    net = Net()
    nn.utils.spectral_norm(net.one)
    return net


@oddity("any")
def orthogonal():
    net = Net()
    parametrizations.orthogonal(net.two)
    return net


class Symmetric(nn.Module):
    def forward(self, w):
        return w.triu() + w.triu(1).transpose(-1, -2)


class Counting(nn.Module):
    calls = 0

    def forward(self, w):
        self.calls += 1
        return w * (1 if self.calls < LATE else 0.5)


@oddity("stacked")
def parametrization_of_ones_own():
    net = ConvNet()
    parametrize.register_parametrization(net.conv, "weight", Symmetric())
    return net


@oddity("solo", "state")
def parametrization_that_counts():
    net = ConvNet()
    parametrize.register_parametrization(net.conv, "weight", Counting())
    return net


class MaxNorm(Net):
    """Weights rescaled in forward, as EEGNet's; at first they are small, and nothing happens."""

    def forward(self, x):
        self.two.weight.data = torch.renorm(self.two.weight.data, 2, 0, maxnorm=0.6)
        return super().forward(x)


oddity("solo", "data")(MaxNorm)


class Clamped(Net):
    def forward(self, x):
        with torch.no_grad():
            self.two.weight.clamp_(-0.33, 0.33)
        return super().forward(x)


oddity("solo", "changes its weights")(Clamped)


class Standardized(nn.Conv2d):
    """Weight standardization: a function of the weights, in the graph."""

    def forward(self, x):
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, w, self.bias)


@oddity("stacked")
def weights_standardized():
    net = ConvNet()
    net.conv = Standardized(1, 4, 3)
    return net


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(64, 64), nn.Linear(64, 64)
        self.two.weight = self.one.weight
        self.last = nn.Linear(64, 3)

    def forward(self, x):
        return self.last(self.two(self.one(x.flatten(1)).tanh()).tanh())


oddity("stacked")(Tied)


class Twice(nn.Module):
    """A layer and a batch norm that are called twice."""

    def __init__(self):
        super().__init__()
        self.one, self.norm, self.last = nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 3)

    def forward(self, x):
        x = x.flatten(1)
        for _ in range(2):
            x = self.norm(self.one(x)).relu()
        return self.last(x)


oddity("stacked")(Twice)


@oddity("stacked")
def module_shared_by_two_names():
    net = Twice()
    net.again = net.one
    return net


@oddity("stacked")
def frozen_layer():
    net = Net()
    net.one.requires_grad_(False)
    return net


class OwnParameter(nn.Parameter):
    pass


@oddity("solo", "OwnParameter")
def parameter_of_a_kind_of_ones_own():
    net = Net()
    net.two.weight = OwnParameter(net.two.weight.detach().clone())
    return net


# Weights and modes that change while training


class Unfreezes(Net):
    def __init__(self):
        super().__init__()
        self.one.requires_grad_(False)
        self._calls = 0

    def forward(self, x):
        if self.training:
            self._calls += 1
        if self._calls == LATE:
            self.one.requires_grad_(True)
        return super().forward(x)


oddity("solo", "state")(Unfreezes)


class Freezes(Net):
    def train(self, mode=True):
        super().train(mode)
        if mode:
            self._epochs = getattr(self, "_epochs", 0) + 1
            self.one.requires_grad_(self._epochs < 2)
        return self


oddity("solo", "train()")(Freezes)


class FrozenNorm(Net):
    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self


oddity("solo", "train()")(FrozenNorm)


class ReplacesAParameter(Net):
    def forward(self, x):
        if self.training and not hasattr(self, "done"):
            self.done = True
            self.two = nn.Linear(10, 3).to(x.dtype)
            nn.init.constant_(self.two.weight, 0.1)
        return super().forward(x)


oddity("solo", "")(ReplacesAParameter)


class ModeInForward(Net):
    def forward(self, x):
        self.norm.eval()
        return super().forward(x)


oddity("solo", "eval")(ModeInForward)


@oddity("solo", "another train()")
def train_replaced_on_the_object():
    net = Net()
    net.train = functools.partial(_norm_stays, net)
    return net


def _norm_stays(net, mode=True):
    nn.Module.train(net, mode)
    nn.Module.train(net.norm, False)
    return net


@oddity("solo", "another forward()")
def forward_replaced_on_the_object():
    net = Net()
    net.two.forward = lambda x: F.linear(x, net.two.weight) * 2
    return net


# State between calls


class CountsInPrivate(Net):
    def __init__(self):
        super().__init__()
        self._calls = 0

    def forward(self, x):
        self._calls += self.training
        return super().forward(x) * (1 if self._calls < LATE else 0.5)


oddity("solo", "state")(CountsInPrivate)


class CountsInAnObject(Net):
    def __init__(self):
        super().__init__()
        self.counter = itertools.count()

    def forward(self, x):
        late = self.training and next(self.counter) >= LATE
        return super().forward(x) * (0.5 if late else 1)


oddity("solo", "counter")(CountsInAnObject)


class CountsInAList(Net):
    def __init__(self):
        super().__init__()
        self.seen = collections.deque()

    def forward(self, x):
        if self.training:
            self.seen.append(len(x))
        return super().forward(x) * (1 if len(self.seen) < LATE else 0.5)


oddity("solo", "state")(CountsInAList)


class CountsInADefault(Net):
    def forward(self, x):
        return super().forward(x) * self.factor()

    def factor(self, calls=types.SimpleNamespace()):  # noqa: B008  (the oddity)
        calls.of = getattr(calls, "of", weakref.WeakKeyDictionary())
        calls.of[self] = calls.of.get(self, 0) + self.training
        return 1 if calls.of[self] < LATE else 0.5


oddity("solo", "state")(CountsInADefault)

CALLS = weakref.WeakKeyDictionary()


class CountsInAGlobal(Net):
    def forward(self, x):
        if self.training:
            CALLS[self] = CALLS.get(self, 0) + 1
        return super().forward(x) * (1 if CALLS.get(self, 0) < LATE else 0.5)


oddity("solo", "CALLS")(CountsInAGlobal)


@oddity("solo", "state")
def counts_in_a_closure():
    calls = 0

    class Closure(Net):
        def forward(self, x):
            nonlocal calls
            calls += self.training
            return super().forward(x) * (1 if calls < LATE else 0.5)

    return Closure()


class CountsInABuffer(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x):
        if self.training:
            self.calls.add_(1)
        return super().forward(x) * torch.where(self.calls < LATE, 1.0, 0.5)


oddity("vmap")(CountsInABuffer)


class CentersByABuffer(Net):
    """A running mean of one's own, changed in place."""

    def __init__(self):
        super().__init__()
        self.register_buffer("center", torch.zeros(64))

    def forward(self, x):
        x = x.flatten(1)
        if self.training:
            self.center.mul_(0.9).add_(x.mean(0), alpha=0.1)
        return super().forward(x - self.center)


oddity("vmap")(CentersByABuffer)


class RebindsABuffer(CentersByABuffer):
    def forward(self, x):
        x = x.flatten(1)
        if self.training:
            self.center = 0.9 * self.center + 0.1 * x.mean(0)
        return Net.forward(self, x - self.center)


oddity("solo", "replaces its tensors")(RebindsABuffer)


class StartsFromItsFirstBatch(Net):
    """Scaled by its first batch, as activation normalization is."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(64))
        self.register_buffer("ready", torch.zeros((), dtype=torch.bool))

    def forward(self, x):
        x = x.flatten(1)
        if not self.ready:
            self.scale.copy_(x.std(0) + 0.1)
            self.ready.fill_(True)
        return super().forward(x / self.scale)


oddity("solo")(StartsFromItsFirstBatch)


class KeepsATensor(Net):
    def __init__(self):
        super().__init__()
        self._scales = [torch.rand(64).double()]

    def forward(self, x):
        return super().forward(x.flatten(1) * self._scales[0])


oddity("solo", "_scales")(KeepsATensor)


class KeepsPositions(Net):
    """A tensor that is an attribute, drawn anew for each network, as a fixed position embedding is."""

    def __init__(self):
        super().__init__()
        self.positions = torch.rand(64).double()

    def forward(self, x):
        return super().forward(x.flatten(1) + self.positions)


oddity("stacked")(KeepsPositions)


class MovesWhatItKeeps(KeepsPositions):
    """The attribute changes with every step."""

    def forward(self, x):
        if self.training:
            self.positions.mul_(0.5)
        return super().forward(x)


oddity("vmap")(MovesWhatItKeeps)


class KeepsItsWeights(Net):
    """An attribute that is a parameter's memory, and so moves with it."""

    def __init__(self):
        super().__init__()
        self.double()
        self.gate = self.two.weight.detach()

    def forward(self, x):
        return super().forward(x) * (1 + self.gate.mean(1))


oddity("solo", "part of another")(KeepsItsWeights)


class KeepsAGraph(Net):
    """An attribute that was computed from a parameter: its second backward pass fails, alone too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(3), persistent=False)
        self.kept = self.scale * 2

    def forward(self, x):
        return super().forward(x) * self.kept


oddity("stacked")(KeepsAGraph)


class KeepsAnArray(Net):
    def __init__(self):
        super().__init__()
        self.mask = np.random.default_rng(torch.initial_seed() % 2**32).random(64)

    def forward(self, x):
        return super().forward(x.flatten(1) * torch.from_numpy(self.mask))


oddity("any")(KeepsAnArray)


class HidesModules(Net):
    """Modules in a list: nobody trains them."""

    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(10, 10).double()]

    def forward(self, x):
        return self.two(self.layers[0](self.hidden(x)))


oddity("solo", "none of its sub-modules")(HidesModules)


class AsksForSizes(ConvNet):
    """Sizes in conditions, loops and products, none of which depends on the batch; and maxima by their name."""

    def forward(self, x):
        height, width = x.shape[-2:]
        assert x.ndim == len(x.shape) == 4
        if height != width or x.size(1) > 1:
            raise ValueError(f"{height}x{width}")
        x = self.conv(x).relu()
        for row in range(x.shape[2] // 3):
            x = x * (1 + row)
        x = F.avg_pool2d(x, x.shape[-1] - 2).max(3).values
        return self.two(x.max(2)[0])


oddity("stacked")(AsksForSizes)


class SparesABatchOfOne(Net):
    """As one guards a batch norm: the sample has more images than one, the last batch may not."""

    def forward(self, x):
        h = self.one(x.flatten(1))
        return self.two((self.norm(h) if len(x) > 1 or not self.training else h).relu())


oddity("vmap")(SparesABatchOfOne)


class MakesTensors(Net):
    """Constants that the forward makes, of known sizes and of the batch's."""

    def forward(self, x):
        x = x.flatten(1)
        places = torch.arange(64, dtype=x.dtype) / 64
        ones = torch.ones(x.shape[0], 1, dtype=x.dtype)
        return super().forward(x + places) * torch.cat([ones, 2 * ones, ones], 1)


oddity("stacked")(MakesTensors)


class WritesIntoItsHidden(Net):
    """Assignment to a part of a tensor, in place."""

    def forward(self, x):
        h = self.hidden(x) * 1
        h[:, 0] = 0.25
        return self.two(h)


oddity("any")(WritesIntoItsHidden)


class AddsNoise(Net):
    """Noise of each kind, in training alone."""

    def forward(self, x):
        h = self.hidden(x)
        if self.training:
            h = h + 0.1 * torch.randn_like(h) * torch.rand(h.shape[0], 1, dtype=h.dtype)
            h = h * torch.empty(h.shape[0], 1, dtype=h.dtype).bernoulli_(0.8) + F.dropout(h, 0.2)
        return self.two(h)


oddity("stacked")(AddsNoise)


class Attends(nn.Module):
    """Attention with dropout, as a layer and as a function, with a token and positions that are learned."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 4, stride=4)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 5, 8))
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.2, batch_first=True)
        self.norm, self.two = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        x = x + self.attention(self.norm(x), x, x)[0]
        q = x.unflatten(2, (2, 4)).transpose(1, 2)
        drop = 0.3 if self.training else 0.0
        x = x + F.scaled_dot_product_attention(q, q, q, dropout_p=drop).transpose(1, 2).flatten(2)
        return self.two(x[:, 0])


oddity("stacked")(Attends)


class AsksTheClock(Net):
    def forward(self, x):
        return super().forward(x) * (1 if time.monotonic() > 0 else 0.5)


oddity("solo", "time")(AsksTheClock)


# Randomness


class DrawsWithPython(Net):
    def forward(self, x):
        return super().forward(x) * (1 if not self.training or random.random() < 0.5 else 0.5)


oddity("solo", "")(DrawsWithPython)


class DrawsWithNumpy(Net):
    def forward(self, x):
        return super().forward(x) * (float(np.random.rand()) if self.training else 1)


oddity("solo", "")(DrawsWithNumpy)


class DrawsWithAGenerator(Net):
    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(3)

    def forward(self, x):
        noise = torch.rand(1, generator=self.generator, dtype=x.dtype) if self.training else 1
        return super().forward(x) * noise


oddity("solo", "generator")(DrawsWithAGenerator)


class DropsAChannelOfFeatures(Net):
    def forward(self, x):
        return self.two(F.alpha_dropout(self.hidden(x), 0.3, self.training))


oddity("stacked")(DropsAChannelOfFeatures)


# Gradients of their own


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class Clip(torch.autograd.Function):
    """Its backward pass acts on large gradients alone, which a check need not meet."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x * 1

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        return gradient.clamp(-0.01, 0.01)


class ReversesGradients(Net):
    def forward(self, x):
        return self.two(Reverse.apply(self.hidden(x)))


oddity("solo", "backward")(ReversesGradients)


class ClipsGradients(Net):
    def forward(self, x):
        return self.two(Clip.apply(self.hidden(x)))


oddity("vmap", "backward")(ClipsGradients)


class StopsGradients(Net):
    def forward(self, x):
        h = self.hidden(x)
        with torch.no_grad():
            gate = self.two(h).sigmoid()
        return self.two(h) * gate


oddity("vmap", "gradients switched off")(StopsGradients)


class Detaches(Net):
    def forward(self, x):
        h = self.hidden(x)
        return self.two(h) * self.two(h.detach()).sigmoid()


oddity("stacked")(Detaches)


class AsksForGradients(Net):
    def forward(self, x):
        return super().forward(x) * (1 if torch.is_grad_enabled() else 0.5)


oddity("solo", "is_grad_enabled")(AsksForGradients)


# Kinds of modules


@oddity("solo", "scripted")
def scripted():
    return torch.jit.script(ConvNet())


@oddity("solo", "scripted")
def scripted_in_part():
    net = Net()
    net.two = torch.jit.script(net.two)
    return net


@oddity("solo", "compiled")
def compiled():
    return torch.compile(Net(), backend="eager")


@oddity("solo", "compiled")
def compiled_in_place():
    net = Net()
    net.two.compile(backend="eager")
    return net


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.LazyConv2d(4, 3), nn.LazyLinear(3)

    def forward(self, x):
        return self.two(self.one(x).relu().flatten(1))


oddity("stacked")(Lazy)


class ChangesItsImages(Net):
    def forward(self, x):
        x -= 0.3
        x.mul_(2)
        return super().forward(x)


oddity("any")(ChangesItsImages)


class MixedDtypes(Net):
    """A part in float32 inside of a network in float64, an integer buffer, a mask."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.arange(10) % 3 > 0)
        self.register_buffer("times", torch.tensor(2))

    def forward(self, x):
        h = self.hidden(x)
        h = (h.float() * 1.5).to(h.dtype) * self.times
        return self.two(h.masked_fill(self.mask, 0))


oddity("any")(MixedDtypes)


class BranchesOnData(Net):
    def forward(self, x):
        return super().forward(x) * (0.5 if self.two.bias[0].item() > 0 else 1)


oddity("solo")(BranchesOnData)


class BranchesOnTheBatch(Net):
    def forward(self, x):
        return super().forward(x) * (0.5 if x.shape[0] == 16 else 1)


oddity("any")(BranchesOnTheBatch)


class RemembersASize(Net):
    def forward(self, x):
        self.batch = len(x)
        return super().forward(x)


oddity("solo", "batch")(RemembersASize)


class Spectrum(nn.Module):
    """A filter of complex weights on the spectrum."""

    def __init__(self):
        super().__init__()
        self.filter = nn.Parameter(torch.randn(8, 5, dtype=torch.cfloat) * 0.3 + 1)
        self.two = nn.Linear(64, 3)

    def forward(self, x):
        return self.two(torch.fft.irfft2(torch.fft.rfft2(x) * self.filter, s=(8, 8)).flatten(1))


oddity("solo")(Spectrum)


@pytest.mark.filterwarnings("ignore:.*is deprecated")
@pytest.mark.parametrize("name", ODDITIES)
def test_a_network_with_an_oddity_gives_in_a_pack_what_a_plain_loop_gives(
    name, train, make_settings, make_images
):
    make, method, reason = ODDITIES[name]
    images = make_images()
    common = {"dtype": "float64", "epochs": 3, "batch": 16}
    trials = [
        (make_settings(**common, optimizer="sgd", lr=0.05, momentum=0.9), 0),
        (make_settings(**common, optimizer="sgd", lr=0.1, momentum=0.9, weight_decay=0.01, norm="none"), 1),
    ]
    told = method_of(
        trials[0][0], data=ResidentCache(images, device="cpu"), build=lambda *_: make(), device="cpu"
    )
    run = train(*trials, build=lambda *_: make(), data=images)
    for lane, (settings, seed) in enumerate(trials):
        plain = train_plainly(make, settings, seed, images)
        end = run.end(lane)
        assert not isinstance(end, TrialFailed), end.traceback
        found = run.epochs(lane)
        assert [e.train_loss for e in found] == pytest.approx(plain.losses, rel=1e-9), told
        assert [e.val_loss for e in found] == pytest.approx(plain.val_losses, rel=1e-9), told
        weights = run.weights(lane)
        for key in weights.keys() & plain.state.keys():
            if weights[key].is_floating_point() and key not in ("one.bias", "norm.running_mean"):
                torch.testing.assert_close(
                    weights[key].double(), plain.state[key].double(), rtol=1e-7, atol=1e-8, msg=key
                )
    assert method in (told[0], "any"), told
    assert reason in told[1], told


def test_complex_weights_stay_complex_and_train_with_every_optimizer(train, make_settings, make_images):
    images = make_images()
    for optimizer in ("adam", "rmsprop"):
        settings = make_settings(dtype="float64", epochs=2, optimizer=optimizer)
        run = train(settings, build=lambda *_: Spectrum(), data=images)
        plain = train_plainly(Spectrum, settings, 0, images)
        assert [e.train_loss for e in run.epochs()] == pytest.approx(plain.losses, rel=1e-9)
        assert run.weights()["filter"].dtype is torch.complex64


def test_parameters_that_thaw_late_train_from_then_on_and_are_averaged(train, make_settings, make_images):
    images = make_images()
    settings = make_settings(dtype="float64", epochs=3, optimizer="adam", ema=0.9)
    run = train(settings, build=lambda *_: Unfreezes(), data=images)
    plain = train_plainly(Unfreezes, settings, 0, images)
    assert [e.train_loss for e in run.epochs()] == pytest.approx(plain.losses, rel=1e-9)
    start = run.weights()["one.weight"], plain.state["one.weight"]
    assert 0 < (start[0] - start[1]).abs().max() < 0.2  # an average is near, and not the same


def test_a_factory_that_gives_one_network_twice_is_refused_since_the_second_trial_would_go_on_from_the_first(
    train, make_settings
):
    net = Net()
    run = train(make_settings(), make_settings(lr=0.02), build=lambda *_: net)
    for lane in (0, 1):
        assert "gives a network that it gave before" in run.end(lane).message


def test_frozen_weights_may_be_shared_by_all_networks(train, make_settings):
    base = nn.Linear(64, 10).requires_grad_(False)

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.base, self.head = base, nn.Linear(10, 3)

        def forward(self, x):
            return self.head(self.base(x.flatten(1)).relu())

    run = train(make_settings(), make_settings(lr=0.02), build=lambda *_: Head())
    assert run.finished(0).metrics != run.finished(1).metrics


def test_a_hook_on_all_modules_is_told_and_its_lanes_train_alone(make_settings, make_images):
    handle = nn.modules.module.register_module_forward_hook(lambda m, i, o: None)
    try:
        data = ResidentCache(make_images(), device="cpu")
        told = method_of(make_settings(), data=data, build=lambda *_: Net(), device="cpu")
    finally:
        handle.remove()
    assert told == ("solo", "there are hooks on all modules")
