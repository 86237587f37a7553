"""Shares tasks between this process and a fork of it, which draws on another core while this one does something else.

Below `pictures`.  Threads would take turns: drawing is Python.  A fork has all that this process has read and imported;
a fresh process would import matplotlib for as long as it draws.  A fork is safe where no other thread may hold a lock
that the fork then waits for; those of OpenBLAS, which hold none between calls, end before a fork and come again.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import select
import signal
import struct
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

_NUMBER: Final = struct.Struct("=H")
_MOST: Final = 2000
"""Tasks whose numbers any pipe holds at once; of more, this process does all."""

_PATIENCE: Final = 60.0
"""Seconds that the other process may still take when this one has nothing left to do."""

_OWN_SCORE: Final = Path("/proc/self/oom_score_adj")


class SharedTasks(Generic[T]):
    """Tasks that are begun at once in a second process, and finished by both: whoever is free takes the next.

    Where there is no second process, since this one has threads or a single core, or what it did is lost, this one
    does the tasks itself: the results are the same.

    Args:
        tasks: each returns a plain value (None, numbers, text, bytes, tuples of them), and leaves nothing else behind.
    """

    def __init__(self, tasks: Sequence[Callable[[], T]]) -> None:
        self._tasks = tasks
        self._numbers, self._answer = -1, -1
        self._child = self._forked() if 1 < len(tasks) <= _MOST and _may_fork() else None

    def results(self) -> list[T]:
        """Do what is left; return what each task gave, in their order.  What a task raises, this raises."""
        found: dict[int, T] = {}
        if self._child is not None:
            while (number := _next(self._numbers)) is not None:
                found[number] = self._tasks[number]()
            found |= self._answered()
        return [found[i] if i in found else task() for i, task in enumerate(self._tasks)]

    def close(self) -> None:
        """End the second process, whatever it is doing."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):  # somebody waits for all children of this process
                os.waitpid(self._child, 0)
            os.close(self._numbers)
            os.close(self._answer)
            self._child = None

    def _forked(self) -> int | None:
        """Begin the second process; return its id, None where the system starts no more."""
        self._numbers, numbers = os.pipe()
        self._answer, answer = os.pipe()
        try:
            os.write(numbers, b"".join(map(_NUMBER.pack, range(len(self._tasks)))))
            child = os.fork()
        except OSError:
            os.close(self._numbers)
            os.close(self._answer)
            return None
        else:
            if not child:
                os.close(numbers)  # or the last number would be followed by no end
                os.close(
                    self._answer
                )  # or it would wait for ever to be read when the first process is killed
                self._be_second(answer)
            return child
        finally:
            os.close(numbers)
            os.close(answer)

    def _be_second(self, answer: int) -> NoReturn:
        """Do tasks until none is left, and send their results; what fails, the first process does again."""
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a key on the terminal is for the first process
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            with contextlib.suppress(OSError):
                _OWN_SCORE.write_text("1000")  # without memory, this one goes first
            found: dict[int, T] = {}
            while (number := _next(self._numbers)) is not None:
                found[number] = self._tasks[number]()
            with os.fdopen(answer, "wb") as pipe:
                marshal.dump(found, pipe)
        finally:
            os._exit(0)

    def _answered(self) -> dict[int, T]:
        """Return the results of the second process by their numbers; none where it has failed or takes too long."""
        parts = []
        while select.select([self._answer], [], [], _PATIENCE)[0]:
            if not (part := os.read(self._answer, 1 << 20)):
                break
            parts.append(part)
        try:
            found: dict[int, T] = marshal.loads(b"".join(parts))  # noqa: S302 - of our own fork
        except (EOFError, ValueError, TypeError):  # it is cut off
            return {}
        return found


def _may_fork() -> bool:
    """Whether a fork would be safe here, and have a core of its own."""
    return sys.platform == "linux" and threading.active_count() == 1 and len(os.sched_getaffinity(0)) > 1


def _next(numbers: int) -> int | None:
    """Take the number of the next task out of the pipe that both processes read; None where there is none left."""
    taken: Any = os.read(numbers, _NUMBER.size)
    return _NUMBER.unpack(taken)[0] if taken else None
