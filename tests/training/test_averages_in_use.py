"""Averages of weights where they are used: odd tensors, recorded steps, what is told and written, export, probes."""

from __future__ import annotations

import gc

import pytest
import safetensors.torch
import torch
from torch import nn

from gridsearch.records import Lane, Trial, TrialState
from gridsearch.training import loop
from gridsearch.training.export import export
from gridsearch.training.lanes.runtime.engine import PackLaneView
from gridsearch.training.precision import Precision
from gridsearch.training.probe import probe
from gridsearch.training.resident_data import ResidentCache
from gridsearch.training.solo import SoloProgram
from gridsearch.training.solo_engine import SoloEngine

from . import tape as tapes
from .averaging import CLOSE, CPU, EPOCHS, RECIPES, SEEDS, Bench, Oracle, assert_same_bits, net, trained


@pytest.fixture
def bench(make_settings, make_images):
    return lambda **how: Bench(make_settings, make_images, **how)


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
    taken = solo.lane_state()
    trains = {"spare", "first.weight", "first.bias", "last.weight", "last.bias"}
    assert taken.averages.keys() == trains | {"norm.running_mean", "norm.running_var", "scale", "hidden"}
    assert taken.averages["hidden"].numpy() / (1 - 0.9**20) == pytest.approx(
        solo.model.hidden.numpy(), rel=1e-9
    )
    assert torch.equal(state["second.bias"], solo.model.second.bias)
    pack = bench.pack(1, 0)
    for _ in range(EPOCHS):
        pack.train_epoch()
    ours = PackLaneView(pack, 0).state_dict()
    assert ours.keys() == state.keys()
    for name in state:
        torch.testing.assert_close(ours[name], state[name], **CLOSE)
    assert torch.equal(ours["first.weight"], ours["second.weight"])
    assert torch.equal(ours["spare"], bench.model(1).spare)
    assert pack.lane_state(0).averages.keys() == taken.averages.keys() - {"spare"}  # it never has a gradient


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
    taken = solo.lane_state()
    taken.epoch = 1
    assert taken.averages.keys() == pack.lane_state(0).averages.keys() == {"layer.weight", "layer.bias"}
    pack.load_lane_state(1, bench.member(1), taken)
    solo.train_epoch(2)
    pack.train_epoch()
    for found in pack.evaluate():
        torch.testing.assert_close(found.logits, solo.evaluate(2).logits, **CLOSE)
    for state in (solo.state_dict(), PackLaneView(pack, 0).state_dict()):
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
            ours, theirs = (pack.lane_state(slot) for pack in (played, eager))
            assert_same_bits(ours.weights, theirs.weights)
            assert_same_bits(ours.averages, theirs.averages)
    assert played._runner.replayed > 20
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
    pack.load_lane_state(1, bench.member(3), bench.fresh(3))
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


def test_the_exported_model_is_the_average(train, make_settings, make_images, tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDSEARCH_KERNELS", "off")  # a lone lane trains by the plain engine, to the bit
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

    _, without, averaging = (
        probe(
            make_settings(ema=ema, batch=40),
            data=ResidentCache(make_images(48), device="cpu"),
            build=build,
            device="cpu",
            seconds=0.0,
            lanes=lanes,
        )
        for ema in (0.0, 0.0, 0.9)  # the first may have to measure whether compiled steps are faster here
    )
    one_more = lanes * without.parameters * 4
    assert averaging.memory_bytes > 8 * one_more, "maps decide, not what a program is made from"
    assert averaging.memory_bytes == pytest.approx(without.memory_bytes, abs=0.05 * one_more)
