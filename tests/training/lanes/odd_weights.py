"""Odd networks: weights that are more than tensors, weights and modes that change while training."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from tests.training.lanes.odd_networks import LATE, ConvNet, Net, oddity

# Weights that are more than tensors


@oddity("stacked")
def weight_norm_by_hooks():
    net = Net()
    nn.utils.weight_norm(net.one)
    return net


@oddity("stacked")
def norms_of_a_convolution_by_hooks():
    net = ConvNet()
    nn.utils.spectral_norm(net.conv, n_power_iterations=2)
    nn.utils.weight_norm(net.two, dim=None)
    return net


@oddity("stacked")
def weight_norm():
    net = Net()
    parametrizations.weight_norm(net.one)
    return net


@oddity("stacked")
def spectral_norm():
    net = Net()
    parametrizations.spectral_norm(net.one)
    return net


@oddity("stacked")
def spectral_norm_by_hooks():
    net = Net()
    nn.utils.spectral_norm(net.one)
    return net


@oddity("stacked")
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


class SpectralTwice(Twice):
    """A layer that is called twice: its vectors move twice in a step."""

    def __init__(self):
        super().__init__()
        parametrizations.spectral_norm(self.one)


oddity("stacked")(SpectralTwice)


@oddity("solo", "has the memory of")
def tied_by_memory():
    """Two parameters, of which one is a view of the other: a step of each moves both."""
    net = Tied().double()
    net.two.weight = nn.Parameter(net.one.weight.t())
    return net


@oddity("solo", "has the memory of")
def buffer_in_a_parameter():
    """A part of a parameter that is kept without its gradient, and moves with it."""
    net = Tied().double()
    del net.two.weight
    net.two.register_buffer("weight", net.one.weight.detach())
    return net


class SharedAndMapped(Twice):
    """A layer with two names, in a forward that cannot be traced."""

    def __init__(self):
        super().__init__()
        self.again = self.one

    def forward(self, x):
        return super().forward(x) if len(x) else x


oddity("vmap")(SharedAndMapped)


@oddity("stacked")
def module_shared_by_two_names():
    net = Twice()
    net.again = net.one
    return net


class Averages(nn.Module):
    """Batch norms whose running statistics are means of all batches', of maps and of features."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4, momentum=None)
        self.last, self.other = nn.Linear(4, 3, bias=False), nn.BatchNorm1d(3, momentum=None)

    def forward(self, x):
        return self.other(self.last(self.norm(self.conv(x)).relu().mean((2, 3))))


oddity("stacked")(Averages)


class AveragesTwice(Twice):
    """A batch norm whose count of batches moves twice in a step."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(64, momentum=None)


oddity("stacked")(AveragesTwice)


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


class TwoForms(Net):
    """Has two forms, and chooses its forward among them, as FasterNet's convolutions do."""

    def __init__(self):
        super().__init__()
        self.forward = self.doubled

    def doubled(self, x):
        return 2 * super().forward(x)


oddity("stacked")(TwoForms)
