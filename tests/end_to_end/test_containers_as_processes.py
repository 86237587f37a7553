"""What the containers run, run as plain processes: each service's command, and the check of its health."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).parents[2]
SERVICES = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
WORKERS = yaml.safe_load((ROOT / "docker" / "compose.workers.yaml").read_text())["services"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def on_this_machine(words: list[str], port: str, free: int) -> list[str]:
    """The words of a container's command, with this interpreter and a port that is free here."""
    words = [word.replace(f":{port}/", f":{free}/") for word in words]
    words = [str(free) if word == port else word for word in words]
    programs = {"gridsearch": [sys.executable, "-m", "gridsearch"], "python": [sys.executable]}
    return [*programs.get(words[0], [words[0]]), *words[1:]]


@pytest.mark.parametrize("name", ["dashboard", "tensorboard"])
def test_a_server_becomes_healthy_and_ends_at_sigterm(cli, name):
    words = (
        "run",
        "--grid",
        "lr=.1",
        "--dataset",
        "digits",
        "--model",
        "mlp",
        "--epochs",
        "1",
        "--executor",
        "inline",
        "--no-report",
    )
    assert cli(*words, "-q").code == 0
    service = SERVICES[name]
    port = {"dashboard": "8080", "tensorboard": "6006"}[name]
    assert port in service["command"]
    free = free_port()
    server = subprocess.Popen(
        on_this_machine(["gridsearch", *service["command"]], port, free),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        check = on_this_machine(service["healthcheck"]["test"][1:], port, free)
        deadline = time.monotonic() + 60
        while subprocess.run(check, capture_output=True, check=False).returncode:
            assert server.poll() is None, server.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.5)
        server.terminate()
        assert server.wait(timeout=60) == 143
        assert "anybody who can reach this address" in server.stderr.read(), "it listens to all and says so"
    finally:
        server.kill()
        server.wait()
        server.stderr.close()


def test_the_runners_health_is_asked_before_and_after_its_first_run(program):
    service = SERVICES["runner"]
    words = service["healthcheck"]["test"]
    assert words[:2] == ["CMD", "gridsearch"]
    assert program(*words[2:]).code == 0


def test_only_home_cache_and_tmp_are_written(tmp_path, program):
    """The root of a container is read-only: a run writes below its home, its cache and the temporary folder."""
    tmp, cwd = tmp_path / "tmp", tmp_path / "home"
    tmp.mkdir()
    lines = (ROOT / "docker" / "Dockerfile").read_text()
    assert "HOME=/tmp" in lines
    assert "MPLCONFIGDIR=/tmp/matplotlib" in lines
    env = {"HOME": str(tmp), "TMPDIR": str(tmp), "MPLCONFIGDIR": str(tmp / "matplotlib")}
    before = set(tmp_path.iterdir())
    result = program(
        "run",
        "--grid",
        "lr=.1",
        "--dataset",
        "digits",
        "--model",
        "mlp",
        "--epochs",
        "1",
        "--workers",
        "1",
        env=env,
    )
    assert result.code == 0, result.err
    assert {path.name for path in set(tmp_path.iterdir()) - before} <= {"home", "cache"}
    assert {path.name for path in tmp.iterdir()} <= {"matplotlib"}
    assert (cwd / "gridsearch.db").exists()


def test_a_worker_waits_for_its_first_grid_is_healthy_and_ends_at_sigterm(program):
    service = WORKERS["worker"]
    worker = subprocess.Popen(
        [sys.executable, "-m", "gridsearch", *service["command"]], stderr=subprocess.PIPE, text=True
    )
    try:
        assert "no waiting trial" in worker.stderr.readline()
        shown = program(*service["healthcheck"]["test"][2:])
        assert shown.code == 0
        assert [each["pid"] for each in shown.json["idle"]] == [worker.pid]
        worker.terminate()
        assert worker.wait(timeout=60) == 143
    finally:
        worker.kill()
        worker.wait()
        worker.stderr.close()
