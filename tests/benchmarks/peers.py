"""Side by side: the same 16 trials by a published script's loop, by other libraries, and by this program.

``python -m tests.benchmarks.peers [--epochs N] [--subset N] [--repeats N] [--only NAME ...] [--continue]``

Every peer is a process of its own that does the whole grid of `peer_loops` on 2 cores; its wall time counts from
start to end, start-up included and also shown apart.  The order is turned round with every repeat.  Beside each
time stand the accuracies and the steps, and a peer that made fewer steps or ranked on fewer images than the grid
asks for is an error.  Repeats take long: with `--continue` more are added to a result file of the same work, machine and
versions.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.benchmarks import program
from tests.benchmarks.arithmetic import matrix_rates, training_flops
from tests.benchmarks.measure import RESULTS, Spread, hardware, write
from tests.benchmarks.peer_loops import BATCHES, NORMS, RATES, Outcome, Point, Work, points

ROOT = Path(__file__).parents[2]
CORES = 2
RATES_A_RUN = 6  # before every peer's, since a machine's pace changes within minutes
"""Matrix products timed before each repeat, in each process."""

OPTIONAL = ("jax",)
"""Peers that are passed over where their library is not installed."""

OURS = {"gridsearch": (), "gridsearch-no-report": ("--no-report",)}
PEERS = {
    "script": "DataLoader loop, one process, default threads",
    "optuna": "Optuna GridSampler, that loop, 2 processes",
    "ray": "Ray Tune grid_search, that loop, 2 trials at a time",
    "skorch": "skorch in GridSearchCV, n_jobs=2 (validates once, at the end)",
    "resident": "resident plain loop, channels_last, 2 processes x 1 thread",
    "jax": "JAX vmap by hand, an epoch a scan, 2 processes x 1 thread",
    "gridsearch-no-report": "gridsearch run --no-report",
    "gridsearch": "gridsearch run, with its report",
}
LIBRARIES = {
    "script": ("torch", "torchvision"),
    "optuna": ("optuna", "torch"),
    "ray": ("ray", "torch"),
    "skorch": ("skorch", "scikit-learn", "torch"),
    "resident": ("torch",),
    "jax": ("jax", "jaxlib"),
    "gridsearch-no-report": ("gridsearch", "torch"),
    "gridsearch": ("gridsearch", "torch"),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of one peer.

    Attributes:
        wall: seconds from start to end; `before` those to the first trial's start, `after` those from the last one's end.
        trials: how many it trained, with `steps` and `validated` images in all.
        accuracies: validation accuracy by point (a point that was trained twice counts once).
    """

    wall: float
    before: float
    after: float
    trials: int
    steps: int
    validated: int
    accuracies: dict[str, float]

    @classmethod
    def of(cls, started: float, wall: float, outcomes: list[Outcome]) -> Measured:
        began = min(outcome.began for outcome in outcomes)
        ended = max(outcome.ended for outcome in outcomes)
        found = {outcome.point: round(outcome.val_accuracy, 4) for outcome in outcomes}
        return cls(
            wall=wall,
            before=began - started,
            after=started + wall - ended,
            trials=len(outcomes),
            steps=sum(outcome.steps for outcome in outcomes),
            validated=sum(outcome.validated for outcome in outcomes),
            accuracies={f"batch={p.batch} lr={p.lr} norm={p.norm}": found[p] for p in points()},
        )

    @property
    def training(self) -> float:
        """Seconds from the first trial's start to the last one's end."""
        return self.wall - self.before - self.after


def measure(peer: str, *, epochs: int, subset: int | None) -> Measured:
    """Run one peer once."""
    with tempfile.TemporaryDirectory(prefix="peers") as folder:
        if peer in OURS:
            return _ours(OURS[peer], folder, epochs=epochs, subset=subset)
        return _other(peer, Path(folder), epochs=epochs, subset=subset)


def _other(peer: str, folder: Path, *, epochs: int, subset: int | None) -> Measured:
    words = [peer, str(folder), "--epochs", str(epochs)] + (["--subset", str(subset)] if subset else [])
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0"}
    log = folder / "log"
    with log.open("w") as output:
        started, clock = time.time(), time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", "from tests.benchmarks.peer_programs import main; main()", *words],
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
        wall = time.perf_counter() - clock
    if done.returncode:
        raise RuntimeError(f"{peer}: exit code {done.returncode}\n" + log.read_text()[-3000:])
    outcomes = Outcome.read_all(folder)
    check(peer, outcomes, epochs=epochs, subset=subset)
    return Measured.of(started, wall, outcomes)


def _ours(words: tuple[str, ...], home: str, *, epochs: int, subset: int | None) -> Measured:
    """Run this program in a fresh home; measured speeds stay in the cache, as they do for a user's next study.

    A trial begins when it is claimed for a pack.
    """
    grid = [
        "batch=" + ",".join(map(str, BATCHES)),
        "lr=" + ",".join(map(str, RATES)),
        "norm=" + ",".join(NORMS),
    ]
    size = ("--subset", str(subset)) if subset else ()
    started = time.time()
    done = program.run(
        "run", "--grid", *grid, "--epochs", str(epochs), "--workers", str(CORES), *size, *words, home=home
    )
    work = Work.load(epochs=epochs, subset=subset)
    times = _times(Path(home) / "gridsearch.db")
    outcomes = []
    for trial in done.result["trials"]:
        assert trial["state"] == "complete", trial
        assert trial["epochs"] == epochs
        point = Point(**{name: trial["params"][name] for name in ("batch", "lr", "norm")})
        began, ended = times[trial["number"]]
        outcomes.append(
            Outcome(
                point=point,
                began=began,
                ended=ended,
                steps=work.steps(point),  # it says its epochs, and its tests say that an epoch is every step
                validated=epochs * len(work.split.val),
                train_accuracy=trial["train_accuracy"],
                val_accuracy=trial["val_accuracy"],
            )
        )
    check("gridsearch", outcomes, epochs=epochs, subset=subset)
    return Measured.of(started, done.wall, outcomes)


def _times(store: Path) -> dict[int, tuple[float, float]]:
    """When each trial began and ended, in seconds since 1970, from Optuna's table in the store."""
    connection = sqlite3.connect(store)
    try:
        rows = connection.execute("SELECT number, datetime_start, datetime_complete FROM trials").fetchall()
    finally:
        connection.close()

    def seconds(text: str) -> float:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()

    return {number: (seconds(start), seconds(end)) for number, start, end in rows}


def check(peer: str, outcomes: list[Outcome], *, epochs: int, subset: int | None) -> None:
    """Refuse a run that did less than the grid asks for."""
    work = Work.load(epochs=epochs, subset=subset)
    assert {outcome.point for outcome in outcomes} == set(points()), f"{peer}: not the whole grid"
    for outcome in outcomes:
        assert outcome.steps == work.steps(outcome.point), f"{peer}: {outcome} made other steps"
        assert outcome.validated % len(work.split.val) == 0, f"{peer}: {outcome} ranked on other images"
        assert outcome.validated > 0, f"{peer}: {outcome} was not validated"


def figures_of(peer: str, runs: list[Measured]) -> dict[str, Any]:
    """What is written of one peer."""
    accuracies = [list(run.accuracies.values()) for run in runs]
    return {
        "what": PEERS[peer],
        "versions": versions_of(peer),
        "seconds": Spread.of([run.wall for run in runs], "s"),
        "before the first step": Spread.of([run.before for run in runs], "s"),
        "after the last trial": Spread.of([run.after for run in runs], "s"),
        "mean validation accuracy": statistics.mean(map(statistics.mean, accuracies)),
        "best validation accuracy": statistics.mean(map(max, accuracies)),
        "runs": [asdict(run) for run in runs],
    }


def earlier(
    name: str, work: dict[str, Any], names: list[str]
) -> tuple[dict[str, list[Measured]], list[list[float]]]:
    """Return what a result file has of the same work, by peer, and the matrix rates that were measured with it.

    Raises:
        SystemExit: it is of other work, of another machine or of other versions.
    """
    content = json.loads((RESULTS / f"{name}.json").read_text())
    then, machine, figures = content["hardware"], hardware(), content["figures"]
    for what, before, now in [
        ("work", {key: figures.get(key) for key in work}, work),
        ("machine", *([here.get(key) for key in ("cpu", "model", "cores")] for here in (then, machine))),
        *(("versions", figures[peer]["versions"], versions_of(peer)) for peer in names if peer in figures),
    ]:
        if before != now:
            raise SystemExit(f"{name}.json is of another {what}: {before}, not {now}")
    runs = {peer: [Measured(**run) for run in figures.get(peer, {}).get("runs", [])] for peer in names}
    return runs, [figures["rates"]["alone"], figures["rates"]["together"]]


def versions_of(peer: str) -> dict[str, str]:
    """Return the versions of what a peer stands on."""
    return {name: version(name) for name in LIBRARIES[peer]}


def ratios(runs: dict[str, list[Measured]]) -> dict[str, Spread]:
    """How many times as long as ours each peer took, repeat by repeat."""
    found = {}
    for ours in OURS:
        for peer, others in runs.items():
            pairs = list(zip(others, runs.get(ours, []), strict=False))
            if peer not in OURS and pairs:
                found[f"{peer} / {ours}"] = Spread.of([a.wall / b.wall for a, b in pairs], "x")
    return found


def share(
    runs: dict[str, list[Measured]], *, epochs: int, subset: int | None, rates: dict[str, float]
) -> dict[str, Any]:
    """The share of the machine's matrix rate that our runs reached, training FLOPs alone counted.

    Args:
        runs: what was measured.
        epochs: of each trial.
        subset: images to train on; None for all.
        rates: what a core gives in GFLOP/s, by how that was measured.
    """
    work = Work.load(epochs=epochs, subset=subset)
    per_image = training_flops()
    total = per_image * len(work.split.train) * epochs * len(points())
    found: dict[str, Any] = {
        "training FLOPs an image (torch.utils.flop_counter)": per_image,
        "training FLOPs in all": total,
    }
    for ours in OURS:
        measured = runs.get(ours, [])
        for name, rate in rates.items() if measured else ():
            attainable = rate * 1e9 * CORES
            found[f"{name}, over the whole wall time: {ours}"] = Spread.of(
                [100 * total / (run.wall * attainable) for run in measured], "%"
            )
            found[f"{name}, while training and validating: {ours}"] = Spread.of(
                [100 * total / (run.training * attainable) for run in measured], "%"
            )
    return found


def table(runs: dict[str, list[Measured]]) -> str:
    """The peers as lines of a table, the slowest first."""
    lines = ["peer                   seconds (least to most)    start-up   mean val   best val   steps"]
    slowest = sorted((peer for peer in runs if runs[peer]), key=lambda peer: -_median(runs[peer]))
    for peer in slowest:
        f = figures_of(peer, runs[peer])
        seconds = f["seconds"]
        time_text = f"{seconds.median:8.1f} ({seconds.least:.1f} to {seconds.most:.1f})"
        start = f["before the first step"].median
        mean, best = f["mean validation accuracy"], f["best validation accuracy"]
        steps = runs[peer][-1].steps
        lines.append(f"{peer:<22} {time_text:<26} {start:6.1f} s   {mean:8.2%}   {best:8.2%}   {steps}")
    return "\n".join(lines)


def _median(measured: list[Measured]) -> float:
    return statistics.median(run.wall for run in measured)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peers")
    parser.add_argument("--epochs", type=int, default=5, help="of each trial (default: 5)")
    parser.add_argument("--subset", type=int, help="train on so many images (default: all)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each peer (default: 3)")
    parser.add_argument("--only", nargs="+", choices=list(PEERS), metavar="NAME", help=", ".join(PEERS))
    parser.add_argument("--name", default="peers", help="of the result (default: peers)")
    parser.add_argument("--continue", dest="goes_on", action="store_true", help="add to what its file has")
    words = parser.parse_args(arguments)
    size: dict[str, Any] = {"epochs": words.epochs, "subset": words.subset}
    work = {
        "work": f"LeNet on Fashion-MNIST, {len(points())} trials, Adam",
        "epochs": words.epochs,
        "images to train on": words.subset or "all of the training split",
        "cores": CORES,
    }
    names = [peer for peer in PEERS if words.only is None or peer in words.only]
    for peer in [name for name in names if name in OPTIONAL and find_spec(name) is None]:
        print(f"{peer} is passed over: {peer} is not installed", file=sys.stderr)
        names.remove(peer)
    runs: dict[str, list[Measured]] = {peer: [] for peer in PEERS}
    failed: dict[str, str] = {}
    alone: list[float] = []
    together: list[float] = []
    if words.goes_on:
        runs, (alone, together) = earlier(words.name, work, list(PEERS))
    first = max(map(len, runs.values()))
    for repeat in range(first, first + words.repeats):
        for peer in names if repeat % 2 == 0 else reversed(names):
            if peer in failed:
                continue
            alone += matrix_rates(RATES_A_RUN)
            together += matrix_rates(RATES_A_RUN, processes=CORES)
            try:
                measured = measure(peer, **size)
            except (RuntimeError, OSError, AssertionError) as error:
                failed[peer] = str(error)
                print(f"{peer} failed: {error}", file=sys.stderr)
                continue
            runs[peer].append(measured)
            print(f"repeat {repeat + 1}: {peer} {measured.wall:.1f} s", file=sys.stderr)
        write(  # after every repeat: a run of hours that is stopped leaves what it has measured
            words.name,
            {
                **work,
                "fp32 matrix rate of one thread": Spread.of(alone, "GFLOP/s"),
                f"the same, {CORES} processes at once, each": Spread.of(together, "GFLOP/s"),
                **{peer: figures_of(peer, runs[peer]) for peer in PEERS if runs[peer]},
                **ratios(runs),
                **share(
                    runs,
                    **size,
                    rates={
                        f"share of what {CORES} cores do at once": statistics.median(together),
                        f"share of {CORES} times what one core does alone": statistics.median(alone),
                    },
                ),
                "rates": {"alone": [round(x, 1) for x in alone], "together": [round(x, 1) for x in together]},
                **({"failed": failed} if failed else {}),
            },
        )
    print(
        f"fp32 matrices: {Spread.of(alone, 'GFLOP/s')} in one process, {Spread.of(together, 'GFLOP/s')} in each of {CORES}"
    )
    print(table(runs))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
