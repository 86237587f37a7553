"""The process that `LocalExecutor` starts: it forks the worker, waits for its end, and ends what that leaves behind.

Stands between the executor and `worker`.  Children of a user's model, in a session of their own too, become children
of this process when their parent goes (Linux: it is their subreaper).  Such orphans end with the pack whose code left
them, and all that the worker has started ends with the worker; also when the runner is killed, which the kernel
reports to this process.  Elsewhere it is the worker itself, and the executor ends its process group alone.

    python -m gridsearch.executors.worker_process END COMMANDS EVENTS PARENT [OBJECTS]

with the signal that ends it, the descriptors of two inherited pipes, the runner's process id, and a file where the
session has plug-ins of its own.  It imports next to nothing: what it forks is small, and has no threads.

Where END is not SIGTERM, that is passed over: Slurm sends it to every process of an allocation that shall end soon, and
who started this one then decides what becomes of the worker.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

PACK_ENDED = signal.SIGUSR1
"""The worker sends it when a pack has ended."""

_ROUNDS = 20
"""So often the orphans of a pack are looked for: each may have children, which become orphans by its end."""


def main(end: int, commands: int, events: int, parent: int, *objects: int) -> None:
    """Be a worker, or what waits for one; see the module.

    Args:
        end: the number of the signal that ends it.
        commands: the pipe that commands come from.
        events: the pipe that events go to.
        parent: process id of the runner.
        objects: a file with the plug-ins of the runner's session, if it has any of its own.
    """
    if sys.platform == "linux":
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        # the runner decides, a key on its terminal is not for us
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if end != signal.SIGTERM:
            signal.signal(signal.SIGTERM, _pass_over)
        end_with_parent(parent, by=signal.Signals(end))
        supervisor = os.getpid()
        signal.signal(PACK_ENDED, signal.SIG_IGN)  # until there is somebody to spare
        worker = os.fork()
        if worker:
            _supervise(worker, (commands, events, *objects), end=end)
        if end != signal.SIGTERM:  # for the worker, and not for what its code starts
            os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
        signal.signal(PACK_ENDED, signal.SIG_DFL)
        end_with_parent(supervisor, by=signal.SIGKILL)
    from gridsearch.executors.worker import serve

    serve(commands, events, *objects, pack_ended=_tell_supervisor if sys.platform == "linux" else None)


def _pass_over(number: int, frame: FrameType | None) -> None:
    """Do nothing: a handler, unlike SIG_IGN, is not inherited by programs that the worker's code starts."""


def _tell_supervisor() -> None:
    os.kill(os.getppid(), PACK_ENDED)


def end_with_parent(parent: int, *, by: signal.Signals) -> None:
    """Ask the kernel for a signal when the parent process dies (Linux); leave if it is dead already."""
    _prctl(_PR_SET_PDEATHSIG, by)
    if os.getppid() != parent:
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value)


def _supervise(worker: int, pipes: tuple[int, ...], *, end: int) -> None:
    """Wait for a worker, end all processes that it leaves, and end as it did.

    Args:
        worker: its process id.
        pipes: descriptors that are its alone: an end of file is seen once nobody else holds them.
        end: the signal that ends it.
    """
    signal.signal(end, lambda *_: _end(worker))
    signal.signal(PACK_ENDED, lambda *_: _end_orphans(worker))
    for pipe in pipes:
        os.close(pipe)
    ended, status = os.waitpid(-1, 0)
    while ended != worker:  # a child that the worker has left, and that ended by itself
        ended, status = os.waitpid(-1, 0)
    signal.signal(end, signal.SIG_IGN)
    signal.signal(PACK_ENDED, signal.SIG_IGN)
    with contextlib.suppress(ChildProcessError):  # there is none left
        while True:
            for child in _children():
                _end(child)
            os.waitpid(-1, 0)
    _end_as(status)


def _end_orphans(worker: int) -> None:
    """End what a pack's code has started and left: the worker's own children, a pool of processes say, may stay."""
    for _ in range(_ROUNDS):
        orphans = [child for child in _children() if child != worker]
        if not orphans:
            return
        for orphan in orphans:
            _end(orphan)
        time.sleep(0.01)
        for orphan in orphans:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(orphan, os.WNOHANG)


def _children() -> list[int]:
    """Return the processes whose parent this one is; those of a child that ends become its own."""
    me, found = str(os.getpid()), []
    with contextlib.suppress(OSError):  # where the kernel keeps this file, it need not look at every process
        return [int(word) for word in Path(f"/proc/{me}/task/{me}/children").read_text().split()]
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError):
            if entry.name.isdigit() and (entry / "stat").read_text().rpartition(")")[2].split()[1] == me:
                found.append(int(entry.name))
    return found


def _end(process: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(process, signal.SIGKILL)


def _end_as(status: int) -> None:
    """End with the exit code, or by the signal, that the worker ended by."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the worker's own is written
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
