"""Keeps workers stopped in the middle of what they do, until a test has done what it is about."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Sequence


@contextmanager
def held(
    workers: Callable[[], Sequence[psutil.Process]], moment: Callable[[], object]
) -> Iterator[Sequence[psutil.Process]]:
    """Wait for a moment of a run, and keep its workers stopped meanwhile; gives these.

    On a machine with other work they could else end all that they have between a look and what the test does.
    """
    deadline = time.monotonic() + 120
    while True:
        assert time.monotonic() < deadline
        if moment():
            stopped = workers()
            _each(psutil.Process.suspend, stopped)
            time.sleep(0.1)  # what they have said before is recorded in a moment
            if stopped and moment():
                break
            _each(psutil.Process.resume, stopped)
        time.sleep(0.01)
    try:
        yield stopped
    finally:
        _each(psutil.Process.resume, stopped)


def workers_of(runner: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the workers of a run; one process stands before each."""
    return [worker for each in psutil.Process(runner.pid).children() for worker in each.children()]


def _each(call: Callable[[psutil.Process], None], processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            call(process)
