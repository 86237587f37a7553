"""What it costs a run when people look on: dashboard and TensorBoard open and asked every second, status --watch.

Pairs of the same run on digits, looked at and not, in alternating order; servers are up before the run begins.
Beside the ratio of the wall times, which other work on the machine blurs, stands the processor time that the
lookers-on took: on a machine whose cores are all training it is what the run can lose.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tests.benchmarks.measure import Spread, write

if TYPE_CHECKING:
    from collections.abc import Iterator

GRID = ("lr=.1,.03,.01,.003", "batch=16,32", "norm=none,standard")
EVERY = 1.0
"""Seconds between two rounds of questions."""
DASHBOARD = ("/api/studies", "/api/studies/1?after=0", "/api/studies/1/param_importances")
TENSORBOARD = (
    "/data/runs",
    "/data/plugin/scalars/tags",
    "/data/plugin/images/tags",
    "/experiment/defaultExperimentId/data/plugin/timeseries/tags",
)


@dataclass
class Looked:
    """What looking on cost and found."""

    processor_seconds: float = 0.0
    questions: int = 0
    problems: list[str] = field(default_factory=list)


def program(*words: str) -> list[str]:
    return [sys.executable, "-m", "gridsearch", *words]


def run(study: str, epochs: int) -> float:
    """Run the grid and return its seconds; anything but a whole, clean study ends the benchmark."""
    words = ("run", "--study", study, "--dataset", "digits", "--model", "lenet", "--epochs", str(epochs))
    how = ("--workers", "2", "--lanes", "4", "--no-report", "--json")
    done = subprocess.run(program(*words, "--grid", *GRID, *how), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "lock" not in done.stderr, done.stderr
    content = json.loads(done.stdout)
    assert content["counts"]["complete"] == 16, content["counts"]
    assert all(trial["epochs"] == epochs for trial in content["trials"])
    return float(content["seconds"])


def begin(*words: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        program(*words, "--port", "0"), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    while not (found := re.search(r"http://[\d.:]+", line := process.stderr.readline())):
        assert line, f"{words} ended"
    return process, found[0]


@contextmanager
def looking() -> Iterator[Looked]:
    """Keep both servers open and ask them, and watch the status in a third process."""
    looked, stop = Looked(), threading.Event()
    dashboard, dashboard_url = begin("dashboard")
    tensorboard, tensorboard_url = begin("tensorboard")
    watch = subprocess.Popen(program("status", "--watch", "--json"), stdout=subprocess.DEVNULL)
    processes = (dashboard, tensorboard, watch)
    urls = [dashboard_url + path for path in DASHBOARD] + [tensorboard_url + path for path in TENSORBOARD]

    def ask() -> None:
        while not stop.wait(EVERY):
            for url in urls:
                try:
                    with urllib.request.urlopen(url, timeout=30) as answer:
                        answer.read()
                    looked.questions += 1
                except OSError as error:
                    looked.problems.append(f"{url}: {error}")

    asker = threading.Thread(target=ask)
    asker.start()
    time.sleep(4)  # all have started, and asked each other's caches once
    before = [used(process) for process in processes]
    try:
        yield looked
        looked.processor_seconds = sum(used(p) - b for p, b in zip(processes, before, strict=True))
        assert watch.poll() is None
    finally:
        stop.set()
        asker.join()
        for process in processes:
            process.terminate()
            process.wait()


def used(process: subprocess.Popen[str]) -> float:
    """Processor seconds of a process and those that it started."""
    own = psutil.Process(process.pid)
    return sum(p.cpu_times().user + p.cpu_times().system for p in (own, *own.children(recursive=True)))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.polling", description=__doc__)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args(arguments)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ratios, alone, watched, shares = [], [], [], []
    questions = 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "GRIDSEARCH_HOME": str(Path(folder) / "home"),
            "GRIDSEARCH_CACHE": str(Path(folder) / "cache"),
        }
        run("first", 1)  # there is a store to look at, and the packs' sizes are known
        for pair in range(options.pairs):
            seconds = {}
            for look in (False, True) if pair % 2 == 0 else (True, False):
                if not look:
                    seconds[look] = run(f"alone{pair}", options.epochs)
                    continue
                with looking() as looked:
                    seconds[look] = run(f"watched{pair}", options.epochs)
                assert not looked.problems, looked.problems
                questions += looked.questions
                shares.append(looked.processor_seconds / (cores * seconds[look]))
            alone.append(seconds[False])
            watched.append(seconds[True])
            ratios.append(seconds[True] / seconds[False])
            print(
                f"pair {pair}: {seconds[False]:.1f} s alone, {seconds[True]:.1f} s looked at, "
                f"{100 * shares[-1]:.1f} % of the processor",
                flush=True,
            )
    figures = {
        "alone": Spread.of(alone, "s"),
        "looked_at": Spread.of(watched, "s"),
        "ratio": Spread.of(ratios, "times"),
        "processor_share": Spread.of(shares, "of all cores"),
    }
    for name, figure in figures.items():
        print(f"{name}: {figure}")
    print(f"loss of speed: {100 * (statistics.median(ratios) - 1):.1f} %; {questions} questions, no error")
    write(
        "polling",
        {
            "trials": 16,
            "epochs": options.epochs,
            "every_seconds": EVERY,
            "questions": questions,
            "errors": 0,
            **figures,
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
