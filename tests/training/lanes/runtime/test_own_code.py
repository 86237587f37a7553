"""A user's own augmentation and optimizer: lanes alone, in packs and in counted steps beside a plain loop in float64."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.errors import UsageError
from gridsearch.training.lane_progress import LaneState
from gridsearch.training.lanes.compile.lane_values import NotPackable
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.model_setup import build_network
from gridsearch.training.own_code import OwnCode, check_augment
from gridsearch.training.own_optimizer import OwnOptimizer
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache
from gridsearch.training.seeds import stream
from gridsearch.training.solo import SoloProgram
from gridsearch.training.splits import split
from tests.training import tape as tapes


class Lion(torch.optim.Optimizer):
    """Lion (Chen et al. 2023), with noise so that its draws matter and a number of its own that moves."""

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0, noise=0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "noise": noise})
        self.taken = 0

    @torch.no_grad()
    def step(self, closure=None):  # noqa: ARG002  (as torch calls it)
        self.taken += 1
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["mean"], state["steps"] = torch.zeros_like(p), 0
                state["steps"] += 1
                own, slow = group["betas"]
                p.mul_(1 - group["lr"] * group["weight_decay"])
                update = torch.lerp(p.grad, state["mean"], own).sign_()
                update += group["noise"] * torch.randn(p.shape, dtype=p.dtype) / self.taken
                p.add_(update, alpha=-group["lr"])
                state["mean"].lerp_(p.grad, 1 - slow)


def rolled(images, generator):
    """Roll each image by columns drawn from the generator, and darken the batch by draws from all global ones."""
    shifts = torch.randint(images.shape[3], (len(images),), generator=generator, device=images.device)
    moved = torch.stack([image.roll(int(s), 2) for image, s in zip(images, shifts, strict=True)])
    return moved * (1 - 0.1 * (torch.rand(()).item() + random.random() + np.random.rand()))


LANES = (
    ({"lr": 3e-3, "weight_decay": 0.1}, 5),
    ({"lr": 1e-3, "schedule": "cosine", "ema": 0.9, "norm": "none"}, 5),
    ({"lr": 2e-3, "label_smoothing": 0.1, "clip_norm": 0.2}, 6),
)
EPOCHS = 3


def plainly(settings, seed, images, model):
    """Train as one would without this program, by the names of the streams; returns the epochs' losses."""
    parts = split(images.train_labels, val=settings.val, split_seed=settings.split_seed)
    x, y = torch.from_numpy(images.train_images / 255.0), torch.from_numpy(images.train_labels)
    train = torch.from_numpy(parts.train)
    mean, std = x[train].mean(), x[train].std(correction=0)
    optimizer = Lion(model.parameters(), settings.lr, (0.8, 0.95), settings.weight_decay, noise=0.3)
    steps, found, step = -(-len(train) // settings.batch), [], 0
    for epoch in range(1, EPOCHS + 1):
        order = torch.randperm(
            len(train), generator=torch.Generator().manual_seed(stream(seed, "order", epoch))
        )
        total = 0.0
        for i, chosen in enumerate(train[order].split(settings.batch)):
            drawn = reseed(stream(seed, f"augment/{epoch}", i))
            batch = rolled(x[chosen], torch.Generator().manual_seed(drawn))
            batch = (batch - mean) / std if settings.norm == "standard" else batch
            loss = F.cross_entropy(model(batch), y[chosen], label_smoothing=settings.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            if settings.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
            if settings.schedule == "cosine":
                rate = 0.5 * (1 + np.cos(np.pi * step / (settings.epochs * steps)))
                optimizer.param_groups[0]["lr"] = settings.lr * rate
            reseed(stream(seed, "optimizer", step))
            optimizer.step()
            total += loss.item() * len(chosen)
            step += 1
        found.append(total / len(train))
    return found


def reseed(value):
    torch.manual_seed(value)
    random.seed(value)
    np.random.seed(value % 2**32)
    return value


@pytest.fixture
def bench(make_settings, make_images, nets):
    class Bench:
        images = make_images(50, size=8)  # 42 to train on: six steps
        build = staticmethod(nets["dense"])
        own = OwnCode(rolled, Lion)

        def __init__(self, lanes=LANES, **common):
            mine = {
                "optimizer": "my.py:Lion",
                "augment": "my.py:rolled",
                "optimizer_options": {"betas": "0.8 0.95", "noise": 0.3},
            }
            common = {"batch": 7, "dtype": "float64", "epochs": 4} | mine | common
            self.lanes = [(make_settings(**common | changes), seed) for changes, seed in lanes]
            self.data = ResidentCache(self.images, device="cpu")(self.lanes[0][0])
            self.precision = Precision.of(self.lanes[0][0].dtype, torch.device("cpu"))

        def model(self, k):
            return build_network(*self.lanes[k], self.data, self.build, self.precision)

        def solo(self, k):
            return SoloProgram(*self.lanes[k], self.data, self.build, self.precision, self.own)

        def member(self, k):
            return Member(*self.lanes[k])

        def pack(self, *chosen, **how):
            members, models = [self.member(k) for k in chosen], [self.model(k) for k in chosen]
            return PackProgram(members, models, self.data, self.precision, own=self.own, **how)

    return Bench


def losses(totals):
    return [t.loss for t in totals]


def test_lanes_with_code_of_their_user_s_train_as_a_plain_loop_does(bench):
    """Alone, in packs that share images and that do not, and in steps that need nothing else from the host."""
    bench = bench()
    recorder = tapes.TapeRecorder()
    packs = {
        (0, 1, 2): bench.pack(0, 1, 2),
        (1, 0): bench.pack(1, 0),
        (2, 0): bench.pack(2, 0, counted=True, recorder=recorder),
    }
    assert packs[1, 0]._epochs.images(packs[1, 0].members).shared
    found = {chosen: [losses(pack.train_epoch()) for _ in range(EPOCHS)] for chosen, pack in packs.items()}
    assert not recorder.recordings, "code of the user's would run once, and be played back"
    for k, (settings, seed) in enumerate(bench.lanes):
        model, solo = bench.model(k), bench.solo(k)
        expected = plainly(settings, seed, bench.images, model)
        assert [solo.train_epoch(e).loss for e in range(1, EPOCHS + 1)] == pytest.approx(expected, rel=1e-9)
        for chosen, rows in found.items():
            if k in chosen:
                slot = chosen.index(k)
                assert [row[slot] for row in rows] == pytest.approx(expected, rel=1e-9)
                weights = packs[chosen].lane_state(slot).weights
                for name, tensor in model.state_dict().items():
                    assert torch.allclose(weights[name], tensor, rtol=1e-9, atol=1e-11), (k, name)
        assert packs[1, 0].lr(0) == pytest.approx(bench.solo(1).lr, rel=1) and solo.lr


def test_a_lane_goes_on_from_its_state_in_any_program_as_if_it_had_stayed(bench):
    """Through the file of a checkpoint, alone and in packs, in another place, after others have left."""
    import safetensors.torch

    bench = bench()
    expected = [bench.solo(2)]
    straight = [expected[0].train_epoch(e).loss for e in range(1, EPOCHS + 1)]
    pack, moved = bench.pack(0, 1, 2), bench.pack(0, 1)
    pack.train_epoch()
    state = pack.lane_state(2)
    for kind, tensors in state.optimizer_state.items():
        there = safetensors.torch.load(safetensors.torch.save(dict(tensors)))
        state.optimizer_state = {**state.optimizer_state, kind: there}
    pack.compact([2])
    moved.load_lane_state(1, bench.member(2), state)
    alone = bench.solo(2)
    alone.load_lane_state(state)
    for epoch, wanted in enumerate(straight[1:], start=2):
        assert losses(pack.train_epoch()) == pytest.approx([wanted], rel=1e-9)
        assert moved.train_epoch()[1].loss == pytest.approx(wanted, rel=1e-9)
        assert alone.train_epoch(epoch).loss == pytest.approx(wanted, rel=1e-9)
    for name, tensor in expected[0].model.state_dict().items():
        assert torch.allclose(alone.model.state_dict()[name], tensor, rtol=1e-9, atol=1e-11)
    fresh = LaneState(weights=dict(bench.model(0).named_parameters()))
    moved.load_lane_state(1, bench.member(0), fresh)
    assert moved.train_epoch()[1].loss == pytest.approx(bench.solo(0).train_epoch(1).loss, rel=1e-9)


@pytest.mark.parametrize("name", ["Adagrad", "RMSprop", "NAdam", "Adafactor", "Muon"])
def test_torch_s_own_optimizers_train_in_packs_as_alone(bench, name):
    if not hasattr(torch.optim, name):
        pytest.skip("not in this torch")
    if name == "Muon":  # for matrices alone
        bench.build = staticmethod(
            lambda _, d: torch.nn.Sequential(
                torch.nn.Flatten(),
                torch.nn.Linear(64, 5, bias=False),
                torch.nn.Linear(5, d.num_classes, bias=False),
            )
        )
    own = OwnCode(optimizer=getattr(torch.optim, name))
    bench.own = own
    bench = bench(optimizer=f"torch.optim:{name}", optimizer_options={}, augment="none")
    pack, solos = bench.pack(0, 1, 2), [bench.solo(k) for k in range(3)]
    for epoch in range(1, 3):
        alone = [solo.train_epoch(epoch).loss for solo in solos]
        assert losses(pack.train_epoch()) == pytest.approx(alone, rel=1e-7)
    again = bench.solo(0)
    again.load_lane_state(solos[0].lane_state())
    assert again.train_epoch(3).loss == pytest.approx(solos[0].train_epoch(3).loss, rel=1e-12)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda x: x[:, :, :4], r"gives images of shape \[8, 1, 4, 8\] for \[8, 1, 8, 8\]"),
        (lambda x: x.double(), r"gives images of type torch.float64 for torch.float32"),
        (lambda x: x.numpy(), "gives a ndarray, not a tensor of images"),
        (lambda x: x @ "", "cannot run: it raises TypeError"),
    ],
)
def test_an_augmentation_that_gives_something_else_is_refused_in_one_line(
    make_settings, make_images, change, told
):
    with pytest.raises(UsageError) as refused:
        check_augment(change, make_settings(augment="my.py:f"), make_images(8).train_images)
    assert re.search(told, refused.value.message) and "\n" not in refused.value.message
    assert "my.py:f" in refused.value.message


class Layered(torch.optim.SGD):
    """A tenth of the learning rate for all parameters but the first."""

    def __init__(self, params, lr=0.1):
        first, *others = params
        super().__init__([{"params": [first]}, {"params": others, "lr": lr / 10}], lr=lr)


@pytest.mark.parametrize(("schedule", "factor"), [("constant", 1.0), ("cosine", 0.5)])
def test_parameters_with_a_rate_of_their_own_keep_it_under_a_schedule(make_settings, schedule, factor):
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    settings = make_settings(optimizer="my.py:Layered", lr=0.2, schedule=schedule)
    own = OwnOptimizer(Layered, settings, parameters, seed=0)
    for p in parameters:
        p.grad = torch.ones(2)
    own.lr = 0.2 * factor
    own.step()
    assert [p[0].item() for p in parameters] == pytest.approx([-0.2 * factor, -0.02 * factor])


def test_an_optimizer_whose_state_no_checkpoint_can_hold_fails_its_trial(train, make_settings):
    class Keeps(Lion):
        def step(self, closure=None):
            super().step(closure)
            for p in self.param_groups[0]["params"]:
                self.state[p]["set"] = {1, 2}

    settings = make_settings(optimizer="my.py:Keeps")
    run = train(settings, own=lambda _: OwnCode(optimizer=Keeps))
    assert "keeps a set in its state" in run.end().message


class Lookahead(torch.optim.Optimizer):
    """Zhang et al. 2019, around another optimizer, as it is published."""

    def __init__(self, inner, every):
        self.inner, self.every, self.steps = inner, every, 0
        self.param_groups, self.defaults, self.state = inner.param_groups, inner.defaults, {}

    def step(self, closure=None):  # noqa: ARG002  (as torch calls it)
        self.inner.step()
        self.steps += 1
        for p in self.param_groups[0]["params"]:
            slow = self.state.setdefault(p, {"slow": p.detach().clone()})["slow"]
            if self.steps % self.every == 0:
                slow.lerp_(p.detach(), 0.5)
                p.data.copy_(slow)


class Referring(torch.optim.Optimizer):
    """Momentum in a table of its own, over a list of its own."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})
        self.mine = [p for group in self.param_groups for p in group["params"]]
        self.speed = {p: torch.zeros_like(p) for p in self.mine}

    @torch.no_grad()
    def step(self, closure=None):  # noqa: ARG002  (as torch calls it)
        for p in self.mine:
            self.speed[p].mul_(0.9).add_(p.grad)
            p.sub_(self.param_groups[0]["lr"] * self.speed[p])


class Rebinding(torch.optim.Optimizer):
    """Heavy ball, which gives parameters other memory and keeps the old one."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    def step(self, closure=None):  # noqa: ARG002  (as torch calls it)
        for group in self.param_groups:
            for p in group["params"]:
                old, last = p.data, self.state[p].get("last", p.data)
                p.data = old - group["lr"] * p.grad + 0.5 * (old - last)
                self.state[p]["last"] = old


WRAPPED = {
    "parameters with other memory": Rebinding,
    "an optimizer that wraps another": lambda params, lr: Lookahead(torch.optim.Adam(params, lr), 4),
    "parameters in attributes": Referring,
}


@pytest.mark.parametrize("make", WRAPPED)
def test_what_an_optimizer_has_beside_its_own_state_goes_on_with_its_lane(bench, make):
    """In a pack that other lanes leave, and from a checkpoint."""
    bench.own = OwnCode(optimizer=WRAPPED[make])
    bench = bench(optimizer="my.py:make", optimizer_options={}, augment="none")
    stayed = bench.solo(2)
    straight = [stayed.train_epoch(epoch).loss for epoch in range(1, EPOCHS + 1)]
    pack, alone = bench.pack(0, 1, 2), bench.solo(2)
    found = [pack.train_epoch()[2].loss]
    alone.load_lane_state(pack.lane_state(2))
    pack.compact([2])
    found += [pack.train_epoch()[0].loss for _ in range(EPOCHS - 1)]
    assert found == pytest.approx(straight, rel=1e-9)
    assert [alone.train_epoch(e).loss for e in (2, 3)] == pytest.approx(straight[1:], rel=1e-9)


def test_an_optimizer_with_a_scheduler_inside_trains_alone_and_is_not_resumed(bench):
    def scheduled(params, lr):
        made = torch.optim.SGD(params, lr)
        made.schedule = torch.optim.lr_scheduler.ExponentialLR(made, 0.9)
        return made

    bench.own = OwnCode(optimizer=scheduled)
    bench = bench(optimizer="my.py:scheduled", optimizer_options={}, augment="none")
    with pytest.raises(NotPackable, match="its optimizer keeps step, a function"):
        bench.pack(0, 1)
    assert not bench.solo(0).resumable
