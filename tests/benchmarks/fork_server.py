"""Runs of the command line in copies of a process that has loaded everything: for benchmarks that start hundreds.

    python -m tests.benchmarks.fork_server FOLDER WORDS...

To import torch and the rest takes seconds, a copy milliseconds; it is killed like any other process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil

WAITS = 30.0
"""A start hangs if so many seconds pass in which none of its processes could run, or if it computes for so long."""

_RUNNABLE = (psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP)


class ForkServer:
    """A process that has loaded everything and makes copies of itself, each of which runs one command line.

    Args:
        folder: for its own files.
        words: a command line that loads all that the others will need; it runs once, in that folder.

    Attributes:
        shim: the library through which the copies call the system, see `failing_disk.c`; None without a compiler.
    """

    def __init__(self, folder: Path, words: tuple[str, ...]) -> None:
        environment = os.environ | {"GRIDSEARCH_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
        self.shim = compiled_shim(folder)
        if self.shim:
            environment["LD_PRELOAD"] = str(self.shim)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.fork_server", str(folder / "first"), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=Path(__file__).parents[2],
        )
        assert self._answer() == "ready"

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def start(self, words: tuple[str, ...], err: Path, environment: dict[str, str]) -> psutil.Process:
        """Run a command line in a copy."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([words, str(err), environment]) + "\n")
        self._process.stdin.flush()
        return psutil.Process(int(self._answer()))

    def ended(self, process: psutil.Process) -> int:
        """Return the exit code of a copy that has ended, negative for a signal."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(process.pid) + "\n")
        self._process.stdin.flush()
        return int(self._answer())

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def over(process: psutil.Process) -> bool:
    """Whether a copy has ended; the server has not asked for its exit code yet."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def runnable(process: psutil.Process) -> bool:
    """Whether a copy computes, or waits for a core or the disk: a busy machine lets it wait for long.

    One that has computed for `WAITS` goes round in circles.
    """
    with contextlib.suppress(psutil.NoSuchProcess):
        if process.status() in _RUNNABLE:
            return sum(process.cpu_times()[:2]) < WAITS
        return any(each.status() in _RUNNABLE for each in process.children(recursive=True))
    return False


def compiled_shim(folder: Path) -> Path | None:
    """Compile `failing_disk.c`; None where there is no compiler, or no way to load it."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None or sys.platform != "linux":
        return None
    library = folder / "failing_disk.so"
    words = [
        compiler,
        "-shared",
        "-fPIC",
        "-O1",
        "-o",
        str(library),
        str(Path(__file__).with_name("failing_disk.c")),
    ]
    subprocess.run([*words, "-ldl"], check=True)
    return library


def serve_forks(first: str, first_words: list[str]) -> None:
    """Be a `ForkServer`: run once, so that everything is loaded, then copy as asked."""
    from gridsearch import faults
    from gridsearch.cli import main

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    main((*first_words, "--home", first, "--executor", "inline", "-q"))
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        asked = json.loads(line)
        if isinstance(asked, int):
            answer = os.waitstatus_to_exitcode(os.waitpid(asked, 0)[1])
        elif (answer := os.fork()) == 0:
            words, err, environment = asked
            file = os.open(err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 2)
            os.dup2(file, 1)
            os.environ.update(environment)
            faults.plan(os.environ.get("GRIDSEARCH_FAULT", ""))
            faulthandler.register(signal.SIGUSR1, 2)
            sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
            sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
            code = main(words)
            sys.stderr.flush()
            os._exit(code)
        answers.write(f"{answer}\n")
        answers.flush()


if __name__ == "__main__":
    serve_forks(sys.argv[1], sys.argv[2:])
