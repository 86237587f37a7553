"""Networks whose weights, or other numbers, are computed from parameters, and which are planned whole."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import fx, nn
from torch.nn.utils import parametrizations

from tests.training.lanes.compile.patch_net import Net


class Standardized(nn.Conv2d):
    def forward(self, x):
        w = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, w / (w.std((1, 2, 3), keepdim=True) + 1e-5), self.bias, self.stride, self.padding)


class ComputedWeights(Net):
    """Weights that are computed: of layers, of sums and products, turned, shared, of a layer that is called twice."""

    def more(self):
        self.a, self.b = nn.Parameter(torch.randn(8, 1, 1)), nn.Parameter(torch.randn(8, 1, 1))
        self.conv = parametrizations.weight_norm(nn.Conv2d(8, 8, 3, padding=1))
        self.twice = parametrizations.spectral_norm(nn.Conv2d(8, 8, 3, padding=1))
        self.standard, self.norm = Standardized(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.matrix, self.tied = nn.Parameter(torch.randn(8, 5) / 3), nn.Linear(8, 5)
        self.scale = nn.Parameter(torch.ones(()))

    def body(self, x):
        x = F.relu(self.twice(self.twice(self.conv(x)))) * (self.a + self.b).exp()
        x = self.norm(self.standard(x)).mean((2, 3))
        x = x @ self.matrix + self.tied(x)
        return F.linear(x, self.tied.weight.t() * self.scale) + F.linear(x, self.matrix)


class ByHooks(Net):
    """Weights that torch's older hooks compute."""

    def more(self):
        self.one = nn.utils.weight_norm(nn.Conv2d(8, 6, 3))
        self.two = nn.utils.spectral_norm(nn.Conv2d(6, 6, 3, padding=1))
        self.three = nn.utils.weight_norm(nn.Linear(6, 4), dim=None)

    def body(self, x):
        return self.three(F.relu(self.two(F.relu(self.one(x)))).mean((2, 3)))


class OfParameters(Net):
    """Arithmetic of parameters alone: gates, a temperature without dimensions, their softmax and their sum."""

    def more(self):
        self.a, self.b = nn.Parameter(torch.randn(8, 1, 1)), nn.Parameter(torch.randn(8, 1, 1))
        self.gates, self.temperature = nn.Parameter(torch.randn(2)), nn.Parameter(torch.tensor(0.3))

    def body(self, x):
        shares, gate = self.gates.softmax(0), torch.sigmoid(self.gates[0])
        x = x * (self.a + self.b) / (self.a.abs() + 1)
        return (shares[0] * x + shares[1] * x.relu() + (1 - gate) * x.tanh()) * self.temperature.exp().clamp(
            max=9.0
        )


def gated(x, gates):
    return x * (gates + 1).sigmoid()


def first_gate(x, gates):
    return x * gates.sigmoid()[0, 0, 0]


def waves(a, b):
    return (a + b).sin()


fx.wrap("gated")
fx.wrap("first_gate")
fx.wrap("waves")


class Wrapped(Net):
    """Arithmetic of parameters within functions that torch.fx does not look into, which images reach, or not."""

    def more(self):
        self.a, self.b = nn.Parameter(torch.randn(8, 1, 1)), nn.Parameter(torch.randn(8, 1, 1))

    def body(self, x):
        return gated(x, self.a) * waves(self.a, self.b)


class ByPlace(Net):
    """Attention with biases by the places of two tokens: of a table, and of a table that layers compute, as Swin V2's."""

    def more(self):
        self.table = nn.Parameter(torch.randn(7, 2))
        self.computed = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 2, bias=False))
        self.register_buffer("places", torch.randn(7, 2))
        self.register_buffer("index", torch.arange(256) % 7)

    def body(self, x):
        q = x.flatten(2).transpose(1, 2).reshape(x.shape[0], 16, 2, 4).transpose(1, 2)
        bias = self.table[self.index].view(16, 16, 2).permute(2, 0, 1)
        y = F.scaled_dot_product_attention(q, q, q, attn_mask=bias.unsqueeze(0))
        bias = self.computed(self.places)[self.index].view(16, 16, 2).permute(2, 0, 1)
        shares = (q @ y.transpose(-2, -1) + 16 * torch.sigmoid(bias)).softmax(-1)
        return (shares @ q).transpose(1, 2)


NETWORKS = (ComputedWeights, ByHooks, OfParameters, Wrapped, ByPlace)
