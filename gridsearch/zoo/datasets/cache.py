"""Where datasets keep their files: the cache folder, its lock, and writing that is never seen half done."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

from gridsearch import files
from gridsearch.folders import cache_root

if TYPE_CHECKING:
    from pathlib import Path

if sys.platform != "win32":
    import fcntl

PATIENCE = 30.0
"""Seconds without a sign of life after which the holder of a lock is not waited for."""

Beat = Callable[[], None]
"""Called now and then by long work: tells those who wait that it goes on."""

Say = Callable[[str], None]
"""Takes one line for the user."""


def silent(line: str) -> None:
    """Say nothing."""


def data_root() -> Path:
    """Return the folder of all datasets' files, the `root` that a dataset is called with."""
    return cache_root() / files.DATA


@contextmanager
def exclusive(folder: Path, *, patience: float = PATIENCE, say: Say | None = None) -> Iterator[Beat]:
    """Hold a folder's lock, and give the function by which the holder shows that it is alive.

    The lock goes with its process, however that ends.  A holder that shows no sign of life for `patience`
    seconds (stopped, or on a dead network file system) is not waited for: files are verified and renamed into
    place, so that working twice costs time and nothing else.  Afterwards the lock's file is gone, and so are
    the folders that were made here and are still empty.

    Args:
        folder: made if it is not there.
        patience: seconds.
        say: told once, if another process has to be waited for.

    Raises:
        OSError: the folder cannot be made or written.
    """
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    path = folder / ".lock"

    def beat() -> None:
        with suppress(OSError):
            os.utime(path)

    file, held = _acquire(path, patience, say)
    try:
        if held:
            for left in folder.glob(
                f"{files.PARTIAL}*"
            ):  # of a killed process: a living one would hold the lock
                shutil.rmtree(left, ignore_errors=True)
            beat()
        yield beat
    finally:
        with suppress(OSError):
            if held:
                path.unlink()
            for parent in made:
                parent.rmdir()
        file.close()


def _acquire(path: Path, patience: float, say: Say | None) -> tuple[IO[bytes], bool]:
    """Open the lock's file; return it, and whether the lock is held."""
    sign, since, told = -1, time.monotonic(), False
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("ab")
        except FileNotFoundError:  # the last holder took the empty folder away
            continue
        if _lock(file):
            with suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                    return file, True
            file.close()  # the last holder took the file away while we waited for it
            continue
        if say and not told:
            say(f"another process works in {path.parent}; waiting for it")
            told = True
        with suppress(FileNotFoundError):
            if (seen := path.stat().st_mtime_ns) != sign:
                sign, since = seen, time.monotonic()
        if time.monotonic() - since > patience:
            return file, False
        file.close()
        time.sleep(0.1)


def _lock(file: IO[bytes]) -> bool:
    if sys.platform == "win32":
        return True  # without a lock two may work at once, which costs time and nothing else
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
