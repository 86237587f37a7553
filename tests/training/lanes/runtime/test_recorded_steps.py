"""What steps without the host promise: the same training, whether run by the host, counted, or played back.

A CUDA graph cannot be made here; `tape` records and plays the same steps on a CPU and refuses what a capture would.
"""

from __future__ import annotations

import dataclasses
import logging

import pytest
import torch
from torch import nn

from gridsearch.training.context import Stopped
from gridsearch.training.lane_optimizer import OPTIMIZERS
from gridsearch.training.lane_progress import LaneState
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.model_setup import build_network
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache
from gridsearch.zoo import models
from tests.training import tape as tapes

pytestmark = pytest.mark.thorough


@pytest.fixture
def program(make_images, make_settings):
    """Make a program of lanes, given as changes of the recipe; batch 3 gives 16 whole steps and one of 2 images."""

    def make(*changes, seeds=None, build=None, size=8, channels=1, **how):
        recipes = [make_settings(**{"batch": 3, "epochs": 9} | c) for c in changes]
        data = ResidentCache(make_images(60, size=size, channels=channels), device="cpu")(recipes[0])
        precision = Precision.of(recipes[0].dtype, torch.device("cpu"))
        members = [Member(s, seed) for s, seed in zip(recipes, seeds or [0] * len(recipes), strict=True)]
        build = build or (lambda s, d: conv(d))
        nets = [build_network(m.settings, m.seed, data, build, precision) for m in members]
        return PackProgram(members, nets, data, precision, **how)

    return make


def conv(data, dropout=0.0):
    side = data.image_size[0] // 2
    return nn.Sequential(
        nn.Conv2d(data.channels, 4, 3, padding=1, bias=False),  # no bias for batch norm to absorb
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(4 * side * side, data.num_classes),
    )


def dropping(_, data):
    return conv(data, 0.3)


def weights(pack):
    """Each lane's weights, and their averages."""
    states = [pack.lane_state(slot) for slot in range(pack.lanes)]
    return [s.weights | {f"average of {name}": t for name, t in s.averages.items()} for s in states]


def assert_equal_bytes(one, other):
    for a, b in zip(weights(one), weights(other), strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert torch.equal(a[name], b[name]), name


OBJECTIVE = {"loss": "focal", "focal_gamma": 1.5, "clip_value": 0.02}

LANES = (
    {"lr": 0.01, "schedule": "cosine", "weight_decay": 0.01, "label_smoothing": 0.1, "norm": "none"},
    {"lr": 0.002, "warmup": 1.0, "momentum": 0.8, "nesterov": True, **OBJECTIVE},
    {"lr": 0.02, "momentum": 0.0, "schedule": "onecycle", "ema": 0.9, "clip_norm": 0.5}
    | {"class_weight": "balanced"},
)


@pytest.mark.parametrize(
    ("optimizer", "seeds"),
    [("sgd", [0, 0, 0]), *[(name, [0, 1, 2]) for name in OPTIMIZERS]],
    ids=["one order", *OPTIMIZERS],
)
def test_played_steps_train_as_steps_one_by_one_do(program, optimizer, seeds):
    """Bit by bit, over epochs of 16 whole steps and a partial one."""
    lanes = [c | {"optimizer": optimizer, "augment": "flip+shift"} for c in LANES]
    recorder = tapes.TapeRecorder()
    eager, played = (program(*lanes, seeds=seeds, counted=True, recorder=r) for r in (None, recorder))
    for _ in range(3):
        assert eager.train_epoch() == played.train_epoch()
        assert [e.loss for e in eager.evaluate()] == [e.loss for e in played.evaluate()]
    assert_equal_bytes(eager, played)
    assert [r.plays for r in recorder.recordings] == [3, 15]  # of ten steps, and of one
    assert [eager.lr(k) for k in range(3)] == [played.lr(k) for k in range(3)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_counted_steps_train_as_the_host_s_do(program, optimizer):
    """To rounding: the host moves each lane by a fused kernel."""
    lanes = [c | {"optimizer": optimizer, "dtype": "float64", "augment": "erase"} for c in LANES]
    host, counted = (program(*lanes, seeds=[0, 0, 1], counted=c) for c in (False, True))
    for _ in range(3):
        for a, b in zip(host.train_epoch(), counted.train_epoch(), strict=True):
            assert a.loss == pytest.approx(b.loss, rel=1e-9)
            assert (a.accuracy, a.images) == (b.accuracy, b.images)
    for slot in range(3):
        a, b = host.lane_state(slot), counted.lane_state(slot)
        assert (a.step, a.epoch, host.lr(slot)) == (b.step, b.epoch, counted.lr(slot))
        for ours, theirs in ((a.weights, b.weights), (a.averages, b.averages)):
            assert ours.keys() == theirs.keys()
            for name in ours:
                torch.testing.assert_close(ours[name], theirs[name], rtol=1e-8, atol=1e-9)
        for kind in (
            a.optimizer_state if host.members[slot].settings.momentum else ()
        ):  # else nothing is remembered
            for name in a.optimizer_state[kind]:
                torch.testing.assert_close(
                    a.optimizer_state[kind][name], b.optimizer_state[kind][name], rtol=1e-6, atol=1e-9
                )


class Plain(nn.Module):
    """Asks how many images there are, which no trace can answer; vmap can."""

    def __init__(self, data):
        super().__init__()
        self.fc = nn.Linear(data.image_size[0] * data.image_size[1], data.num_classes)

    def forward(self, x):
        return self.fc(x.flatten(1).cumsum(1) * (0.1 if len(x) else 1))


@pytest.mark.parametrize(
    ("build", "size", "method"),
    [
        (lambda s, d: models.lenet(d.channels, d.num_classes, d.image_size), 28, "stacked"),
        (lambda s, d: models.tinyvgg(d.channels, d.num_classes, d.image_size), 28, "stacked"),
        (lambda s, d: Plain(d), 8, "vmap"),
    ],
    ids=["lenet", "tinyvgg", "vmap"],
)
@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.thorough)])
def test_a_step_of_any_network_can_be_recorded(program, build, size, method, dtype):
    recorder = tapes.TapeRecorder()
    lanes = [{"lr": 0.001, "dtype": dtype}, {"lr": 0.01, "dtype": dtype, "norm": "none"}]
    eager, played = (
        program(*lanes, seeds=[0, 1], build=build, size=size, counted=True, recorder=r)
        for r in (None, recorder)
    )
    assert played.network.method == method
    for _ in range(2):
        assert eager.train_epoch() == played.train_epoch()
    assert len(recorder.recordings) == 2
    assert_equal_bytes(eager, played)


def test_a_step_reads_and_changes_the_same_memory_every_epoch(program):
    """A graph holds addresses; what else it used would be gone when it plays.  The first step may still make room."""
    pack = program(
        *[c | {"augment": "flip+shift", "dropout": 0.2} for c in LANES], build=dropping, counted=True
    )
    places = []
    for _ in range(4):
        pack._runner.run = lambda whole, rest, check_stop, *, left, kind: places.append(outside(pack, whole))
        pack.train_epoch()
    assert places[1] == places[2] == places[3]
    assert len(places[1]) > 20


def outside(pack, steps):
    with tapes.Tape() as tape:
        for _ in range(steps):
            pack._counted_step(3)
    return set(tape.outside.values())


@pytest.mark.parametrize(
    "step",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x + torch.tensor([1.0]),
        lambda x: torch.where(x > 0, 1.0, x),
        lambda x: x.bernoulli(0.5),
        lambda x: x.tolist(),
        lambda x: bool(x.any()),
    ],
    ids=["item", "mask", "nonzero", "tensor", "where", "bernoulli", "tolist", "bool"],
)
def test_the_tape_refuses_what_a_capture_does(step):
    with pytest.raises(tapes.Forbidden), tapes.Tape():
        step(torch.ones(3))


def test_a_step_by_the_host_s_means_is_refused(program):
    """The masks of the host's generators, which a recording would draw once and for all."""
    pack = program(*LANES, build=dropping, counted=True)
    pack._runner.run = lambda *_, **__: None
    pack.train_epoch()
    draws = pack.network.dropout
    counter, draws.counter = draws.counter, None
    draws.generators = [torch.Generator() for _ in range(3)]
    chosen = pack.data.train[:4]
    x, form = pack._passes.inputs.shared(chosen)
    with pytest.raises(tapes.Forbidden, match="bernoulli"), tapes.Tape():
        pack.network(x, form, training=True)
    draws.counter = counter
    with tapes.Tape():
        pack.network(x, form, training=True)


# Lanes that come and go


def test_a_lane_s_place_is_taken_again_without_another_recording(program, make_settings):
    """Other rates, normalization, dropout, losses, clipping and averaging are numbers on the device."""
    recorder = tapes.TapeRecorder()
    build = dropping
    lanes = [c | {"dropout": 0.2} for c in LANES]
    eager, played = (program(*lanes, build=build, counted=True, recorder=r) for r in (None, recorder))
    recipe = make_settings(
        batch=3,
        epochs=9,
        lr=0.03,
        norm="none",
        dropout=0.5,
        label_smoothing=0.2,
        weight_decay=0.1,
        ema=0.5,
        **OBJECTIVE,
    )
    for pack in (eager, played):
        pack.train_epoch()
        state = pack.lane_state(0)
        fresh = LaneState(weights={n: t + 0.01 for n, t in state.weights.items()})
        pack.load_lane_state(1, Member(recipe, 0), fresh)
    for _ in range(2):
        # the second lane is an epoch behind: images of its own, hence steps of another kind
        assert eager.train_epoch() == played.train_epoch()
    assert_equal_bytes(eager, played)
    assert len(recorder.recordings) == 4
    assert not any(r.forgotten for r in recorder.recordings)
    before = len(recorder.recordings)
    last = dataclasses.replace(recipe, norm="standard", class_weight="balanced", clip_norm=0.7)
    for pack in (eager, played):
        pack.load_lane_state(2, Member(last, 4), fresh)
        pack.train_epoch()
    assert_equal_bytes(eager, played)
    assert len(recorder.recordings) == before


def test_fewer_lanes_are_recorded_anew_and_the_old_recordings_given_back(program):
    recorder = tapes.TapeRecorder()
    eager, played = (program(*LANES, build=dropping, counted=True, recorder=r) for r in (None, recorder))
    for pack in (eager, played):
        pack.train_epoch()
        pack.compact([2, 0])
    assert all(r.forgotten for r in recorder.recordings)
    for _ in range(2):
        assert eager.train_epoch() == played.train_epoch()
    assert_equal_bytes(eager, played)
    assert [r.forgotten for r in recorder.recordings] == [True, True, False, False]
    played.close()
    assert all(r.forgotten for r in recorder.recordings)


@pytest.mark.parametrize(
    "change",
    [
        {"weight_decay": 0.1},
        {"label_smoothing": 0.1},
        {"dropout": 0.5},
        {"norm": "none"},
        {"nesterov": True},
        {"ema": 0.9},
        {"loss": "focal"},
        {"class_weight": "balanced"},
        {"clip_norm": 0.5},
        {"clip_value": 0.02},
    ],
    ids=lambda c: next(iter(c)),
)
def test_a_lane_that_needs_other_operations_has_them_recorded(program, make_settings, change):
    """Where no lane had such a setting, the recorded step leaves it out."""
    recorder = tapes.TapeRecorder()
    common = {"batch": 3, "epochs": 9, "dropout": 0.0, "optimizer": "sgd", "momentum": 0.9}
    lanes = [common] * 2
    eager, played = (program(*lanes, build=dropping, counted=True, recorder=r) for r in (None, recorder))
    recipe = make_settings(**common | change)
    for pack in (eager, played):
        pack.train_epoch()
        pack.load_lane_state(1, Member(recipe, 0), pack.lane_state(1))
        pack.train_epoch()
    assert_equal_bytes(eager, played)
    assert [r.forgotten for r in recorder.recordings] == [True, True, False, False]


# What goes wrong


class InvalidValue(tapes.TapeRecorder):
    """Its recordings do nothing."""

    def capture(self, work):
        recording = super().capture(work)
        recording.replay = lambda: None
        return recording


class Refuses(tapes.TapeRecorder):
    """Raises in the midst of the work."""

    def capture(self, work):
        work()
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")


@pytest.mark.parametrize("make", [InvalidValue, Refuses])
def test_a_recording_that_fails_or_errs_changes_nothing_but_a_line_in_the_log(program, make, caplog):
    recorder = make()
    eager, played = (program(*LANES, build=dropping, counted=True, recorder=r) for r in (None, recorder))
    with caplog.at_level(logging.WARNING, "gridsearch"):
        for _ in range(2):
            assert eager.train_epoch() == played.train_epoch()
    assert_equal_bytes(eager, played)
    assert len(caplog.records) == 1
    assert "no CUDA graph for this pack, its steps run one by one: " in caplog.text
    assert played._runner.replayed == 0


def test_a_lane_that_diverges_is_named_with_its_step_and_spoils_no_other(program):
    lanes = [{"optimizer": "sgd", "lr": lr} for lr in (0.01, 1e30, 0.02)]
    host, played = (
        program(*lanes, counted=False),
        program(*lanes, counted=True, recorder=tapes.TapeRecorder()),
    )
    ours, theirs = played.train_epoch(), host.train_epoch()
    assert str(ours[1]) == str(theirs[1])
    for slot in (0, 2):
        assert ours[slot].loss == pytest.approx(theirs[slot].loss, rel=1e-4)


def test_stop_is_asked_before_each_step_also_of_a_recording(program):
    asked = []
    pack = program(*LANES, counted=True, recorder=tapes.TapeRecorder())
    for _ in range(2):
        pack.train_epoch(lambda: asked.append(1))
    assert len(asked) >= 2 * 17 - 11  # steps that are taken while they are recorded are not asked for

    def leave():
        raise Stopped

    with pytest.raises(Stopped):
        pack.train_epoch(leave)


def test_short_trials_are_not_recorded(program):
    recorder = tapes.TapeRecorder()
    pack = program(*[c | {"epochs": 1} for c in LANES], counted=True, recorder=recorder)
    pack.train_epoch()
    assert [len(t.calls) > 0 for t in recorder.tapes] == [True]  # one step at a time pays, ten do not
