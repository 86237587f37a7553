"""Where datasets keep their files: the cache folder, its lock, and writing that is never seen half done."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from gridsearch import files
from gridsearch.folders import cache_root

PATIENCE = 30.0
"""Seconds without a sign of life after which the holder of a lock is not waited for."""

_POLL = 0.1
_ENDLESS = 1e9  # seconds; whether to go on waiting is asked at every poll

Beat = Callable[[], None]
"""Called now and then by long work: shows those who wait that it goes on."""

Say = Callable[[str], None]
"""Takes one line for the user."""


def silent(line: str) -> None:
    """Say nothing."""


def data_root() -> Path:
    """Return the folder of all datasets' files, the `root` that a dataset is called with."""
    return cache_root() / files.DATA


@dataclass(frozen=True, slots=True)
class Hold:
    """A folder's lock while somebody works in the folder; a `Beat`.

    Attributes:
        path: the lock's file.
        alone: whether nobody else works there; not so after a holder that was not waited for.
    """

    path: Path
    alone: bool

    def __call__(self) -> None:
        """Show that the work goes on."""
        with suppress(OSError):
            os.utime(self.path)


@contextmanager
def exclusive(folder: Path, *, patience: float = PATIENCE, say: Say | None = None) -> Iterator[Hold]:
    """Hold a folder's lock, and give the function by which the holder shows that it is alive.

    The lock goes with its process, however that ends.  A holder that shows no sign of life for `patience`
    seconds (stopped, or on a dead network file system) is not waited for: files are verified and renamed into
    place, so that working twice costs time and nothing else.  Afterwards the lock's file is gone, and so are
    the folders that were made here and are still empty.

    Args:
        folder: made if it is not there.
        patience: seconds.
        say: given one line, if another process has to be waited for.

    Raises:
        OSError: the folder cannot be made or written.
    """
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    path = folder / files.LOCK
    lock = FileLock(path, poll_interval=_POLL)
    _acquire(lock, _Waiting(path, patience, say))
    hold = Hold(path, lock.is_locked)
    try:
        if hold.alone:
            files.remove_drafts(folder)  # of a killed process: a living one would hold the lock
            hold()
        yield hold
    finally:
        with suppress(OSError):
            if lock.is_locked:
                path.unlink()
            for parent in made:
                parent.rmdir()
        lock.release()


def _acquire(lock: FileLock, waiting: _Waiting) -> None:
    """Wait for a lock; it is not held afterwards where its holder shows no sign of life."""
    while True:
        with suppress(FileNotFoundError):  # the last holder took the empty folder away
            Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
            with suppress(Timeout):
                lock.acquire(timeout=_ENDLESS, cancel_check=waiting.is_over)
            return


class _Waiting:
    """Watches the holder of a lock: its signs of life are the times of the lock's file."""

    def __init__(self, path: Path, patience: float, say: Say | None) -> None:
        self._path, self._patience, self._say = path, patience, say
        self._sign, self._since = -1, time.monotonic()

    def is_over(self) -> bool:
        """Whether the holder has shown no sign of life for too long."""
        if self._say is not None:
            self._say(f"another process works in {self._path.parent}; waiting for it")
            self._say = None
        with suppress(FileNotFoundError):
            sign = self._path.stat().st_mtime_ns
            if sign != self._sign:
                self._sign, self._since = sign, time.monotonic()
        return time.monotonic() - self._since > self._patience
