"""The program as a user starts it, for the benchmarks: wall time, workers' memory, the result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the program: wall seconds, the most resident megabytes of one worker, what it printed."""

    wall: float
    memory: float
    result: dict[str, Any]


class _Watch(threading.Thread):
    """Watches the peaks of the resident memory of a process's workers."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(pid)
        self.most = 0.0

    def run(self) -> None:
        while self._process.is_running():
            try:
                for child in self._process.children(recursive=True):
                    self.most = max(self.most, _peak(child))
            except (psutil.Error, OSError):
                pass
            time.sleep(0.2)


def _peak(process: psutil.Process) -> float:
    """Return the most megabytes that a process has had: where the kernel does not count them, what it has now."""
    if not sys.platform.startswith("linux"):
        return float(process.memory_info().rss / 1e6)
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:"))


def run(*words: str, home: str, **variables: str) -> Run:
    """Run a command that takes `--json`, in a home of its own; a failure stops the benchmark.

    Args:
        words: the command's.
        home: the home.
        variables: of the environment.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "gridsearch", *words, "--json", "-q"],
        env={**os.environ, "GRIDSEARCH_HOME": home, **variables},
        stdout=subprocess.PIPE,
    )
    watch = _Watch(process.pid)
    watch.start()
    out, _ = process.communicate()
    wall = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError(f"gridsearch {' '.join(words)}: exit code {process.returncode}")
    return Run(wall, watch.most, json.loads(out))
