"""Networks as stages: which are planned whole, whatever they call what they do, and which are not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gridsearch.training.lanes.compile.graph_reading import step_graph
from gridsearch.training.lanes.compile.step_graph import NoPlan
from gridsearch.training.lanes.compile.tracing import inspect, trace
from gridsearch.training.lanes.runtime import plan_choice
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.model_setup import build_network
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache
from tests.benchmarks import own_networks
from tests.training.compilers import needs_compiler
from tests.training.lanes.compile import (
    map_networks,
    mask_networks,
    sum_networks,
    token_networks,
    torch_networks,
    weight_networks,
)
from tests.training.lanes.compile.map_networks import Coloured
from tests.training.lanes.compile.patch_net import Net

pytestmark = needs_compiler


def own(kind):
    """A factory of a network of ours."""
    return lambda: kind(1, 3, (8, 8), patch=2, dim=12, depth=1)


KINDS = map_networks, mask_networks, sum_networks, token_networks, torch_networks, weight_networks
PLANNED = {
    **{kind.__name__: kind for networks in KINDS for kind in networks.NETWORKS},
    "ViT": own(own_networks.SmallViT),
    "Mixer": own(own_networks.SmallMixer),
    "torchvision's ViT": lambda: Coloured(token_networks.vit()),
    "torchvision's Swin": lambda: Coloured(token_networks.swin()),
    "ConvNeXt": lambda: Coloured(map_networks.convnext()),
}


@pytest.mark.filterwarnings("ignore:.*is deprecated")
@pytest.mark.parametrize("name", PLANNED)
def test_token_networks_and_what_moves_numbers_are_planned_and_agree(
    name, make_settings, make_images, monkeypatch
):
    monkeypatch.setattr(plan_choice, "module_is_faster", lambda *_, **__: False)  # which a clock would say
    settings = make_settings(dtype="float64", batch=16, epochs=1)
    data, precision = (
        ResidentCache(make_images(40), device="cpu")(settings),
        Precision.of("float64", torch.device("cpu")),
    )
    models = [build_network(settings, 0, data, lambda *_: PLANNED[name](), precision) for _ in range(2)]
    pack = PackProgram([Member(settings, 0), Member(settings, 1)], models, data, precision)
    assert pack.planned  # it agrees with the stacked network, which agrees with the modules


class Across(Net):
    """Takes images together."""

    def body(self, x):
        return x + x.flip(0)


class Counting(Net):
    """How many images there are is a number of its own."""

    def body(self, x):
        return x * x.shape[0]


class Draws(Net):
    """Dropout of what nobody reads, which draws all the same."""

    def body(self, x):
        nn.functional.dropout(x, 0.5, self.training)
        return x


@pytest.mark.parametrize("kind", [Across, Counting, Draws])
def test_what_is_no_stage_has_no_plan(kind):
    model, x = kind(), torch.rand(3, 1, 8, 8)
    model(x)
    traced = trace(model, x, training=True)
    with pytest.raises(NoPlan):
        step_graph(model, traced, inspect(model, traced, x), {}, training=True)
