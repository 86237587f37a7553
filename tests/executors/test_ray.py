"""The same grid on a Ray cluster: nodes come, go and are killed, share no folder, and the study is as on one machine."""

from __future__ import annotations

import socket
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gridsearch.executors import ray as cluster
from gridsearch.executors import ray_workers
from tests.executors.worker_events import wait_for
from tests.servers.ray_cluster import ray_cluster

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("ray_cluster"),  # begun first: Ray reads its environment when it is imported
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves its own pipes open
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
]
_ = ray_cluster  # the fixture

MODEL = """
    import os, time
    from parts import layer
    from torch import nn

    class Net(nn.Module):
        def __init__(self, in_channels, num_classes, image_size):
            super().__init__()
            os.write(1, b"built on a node\\n")
            self.net = layer(64, num_classes)
            self.calls = 0
        def forward(self, x):
            time.sleep(0.05)
            return self.net(x)
"""
PARTS = """
    from torch import nn

    def layer(inputs, outputs):
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs))
"""
GRID = (
    *("run", "--dataset", "digits", "--model", "net.py:Net", "--grid", "lr=1e-3..1e-1:6log", "--epochs", "3"),
    *("--set", "batch=100", "--lanes", "1", "--checkpoint", "every-epoch", "--no-report", "--study", "grid"),
    "--json",
)


@pytest.fixture(autouse=True)
def own_files(tmp_path):
    (tmp_path / "net.py").write_text(textwrap.dedent(MODEL))
    (tmp_path / "parts.py").write_text(textwrap.dedent(PARTS))


def come_and_go(nodes, home: Path) -> None:
    """Add a node once the run waits for one, two more when a trial has a checkpoint, and kill the first at once."""
    wait_for((home / "gridsearch.db").exists, 300)
    nodes.add()
    wait_for(lambda: any(home.rglob("checkpoint-*")), 300)
    nodes.add(2)
    nodes.kill()


@pytest.mark.parametrize(
    ("address", "code", "words"),
    [
        ("127.0.0.1:1", 75, "no Ray cluster at 127.0.0.1:1: Connection refused"),
        ("ray://127.0.0.1:10001", 2, "is not HOST:PORT; ray:// and http:// are for"),
        ("somewhere", 2, "RAY_ADDRESS=somewhere is not HOST:PORT"),
    ],
)
def test_a_wrong_or_unreachable_address_is_one_line(cli, monkeypatch, address, code, words):
    monkeypatch.setenv("RAY_ADDRESS", address)
    done = cli(*GRID, "--executor", "ray")
    assert done.code == code
    assert words in done.err
    assert len(done.err.strip().splitlines()) <= 2
    assert not Path("runs").exists()


def test_what_listens_and_is_no_cluster_is_told_soon(cli, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{other.getsockname()[1]}")
        monkeypatch.setattr(cluster, "_ANSWER_SECONDS", 3.0)
        done = cli(*GRID, "--executor", "ray")
    assert done.code == 75
    assert "does not answer as a Ray cluster" in done.err


def test_without_the_package_one_line_says_how_to_get_it(cli, monkeypatch):
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda _: None)
    done = cli(*GRID, "--executor", "ray")
    assert done.code == 2
    assert "pip install 'gridsearch[ray]'" in done.err


def test_a_cluster_that_gives_no_worker_ends_the_run_in_the_stated_time(cli, ray_cluster, monkeypatch):
    monkeypatch.setattr(ray_workers, "_SAY_SECONDS", 0.0)
    monkeypatch.setattr(ray_workers, "PATIENCE", 1.0)
    done = cli(*GRID, "--executor", "ray")
    assert done.code == 75
    assert (
        "waiting for the Ray cluster: each worker needs 1 CPU, and the nodes that are there have 0"
        in done.err
    )
    assert "has given no worker" in done.err.strip().splitlines()[-2]


def test_nodes_come_late_and_one_is_killed_and_the_study_is_as_on_this_machine(
    cli, ray_cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr(ray_workers, "_SAY_SECONDS", 0.0)
    monkeypatch.setattr(ray_workers, "PATIENCE", 300.0)
    monkeypatch.setattr(cluster, "_ANSWER_SECONDS", 300.0)
    home = tmp_path / "far"
    with ThreadPoolExecutor() as meanwhile:
        changes = meanwhile.submit(come_and_go, ray_cluster, home)
        far = cli(*GRID, "--executor", "ray", "--home", str(home))
        changes.result()
    assert far.code == 0, far.err
    assert len(ray_cluster.nodes) == 2
    assert "waiting for the Ray cluster" in far.err
    assert "died (node" in far.err
    (tmp_path / "near.py").write_text(textwrap.dedent(MODEL).replace("time.sleep(0.05)", "pass"))
    near = cli(*GRID, "--model", "near.py:Net", "--executor", "inline", "--home", str(tmp_path / "near"))
    assert near.code == 0, near.err
    results = [{trial["params"]["lr"]: trial["value"] for trial in run.json["trials"]} for run in (far, near)]
    assert len(far.json["trials"]) == 6
    assert results[0] == results[1]
    for trial in (home / "grid" / "trials").iterdir():
        assert "built on a node" in (trial / "log").read_text()
        assert (trial / "predictions.safetensors").stat().st_size > 0
    found = cli("best", "--study", "grid", "--model", "net.py:Net", "--executor", "ray", "--home", str(home))
    assert found.code == 0, found.err
    assert (home / "grid" / "best" / "model.safetensors").stat().st_size > 0
