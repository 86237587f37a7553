"""How the program grows: trials per second over `--lanes`; wall time and a worker's memory over the trials.

``python -m tests.benchmarks.growth [--subset N] [--epochs N] [--batch N] [--repeats N]``

Each run is a fresh home with a LeNet on a part of Fashion-MNIST and 2 workers; the trials differ in their learning
rate, so that any of them can share a pack.  Lanes are turned round with every repeat.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

from tests.benchmarks import program
from tests.benchmarks.measure import Spread, write
from tests.benchmarks.readme import torch_alone

LANES = (1, 2, 4, 8, 16, 32)
TRIALS = (4, 16, 64)
WORKERS = 2
SHARED = 64
"""Trials of the runs that vary the lanes: two packs of the widest."""


def once(trials: int, *, lanes: int | None, words: argparse.Namespace) -> program.Run:
    """Run so many trials once; no more lanes than given, as many as the program likes without."""
    at_most = ("--lanes", str(lanes)) if lanes else ()
    with tempfile.TemporaryDirectory(prefix="growth") as home:
        done = program.run(
            "run",
            *("--grid", f"lr=1e-4..1e-2:{trials}log"),
            *("--set", f"batch={words.batch}"),
            *("--epochs", str(words.epochs)),
            *("--subset", str(words.subset)),
            *("--workers", str(WORKERS), "--no-report"),
            *at_most,
            home=home,
        )
    assert done.result["counts"]["complete"] == trials, done.result["counts"]
    return done


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.growth")
    parser.add_argument("--subset", type=int, default=2000, help="images to train on (default: 2000)")
    parser.add_argument("--epochs", type=int, default=2, help="of each trial (default: 2)")
    parser.add_argument("--batch", type=int, default=10, help="of all trials (default: 10)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--lanes", type=int, nargs="+", default=list(LANES), metavar="K")
    parser.add_argument("--trials", type=int, nargs="+", default=list(TRIALS), metavar="N")
    parser.add_argument(
        "--shared", type=int, default=SHARED, help=f"trials while lanes vary (default: {SHARED})"
    )
    parser.add_argument("--name", default="growth", help="of the result (default: growth)")
    words = parser.parse_args(arguments)
    by_lanes: dict[int, list[program.Run]] = {lanes: [] for lanes in words.lanes}
    by_trials: dict[int, list[program.Run]] = {trials: [] for trials in words.trials}
    for repeat in range(words.repeats):
        turn = 1 if repeat % 2 == 0 else -1
        for lanes in words.lanes[::turn]:
            by_lanes[lanes].append(once(words.shared, lanes=lanes, words=words))
        for trials in words.trials[::turn]:
            by_trials[trials].append(once(trials, lanes=None, words=words))
    figures: dict[str, Any] = {
        "work": f"LeNet on {words.subset} images of Fashion-MNIST, batch {words.batch}, {words.epochs} epochs",
        "workers": WORKERS,
        "trials while lanes vary": words.shared,
        "torch alone": f"{torch_alone():.0f} MB",
    }
    for lanes, runs in by_lanes.items():
        figures[f"lanes {lanes}: trials per second"] = Spread.of(
            [words.shared / run.wall for run in runs], "/s"
        )
        figures[f"lanes {lanes}: a worker's memory"] = Spread.of([run.memory for run in runs], "MB")
    for trials, runs in by_trials.items():
        figures[f"{trials} trials: wall"] = Spread.of([run.wall for run in runs], "s")
        figures[f"{trials} trials: a worker's memory"] = Spread.of([run.memory for run in runs], "MB")
    write(words.name, figures)


if __name__ == "__main__":
    main()
