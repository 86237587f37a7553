"""``python -m tests.benchmarks.scale_engines``: one grid on one engine after another, with a process killed in each.

What each engine trains is held against local workers: the same trials, each with one result, the same accuracies.
Every engine is a function that takes a folder of its own and the grid; `benchmarks.scale` calls them too.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gridsearch import files
from gridsearch.records import TrialState
from gridsearch.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence

    from gridsearch.store import Store

HOW = ("--workers", "1", "--lanes", "4", "--device", "cpu", "--checkpoint", "every-epoch")
"""Packs of four, settled beforehand: a trial's rounding depends on nothing else, so that engines agree exactly."""

LEASE = ("--lease", "5s")
"""So long a killed runner on another machine would keep its trials; one on this machine is noticed at once."""

Point = tuple[tuple[tuple[str, Any], ...], int]
"""The params of a trial, by name, and its seed."""


def grid(trials: int, *, epochs: int = 3) -> tuple[str, ...]:
    """The words of a grid on digits: five learning rates, and as many seeds as that takes."""
    rates, rest = 5, trials % 5
    if rest:
        raise ValueError(f"{trials} trials are not five times a whole number")
    what = ("--dataset", "digits", "--model", "mlp", "--epochs", str(epochs), "--seeds", str(trials // rates))
    return (*what, "--grid", "lr=.001..0.005:.001")


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What an engine made of a grid.

    Attributes:
        seconds: wall time, the start of the engine not included.
        accuracies: of each complete trial.
        trials: how many trials the study has.
        twice: how many points have more than one complete trial.
        again: how many trials were claimed more than once, those of the killed process among them.
        killed: what was killed in the middle, "" for nothing.
    """

    seconds: float
    accuracies: Mapping[Point, float]
    trials: int
    twice: int
    again: int
    killed: str

    def difference(self, other: Engine) -> dict[str, Any]:
        """How it differs from another engine's result of the same grid."""
        both = self.accuracies.keys() & other.accuracies.keys()
        apart = [abs(self.accuracies[p] - other.accuracies[p]) for p in both]
        return {
            "points_of_one_alone": len(self.accuracies.keys() ^ other.accuracies.keys()),
            "other_accuracies": sum(each > 0 for each in apart),
            "largest_difference": max(apart, default=0.0),
        }


class Program:
    """The command line as processes, with a home and a store of its own."""

    def __init__(self, folder: Path, store: str | None = None, **environment: str) -> None:
        self.home = folder / "home"
        own = {"GRIDSEARCH_HOME": str(self.home), "OMP_NUM_THREADS": "1", **environment}
        self.environment = {**os.environ, **own, **({"GRIDSEARCH_STORE": store} if store else {})}

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command in a group of processes of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "gridsearch", *words, "-q"],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def run(self, *words: str) -> bytes:
        """Run a command to its end."""
        process = self.start(*words)
        out, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"gridsearch {' '.join(words)}: exit code {process.returncode}")
        return out

    def results(self) -> tuple[dict[Point, float], int, int, int]:
        """The accuracies of the study on digits; trials, points with several results, trials claimed again."""
        with self.store() as store:
            trials = store.study_data("digits").trials
            again = sum(trial.attempt > 1 for trial in store.ledger("digits"))
        done = [trial for trial in trials if trial.state is TrialState.COMPLETE]
        found = {
            (tuple(sorted(trial.params.items())), trial.seed): trial.metrics["val_accuracy"] for trial in done
        }
        return found, len(trials), len(done) - len(found), again

    def store(self) -> Store:
        """The store, to look into while others write it."""
        url = self.environment.get("GRIDSEARCH_STORE", f"sqlite:///{self.home / files.DATABASE}")
        return open_store(url, home=self.home, create=False)


def executor(
    name: str, *how: str, disturb: Callable[[], str] = str, **environment: str
) -> Callable[[Path, Sequence[str]], Engine]:
    """An engine that is an executor of `gridsearch run`.

    Args:
        name: of the executor.
        how: further options.
        disturb: kills something in the middle of the run and says what; by default nothing.
        environment: variables of the run.
    """

    def engine(folder: Path, words_of_grid: Sequence[str]) -> Engine:
        program = Program(folder, **environment)
        program.run("add", *words_of_grid)
        began = time.perf_counter()
        run = program.start("run", *words_of_grid, *HOW, "--executor", name, "--no-report", *how)
        try:
            _wait_for_the_middle(program)
            killed = disturb()
            if run.wait():
                raise RuntimeError(f"--executor {name}: exit code {run.returncode}")
        finally:
            _kill(run)
        seconds = time.perf_counter() - began
        accuracies, trials, twice, again = program.results()
        return Engine(
            seconds=seconds, accuracies=accuracies, trials=trials, twice=twice, again=again, killed=killed
        )

    return engine


def _wait_for_the_middle(program: Program) -> None:
    """Wait until a trial is done, and others are not."""
    with program.store() as store:
        study = store.study_id("digits")
        while not (counts := store.open_counts(study))[TrialState.COMPLETE]:
            time.sleep(0.05)
    if not counts[TrialState.RUNNING] + counts[TrialState.WAITING]:
        raise RuntimeError("the grid was done before anything could be killed: it is too small")


def shared_store(
    store: str | None, *, runners: int = 4, how: Sequence[str] = (), **environment: str
) -> Callable[[Path, Sequence[str]], Engine]:
    """Workers around one store, of which one that holds trials is killed with all its processes in the middle.

    Args:
        store: its URL, None for the SQLite file of the home.
        runners: how many workers.
        how: further options of each.
        environment: variables of all of them.
    """

    def engine(folder: Path, words_of_grid: Sequence[str]) -> Engine:
        program = Program(folder, store, **environment)
        program.run("add", *words_of_grid)
        began = time.perf_counter()
        with ExitStack() as stack:
            words = ("worker", "--until-empty", *HOW, *LEASE, *how)
            workers = [stack.enter_context(program.start(*words)) for _ in range(runners)]
            stack.callback(lambda: [_kill(worker) for worker in workers])
            killed = _kill_one_in_the_middle(program, workers)
            codes = [worker.wait() for worker in workers if worker.pid != killed]
        seconds = time.perf_counter() - began
        if any(codes):
            raise RuntimeError(f"workers ended with exit codes {codes}")
        accuracies, trials, twice, again = program.results()
        return Engine(
            seconds=seconds,
            accuracies=accuracies,
            trials=trials,
            twice=twice,
            again=again,
            killed=f"one of {runners} workers",
        )

    return engine


def _kill_one_in_the_middle(program: Program, workers: Sequence[subprocess.Popen[bytes]]) -> int:
    """Kill a worker that holds trials once a trial is done; return its process id."""
    there = {worker.pid: worker for worker in workers}
    with program.store() as store:
        study = store.study_id("digits")
        while True:
            counts = store.open_counts(study)
            if not counts[TrialState.RUNNING] + counts[TrialState.WAITING]:
                raise RuntimeError("the grid was done before a worker could be killed: it is too small")
            if counts[TrialState.COMPLETE]:
                for pid in _holders(store, there):
                    # Stopped, it cannot end what it holds between the look and the kill; what it has asked of the
                    # server before is done in a moment.
                    os.killpg(pid, signal.SIGSTOP)
                    time.sleep(0.1)
                    if pid in _holders(store, there):
                        _kill(there[pid])
                        return pid
                    os.killpg(pid, signal.SIGCONT)
            time.sleep(0.05)


def _holders(store: Store, workers: Container[int]) -> list[int]:
    """Return the process ids of the workers that hold trials."""
    return [runner.pid for runner in store.runners("digits") if runner.pid in workers]


def _kill(worker: subprocess.Popen[bytes]) -> None:
    if worker.poll() is None:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


def engines(names: Sequence[str], stack: ExitStack) -> dict[str, Callable[[Path, Sequence[str]], Engine]]:
    """The engines of these names; what they need is started, and ended with the stack."""
    makers = {"postgresql": _postgresql, "slurm": _slurm, "ray": _ray, "sqlite": lambda _: shared_store(None)}
    return {name: makers[name](stack) if name in makers else executor(name) for name in names}


def _postgresql(stack: ExitStack) -> Callable[[Path, Sequence[str]], Engine]:
    from tests.servers.postgresql import Postgresql

    server = Postgresql.make()
    stack.callback(server.remove)
    server.start()
    return shared_store(server.url())


def _slurm(stack: ExitStack) -> Callable[[Path, Sequence[str]], Engine]:
    from tests.servers import slurm

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sl-")))
    cluster = slurm.start(folder)
    stack.callback(cluster.stop)
    stack.callback(cluster.cancel_all)
    return executor("slurm", **cluster.environment)


def _ray(stack: ExitStack) -> Callable[[Path, Sequence[str]], Engine]:
    from tests.servers.ray_cluster import RayCluster

    cluster = RayCluster()
    stack.callback(cluster.stop)
    cluster.add(3)

    def kill() -> str:
        cluster.kill()
        return "one of 3 nodes"

    return executor("ray", "--workers", "3", disturb=kill, RAY_ADDRESS=cluster.address)


def compare(names: Sequence[str], *, trials: int) -> dict[str, Any]:
    """Run one grid with local workers and with each of these engines; return what they made of it."""
    figures: dict[str, Any] = {}
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="engines-")))
        local: Engine | None = None
        for name, engine in engines(["local", *(n for n in names if n != "local")], stack).items():
            (folder := place / name).mkdir()
            found = engine(folder, grid(trials))
            local = local or found
            figures[name] = {
                "seconds": round(found.seconds, 1),
                "trials": found.trials,
                "complete": len(found.accuracies),
                "points_twice": found.twice,
                "trials_claimed_again": found.again,
                "killed": found.killed,
                **found.difference(local),
            }
    return figures


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write `results/scale-engines.json`."""
    from tests.benchmarks import measure

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=200, help="of the grid (default: 200)")
    parser.add_argument(
        "--engines",
        default="local,postgresql,ray,slurm",
        help="local, sqlite, postgresql, ray, slurm, or another executor, by commas",
    )
    words = parser.parse_args(argv)
    measure.write("scale-engines", compare(words.engines.split(","), trials=words.trials))


if __name__ == "__main__":
    main()
