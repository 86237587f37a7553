"""Gradients of lanes are clipped as torch clips those of a model, each lane's by its own limits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gridsearch.training.clipping import PackClipping, clip_gradients
from gridsearch.training.kernels import OptimizerStep, find_compiler
from gridsearch.training.model_outputs import ModelRefused

LIMITS = [
    {},
    {"clip_norm": 0.5},
    {"clip_norm": 1e9},
    {"clip_value": 0.3},
    {"clip_value": 0.3, "clip_norm": 2.0},
]
SIZE = 1003  # no whole number of vectors


@pytest.fixture(params=["passes over all lanes", "compiled"])
def clip(request, make_settings):
    """Clip the gradients [K, P] of lanes: by torch, or by a compiled step of sgd at a rate of 1 from zero."""

    def by_torch(gradient, settings):
        clipping = PackClipping(len(settings), gradient.dtype, gradient.device)
        clipping.set(settings)
        clipping(gradient)
        return gradient

    def compiled(gradient, settings):
        kernel = OptimizerStep.build("sgd", gradient.dtype)
        kernel.set_lanes(settings, [0] * len(settings), [1.0] * len(settings))
        weights = torch.zeros_like(gradient)
        kernel(weights, gradient, [torch.zeros_like(gradient)], [1.0] * len(settings))
        return -weights

    if request.param == "compiled" and find_compiler() is None:
        pytest.skip("no C compiler")
    how = by_torch if request.param != "compiled" else compiled
    return lambda gradient, limits: how(gradient, [make_settings(optimizer="sgd", **one) for one in limits])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_each_lane_is_clipped_as_torch_clips_a_model(clip, dtype, make_settings):
    given = torch.randn(len(LIMITS), SIZE, generator=torch.Generator().manual_seed(0), dtype=dtype)
    found = clip(given.clone(), LIMITS)
    for gradient, clipped, limits in zip(given, found, LIMITS, strict=True):
        parameters = [nn.Parameter(torch.zeros_like(part)) for part in gradient.split(300)]
        for parameter, part in zip(parameters, gradient.split(300), strict=True):
            parameter.grad = part.clone()
        clip_gradients(parameters, make_settings(**limits))
        expected = torch.cat([p.grad for p in parameters])
        torch.testing.assert_close(clipped, expected, rtol=1e-12 if dtype is torch.float64 else 1e-6, atol=0)
        if "clip_norm" in limits:
            assert clipped.norm() <= limits["clip_norm"]
        if "clip_value" in limits:
            assert clipped.abs().max() <= limits["clip_value"]


@pytest.mark.parametrize("name", ["clip_value", "clip_norm"])
def test_sparse_gradients_are_refused_by_what_clips_them(name, make_settings):
    layer = nn.Embedding(4, 2, sparse=True)
    layer(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(ModelRefused, match=f"sparse, which {name} does not take: leave sparse=True out"):
        clip_gradients(layer.parameters(), make_settings(**{name: 0.5}))
    clip_gradients(layer.parameters(), make_settings())


def test_a_lane_without_limits_keeps_its_gradient_to_the_bit_however_large(clip):
    given = torch.randn(3, SIZE, generator=torch.Generator().manual_seed(1)) * torch.tensor(
        [[1e30], [1], [1]]
    )
    given[2, 7] = torch.nan
    found = clip(given.clone(), [{}, {"clip_norm": 0.5, "clip_value": 0.1}, {}])
    assert torch.equal(found[0], given[0])
    assert torch.equal(found[2].nan_to_num(), given[2].nan_to_num())
    assert found[2].isnan().sum() == 1


def test_a_gradient_that_is_not_a_number_stays_none(clip):
    given = torch.ones(2, SIZE)
    given[:, 5] = torch.nan
    found = clip(given, [{"clip_norm": 1.0}, {"clip_value": 0.5}])
    assert found[0].isnan().all(), "as torch makes it of a norm that is none"
    assert found[1].isnan().sum() == 1
