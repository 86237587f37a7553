"""What a plan says of memory, held against the workers of the run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from gridsearch.zoo.datasets import shared_images
from tests.end_to_end.held_workers import workers_of

GRID = (
    *("--dataset", "digits", "--model", "cnn3", "--set", "epochs=1", "batch=64", "--subset", "128"),
    *("--grid", "lr=.01,.001", "--workers", "1", "--lanes", "2"),
)


def peak_of_workers(*words: str) -> float:
    """Run the program and return the most megabytes that one of its workers had."""
    program = subprocess.Popen(
        [sys.executable, "-m", "gridsearch", "run", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    peaks: dict[int, float] = {}
    while program.poll() is None:
        try:
            for worker in workers_of(program):  # and not the process that forks them
                status = Path(f"/proc/{worker.pid}/status").read_text().splitlines()
                peaks[worker.pid] = next(int(s.split()[1]) / 1024 * 1.048576 for s in status if "VmHWM" in s)
        except (psutil.Error, OSError, StopIteration):
            pass
        time.sleep(0.01)  # the kernel keeps each peak until its process ends
    assert program.returncode == 0
    return max(peaks.values())


@pytest.mark.end_to_end
@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the kernel counts a process's peak on Linux"
)
def test_the_memory_of_a_worker_is_what_the_plan_said_within_a_quarter(cli, home):
    planned = cli("plan", *GRID, "--probe", "--json")
    assert planned.code == 0, planned.err
    measured = peak_of_workers(*GRID, "--home", str(home), "--no-report")
    assert planned.json["worker_mb"] == pytest.approx(measured, rel=0.25)


def test_images_that_workers_share_count_once(cli, monkeypatch):
    def plan(*more: str) -> dict:
        return json.loads(cli("plan", *GRID[:-4], "--workers", "2", "--lanes", "1", *more, "--json").out)

    apart = plan("--probe")
    monkeypatch.setattr(shared_images, "SHARED_FROM", 0)
    shared = plan()
    images = 1797 * 64 / 1e6  # a sixth of them test images, which are no array of their own
    assert apart["memory_mb"] - shared["memory_mb"] == pytest.approx(3 * images, rel=0.01)
    assert apart["worker_mb"] - shared["worker_mb"] == pytest.approx(images, rel=0.01)
    assert "images that all workers share" in cli("plan", *GRID[:-4], "--workers", "2", "--lanes", "1").out
