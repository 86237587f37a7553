"""bfloat16 is what layers multiply in: weights, gradients, sums and the optimizer of a pack stay in float32."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.model_setup import build_network
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache
from gridsearch.training.solo import SoloProgram
from gridsearch.zoo import models
from tests.training.compilers import needs_compiler


@pytest.mark.parametrize("compiled", [True, False])
def test_a_pack_in_bfloat16_keeps_steps_that_bfloat16_weights_would_lose(
    compiled, make_settings, make_images, monkeypatch
):
    if not compiled:
        monkeypatch.setenv("GRIDSEARCH_KERNELS", "off")
    settings = [
        make_settings(dtype="bfloat16", optimizer="sgd", lr=lr, momentum=0.9, batch=16) for lr in (1e-5, 2e-5)
    ]
    data = ResidentCache(make_images(40, size=28), device="cpu")(settings[0])
    precision = Precision.of("bfloat16", torch.device("cpu"))

    def build(*_):
        return models.lenet(data.channels, data.num_classes, data.image_size)

    built = [build_network(s, 0, data, build, precision) for s in settings]
    before = [p.detach().clone() for p in built[0].parameters()]
    pack = PackProgram([Member(s, 0) for s in settings], built, data, precision)
    losses = [totals.loss for totals in pack.train_epoch()]
    after = [dict(pack.lane_state(k).weights) for k in range(2)]
    momenta = pack.lane_state(0).optimizer_state
    tensors = [*after[0].values(), *(t for group in momenta.values() for t in group.values())]
    assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.float32}
    assert all(isinstance(loss, float) and loss != float(torch.tensor(loss).bfloat16()) for loss in losses)
    for weight, (name, slow), fast in zip(before, after[0].items(), after[1].values(), strict=True):
        moved = float((slow - weight).abs().max())
        assert 0 < moved < 0.004 * float(weight.abs().max()), f"{name}: below the last digit of bfloat16"
        torch.testing.assert_close(fast - weight, 2 * (slow - weight), rtol=0.05, atol=0.1 * moved)


def test_losses_and_clipping_are_computed_in_float32(make_settings, make_images):
    """A step of a clipped lane is as long as its limit says, to more digits than bfloat16 has."""
    common = {"dtype": "bfloat16", "optimizer": "sgd", "batch": 64}
    settings = [
        make_settings(**common, lr=1.0, clip_norm=0.01),
        make_settings(**common, loss="focal", class_weight="balanced", label_smoothing=0.1),
    ]
    data = ResidentCache(make_images(47, size=16), device="cpu")(settings[0])
    precision = Precision.of("bfloat16", torch.device("cpu"))

    def build(*_):
        return models.lenet(data.channels, data.num_classes, data.image_size, width=0.5)

    built = [build_network(s, 0, data, build, precision) for s in settings]
    before = torch.cat([p.detach().flatten().clone() for p in built[0].parameters()])
    pack = PackProgram([Member(s, 0) for s in settings], built, data, precision)
    losses = [totals.loss for totals in pack.train_epoch()]
    after = torch.cat([t.flatten() for t in pack.lane_state(0).weights.values()])
    assert float((after - before).double().norm()) == pytest.approx(0.01, rel=1e-4)
    for recipe, loss in zip(settings, losses, strict=True):
        alone = SoloProgram(recipe, 0, data, build, precision)
        assert loss == pytest.approx(alone.train_epoch(1).loss, rel=2e-3)


@needs_compiler
@pytest.mark.parametrize(("hidden", "planned"), [(20, True), (1024, False)])
def test_dense_layers_that_torch_does_not_multiply_faster_in_bfloat16_stay_in_float32(
    hidden, planned, make_settings, make_images
):
    settings = make_settings(dtype="bfloat16", batch=16)
    data = ResidentCache(make_images(40, size=28), device="cpu")(settings)
    precision = Precision.of("bfloat16", torch.device("cpu"))

    def build(*_):
        return models.mlp(data.channels, data.num_classes, data.image_size, hidden=hidden)

    def trained(name):
        own = replace(settings, dtype=name)
        built = [build_network(own, 0, data, build, precision)]
        pack = PackProgram([Member(own, 0)], built, data, Precision.of(name, torch.device("cpu")))
        return pack.planned, pack.train_epoch()[0].loss

    found, loss = trained("bfloat16")
    assert found == planned
    assert (loss == trained("float32")[1]) == planned


@pytest.mark.parametrize(("channels", "groups", "kept"), [(4, 4, True), (1, 1, True), (4, 2, False)])
def test_convolutions_of_one_channel_stay_in_float32(channels, groups, kept):
    conv = torch.nn.Conv2d(channels, 8, 3, groups=groups)
    x = torch.randn(2, channels, 6, 6)
    with Precision.of("bfloat16", torch.device("cpu")).forward():
        found = conv(x.bfloat16())
    assert found.dtype == (torch.float32 if kept else torch.bfloat16)
    if kept:
        torch.testing.assert_close(found, conv(x.bfloat16().float()), rtol=0, atol=0)
    assert not torch.is_autocast_enabled("cpu")
