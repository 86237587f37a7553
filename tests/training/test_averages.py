"""What `ema` promises: the moving average of the weights is evaluated, selected and written, and training does not notice.

float64 on the CPU, to 1e-9, against a plain loop that keeps the weights of every step and sums them up at the end.
"""

from __future__ import annotations

import gc
import math
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gridsearch.records import Lane, Trial, TrialState
from gridsearch.training import loop
from gridsearch.training.averages import WeightAverage, weight_of
from gridsearch.training.course import LaneState
from gridsearch.training.data import ResidentCache
from gridsearch.training.export import export
from gridsearch.training.lanes.engine import LaneHolder
from gridsearch.training.lanes.program import Member, PackProgram
from gridsearch.training.network import build_network
from gridsearch.training.precision import Precision
from gridsearch.training.probe import probe
from gridsearch.training.seeds import stream
from gridsearch.training.solo import SoloEngine, SoloProgram
from gridsearch.training.splits import split

from . import tape as tapes

CPU = torch.device("cpu")
CLOSE = {"rtol": 1e-9, "atol": 1e-9}
EPOCHS = 4  # of five steps

RECIPES = (
    {"lr": 0.004, "ema": 0.0, "norm": "none"},
    {"lr": 0.006, "ema": 0.9, "schedule": "cosine", "weight_decay": 0.01},
    {"lr": 0.003, "ema": 0.5, "label_smoothing": 0.1},
    {"lr": 0.005, "ema": 0.999, "norm": "none"},
)
SEEDS = (5, 5, 6, 7)


def net(_settings, data):
    """Batch norm behind a convolution without a bias, which it would absorb."""
    side = data.image_size[0] // 2
    return nn.Sequential(
        nn.Conv2d(data.channels, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * side * side, data.num_classes),
    )


class Oracle:
    """A trial as one would write it without this program.

    Attributes:
        steps: the state_dict after each step.
        rows: of each epoch: training loss, validation loss and accuracy, validation logits, averaged state_dict.
        theirs: torch's own moving average, which begins at the weights of the first step.
    """

    def __init__(self, settings, seed, images, build=net):
        parts = split(images.train_labels, val=settings.val, split_seed=settings.split_seed)
        pixels = images.train_images.astype(np.float64) / 255
        if settings.norm == "standard":
            of_train, axes = pixels[parts.train], (0, 2, 3)
            pixels = (pixels - of_train.mean(axes, keepdims=True)) / of_train.std(axes, keepdims=True)
        x, y = torch.from_numpy(pixels), torch.from_numpy(images.train_labels)
        train = torch.from_numpy(parts.train)
        shape = SimpleNamespace(channels=1, image_size=images.train_images.shape[2:], num_classes=3)
        torch.manual_seed(stream(seed, "weights"))
        model = build(settings, shape).double()
        self.theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema))
        optimizer = torch.optim.Adam(
            model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, foreach=False
        )
        total = settings.epochs * math.ceil(len(train) / settings.batch)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
        self.ema, self.steps, self.rows = settings.ema, [], []
        for epoch in range(1, min(settings.epochs, EPOCHS) + 1):
            order = torch.randperm(
                len(train), generator=torch.Generator().manual_seed(stream(seed, "order", epoch))
            )
            loss_sum = 0.0
            model.train()
            for chosen in train[order].split(settings.batch):
                torch.manual_seed(stream(seed, "step", len(self.steps)))
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x[chosen]), y[chosen], label_smoothing=settings.label_smoothing)
                loss.backward()
                optimizer.step()
                if settings.schedule == "cosine":
                    cosine.step()
                self.theirs.update_parameters(model)
                self.steps.append({n: t.clone() for n, t in model.state_dict().items()})
                loss_sum += loss.item() * len(chosen)
            averaged = self.average()
            model.load_state_dict(averaged)
            model.eval()
            with torch.no_grad():
                logits = model(x[parts.val])
            model.load_state_dict(self.steps[-1])
            self.rows.append(
                SimpleNamespace(
                    train_loss=loss_sum / len(train),
                    val_loss=F.cross_entropy(logits, y[parts.val]).item(),
                    val_accuracy=(logits.argmax(1) == y[parts.val]).double().mean().item(),
                    logits=logits,
                    state=averaged,
                )
            )

    def average(self):
        """The weights of all steps, each weighted by (1 - ema) ema^(steps since), over the sum of these weights."""
        if not self.ema:
            return dict(self.steps[-1])
        shares = [(1 - self.ema) * self.ema ** (len(self.steps) - i) for i in range(1, len(self.steps) + 1)]
        found = {}
        for name, last in self.steps[-1].items():
            if last.is_floating_point():
                parts = [share * state[name] for share, state in zip(shares, self.steps, strict=True)]
                found[name] = torch.stack(parts).sum(0) / math.fsum(shares)
            else:
                found[name] = last
        return found


class Bench:
    """Lanes, given by their numbers, in programs; and what a plain loop makes of each."""

    def __init__(self, make_settings, make_images, *, build=net, recipes=RECIPES, seeds=SEEDS, **common):
        common = {"dtype": "float64", "batch": 8, "epochs": EPOCHS} | common
        self.recipes = [make_settings(**common | recipe) for recipe in recipes]
        self.seeds, self.build = seeds, build
        self.images = make_images(48)  # 40 to train on
        self.data = ResidentCache(self.images, device="cpu")(self.recipes[0])
        self.precision = Precision.of(self.recipes[0].dtype, CPU)
        self._oracles = {}

    def oracle(self, lane):
        if lane not in self._oracles:
            self._oracles[lane] = Oracle(self.recipes[lane], self.seeds[lane], self.images, self.build)
        return self._oracles[lane]

    def member(self, lane):
        return Member(self.recipes[lane], self.seeds[lane])

    def model(self, lane):
        return build_network(self.recipes[lane], self.seeds[lane], self.data, self.build, self.precision)

    def fresh(self, lane):
        model = self.model(lane)
        return LaneState(weights=dict(model.named_parameters()) | dict(model.named_buffers()))

    def pack(self, *lanes, **how):
        members = [self.member(lane) for lane in lanes]
        return PackProgram(members, [self.model(lane) for lane in lanes], self.data, self.precision, **how)

    def solo(self, lane):
        return SoloProgram(self.recipes[lane], self.seeds[lane], self.data, self.build, self.precision)

    def check(self, lane, holder, found, totals, epoch=EPOCHS):
        """Compare a lane after an epoch with its oracle."""
        row = self.oracle(lane).rows[epoch - 1]
        assert totals.loss == pytest.approx(row.train_loss, rel=1e-9)
        assert found.loss == pytest.approx(row.val_loss, rel=1e-9)
        torch.testing.assert_close(found.logits, row.logits, **CLOSE)
        state = holder.state_dict()
        assert state.keys() == row.state.keys()
        for name, tensor in row.state.items():
            torch.testing.assert_close(state[name], tensor, **CLOSE, msg=lambda m, n=name: f"{lane} {n}: {m}")
        own = [p for n, p in row.state.items() if not n.startswith("1.") or "running" not in n]
        own = [p for p in own if p.is_floating_point()]
        for ours, theirs in zip(holder.parameters(), own, strict=True):
            torch.testing.assert_close(ours, theirs, **CLOSE)

    def check_pack(self, pack, lanes, totals, epoch=EPOCHS):
        for slot, (lane, found) in enumerate(zip(lanes, pack.evaluate(), strict=True)):
            self.check(lane, LaneHolder(pack, slot), found, totals[slot], epoch)


@pytest.fixture
def bench(make_settings, make_images):
    return lambda **how: Bench(make_settings, make_images, **how)


# Against plain loops


@pytest.mark.parametrize("lane", range(4))
def test_a_lane_alone_is_evaluated_by_its_average(bench, lane):
    bench = bench()
    solo = bench.solo(lane)
    for epoch in range(1, EPOCHS + 1):
        totals = solo.train_epoch(epoch)
        bench.check(lane, solo, solo.evaluate(epoch), totals, epoch)


@pytest.mark.parametrize("lanes", [(1,), (0, 1), (2, 3), (1, 0, 2), (3, 1, 0, 2, 1, 0, 3, 2)], ids=len)
def test_lanes_are_evaluated_by_their_averages_and_those_without_one_by_their_weights(bench, lanes):
    bench = bench()
    pack = bench.pack(*lanes)
    assert pack.network.method == "stacked"
    for epoch in range(1, EPOCHS + 1):
        bench.check_pack(pack, lanes, pack.train_epoch(), epoch)


class Cumulative(nn.Module):
    """`torch.cumsum` has no stacked form; vmap knows it."""

    def __init__(self, data):
        super().__init__()
        self.norm, self.layer = nn.BatchNorm1d(64), nn.Linear(64, data.num_classes)

    def forward(self, x):
        return self.layer(torch.cumsum(self.norm(x.flatten(1)), 1) / 8)


def test_lanes_under_vmap_likewise(bench):
    bench = bench(build=lambda _, data: Cumulative(data))
    pack = bench.pack(1, 0, 2)
    assert pack.network.method == "vmap"
    for epoch in range(1, EPOCHS + 1):
        for slot, (lane, found) in enumerate(zip((1, 0, 2), trained(pack)[1], strict=True)):
            row = bench.oracle(lane).rows[epoch - 1]
            torch.testing.assert_close(found.logits, row.logits, **CLOSE)
            state = LaneHolder(pack, slot).state_dict()
            for name, tensor in row.state.items():
                torch.testing.assert_close(state[name], tensor, **CLOSE)


def trained(pack):
    return pack.train_epoch(), pack.evaluate()


@pytest.mark.parametrize("lane", [1, 2, 3])
def test_the_average_is_torch_s_but_for_where_it_begins(bench, lane):
    """Torch begins at the first step's weights: ema^n of them is what is too much."""
    oracle = bench().oracle(lane)
    n, ema = len(oracle.steps), oracle.ema
    for name, theirs in oracle.theirs.module.named_parameters():
        ours = (theirs - ema**n * oracle.steps[0][name]) / (1 - ema**n)
        torch.testing.assert_close(ours.detach(), oracle.average()[name], **CLOSE)


@pytest.mark.parametrize("ema", [0.3, 0.999, 1 - 1e-12])
def test_the_average_of_weights_that_stay_is_those_weights_from_the_first_step_on(ema):
    model = nn.Linear(3, 2).double()
    weights = model.weight.detach().clone()
    average = WeightAverage(ema, model)
    for n in range(1, 8):
        average.step()
        with average.shown(n):
            torch.testing.assert_close(model.weight.detach(), weights, rtol=1e-14, atol=0)
    assert weight_of(ema, 1) == pytest.approx(1 - ema, rel=1e-14)


# Training does not notice


@pytest.mark.parametrize("kind", ["pack", "solo"])
def test_a_trial_trains_the_same_with_and_without(bench, kind):
    plain = bench(recipes=[recipe | {"ema": 0.0} for recipe in RECIPES])
    for lane in (1, 2, 3):
        ours, theirs = (getattr(each, kind)(lane) for each in (bench(), plain))
        for epoch in (1, 2):
            how = (epoch,) if kind == "solo" else ()
            assert ours.train_epoch(*how) == theirs.train_epoch(*how)
            ours.evaluate(*how)
        taken, expected = (p.take() if kind == "solo" else p.take(0) for p in (ours, theirs))
        assert_same_bits(taken.weights, expected.weights)
        for name in expected.memory:
            assert_same_bits(taken.memory[name], expected.memory[name])
        assert taken.averages
        assert not expected.averages


def assert_same_bits(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(bits(ours[name]), bits(theirs[name])), name


def bits(tensor):
    """As whole numbers: -0.0 is not 0.0, and NaN is itself."""
    return (
        tensor.detach().contiguous().view(torch.uint8)
        if tensor.dim()
        else tensor.reshape(1).view(torch.uint8)
    )


@pytest.mark.parametrize("counted", [False, True], ids=["host", "counted"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_lane_without_an_average_has_the_bits_it_has_without_such_neighbours(bench, dtype, counted):
    emas = (0.0, 0.9, 0.0, 0.5)
    ours, theirs = (
        bench(recipes=[r | {"ema": e} for r, e in zip(RECIPES, given, strict=True)], dtype=dtype).pack(
            0, 1, 2, 3, counted=counted
        )
        for given in (emas, (0.0,) * 4)
    )
    for pack in (ours, theirs):
        pack.storage.flat[:, :2] = -0.0  # which arithmetic would turn into 0.0
        pack.storage.flat[0, 2] = 1e-45  # and what it would flush, or lose beside an average
    for _ in range(3):
        assert ours.train_epoch() == theirs.train_epoch()
        found, expected = ours.evaluate(), theirs.evaluate()
        for slot in range(4):
            assert_same_bits(ours.take(slot).weights, theirs.take(slot).weights)
        for slot in (0, 2):
            assert torch.equal(found[slot].logits, expected[slot].logits)
            holders = [LaneHolder(pack, slot).state_dict() for pack in (ours, theirs)]
            assert_same_bits(*holders)
        assert not torch.equal(found[1].logits, expected[1].logits)


def test_a_pack_without_averages_does_nothing_for_them(bench, monkeypatch):
    bench = bench(recipes=[recipe | {"ema": 0.0} for recipe in RECIPES])
    pack, solo = bench.pack(0, 1), bench.solo(0)
    assert pack.averages.state == []
    with tapes.Tape() as ours:
        pack.averages.step()
        with pack.averages.shown([1, 1]):
            pass
    assert ours.calls == []
    monkeypatch.setattr(WeightAverage, "__init__", None)
    assert solo.train_epoch(1).images == 40
    state = solo.state_dict()
    assert all(state[n].data_ptr() == p.data_ptr() for n, p in solo.model.named_parameters())


@pytest.mark.parametrize("poison", [0, 1])
def test_a_poisoned_lane_changes_no_bit_of_its_neighbours(bench, poison):
    packs = [bench(dtype="float32").pack(1, 3, 0, 2) for _ in range(2)]
    packs[1].storage.flat[poison].fill_(float("nan"))
    for _ in range(2):
        results = [trained(pack) for pack in packs]
        for slot in {0, 1, 2, 3} - {poison}:
            assert results[0][0][slot] == results[1][0][slot]
            assert torch.equal(*(r[1][slot].logits for r in results))
            ours, theirs = (pack.take(slot) for pack in packs)
            assert_same_bits(ours.weights, theirs.weights)
            assert_same_bits(ours.averages, theirs.averages)
    fresh = bench(dtype="float32").fresh(1)
    for pack in packs:  # nothing is left of it in its place
        pack.put(poison, bench(dtype="float32").member(1), fresh)
        pack.train_epoch()
    assert_same_bits(*(LaneHolder(pack, poison).state_dict() for pack in packs))


@pytest.mark.parametrize("kind", ["pack", "solo"])
def test_the_weights_come_back_to_the_bit_whatever_ends_an_evaluation(bench, kind):
    bench = bench(dtype="float32")
    program = bench.pack(1, 0) if kind == "pack" else bench.solo(1)
    how = () if kind == "pack" else (1,)
    program.train_epoch(*how)
    flat = program.storage.flat if kind == "pack" else program.model[5].weight.detach()
    flat[:, 0], flat[:, 1], flat[:, 2] = -0.0, 1e-45, float("inf")
    take = (lambda: program.take(0)) if kind == "pack" else program.take
    before = take()
    program.evaluate(*how)
    assert_same_bits(take().weights, before.weights)

    def leave():
        raise KeyError

    with pytest.raises(KeyError):
        program.evaluate(*how, leave)
    assert_same_bits(take().weights, before.weights)
    assert_same_bits(take().averages, before.averages)


# Lanes that come, leave and move


def test_a_free_place_begins_a_new_average(bench):
    """Taken first by a lane with an average among such lanes, then where no lane had one, and given up again."""
    bench = bench()
    pack = bench.pack(3, 1)
    trained(pack)
    pack.put(0, bench.member(2), bench.fresh(2))
    totals = [pack.train_epoch() for _ in range(EPOCHS - 1)][-1]
    found = pack.evaluate()
    bench.check(2, LaneHolder(pack, 0), found[0], totals[0], EPOCHS - 1)
    bench.check(1, LaneHolder(pack, 1), found[1], totals[1])
    pack.put(0, bench.member(0), bench.fresh(0))
    pack.put(1, bench.member(0), bench.fresh(0))
    assert pack.averages.state == []
    totals = pack.train_epoch()
    bench.check_pack(pack, (0, 0), totals, 1)
    pack.put(0, bench.member(1), bench.fresh(1))
    totals = [pack.train_epoch() for _ in range(2)][-1]
    found = pack.evaluate()
    bench.check(1, LaneHolder(pack, 0), found[0], totals[0], 2)
    bench.check(0, LaneHolder(pack, 1), found[1], totals[1], 3)


def test_a_lane_goes_on_the_same_in_another_pack_alone_and_when_others_leave(bench):
    bench = bench()
    first, second, plain, solo = bench.pack(1, 0, 3), bench.pack(0, 2), bench.pack(0, 0), bench.solo(1)
    for pack in (first, second, plain):
        trained(pack)
    taken = first.take(0)
    assert_shapes(taken, bench.model(1))
    assert first.take(1).averages == {}
    trained(first)  # what was taken does not move
    second.put(0, bench.member(1), taken)
    solo.put(taken)
    plain.put(1, bench.member(1), taken)  # where nobody had one
    totals = plain.train_epoch()
    bench.check(1, LaneHolder(plain, 1), plain.evaluate()[1], totals[1], 2)
    totals = second.train_epoch(), solo.train_epoch(2)
    bench.check(1, LaneHolder(second, 0), second.evaluate()[0], totals[0][0], 2)
    bench.check(1, solo, solo.evaluate(2), totals[1], 2)
    first.keep([2, 0])
    bench.check_pack(first, (3, 1), first.train_epoch(), 3)
    back = solo.take()
    back.epoch = 2  # as its course would say
    solo.train_epoch(3)
    first.put(0, bench.member(1), back)
    first.keep([0])
    bench.check_pack(first, (1,), first.train_epoch(), 3)


def assert_shapes(state, model):
    expected = dict(model.named_parameters()) | {
        n: b for n, b in model.named_buffers() if b.is_floating_point()
    }
    assert {n: t.shape for n, t in state.averages.items()} == {n: t.shape for n, t in expected.items()}


def test_a_state_of_another_pack_goes_on_to_the_bit(bench):
    bench = bench(dtype="float32")
    stays, other = bench.pack(1, 3), bench.pack(2, 0)
    trained(stays)
    trained(other)
    for slot, lane in enumerate((1, 3)):
        other.put(slot, bench.member(lane), stays.take(slot))
    assert trained(stays)[0] == trained(other)[0]
    for slot in (0, 1):
        assert_same_bits(*(LaneHolder(pack, slot).state_dict() for pack in (stays, other)))


class Odd(nn.Module):
    """A tied weight, a frozen one, one that is not used, and buffers of all kinds."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 3)
        self.second.weight = self.first.weight
        self.second.bias.requires_grad = False
        self.spare = nn.Parameter(torch.rand(2))
        self.norm = nn.BatchNorm1d(64, affine=False)
        self.register_buffer("scale", torch.tensor(0.7))
        self.register_buffer("hidden", torch.rand(64), persistent=False)
        self.register_buffer("whole", torch.arange(3))

    def forward(self, x):
        x = self.norm(self.second(self.first(x.flatten(1)).relu()))
        return self.last(x * self.scale + self.hidden)


def test_tied_frozen_and_hidden_tensors_are_averaged_or_left(bench):
    bench = bench(build=lambda *_: Odd())
    oracle = bench.oracle(1)
    solo = bench.solo(1)
    for epoch in range(1, EPOCHS + 1):
        solo.train_epoch(epoch)
    state = solo.state_dict()
    assert state.keys() == oracle.rows[-1].state.keys()
    for name, tensor in oracle.rows[-1].state.items():
        torch.testing.assert_close(state[name], tensor, **CLOSE)
    taken = solo.take()
    trains = {"spare", "first.weight", "first.bias", "last.weight", "last.bias"}
    assert taken.averages.keys() == trains | {"norm.running_mean", "norm.running_var", "scale", "hidden"}
    assert taken.averages["hidden"].numpy() / (1 - 0.9**20) == pytest.approx(
        solo.model.hidden.numpy(), rel=1e-9
    )
    assert torch.equal(state["second.bias"], solo.model.second.bias)
    pack = bench.pack(1, 0)
    for _ in range(EPOCHS):
        pack.train_epoch()
    ours = LaneHolder(pack, 0).state_dict()
    assert ours.keys() == state.keys()
    for name in state:
        torch.testing.assert_close(ours[name], state[name], **CLOSE)
    assert torch.equal(ours["first.weight"], ours["second.weight"])
    assert torch.equal(ours["spare"], bench.model(1).spare)
    assert pack.take(0).averages.keys() == taken.averages.keys() - {"spare"}  # it never has a gradient


def test_an_expanded_buffer_is_taken_as_it_is(bench):
    """Nothing can be written into it."""

    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 3)
            self.register_buffer("wide", torch.full((1,), 0.7, dtype=torch.float64).expand(3))

        def forward(self, x):
            return self.layer(x.flatten(1)) * self.wide

    bench = bench(build=lambda *_: Wide())
    solo, pack = bench.solo(1), bench.pack(1, 0)
    assert solo.model.wide.stride() == (0,)
    solo.train_epoch(1)
    pack.train_epoch()
    taken = solo.take()
    taken.epoch = 1
    assert taken.averages.keys() == pack.take(0).averages.keys() == {"layer.weight", "layer.bias"}
    pack.put(1, bench.member(1), taken)
    solo.train_epoch(2)
    pack.train_epoch()
    for found in pack.evaluate():
        torch.testing.assert_close(found.logits, solo.evaluate(2).logits, **CLOSE)
    for state in (solo.state_dict(), LaneHolder(pack, 0).state_dict()):
        assert torch.equal(state["wide"], solo.model.wide)


def test_a_buffer_that_comes_or_grows_later_is_taken_as_it_is(bench):
    class Growing(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 3)
            self.register_buffer("rows", torch.zeros(1))

        def forward(self, x):
            if self.training:
                self.rows = torch.ones(len(self.rows) + 1)
                if len(self.rows) == 3:
                    self.register_buffer("late", torch.ones(1))
            return self.layer(x.flatten(1))

    solo = bench(build=lambda *_: Growing()).solo(1)
    solo.train_epoch(1)
    state = solo.state_dict()
    assert torch.equal(state["rows"], torch.ones(6))
    assert torch.equal(state["late"], torch.ones(1))
    assert not torch.equal(state["layer.weight"], solo.model.layer.weight)


# Steps without the host


@pytest.mark.parametrize("seeds", [(0, 0, 0, 0), (0, 1, 2, 3)], ids=["one order", "orders of their own"])
def test_played_steps_average_as_steps_one_by_one_do(bench, seeds):
    recorder = tapes.TapeRecorder()
    bench = bench(seeds=seeds, dtype="float32", batch=3, epochs=9)
    eager, played = (bench.pack(1, 0, 3, counted=True, recorder=r) for r in (None, recorder))
    for _ in range(3):
        assert eager.train_epoch() == played.train_epoch()
        assert [e.loss for e in eager.evaluate()] == [e.loss for e in played.evaluate()]
        for slot in range(3):
            ours, theirs = (pack.take(slot) for pack in (played, eager))
            assert_same_bits(ours.weights, theirs.weights)
            assert_same_bits(ours.averages, theirs.averages)
    assert played._runner.played > 20
    plain = bench.pack(0, 0, counted=True, recorder=(without := tapes.TapeRecorder()))
    plain.train_epoch()
    # a recording of ten steps: Adam's own mean; and the average of the weights, of batch norm's mean and variance
    assert (lerps(without), lerps(recorder)) == (10, 10 * (1 + 3))


def lerps(recorder):
    return sum(func._schema.name == "aten::lerp_" for func, *_ in recorder.tapes[0].calls)


def test_counted_steps_average_as_the_host_s_do(bench):
    bench = bench()
    pack = bench.pack(1, 0, 2, 3, counted=True)
    for epoch in range(1, EPOCHS + 1):
        bench.check_pack(pack, (1, 0, 2, 3), pack.train_epoch(), epoch)


def test_an_average_stays_in_its_place_as_long_as_the_lanes_do(bench):
    bench = bench()
    pack = bench.pack(1, 0)
    places = [t.data_ptr() for t in (*pack.averages.state, pack.averages._shares_K1)]
    trained(pack)
    pack.put(1, bench.member(3), bench.fresh(3))
    trained(pack)
    assert [t.data_ptr() for t in (*pack.averages.state, pack.averages._shares_K1)] == places


# What is told and written


@pytest.mark.parametrize("engine", ["pack", "solo"])
@pytest.mark.parametrize("select", ["last", "best"])
def test_what_is_told_selected_and_written_is_the_average(
    train, make_settings, make_images, monkeypatch, engine, select
):
    images = make_images(48)
    trials = [
        (
            make_settings(
                **recipe | {"dtype": "float64", "batch": 8, "epochs": 4, "select": select, "lr": 0.021}
            ),
            seed,
        )
        for recipe, seed in zip(RECIPES, SEEDS, strict=True)
    ]
    if engine == "solo":
        monkeypatch.setattr(loop, "ENGINES", (SoloEngine(),))
    run = train(*trials, data=images, build=net)
    counted = []
    for number, (settings, seed) in enumerate(trials):
        oracle = Oracle(settings, seed, images)
        for told, row in zip(run.epochs(number), oracle.rows, strict=True):
            assert told.train_loss == pytest.approx(row.train_loss, rel=1e-9)
            assert told.val_loss == pytest.approx(row.val_loss, rel=1e-9)
            assert told.val_accuracy == row.val_accuracy
        rows = oracle.rows
        worth = [(row.val_accuracy, -row.val_loss) for row in rows]
        epoch = worth.index(max(worth)) if select == "best" else EPOCHS - 1
        counted.append(epoch)
        for name, tensor in run.weights(number).items():
            torch.testing.assert_close(tensor, rows[epoch].state[name], **CLOSE)
        assert torch.equal(run.predictions(number)["logits"], rows[epoch].logits.half())
        assert run.finished(number).metrics["val_loss"] == pytest.approx(rows[epoch].val_loss, rel=1e-9)
    if select == "best":
        assert min(counted[1:]) < EPOCHS - 1, "an epoch before the last must have been chosen"


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_step_to_weights_that_are_not_finite_is_told_as_without(train, make_settings, nets, lanes):
    """Without validation images no loss shows them."""
    how = {"optimizer": "sgd", "lr": 1e38, "epochs": 1, "batch": 1000, "val": 0.0, "weight_decay": 1e3}
    run = train(*[make_settings(ema=ema, **how) for ema in (0.5, 0.0)[:lanes]], build=nets["dense"])
    for lane in range(lanes):
        assert run.finished(lane).state is TrialState.DIVERGED
        assert run.finished(lane).message == "weights nan at step 1 (epoch 1)"


def test_the_exported_model_is_the_average(train, make_settings, make_images, tmp_path):
    settings, images = make_settings(ema=0.9, epochs=3, val=0.0, norm="none"), make_images(48)
    run = train(settings, data=images, build=net)
    trial = Trial(id=0, number=0, key="", seed=0, settings=settings, params={}, state=TrialState.COMPLETE)
    lane = Lane(trial, str(run.scratch[0]))
    export([lane], data=ResidentCache(images, device="cpu"), build=net, folder=tmp_path / "out")
    weights = safetensors.torch.load_file(tmp_path / "out" / "model.safetensors")
    assert_same_bits(weights, run.weights())
    precision, data = Precision.of("float32", CPU), ResidentCache(images, device="cpu")(settings)
    program = SoloProgram(settings, 0, data, net, precision)
    for epoch in range(1, 4):
        program.train_epoch(epoch)
    assert_same_bits(weights, program.state_dict())
    model = net(settings, data)
    model.load_state_dict(weights)
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(images.test_images).float() / 255)
    tested = safetensors.torch.load_file(tmp_path / "out" / "test.safetensors")
    torch.testing.assert_close(tested["logits"][0], expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def _no_collector():
    """It is a matter of chance when what refers to itself goes, else."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_probe_finds_the_memory_of_averages_whatever_recipe_it_is_given(
    make_settings, make_images, lanes, _no_collector
):
    """The lanes of a pack may differ in having one."""

    def build(settings, data):
        maps = [layer for _ in range(3) for layer in (nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())]
        return nn.Sequential(nn.Conv2d(1, 16, 1), *maps, nn.Flatten(), nn.Linear(16 * 64, 3))

    without, averaging = (
        probe(
            make_settings(ema=ema, batch=40),
            data=ResidentCache(make_images(48), device="cpu"),
            build=build,
            device="cpu",
            seconds=0.0,
            lanes=lanes,
        )
        for ema in (0.0, 0.9)
    )
    one_more = lanes * without.parameters * 4
    assert averaging.memory_bytes > 8 * one_more, "maps decide, not what a program is made from"
    assert averaging.memory_bytes == pytest.approx(without.memory_bytes, abs=0.05 * one_more)
