"""Every network of the zoo, and every optimizer: lanes alone and in packs of 2, 3 and 8 against a plain loop.

float64 on the CPU, to 1e-9 after 200 steps in the losses, the logits of evaluation and all parameters.  The loop
shares nothing with the product but the names of the streams and the indices of the split.  Excepted are biases
that feed a batch norm and the running means that absorb them: their true gradient is zero, and Adam turns
rounding into steps; a running mean follows its bias late, so that evaluation is compared with these tensors alike.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from gridsearch.training.lane_optimizer import OPTIMIZERS
from gridsearch.training.lanes.compile.lane_values import Form
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.model_setup import build_network
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache
from gridsearch.training.seeds import stream
from gridsearch.training.solo import SoloProgram
from gridsearch.training.splits import split
from gridsearch.zoo import models as zoo
from tests.training.objectives import Objective

CPU = torch.device("cpu")
TOLERANCE = 1e-9
EPOCHS = 20  # of ten steps

RECIPES = (
    {
        "lr": 4e-4,
        "norm": "none",
        "schedule": "constant",
        "label_smoothing": 0.0,
        "epochs": 40,
        "class_weight": "balanced",
    },
    {"lr": 8e-4, "momentum": 0.9, "weight_decay": 0.01, "schedule": "cosine", "warmup": 1.5, "epochs": 41}
    | {"loss": "focal", "focal_gamma": 1.0},
    {"lr": 6e-4, "momentum": 0.9, "nesterov": True, "norm": "none", "schedule": "onecycle", "epochs": 42}
    | {"clip_norm": 0.5},
    {"lr": 5e-4, "label_smoothing": 0.1, "schedule": "step", "epochs": 24, "clip_value": 0.02}
    | {"loss": "focal", "class_weight": "balanced", "sampling": "balanced"},
)
SEEDS = (5, 5, 5, 6)
"""Four lanes that differ in all that may differ; the first three see the same images in the same order.

Weight decay has a lane where no unit is dead from the start.  A dead one has the decay alone for a gradient: Adam's
kin then swing about 0 and make any rounding larger, twice and more a step, whoever computes.
"""

PACKS = {
    Form.SHARED: ((0, 1), (2, 0, 1), (0, 1, 2, 0, 2, 1, 1, 0)),
    Form.PACKED: ((3, 2), (1, 3, 0), (2, 1, 3, 0, 0, 3, 1, 2)),
}
"""Packs of two, three and eight lanes (one is left over in `live`): all see the same images, or each its own."""

FORMS = dict(zip(OPTIMIZERS, itertools.cycle(Form(f) for f in PACKS), strict=False))
"""Which form goes with which optimizer."""

ALL = "lenet_bn"
"""The network that meets every optimizer; it has all that decides how a lane's weights are kept."""


BOTH = ("mlp", "lenet", ALL)
"""Networks that meet both forms: a form changes the first layer alone, which is dense or a convolution."""


def pairs():
    """Each network with one optimizer for each form: what the two do meets in the gradient alone."""
    for i, name in enumerate(zoo.__all__):
        for form in PACKS if name in BOTH else [list(PACKS)[i % 2]]:
            fitting = [optimizer for optimizer in OPTIMIZERS if FORMS[optimizer] is form]
            yield from ((name, o) for o in (fitting if name == ALL else [fitting[i % len(fitting)]]))


pytestmark = pytest.mark.thorough


def optimizer_of(settings, parameters):
    how = {"lr": settings.lr, "weight_decay": settings.weight_decay, "foreach": False}
    match settings.optimizer:
        case "sgd":
            return torch.optim.SGD(parameters, momentum=settings.momentum, nesterov=settings.nesterov, **how)
        case "adam":
            return torch.optim.Adam(parameters, **how)
        case "adamw":
            return torch.optim.AdamW(parameters, **how)
        case "nadam":
            return torch.optim.NAdam(parameters, **how)
        case "rmsprop":
            return torch.optim.RMSprop(parameters, **how)
    raise AssertionError(settings.optimizer)


def scheduler_of(settings, optimizer, steps):
    """Torch's own schedulers, over all steps of the recipe and not only those that the test takes."""
    total, warm = settings.epochs * steps, round(settings.warmup * steps)
    match settings.schedule:
        case "constant":
            return lr_scheduler.ConstantLR(optimizer, 1.0)
        case "step":
            return lr_scheduler.MultiStepLR(optimizer, [total // 2, 3 * total // 4])
        case "onecycle":
            return lr_scheduler.OneCycleLR(
                optimizer, max_lr=settings.lr, total_steps=total, cycle_momentum=False
            )
        case "cosine":
            rise = lr_scheduler.LinearLR(optimizer, start_factor=1 / warm, total_iters=warm - 1)
            fall = lr_scheduler.CosineAnnealingLR(optimizer, total - warm)
            return lr_scheduler.SequentialLR(optimizer, [rise, fall], milestones=[warm])
    raise AssertionError(settings.schedule)


class Oracle:
    """A trial as one would write it without this program, trained for `EPOCHS` epochs.

    Attributes:
        losses: mean training loss of each epoch.
        hits: correct guesses of each, in training mode.
        state: the model's state_dict at the end.
        logits: of the validation images then.
    """

    def __init__(self, settings, seed, images, build, data):
        parts = split(images.train_labels, val=settings.val, split_seed=settings.split_seed)
        pixels = images.train_images.astype(np.float64) / 255
        if settings.norm == "standard":
            of_train = pixels[parts.train]
            axes = (0, 2, 3)
            pixels = (pixels - of_train.mean(axes, keepdims=True)) / of_train.std(axes, keepdims=True)
        x, y = torch.from_numpy(pixels), torch.from_numpy(images.train_labels)
        train = torch.from_numpy(parts.train)
        torch.default_generator.manual_seed(stream(seed, "weights"))
        self.model = model = build(settings, data).double()
        self.x_val = x[parts.val]
        optimizer = optimizer_of(settings, model.parameters())
        objective = Objective(settings, images.train_labels[parts.train])
        steps = math.ceil(len(train) / settings.batch)
        scheduler = scheduler_of(settings, optimizer, steps)
        self.losses, self.hits, step = [], [], 0
        for epoch in range(1, EPOCHS + 1):
            order = objective.order(torch.Generator().manual_seed(stream(seed, "order", epoch)))
            model.train()
            total = hits = 0
            for chosen in train[order].split(settings.batch):
                torch.default_generator.manual_seed(stream(seed, "step", step))
                optimizer.zero_grad()
                logits = model(x[chosen])
                loss = objective.loss(logits, y[chosen])
                loss.backward()
                objective.clip(model)
                optimizer.step()
                scheduler.step()
                total += loss.item() * len(chosen)
                hits += int((logits.argmax(1) == y[chosen]).sum())
                step += 1
            self.losses.append(total / len(train))
            self.hits.append(hits / len(train))
        assert step == 200
        self.state = {name: t.clone() for name, t in model.state_dict().items()}
        self.logits = self.evaluate()

    def evaluate(self):
        self.model.eval()
        with torch.no_grad():
            return self.model(self.x_val)


class Bench:
    """One network, one optimizer, four lanes and what a plain loop makes of each."""

    def __init__(self, net, recipes, images):
        self.net = net
        self.recipes, self.seeds = recipes, SEEDS
        self.data = ResidentCache(images, device="cpu")(self.recipes[0])
        self.precision = Precision.of("float64", CPU)
        self.oracles = [
            Oracle(recipe, seed, images, net.build, self.data)
            for recipe, seed in zip(self.recipes, self.seeds, strict=True)
        ]

    def member(self, lane):
        return Member(self.recipes[lane], self.seeds[lane])

    def model(self, lane):
        return build_network(self.recipes[lane], self.seeds[lane], self.data, self.net.build, self.precision)

    def pack(self, *lanes):
        pack = PackProgram(
            [self.member(k) for k in lanes], [self.model(k) for k in lanes], self.data, self.precision
        )
        assert pack.network.method == "stacked"
        return pack

    def solo(self, lane):
        return SoloProgram(self.recipes[lane], self.seeds[lane], self.data, self.net.build, self.precision)

    def check(self, lane, state, logits, losses, first=0):
        """Compare a lane at its end with its oracle: its last epochs' totals from `first` on, its state, its logits."""
        oracle = self.oracles[lane]
        for ours, loss, hits in zip(losses, oracle.losses[first:], oracle.hits[first:], strict=True):
            assert ours.accuracy == hits, lane
            assert ours.loss == pytest.approx(loss, rel=TOLERANCE, abs=TOLERANCE), lane
        assert state.keys() == oracle.state.keys()
        for name, tensor in oracle.state.items():
            if name not in self.net.absorbed:
                gap = (state[name].double() - tensor.double()).abs().max().item()
                assert gap < TOLERANCE, (lane, name, gap)
        if self.net.absorbed:
            self.oracles[lane].model.load_state_dict(state)
            expected = oracle.evaluate()
        else:
            expected = oracle.logits
        gap = (logits - expected).abs().max().item()
        assert gap < TOLERANCE, (lane, gap)

    def check_pack(self, pack, lanes, losses, first=0):
        for slot, (lane, found) in enumerate(zip(lanes, pack.evaluate(), strict=True)):
            own = [epoch[slot] for epoch in losses]
            self.check(lane, dict(pack.storage.state_dict(slot)), found.logits, own, first)


@pytest.fixture
def bench(zoo_net, make_settings, make_images):
    def make(name, optimizer):
        net = zoo_net(name)
        common = {"dtype": "float64", "batch": 4, "optimizer": optimizer}
        if name == "vgg16":  # most of its last 512 units are dead on so few images
            common["weight_decay"] = 0.0
        recipes = [make_settings(**recipe | common) for recipe in RECIPES]
        return Bench(net, recipes, make_images(48, size=net.side))  # 40 to train on

    return make


@pytest.mark.parametrize(("name", "optimizer"), list(pairs()))
def test_a_lane_equals_a_plain_loop_wherever_it_trains(name, optimizer, bench):
    """Alone and in packs of all widths, in any place; refilled, moved, left behind, and alone at the end."""
    bench = bench(name, optimizer)
    solo = bench.solo(3)
    losses = [solo.train_epoch(epoch) for epoch in range(1, EPOCHS + 1)]
    bench.check(3, solo.state_dict(), solo.evaluate(EPOCHS).logits, losses)
    for lanes in PACKS[FORMS[optimizer]]:
        pack = bench.pack(*lanes)
        bench.check_pack(pack, lanes, [pack.train_epoch() for _ in range(EPOCHS)])
    live(bench)


def live(bench):
    """Lanes that leave, come and move, so that they are at epochs of their own."""
    half = EPOCHS // 2
    stays, other = bench.pack(0, 1), bench.pack(3, 0)
    for _ in range(half):
        stays.train_epoch()
    for _ in range(3):
        other.train_epoch()
    moved = stays.lane_state(1)
    fresh = bench.model(2)
    tensors = dict(fresh.named_parameters()) | dict(fresh.named_buffers())
    stays.load_lane_state(
        1, bench.member(2), type(moved)(weights=tensors)
    )  # refilled, beside a lane at epoch ten
    other.load_lane_state(1, bench.member(1), moved)  # beside a lane at epoch three
    mixed = [(stays.train_epoch(), other.train_epoch()) for _ in range(half)]
    other.compact([1])
    bench.check_pack(other, (1,), [[both[1][1]] for both in mixed], half)
    leaves = stays.lane_state(1)
    stays.compact([0])
    bench.check_pack(stays, (0,), [[both[0][0]] for both in mixed], half)
    alone = bench.solo(2)
    alone.load_lane_state(leaves)
    losses = [both[0][1] for both in mixed] + [alone.train_epoch(e) for e in range(half + 1, EPOCHS + 1)]
    bench.check(2, alone.state_dict(), alone.evaluate(EPOCHS).logits, losses)
