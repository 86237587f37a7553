"""Calls a function in a fork of this process: what it changes, breaks or never ends stays there.

Used for the user's own code that runs beside the training.  A fork of a process with threads may wait for a lock that
one of them held; so it has a limit of time, after which nothing is known.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_SELF = Path("/proc/self/oom_score_adj")


def called_in_fork(call: Callable[[], str], *, patience: float) -> str | None:
    """Return what a function returns in a fork.

    Args:
        call: leaves nothing behind beyond its process.
        patience: seconds that it may take.

    Returns:
        None where it raises, ends its process or takes too long, or where this system forks no such process safely.
    """
    if sys.platform != "linux":
        return None
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, see above
        child = os.fork()
    if not child:
        os.close(read)  # or it would wait for ever to be read when this process is killed
        _be_child(call, write)
    os.close(write)
    try:
        return _answer(read, patience)
    finally:
        os.close(read)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # somebody waits for all children of this process
            os.waitpid(child, 0)


def _be_child(call: Callable[[], str], write: int) -> None:
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a key on the terminal is for the first process
        for each in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_DFL)
        with contextlib.suppress(OSError):
            _SELF.write_text("1000")  # without memory, this one goes first
        found = b"." + call().encode()  # something in any case, which an end before it is not
        with os.fdopen(write, "wb") as pipe:
            pipe.write(found)
    finally:
        os._exit(0)


def _answer(read: int, patience: float) -> str | None:
    parts: list[bytes] = []
    limit = time.monotonic() + patience
    while select.select([read], [], [], max(0.0, limit - time.monotonic()))[0]:
        if not (part := os.read(read, 1 << 16)):
            found = b"".join(parts)
            return found[1:].decode() if found else None
        parts.append(part)
    return None
