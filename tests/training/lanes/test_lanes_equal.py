"""Lanes beside their own runs by the plain engine, and beside torch.optim: what test_lanes_oracle leaves open.

Augmentation, more channels, the logits in training mode; the first step in float32; the optimizers alone.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from gridsearch.training.lane_optimizer import OPTIMIZERS
from gridsearch.training.lanes.compile.lane_values import Form
from gridsearch.training.lanes.runtime import plan_choice
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.optimizers import PackOptimizer
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.model_setup import build_network
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache
from gridsearch.training.solo import SoloProgram
from gridsearch.zoo import models as zoo

CPU = torch.device("cpu")
TOLERANCE = 1e-9

SCHEDULES = ("constant", "cosine", "onecycle", "step")

pytestmark = pytest.mark.thorough


def recipe(make_settings, slot, **changes):
    """A recipe in which everything fusible is the slot's own."""
    return make_settings(
        **{
            "dtype": "float64",
            "batch": 4,
            "lr": 0.0004 * (1 + slot),
            "momentum": (0.0, 0.9, 0.9)[slot % 3],
            "nesterov": slot % 3 == 2,
            "weight_decay": (0.0, 0.01)[slot % 2],
            "schedule": SCHEDULES[slot % 4],
            "warmup": (0.0, 1.5)[slot % 2],
            "norm": ("none", "standard")[slot % 2],
            "label_smoothing": (0.0, 0.1, 0.05)[slot % 3],
            "loss": ("cross_entropy", "focal", "focal")[slot % 3],
            "class_weight": ("none", "balanced")[slot // 2 % 2],
            "sampling": ("none", "none", "none", "balanced")[slot % 4],
            "clip_norm": (None, 0.5)[slot % 2],
            "clip_value": (None, None, 0.02)[slot % 3],
            "epochs": 40 + slot,
        }
        | changes
    )


class Bench:
    """Lanes' own runs, and packs of some of these lanes, on the same data."""

    def __init__(self, recipes, seeds, data, build, packs=None):
        cache = ResidentCache(data, device="cpu")
        self.data = cache(recipes[0])
        precision = Precision.of(recipes[0].dtype, CPU)
        self.solos = [
            SoloProgram(r, s, self.data, build, precision) for r, s in zip(recipes, seeds, strict=True)
        ]
        self.packs = []
        for chosen in packs or [range(len(recipes))]:
            models = [build_network(recipes[k], seeds[k], self.data, build, precision) for k in chosen]
            members = [Member(recipes[k], seeds[k]) for k in chosen]
            self.packs.append((PackProgram(members, models, self.data, precision), chosen))
        self.pack = self.packs[0][0]

    def run(self, steps):
        """Train until `steps` steps and return the largest difference."""
        worst = 0.0
        epoch = 0
        while self.solos[0].step < steps:
            epoch += 1
            own = [(solo.train_epoch(epoch), solo.evaluate(epoch)) for solo in self.solos]
            for pack, chosen in self.packs:
                for slot, (totals, found) in enumerate(zip(pack.train_epoch(), pack.evaluate(), strict=True)):
                    trained, scored = own[chosen[slot]]
                    assert trained.accuracy == totals.accuracy
                    assert self.solos[chosen[slot]].lr == pack.lr(slot)
                    worst = max(worst, abs(trained.loss - totals.loss))
                    worst = max(worst, difference(scored.logits, found.logits))
        states = [{n: t.clone() for n, t in solo.state_dict().items()} for solo in self.solos]
        for pack, chosen in self.packs:
            for slot, k in enumerate(chosen):
                state = pack.storage.state_dict(slot)
                assert state.keys() == states[k].keys()
                for name, tensor in states[k].items():
                    worst = max(worst, difference(tensor, state[name]))
        for training in (False, True):
            own = [self.alone(solo, training=training) for solo in self.solos]
            for pack, chosen in self.packs:
                logits = self.together(pack, training=training)
                worst = max(worst, *(difference(logits[slot], own[k]) for slot, k in enumerate(chosen)))
        return worst

    def alone(self, solo, *, training):
        """A lone lane's logits of four images."""
        torch.manual_seed(5)
        with torch.no_grad():
            return solo.model.train(training)(solo._make(self.data.train[:4]))

    def together(self, pack, *, training):
        """A pack's."""
        for generator in pack.network.dropout.generators:
            generator.manual_seed(5)
        with torch.no_grad():
            x, form = pack._passes.inputs.shared(self.data.train[:4])
            return pack.network(x, form, training=training)


def difference(a, b):
    assert a.shape == b.shape
    return (a.double() - b.double()).abs().max().item()


@pytest.mark.parametrize("name", ["lenet", "mlp"])
def test_a_lane_equals_its_own_run_however_many_lanes_there_are_and_in_whatever_order(
    name, make_settings, make_images, zoo_net
):
    net = zoo_net(name)
    recipes = [recipe(make_settings, k, augment="flip+shift") for k in range(8)]
    data = make_images(48, size=net.side, channels=2)
    packs = [(0,), (6, 2, 4, 0), range(8)]  # alone; of one seed, in another order; all
    assert Bench(recipes, [3, 1, 3, 1, 3, 0, 3, 2], data, net.build, packs).run(200) < TOLERANCE


@pytest.mark.parametrize("name", zoo.__all__)
def test_in_float32_the_first_loss_and_gradient_are_the_lane_s_own_to_a_hundred_thousandth(
    name, make_settings, make_images, zoo_net
):
    net = zoo_net(name)
    plain = {"loss": "cross_entropy", "class_weight": "none", "label_smoothing": 0.0}
    recipes = [recipe(make_settings, k, dtype="float32", **plain) for k in range(3)]
    bench = Bench(recipes, [0, 1, 2], make_images(48, size=max(16, net.side)), net.build)
    chosen, pack = bench.data.train, bench.pack
    labels = bench.data.labels[chosen]
    for generator in pack.network.dropout.generators:
        generator.manual_seed(5)
    x, form = pack._passes.inputs.shared(chosen)
    forward = pack.network.forward_pass(x, form)
    losses, gradients = pack._passes.losses(forward.logits, labels.unsqueeze(0))
    flat = torch.empty_like(pack.storage.flat)
    forward.gradients(gradients, flat)
    gradients = pack.storage.split(flat).values()
    for slot, solo in enumerate(bench.solos):
        torch.manual_seed(5)
        loss = F.cross_entropy(solo.model.train()(solo._make(chosen)), labels)
        loss.backward()
        assert losses[slot].item() == pytest.approx(loss.item(), rel=1e-5)
        of = dict(solo.model.named_parameters())
        for n, gradient in zip(pack.storage.names, gradients, strict=True):
            if n not in net.absorbed:
                assert (
                    difference(gradient[slot], of[n].grad) <= 1e-5 * of[n].grad.abs().max().item() + 1e-7
                ), n


REFERENCES = {
    "sgd": lambda p, s: torch.optim.SGD(
        p, s.lr, momentum=s.momentum, nesterov=s.nesterov, weight_decay=s.weight_decay
    ),
    "adam": lambda p, s: torch.optim.Adam(p, s.lr, weight_decay=s.weight_decay),
    "adamw": lambda p, s: torch.optim.AdamW(p, s.lr, weight_decay=s.weight_decay),
    "nadam": lambda p, s: torch.optim.NAdam(p, s.lr, weight_decay=s.weight_decay),
    "rmsprop": lambda p, s: torch.optim.RMSprop(p, s.lr, weight_decay=s.weight_decay),
}


@pytest.mark.parametrize("how", ["lane by lane", "all lanes at once", "by a kernel"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_lane_moves_as_torch_optim_does(name, how, make_settings, monkeypatch):
    if how == "lane by lane":
        monkeypatch.setenv("GRIDSEARCH_KERNELS", "off")
    counted = how == "all lanes at once"
    recipes = [recipe(make_settings, k, optimizer=name) for k in range(6)]
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(6, 40, generator=generator, dtype=torch.float64)
    theirs = [nn.Parameter(row.clone()) for row in flat]
    ours = PackOptimizer(recipes, SimpleNamespace(flat=flat), counted=counted)
    references = [REFERENCES[name]([p], r) for p, r in zip(theirs, recipes, strict=True)]
    for step in range(100):
        gradient = torch.randn(flat.shape, generator=generator, dtype=torch.float64)
        for slot, (p, reference) in enumerate(zip(theirs, references, strict=True)):
            p.grad = gradient[slot].clone()
            if recipes[slot].clip_value is not None:
                nn.utils.clip_grad_value_(p, recipes[slot].clip_value)
            if recipes[slot].clip_norm is not None:
                nn.utils.clip_grad_norm_(p, recipes[slot].clip_norm)
            ours.lr[slot] = reference.param_groups[0]["lr"] = recipes[slot].lr * (1 + step % 3)
            reference.step()
        ours.step(gradient, ours.coefficients([ours.lr])[0] if counted else None)
        if counted:
            ours.advance([ours.lr])
    for slot, p in enumerate(theirs):
        torch.testing.assert_close(flat[slot], p.detach(), rtol=1e-12, atol=1e-12)


def test_images_of_all_lanes_are_shared_only_where_seed_and_epoch_are(
    make_settings, make_images, zoo_net, monkeypatch
):
    monkeypatch.setattr(plan_choice, "PLANNED", ())  # a plan takes one lane after the other
    net = zoo_net("lenet")
    recipes = [recipe(make_settings, k) for k in range(2)]
    forms = []
    for seeds in ([3, 3], [3, 4]):
        bench = Bench(recipes, seeds, make_images(24, size=net.side), net.build)
        forward_pass = type(bench.pack.network).forward_pass
        monkeypatch.setattr(
            type(bench.pack.network),
            "forward_pass",
            lambda self, x, form, forward_pass=forward_pass: (
                forms.append(form),
                forward_pass(self, x, form),
            )[1],
        )
        bench.pack.train_epoch()
        monkeypatch.setattr(type(bench.pack.network), "forward_pass", forward_pass)
    assert set(forms[:5]) == {Form.SHARED}
    assert set(forms[5:]) == {Form.PACKED}
