"""Lanes train as one program where that is faster: a lone one where it gets compiled kernels."""

from __future__ import annotations

import shutil

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from gridsearch.training.lanes.compile.lane_values import NotPackable
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program_choice import build_program, min_lanes
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache
from gridsearch.zoo import models

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="needs a C compiler"
)


class Own(nn.Module):
    """A user's own forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, x):
        return F.max_pool2d(self.conv(x), 2)


def lone_program(model, make_settings, make_images, *, size=28):
    data = ResidentCache(make_images(12, size=size), device="cpu")(settings := make_settings(batch=4))
    return build_program([Member(settings, 0)], [model], data, Precision.of("float32", torch.device("cpu")))


@needs_compiler
@pytest.mark.parametrize("name", ["lenet", "mlp", "lenet_bn"])
def test_a_lone_lane_has_a_program_where_that_gets_kernels(name, make_settings, make_images):
    found = lone_program(getattr(models, name)(1, 3, (28, 28)), make_settings, make_images)
    assert found.planned or found.network.kernels


@pytest.mark.parametrize("name", ["wide", "own"])
def test_a_lone_lane_without_kernels_trains_as_its_model_is(name, make_settings, make_images):
    if name == "wide":
        model = nn.Sequential(
            *(nn.Conv2d(1, 200, 3), nn.Conv2d(200, 200, 3), nn.MaxPool2d(24)),
            *(nn.Flatten(), nn.Linear(200, 3)),
        )
    else:
        model = nn.Sequential(Own(), nn.Flatten(), nn.Linear(338, 3))
    with pytest.raises(NotPackable, match="a lone lane trains as its model is"):
        lone_program(model, make_settings, make_images)


def test_without_a_compiler_a_lone_lane_is_the_plain_engines(monkeypatch):
    monkeypatch.setenv("GRIDSEARCH_KERNELS", "off")
    assert min_lanes(torch.device("cpu")) == 2
