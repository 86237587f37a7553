"""Workers without a folder in common with the runner: files, code and images travel to them and back as bytes."""

from __future__ import annotations

import dataclasses
import shutil
import textwrap
import time
from functools import lru_cache
from pathlib import Path

import pytest

from gridsearch import plugins
from gridsearch.checkpoints import checkpoints_in
from gridsearch.errors import DataError
from gridsearch.executors.node_messages import EndWorker, FileSent, from_bytes, to_bytes
from gridsearch.executors.node_worker import NodeWorker
from gridsearch.executors.pool import WorkerPool
from gridsearch.executors.remote_channel import RemoteChannel
from gridsearch.executors.run_files import pack_run, unpack_run
from gridsearch.executors.transport import Ended
from gridsearch.records import (
    Exported,
    ExportRequest,
    ImageSettings,
    Lane,
    LanesWanted,
    LogText,
    Pack,
    PackEnded,
    Trial,
    TrialFailed,
    TrialFinished,
    TrialResumed,
    TrialState,
    Unwritable,
    WorkerDied,
    WorkerSetup,
)
from gridsearch.zoo import datasets

pytestmark = pytest.mark.end_to_end

MODEL = """
    import os, sys, pathlib
    from parts import layer

    def Net(in_channels, num_classes, image_size):
        os.write(1, b"built far away\\n")
        return layer(64, num_classes)

    def Dies(in_channels, num_classes, image_size):
        os.kill(os.getpid(), 9)
"""
PARTS = """
    from torch import nn

    def layer(inputs, outputs):
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs))
"""


class Loopback:
    """A transport whose nodes are objects of this process, each with a folder of its own."""

    def __init__(self, setups, packed, folder):
        self.setups = {setup.name: setup for setup in setups}
        self.packed, self.folder = packed, folder
        self.running = {}

    @property
    def startable(self):
        return [setup for name, setup in self.setups.items() if name not in self.running]

    def start(self, setup):
        node = NodeWorker(self.folder / setup.name, self.packed.contents.__getitem__)
        channel = RemoteChannel(setup, self.packed.files, node.take)
        self.running[setup.name] = node, channel
        return channel

    def poll(self, timeout):
        for name, (node, channel) in list(self.running.items()):
            for arrival in channel.arrived(node.poll(timeout)):
                if isinstance(arrival, Ended):
                    del self.running[name]
                yield arrival

    def close(self):
        for node, _ in self.running.values():
            node.close()
        self.running.clear()


@lru_cache
def digits():
    return datasets.load_known(datasets.open_dataset("digits"), Path("unused"), {})


class Far:
    """A pool with one worker on a node which has none of the runner's folders."""

    def __init__(self, tmp_path, **setup):
        home = tmp_path / "user" / "code"
        home.mkdir(parents=True)
        (home / "net.py").write_text(textwrap.dedent(MODEL))
        (home / "parts.py").write_text(textwrap.dedent(PARTS))
        self.models = [plugins.find(f"{home}/net.py:{name}", plugins.MODELS) for name in ("Net", "Dies")]
        self.setup = WorkerSetup(
            name="w0",
            dataset="nowhere",
            models={model.name: model.locator for model in self.models},
            data_root=str(tmp_path / "no data"),
            device="cpu",
            threads=1,
            **setup,
        )
        images, self.fingerprint = digits()
        self.packed = pack_run(self.setup, self.models, {self.fingerprint: images})
        shutil.rmtree(home)  # from here on it is in the packed run alone
        self.scratch = tmp_path / "scratch"
        self.events = []
        self.transport = Loopback([self.packed.setup], self.packed, tmp_path / "node")
        self.pool = WorkerPool(self.transport, self.take, resumable=True)

    def take(self, event):
        self.events.append(event)
        if isinstance(event, LanesWanted):
            self.pool.send_lanes(event.pack, ())

    def lane(self, number=0, *, attempt=1, model="net.py:Net", epochs=1):
        settings = ImageSettings(
            dataset="digits",
            data_fingerprint=self.fingerprint,
            model=model,
            model_source=self.models[0].source,
            epochs=epochs,
            subset=100,
            batch=50,
        )
        trial = Trial(
            id=number, number=number, key=f"k{number}", seed=0, settings=settings, params={},
            state=TrialState.RUNNING, attempt=attempt,
        )  # fmt: skip
        folder = self.scratch / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        return Lane(trial, str(folder))

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    def run(self, task, until=PackEnded, seconds=60):
        self.pool.submit(task)
        before, deadline = len(self.of(until)), time.monotonic() + seconds
        while len(self.of(until)) == before:
            self.pool.poll(0.2)
            assert time.monotonic() < deadline, self.events


@pytest.fixture
def far(tmp_path):
    made = []

    def make(**setup):
        made.append(Far(tmp_path, **setup))
        return made[-1]

    yield make
    for each in made:
        each.pool.stop()


def test_a_users_own_model_trains_far_away_and_its_files_come_back_as_they_were_announced(far):
    run = far()
    lanes = (run.lane(0), run.lane(1))
    run.run(Pack("p", lanes))
    assert not run.of(TrialFailed)
    ended = run.of(TrialFinished)
    assert {event.trial for event in ended} == {0, 1}
    for event in ended:
        assert {ref.name for ref in event.files} == {"predictions.safetensors", "weights.safetensors"}
        for ref in event.files:
            assert (run.scratch / str(event.trial) / ref.name).stat().st_size == ref.size
    assert "built far away" in "".join(event.text for event in run.of(LogText))
    request = ExportRequest(id="best", lanes=lanes, folder=str(run.scratch / "export"))
    run.run(request, until=Exported)
    assert run.of(Exported)[0].error is None
    for ref in run.of(Exported)[0].files:
        assert (run.scratch / "export" / ref.name).stat().st_size == ref.size


def test_a_checkpoint_comes_back_at_once_and_goes_along_to_the_next_worker(far):
    run = far(takes_state=True, checkpoint=0.0)
    run.run(Pack("first", (run.lane(epochs=3),)))
    assert checkpoints_in(run.scratch / "0")[0].epoch == 2
    run.transport.setups = {"w1": dataclasses.replace(run.packed.setup, name="w1")}
    run.transport.close()
    run.pool = WorkerPool(run.transport, run.take, resumable=True)
    run.run(Pack("second", (run.lane(epochs=3, attempt=2),)))
    assert [event.epoch for event in run.of(TrialResumed)] == [2]
    assert len(run.of(TrialFinished)) == 2, run.events


def test_a_worker_that_dies_far_away_is_reported_and_its_node_starts_another(far):
    run = far()
    run.run(Pack("bad", (run.lane(model="net.py:Dies"),)), until=WorkerDied)
    died = run.of(WorkerDied)[0]
    assert (died.pack, died.place_gone) == ("bad", False)
    assert "SIGKILL" in died.message
    run.run(Pack("good", (run.lane(1),)))
    assert [event.trial for event in run.of(TrialFinished)] == [1]


def test_files_that_the_runner_cannot_write_are_reported_before_the_trial_ends(far, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    run = far()
    lane = run.lane()
    monkeypatch.setattr("gridsearch.executors.remote_channel.files.write_whole", full)
    run.run(Pack("p", (lane,)))
    told = next(i for i, event in enumerate(run.events) if isinstance(event, Unwritable))
    assert "no space left" in run.events[told].message
    assert any(isinstance(event, TrialFinished) for event in run.events[told:])


def test_a_node_writes_only_files_of_the_places_that_it_was_given(tmp_path):
    sent = []
    setup = WorkerSetup(name="w0", device="cpu", threads=1)
    channel = RemoteChannel(setup, pack_run(setup, (), {}).files, sent.append)
    lane = Lane(
        Trial(
            id=1,
            number=1,
            key="k",
            seed=0,
            settings=ImageSettings(dataset="digits"),
            params={},
            state=TrialState.RUNNING,
            attempt=1,
        ),
        str(tmp_path),
    )
    channel.send(Pack("p", (lane,)))
    names = ["../outside", "/tmp/outside", ".hidden", "", "inside"]
    files = [*(FileSent("1-1", name, b"x") for name in names), FileSent("2-1", "other", b"x")]
    assert list(channel.arrived(to_bytes(files))) == []
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]
    assert not (tmp_path.parent / "outside").exists()
    channel.end()
    assert from_bytes(sent[-1]) == [EndWorker()]


def test_content_that_is_not_what_was_announced_is_refused(tmp_path):
    images, fingerprint = digits()
    setup = WorkerSetup(name="w0", device="cpu", threads=1)
    packed = pack_run(setup, (), {fingerprint: images})
    with pytest.raises(DataError, match="not what it announced"):
        unpack_run(setup, packed.files, tmp_path, lambda digest: packed.contents[digest] + b"x")
