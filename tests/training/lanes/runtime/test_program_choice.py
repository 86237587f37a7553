"""Lanes train as one program where that is faster: a lone one where it gets compiled kernels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from gridsearch.training.lanes.compile.lane_values import NotPackable
from gridsearch.training.lanes.runtime import plan_choice, program_choice
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program_choice import build_program, min_lanes
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache
from gridsearch.training.solo import SoloProgram
from gridsearch.zoo import models
from tests.training.compilers import needs_compiler
from tests.training.plain_loop import train_plainly


class Own(nn.Module):
    """A user's own forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, x):
        return F.max_pool2d(self.conv(x), 2)


class Sums(Own):
    """A part that compiled steps do not have."""

    def forward(self, x):
        return torch.cumsum(self.conv(x), 2)[..., ::2, ::2]


class Counts(Own):
    """State of its own."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


def lone_program(model, make_settings, make_images, *, size=28):
    data = ResidentCache(make_images(12, size=size), device="cpu")(settings := make_settings(batch=4))
    return build_program([Member(settings, 0)], [model], data, Precision.of("float32", torch.device("cpu")))


def own_network(layer):
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(338, 3))


@needs_compiler
@pytest.mark.parametrize("name", ["lenet", "mlp", "lenet_bn", "own"])
def test_a_lone_lane_has_a_program_where_that_gets_kernels(name, make_settings, make_images):
    model = own_network(Own()) if name == "own" else getattr(models, name)(1, 3, (28, 28))
    found = lone_program(model, make_settings, make_images)
    assert found.planned or found.network.kernels


@needs_compiler
def test_a_lone_lane_of_own_code_with_a_program_gives_what_a_plain_loop_gives(
    train, make_settings, make_images, monkeypatch
):
    def refuse(*_):
        raise AssertionError("the module itself was trained")

    monkeypatch.setattr(SoloProgram, "train_epoch", refuse)
    settings, images = make_settings(dtype="float64", optimizer="sgd"), make_images(size=28)
    run = train((settings, 3), data=images, build=lambda *_: own_network(Own()))
    plain = train_plainly(lambda: own_network(Own()), settings, 3, images)
    assert [e.train_loss for e in run.epochs()] == pytest.approx(plain.losses, rel=1e-9)
    assert [e.val_loss for e in run.epochs()] == pytest.approx(plain.val_losses, rel=1e-9)


def wide():
    return nn.Sequential(
        *(nn.Conv2d(1, 200, 3), nn.Conv2d(200, 200, 3), nn.MaxPool2d(24)),
        *(nn.Flatten(), nn.Linear(200, 3)),
    )


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (wide, "a lone lane trains as its model is"),
        (lambda: own_network(Sums()), "a lone lane trains as its model is"),
        (lambda: own_network(Counts()), "its forward keeps state of its own: it sets calls"),
    ],
)
def test_a_lone_lane_without_kernels_or_with_state_trains_as_its_model_is(
    make, reason, make_settings, make_images, monkeypatch
):
    monkeypatch.setattr(plan_choice, "module_is_faster", lambda *_, **__: True)  # which a clock would say
    with pytest.raises(NotPackable, match=reason):
        lone_program(make(), make_settings, make_images)
    monkeypatch.setattr(program_choice, "PackProgram", None)  # it is not looked for again
    with pytest.raises(NotPackable, match=reason):
        lone_program(make(), make_settings, make_images)


def test_without_a_compiler_a_lone_lane_is_the_plain_engines(monkeypatch):
    monkeypatch.setenv("GRIDSEARCH_KERNELS", "off")
    assert min_lanes(torch.device("cpu")) == 2
