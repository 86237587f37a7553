"""Worker processes that a command starts before it knows what they will do, so that torch loads in them meanwhile.

Between the command line, whose own imports take about as long, and `PipeTransport`, which gives such a process its
setup instead of starting one.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from gridsearch.executors.local import WorkerProcess, worker_environment

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def early_workers(count: int) -> Iterator[None]:
    """Have so many processes load what networks need; those that nobody took end with the block."""
    environment = worker_environment(threads=1)
    try:
        with suppress(OSError):  # those that are needed are started later, and say what is wrong
            for _ in range(count):
                WorkerProcess.waiting.append(WorkerProcess(None, environment, end=signal.SIGTERM))
        yield
    finally:
        WorkerProcess.end_waiting()
