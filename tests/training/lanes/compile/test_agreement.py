"""Networks in bfloat16 are held against float32: rounding alone refuses none, and a mistake is found."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gridsearch.training.kernels.batch_inner import multiplies_bfloat16
from gridsearch.training.lanes.compile import agreement
from gridsearch.training.lanes.compile.agreement import Disagrees, Undecided, check, check_same
from gridsearch.training.lanes.compile.lane_values import SAMPLE
from gridsearch.training.lanes.compile.network_choice import choose
from gridsearch.training.lanes.compile.reference import Originals, Reference
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.model_setup import build_network
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache

BFLOAT16 = Precision.of("bfloat16", torch.device("cpu"))


class Deep(nn.Sequential):
    """Batch norms of a single pixel, which blow rounding up: torch's own bfloat16 is far from float32."""

    def __init__(self):
        steps = [nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU()]
        for _ in range(7):
            steps += [nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU()]
        super().__init__(*steps, nn.Flatten(), nn.Linear(8, 3))


def chosen():
    torch.manual_seed(0)
    x_BCHW = torch.randn(SAMPLE, 1, 28, 28)
    network, storage = choose([Deep(), Deep()], x_BCHW, BFLOAT16)
    return network, storage, x_BCHW


def test_rounding_alone_keeps_no_deep_network_out_of_a_pack(make_settings, make_images):
    settings = [make_settings(dtype="bfloat16", lr=lr, batch=16) for lr in (0.01, 0.02)]
    data = ResidentCache(make_images(40, size=28), device="cpu")(settings[0])
    built = [build_network(s, 0, data, lambda *_: Deep(), BFLOAT16) for s in settings]
    pack = PackProgram([Member(s, 0) for s in settings], built, data, BFLOAT16)
    assert pack.network.method == "stacked"
    assert pack.planned == multiplies_bfloat16()


FLOAT32 = Precision.of("float32", torch.device("cpu"))


def test_a_network_that_makes_rounding_large_is_compared_with_what_a_last_digit_does(monkeypatch):
    monkeypatch.setitem(agreement.AGREEMENT, "float32", 1e-9)
    torch.manual_seed(0)
    few, many = torch.randn(SAMPLE, 1, 28, 28), torch.randn(40, 1, 28, 28)
    with monkeypatch.context() as patch:
        patch.setitem(agreement.AGREEMENT, "float32", 1e-2)
        network, storage = choose([Deep(), Deep()], few, FLOAT32)
    with pytest.raises(Disagrees):
        check_same(Wrong(network, noise=1e-7), network, storage, few, FLOAT32)
    check_same(Wrong(network, noise=1e-7), network, storage, few, FLOAT32, more=lambda: many)
    for mistake in ({"logits": -1.0}, {"gradients": 1.2}, {"gradients": 0.0}, {"noise": 1e-4}):
        with pytest.raises(Disagrees):
            check_same(Wrong(network, **mistake), network, storage, few, FLOAT32, more=lambda: many)


def test_a_network_of_lanes_is_refused_for_a_mistake_and_not_for_rounding(monkeypatch):
    torch.manual_seed(0)
    few, many = torch.randn(SAMPLE, 1, 28, 28), torch.randn(40, 1, 28, 28)
    models = [Deep(), Deep()]
    network, storage = choose(models, few, FLOAT32)
    references = [Reference.of(model, few, FLOAT32) for model in models]
    monkeypatch.setitem(agreement.AGREEMENT, "float32", 1e-9)  # nothing is as near as that by itself
    with pytest.raises(Disagrees):
        check(network, storage, Originals(models, few, FLOAT32, references, None))
    for model in models:
        model[1].running_mean.fill_(7)  # as tracing leaves statistics
    originals = Originals(models, few, FLOAT32, references, lambda: many)
    check(network, storage, originals)
    assert choose([Deep(), Deep()], few, FLOAT32, more=lambda: many)[0].method == "stacked"
    for mistake in ({"logits": -1.0}, {"gradients": 1.2}, {"gradients": 0.0}, {"noise": 1e-4}):
        with pytest.raises(Disagrees):
            check(Wrong(network, **mistake), storage, originals)


def test_a_network_on_the_edge_of_a_relu_is_said_to_be_undecided_and_not_wrong():
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 3)
    few, many = torch.ones(SAMPLE, 1, 8, 8), torch.ones(40, 1, 8, 8)  # of a constant a batch norm makes 0
    network, storage = choose([nn.Sequential(*layers)], few, FLOAT32)
    with pytest.raises(Undecided):
        check_same(Wrong(network, noise=1e-6), network, storage, few, FLOAT32, more=lambda: many)


class Small(nn.Sequential):
    """The gradient of its first weights is much larger than that of the last bias, and so is a variance than a mean."""

    def __init__(self):
        super().__init__(
            nn.Flatten(), nn.Linear(64, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)
        )
        with torch.no_grad():
            self[1].weight.mul_(1e-2)


@pytest.mark.parametrize(
    "mistake",
    [
        {"tensor": "4.bias", "times": 0.0},
        {"tensor": "4.bias", "times": -1.0},
        {"tensor": "2.weight", "times": 1.1},
        {"tensor": "2.running_mean", "times": 1.005},
        {"tensor": "2.running_var", "times": 0.9},
    ],
    ids=str,
)
def test_a_mistake_in_what_is_small_is_found_beside_what_is_large(mistake):
    torch.manual_seed(0)
    models, few = [Small(), Small()], torch.randn(SAMPLE, 1, 8, 8)
    references = [Reference.of(m, few, FLOAT32) for m in models]
    network, storage = choose(models, few, FLOAT32)
    wrong = Wrong(network, storage=storage, **mistake)
    originals = Originals(models, few, FLOAT32, references, None)
    check(network, storage, originals)
    for refuse in (
        lambda: check(wrong, storage, originals),
        lambda: check_same(wrong, network, storage, few, FLOAT32),
    ):
        with pytest.raises(Disagrees):
            refuse()


class Wrong:
    """A network of which something is computed a little wrong."""

    def __init__(
        self, network, *, logits=1.0, gradients=1.0, noise=0.0, storage=None, tensor=None, times=1.0
    ):
        self.network, self.dropout, self.has_dropout = network, network.dropout, False
        self._logits, self._gradients, self._noise = logits, gradients, noise
        self._storage, self._tensor, self._times = storage, tensor, times

    def __call__(self, x, form, *, training):
        x = x * (1 + self._noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(7)))
        return self.network(x, form, training=training) * self._logits

    def forward_pass(self, x, form):
        x = x * (1 + self._noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(7)))
        forward, times = self.network.forward_pass(x, form), self._gradients
        storage, tensor, tensor_times = self._storage, self._tensor, self._times

        class Pass:
            logits = forward.logits

            def gradients(self, grad_logits, into):
                forward.gradients(grad_logits, into)
                into.mul_(times)
                if tensor is not None:
                    wrong = storage.split(into).get(tensor, storage.tensors[tensor])
                    wrong.detach().mul_(tensor_times)

        return Pass()


def test_a_network_that_rounds_as_torch_does_is_the_same():
    network, storage, x_BCHW = chosen()
    check_same(Wrong(network), network, storage, x_BCHW, BFLOAT16)


@pytest.mark.parametrize("mistake", [{"logits": -1.0}, {"gradients": -1.0}, {"gradients": 0.0}])
def test_a_mistake_is_found_below_the_rounding(mistake):
    network, storage, x_BCHW = chosen()
    with pytest.raises(Disagrees, match="bfloat16"):
        check_same(Wrong(network, **mistake), network, storage, x_BCHW, BFLOAT16)
