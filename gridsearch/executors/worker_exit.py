"""How a worker process ended: noticed whoever holds its pipes, described in words, lack of memory detected.

Stands beside the executors that start processes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

_VMSTAT = Path("/proc/vmstat")
_OWN_SCORE = Path("/proc/self/oom_score_adj")
_FIRST_TO_GO = "500"


def describe_exit(code: int) -> str:
    """Return in words how a process ended, from the code that `Popen` gives."""
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    return f"ended with exit code {code}"


def process_handle(pid: int) -> int | None:
    """Return a descriptor that can be read once a child of this process has ended; None where there is none.

    The end of its pipes means the same only if no child of its still holds them.
    """
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # an old kernel, or one that forbids it
        return None


def go_first_when_memory_runs_out() -> None:
    """Let the kernel end this worker before the runner when memory runs out (Linux)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            _OWN_SCORE.write_text(_FIRST_TO_GO)


class MemoryKills:
    """Detects whether the kernel has ended a process for lack of memory since it was asked last (Linux)."""

    def __init__(self) -> None:
        self._seen = _kills()

    def another(self) -> bool:
        """Return whether there was one since the last call; somebody else's process counts too."""
        before, self._seen = self._seen, _kills()
        return self._seen > before


def _kills() -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in _VMSTAT.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0
