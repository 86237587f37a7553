"""Weights that are computed from parameters: what a program gives, held against torch's own arithmetic and gradients."""

from __future__ import annotations

import ctypes

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn
from torch.nn.utils import parametrizations

from gridsearch.training.lanes.compile.derived_weights import WeightPrograms, record_weights
from gridsearch.training.lanes.compile.graph_reading import step_graph
from gridsearch.training.lanes.compile.step_graph import NoPlan
from gridsearch.training.lanes.compile.tracing import inspect, trace
from gridsearch.training.lanes.runtime.built_weights import BuiltWeights
from tests.training.compilers import needs_compiler

pytestmark = needs_compiler

INDEX = torch.tensor([5, 0, 2, 2, 1, 5])
MATRIX, KERNEL = (6, 20), (4, 5, 3, 3)


class Layer(nn.Module):
    """A dense layer or a convolution whose weights a function computes from parameters and buffers."""

    def __init__(self, function, shapes, buffers=()):
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        for i, shape in enumerate(shapes):
            self.register_parameter(f"p{i}", nn.Parameter(torch.randn(shape, dtype=torch.float64)))
        for i, shape in enumerate(buffers):
            self.register_buffer(f"b{i}", torch.randn(shape, dtype=torch.float64))

    def weight(self):
        own = [getattr(self, name) for name in (*self._parameters, *self._buffers)]
        return self.function(*own)

    def forward(self, x):
        weight = self.weight()
        return F.linear(x.flatten(1), weight) if weight.dim() == 2 else F.conv2d(x, weight).mean((2, 3))


def over(w):
    """The dimensions of an output's numbers."""
    return tuple(range(1, w.dim()))


def by_variance_and_mean(w):
    variance, mean = torch.var_mean(w, (1, 2, 3), keepdim=True)
    return (w - mean) / torch.sqrt(variance)


def standardized(w, gain):
    """As timm's ScaledStdConv2d has it, by a batch norm."""
    flat = F.batch_norm(
        w.reshape(1, w.shape[0], -1),
        None,
        None,
        weight=(gain * 0.7).view(-1),
        training=True,
        momentum=0.0,
        eps=1e-6,
    )
    return flat.reshape_as(w)


FUNCTIONS = {
    "scaled": (lambda w: w * 0.5 + 1, [MATRIX]),
    "length and direction": (lambda v, g: torch._weight_norm(v, g, 0), [KERNEL, (4, 1, 1, 1)]),
    "length over columns": (lambda v, g: torch._weight_norm(v, g, 1), [MATRIX, (1, 20)]),
    "length of all": (lambda v, g: torch._weight_norm(v, g, -1), [MATRIX, ()]),
    "standardized": (
        lambda w: (w - w.mean(over(w), keepdim=True)) / (w.std(over(w), keepdim=True) + 1e-5),
        [KERNEL],
    ),
    "by variance": (lambda w: w * torch.rsqrt(w.var((1, 2, 3), keepdim=True) + 1e-4), [KERNEL]),
    "by variance and mean": (
        by_variance_and_mean,
        [KERNEL],
    ),
    "by a batch norm": (standardized, [KERNEL, (4, 1, 1, 1)]),
    "by a layer norm": (lambda w, a, b: F.layer_norm(w, (20,), a, b), [MATRIX, (20,), (20,)]),
    "normalized": (lambda w: F.normalize(w, dim=1) * w.norm(p=1) + w.abs().amax(1, keepdim=True), [MATRIX]),
    "softmax": (lambda w: w.softmax(1) - w.log_softmax(0), [MATRIX]),
    "low rank": (lambda w, a, b: w + (a @ b) * 2, [MATRIX, (6, 3), (3, 20)]),
    "several matrices": (lambda a, b: torch.bmm(a, b).flatten(0, 1), [(2, 3, 4), (2, 4, 20)]),
    "curves": (
        lambda w: w.tanh() * w.exp() + torch.sigmoid(w) * w.sin() - (w**2 + 1).log() * w.cos() + torch.erf(w),
        [MATRIX],
    ),
    "powers": (lambda w: w**3 + (w * w + 1) ** 0.5 - (w * w + 1) ** -1.5 + 1 / (w * w + 2), [MATRIX]),
    "bounded": (
        lambda w: w.clamp(-0.5, 0.7) + torch.maximum(w, w.flip(0)) + torch.relu(w) - w.sign(),
        [MATRIX],
    ),
    "chosen": (lambda w: torch.where(w > 0.1, w, w * w).masked_fill(w < -1, 0.3), [MATRIX]),
    "masked": (lambda w, mask: w * (mask > 0) + w * mask, [MATRIX], [MATRIX]),
    "symmetric": (lambda w: (w.triu() + w.triu(1).transpose(-1, -2))[:, :5].repeat(1, 4), [(6, 6)]),
    "cut and joined": (
        lambda a, b: torch.cat([a[:, 3:9] * 2, torch.stack([b, -b], 1), a.chunk(2, 1)[1], a[:, -2:]], 1),
        [MATRIX, (6,)],
    ),
    "turned": (lambda w: w.t(), [(20, 6)]),
    "turned maps": (lambda w: w.transpose(0, 1).flip(2), [(5, 4, 3, 3)]),
    "rows by an index": (lambda w: w.tanh()[INDEX] * 2, [MATRIX]),
    "columns by an index": (lambda w: w.exp().t()[:, INDEX % 3].t()[1:], [(6, 20)]),
    "numbers by two indices": (lambda w: (w * w)[INDEX[:3].view(3, 1), torch.arange(20)], [MATRIX]),
    "selected": (
        lambda w: w.sin().index_select(0, INDEX).index_select(1, torch.arange(19, -1, -1)),
        [MATRIX],
    ),
    "gathered": (lambda w: w.cos().gather(1, INDEX.view(6, 1).expand(6, 20)), [MATRIX]),
    "a convolution": (
        lambda x, w, b: F.conv2d(x, w, b, stride=(1, 2), dilation=(2, 1)).flatten(1),
        [(6, 2, 4, 6), (5, 2, 2, 3), (5,)],
    ),
    "a convolution of what is known": (
        lambda w: (
            F.conv2d(torch.arange(10.0, dtype=torch.float64).view(1, 2, 1, 5), w).view(6, 5).repeat(1, 4)
        ),
        [(6, 2, 1, 1)],
    ),
    "resized": (
        lambda w: (
            F.interpolate(w, size=(4, 5), mode="bicubic", antialias=True).flatten(1)
            + F.interpolate(w, size=(4, 5), mode="bilinear").flatten(1)
            - F.interpolate(w.tanh(), scale_factor=0.5).flatten(1)
        ),
        [(6, 1, 8, 10)],
    ),
    "the same twice": (lambda w: torch.cat([w, w * w], 1), [(6, 10)]),
}


def programs_of(model, x):
    """Return the model's programs, and the names of its weights, by its graphs in both modes."""
    found = []
    for training in (True, False):
        traced = trace(model, x, training=training)
        model.train(training)
        seen = inspect(model, traced, x)
        graph = step_graph(model, traced, seen, {}, training=training)
        names = [name for name, _ in model.named_parameters()]
        found.append(
            record_weights(model, traced, seen, graph.derived, names, torch.float64, training=training)
        )
    return WeightPrograms(*found)


def run(calls):
    for function, args in calls:
        function(ctypes.byref(args))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_computed_weights_and_their_parameters_gradients_are_torchs(name):
    model = Layer(*FUNCTIONS[name])
    buffers = [b.clone() for b in model.buffers()]
    x = torch.randn(3, 5, 4, 1 if model.weight().dim() == 2 else 4, dtype=torch.float64)
    built = BuiltWeights(programs_of(model, x), torch.float64)
    for buffer, before in zip(model.buffers(), buffers, strict=True):
        buffer.copy_(before)
    gradients = {n: torch.full_like(p, 0.25) for n, p in model.named_parameters()}
    summed = [n for i, n in enumerate(gradients) if i % 2]
    ours = {n: t.detach().clone() for n, t in (*model.named_parameters(), *model.named_buffers())}
    for own, place in built.build({n: g.data_ptr() for n, g in gradients.items()}, summed):
        ctypes.c_void_p.from_address(place).value = ours[own].data_ptr()
    run(built.calls[0])
    weight = model.weight()
    (found,) = built.tensors.values()
    torch.testing.assert_close(found.view(weight.shape), weight.detach(), rtol=1e-10, atol=1e-12)
    for own, buffer in model.named_buffers():
        torch.testing.assert_close(ours[own], buffer, rtol=1e-10, atol=1e-12)
    (gradient,) = built.gradients.values()
    gradient.copy_(torch.randn(gradient.shape, dtype=torch.float64))
    expected = torch.autograd.grad(weight, [*model.parameters()], gradient.view(weight.shape))
    run(built.calls[2])
    for own, theirs in zip(gradients, expected, strict=True):
        more = 0.25 if own in summed else 0
        torch.testing.assert_close(gradients[own], theirs + more, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    "function",
    [
        lambda w: F.dropout(w, 0.5),
        lambda w: w.cumsum(1),
        lambda w: w * w.argmax(),
        lambda w: (w * w)[w[:, 0].argsort()],
    ],
)
def test_what_no_instruction_computes_has_no_plan(function):
    model, x = Layer(function, [MATRIX]), torch.randn(3, 5, 4, 1, dtype=torch.float64)
    with pytest.raises(NoPlan):
        programs_of(model, x)


def test_in_evaluation_no_vectors_of_a_spectral_norm_move():
    model = nn.Sequential(nn.Flatten(), parametrizations.spectral_norm(nn.Linear(20, 6))).double()
    programs = programs_of(model, torch.randn(3, 5, 4, 1, dtype=torch.float64))
    written = [one.to.memory.name for one in programs.evaluation.forward]
    assert not [name for name in written if name.endswith(("_u", "_v"))]
    assert programs.training.buffers == programs.evaluation.buffers
