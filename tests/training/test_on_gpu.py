"""What training on a CUDA device promises; each test skips where there is none."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest
import torch

from gridsearch.records import EpochEnded, TrialState
from gridsearch.training import ResidentCache, devices, loop
from gridsearch.training.lane_optimizer import OPTIMIZERS
from gridsearch.training.lane_progress import LaneState
from gridsearch.training.lanes.runtime.cuda_graphs import EagerSteps, RecordedSteps
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.model_setup import build_network
from gridsearch.training.precision import Precision
from gridsearch.training.probe import probe
from gridsearch.training.solo_engine import SoloEngine
from gridsearch.zoo import models

HERE = torch.cuda.is_available()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not HERE, reason="needs a CUDA device")]

OBJECTIVE = {"loss": "focal", "focal_gamma": 1.5, "clip_norm": 0.5}

LANES = (
    {"lr": 0.01, "schedule": "cosine", "weight_decay": 0.01, "label_smoothing": 0.1, "norm": "none"},
    {"lr": 0.002, "warmup": 1.0, **OBJECTIVE},
    {"lr": 0.02, "schedule": "onecycle", "ema": 0.9, "class_weight": "balanced", "clip_value": 0.02},
)


@pytest.fixture(autouse=True)
def _same_bytes():
    """Choose kernels that give the same bytes each time, where torch has the choice."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    yield
    torch.backends.cudnn.deterministic = before


@pytest.fixture
def program(make_images, make_settings):
    """Make a program of lanes on the device, as graphs or one by one: 16 steps of 3 images and one of 2."""

    def make(*changes, seeds=None, build=None, size=8, graphs=True):
        recipes = [make_settings(**{"batch": 3, "epochs": 9} | c) for c in changes]
        data = ResidentCache(make_images(60, size=size), device="cuda:0")(recipes[0])
        precision = Precision.of(recipes[0].dtype, torch.device("cuda:0"))
        members = [Member(s, seed) for s, seed in zip(recipes, seeds or [0] * len(recipes), strict=True)]
        build = build or (lambda s, d: models.lenet(d.channels, d.num_classes, d.image_size))
        nets = [build_network(m.settings, m.seed, data, build, precision) for m in members]
        pack = PackProgram(members, nets, data, precision)
        if not graphs:
            pack._runner = EagerSteps(pack._counted_step, batch=3)
        return pack

    return make


def assert_equal_bytes(one, other):
    for slot in range(one.lanes):
        a, b = one.lane_state(slot), other.lane_state(slot)
        for ours, theirs in ((a.weights, b.weights), (a.averages, b.averages)):
            assert ours.keys() == theirs.keys()
            for name in ours:
                assert torch.equal(ours[name], theirs[name]), name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("seeds", [[0, 0, 0], [0, 1, 2]], ids=["one order", "orders of their own"])
def test_graphs_give_the_bytes_of_steps_one_by_one(program, optimizer, seeds):
    lanes = [c | {"optimizer": optimizer, "augment": "flip+shift"} for c in LANES]
    eager, played = (program(*lanes, seeds=seeds, size=28, graphs=g) for g in (False, True))
    for _ in range(3):
        assert eager.train_epoch() == played.train_epoch()
    assert_equal_bytes(eager, played)
    assert isinstance(played._runner, RecordedSteps)
    assert played._runner.replayed > 20


@pytest.mark.parametrize("dtype", ["float32", "tf32", "bfloat16", "float64"])
@pytest.mark.parametrize("method", ["stacked", "vmap"])
def test_every_arithmetic_is_captured(program, dtype, method):
    class Plain(torch.nn.Module):
        def __init__(self, data):
            super().__init__()
            self.fc = torch.nn.Linear(64, data.num_classes)

        def forward(self, x):
            return self.fc(x.flatten(1).cumsum(1) * 0.1)

    lanes = [{"lr": lr, "dtype": dtype} for lr in (0.001, 0.002)]
    how = {"size": 28} if method == "stacked" else {"build": lambda s, d: Plain(d)}
    pack = program(*lanes, **how)
    assert pack.network.method == method
    for _ in range(2):
        pack.train_epoch()
    assert pack._runner.replayed > 10


def test_graphs_outlive_a_lane_that_is_replaced_and_are_made_anew_for_fewer(program, make_settings, nets):
    lanes = [c | {"dropout": 0.2} for c in LANES]
    eager, played = (program(*lanes, build=nets["conv"], graphs=g) for g in (False, True))
    recipe = make_settings(
        batch=3, epochs=9, lr=0.03, dropout=0.5, label_smoothing=0.2, weight_decay=0.1, ema=0.5, **OBJECTIVE
    )
    for pack in (eager, played):
        pack.train_epoch()
        fresh = LaneState(weights={n: t.clone() for n, t in pack.lane_state(0).weights.items()})
        pack.load_lane_state(1, Member(recipe, 0), fresh)
    known = dict(played._runner._recordings)
    for _ in range(2):
        assert eager.train_epoch() == played.train_epoch()
    assert_equal_bytes(eager, played)
    assert known.items() <= played._runner._recordings.items()
    for pack in (eager, played):
        pack.compact([2, 0])
    assert not played._runner._recordings
    for _ in range(2):
        assert eager.train_epoch() == played.train_epoch()
    assert_equal_bytes(eager, played)


def test_a_closed_program_leaves_no_memory_of_its_graphs(program):
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    pack = program(*LANES, size=28)
    for _ in range(2):
        pack.train_epoch()
    assert pack._runner.replayed
    pack.close()
    del pack
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    # cuBLAS keeps a workspace for each stream
    assert torch.cuda.memory_allocated() - before < 64 << 20


def test_what_cannot_be_captured_trains_one_by_one_and_draws_afterwards(program, caplog):
    pack = program(*LANES, size=28)
    real = pack._runner._recorder.capture

    def reads(work):
        def worse():
            work()
            pack.storage.flat.sum().item()

        return real(worse)

    pack._runner._recorder.capture = reads
    totals = pack.train_epoch()
    assert all(t.images == 50 for t in totals)
    assert "no CUDA graph for this pack" in caplog.text
    torch.rand(4, device="cuda:0")
    torch.cuda.empty_cache()
    whole = program(*LANES, size=28)
    whole.train_epoch()
    assert whole._runner.replayed


def test_a_pack_gives_what_each_lane_gives_alone_in_float64(train, make_settings, nets, monkeypatch):
    trials = [(make_settings(**c, dtype="float64", epochs=3), seed) for seed, c in enumerate(LANES)]
    ours = train(*trials, build=nets["dense"], device="cuda:0")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "ENGINES", (SoloEngine(),))
        theirs = train(*trials, build=nets["dense"], device="cuda:0")
    for lane in range(3):
        for name, tensor in theirs.weights(lane).items():
            torch.testing.assert_close(ours.weights(lane)[name], tensor, rtol=1e-8, atol=1e-9)


def test_a_lone_lane_has_the_masks_it_has_among_others(train, make_settings, nets):
    trials = [(make_settings(dtype="float64", epochs=2, lr=lr), seed) for lr, seed in ((0.01, 3), (0.02, 4))]
    alone = train(trials[1], build=nets["conv"], device="cuda:0")
    among = train(*trials, build=nets["conv"], device="cuda:0")
    for name, tensor in alone.weights(0).items():
        torch.testing.assert_close(among.weights(1)[name], tensor, rtol=1e-7, atol=1e-8)


def test_a_lane_that_diverges_is_named_with_its_step_and_spoils_no_other(train, make_settings, nets):
    trials = [make_settings(optimizer="sgd", lr=lr, epochs=2) for lr in (0.01, 1e30)]
    here, there = (train(*trials, build=nets["dense"], device=d) for d in ("cpu", "cuda:0"))
    assert there.finished(1).state is TrialState.DIVERGED
    assert there.finished(1).message == here.finished(1).message
    assert [type(e) for e in there.events if e.trial == 0][:2] == [EpochEnded, EpochEnded]


def test_images_rest_on_the_device_as_bytes(make_images, make_settings):
    images = make_images(60)
    cache = ResidentCache(images, device="cuda:0")
    data = cache(make_settings())
    assert data.pixels.dtype == torch.uint8
    assert data.pixels.is_cuda
    assert data.pixels.untyped_storage().nbytes() == images.train_images.nbytes
    other = cache(dataclasses.replace(make_settings(), split_seed=1))
    assert other.pixels.data_ptr() == data.pixels.data_ptr()


@pytest.mark.parametrize("lanes", [1, 8])
def test_a_probe_says_what_a_pack_costs(make_images, make_settings, nets, lanes):
    found = probe(
        make_settings(batch=3, epochs=50),
        data=ResidentCache(make_images(60), device="cuda:0"),
        build=nets["conv"],
        device="cuda:0",
        seconds=0.3,
        lanes=lanes,
    )
    assert (found.lanes, found.method, found.device) == (lanes, "stacked", "cuda:0")
    assert 0 < found.step_seconds < 1
    assert found.memory_bytes > 0


def test_the_device_is_described():
    assert "cuda:0" in devices.resolve_device("cuda")
    assert " GB, " in devices.describe()["cuda:0"]


@pytest.mark.end_to_end
def test_a_grid_trains_on_the_device(tmp_path):
    pytest.importorskip("optuna")
    words = [
        "run",
        "--name",
        "gpu",
        "--dataset",
        "digits",
        "--epochs",
        "3",
        "--grid",
        "lr=.01,.003",
        "norm=none,standard",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "gridsearch", *words, "--device", "cuda"],
        env={**os.environ, "GRIDSEARCH_HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "no CUDA graph" not in done.stderr
