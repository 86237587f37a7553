"""What the system refuses, in words for the user, where nothing below has said it: the last resort of a command."""

from __future__ import annotations

import errno
import os
from typing import Final

from gridsearch.errors import GridsearchError, UnusableError, is_full_disk, unwritable

_OF_THE_PLACE: Final = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.ESTALE,
)
"""What is wrong with a place, and with nothing of ours, wherever it shows."""

_PLACE_HINT = "use a folder that you can read and write: --home for studies, $GRIDSEARCH_CACHE for data"
_TEMPORARY_HINT = "name a folder that can be written in $TMPDIR"
_DISK_HINT = "look at the disk and at the system's log; the same command continues where this one ended"
_PROCESSES_HINT = "allow more of them (ulimit -u, a container's or a job's limit), or take fewer: --workers 1"
_MEMORY_HINT = "end other programs, or take less at a time: --workers 1, --lanes 1"

_HINTS: Final = {
    errno.EAGAIN: _PROCESSES_HINT,
    errno.ENOMEM: _MEMORY_HINT,
    errno.EMFILE: "allow more open files (ulimit -n), or take fewer workers: --workers 1",
    errno.ENFILE: "end other programs: the system has no more open files",
    errno.EFBIG: "allow larger files (ulimit -f), or use another disk with --home",
    errno.ENOLCK: "use a folder on a file system with locks: --home for studies, $GRIDSEARCH_CACHE for data",
    **dict.fromkeys((errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.EROFS), _DISK_HINT),
    **dict.fromkeys((errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN), _DISK_HINT),  # those of a network
}
"""What the system says where it is at an end of its own, and how to go on."""


def explained(error: BaseException) -> GridsearchError | None:
    """Return what to say of an error that is the system's, None of one that is a bug of ours."""
    if isinstance(error, MemoryError):
        return UnusableError("there is not enough memory", hint=_MEMORY_HINT)
    if isinstance(error, RuntimeError) and str(error).startswith("can't start new thread"):
        return UnusableError("the system starts no more threads", hint=_PROCESSES_HINT)
    if not isinstance(error, OSError):
        return None
    place = error.filename2 or error.filename  # of a copy that which is written
    if is_full_disk(error):
        return unwritable("the output" if place is None else _shown(place), error)
    if error.errno in _OF_THE_PLACE and place is not None:
        return UnusableError(f"{_shown(place)}: {error.strerror}", hint=_PLACE_HINT)
    if error.errno in _HINTS:
        what = "the system starts no more processes" if error.errno == errno.EAGAIN else "the system refuses"
        about = "" if place is None else f"{_shown(place)}: "
        return UnusableError(f"{about}{what}: {error.strerror}", hint=_HINTS[error.errno])
    if isinstance(error, FileNotFoundError) and _no_temporary_folder():
        return UnusableError("no folder for temporary files can be written", hint=_TEMPORARY_HINT)
    return None


def _no_temporary_folder() -> bool:
    from gridsearch.files import temporary_root  # what no command needs to start

    return temporary_root() is None


def _shown(name: str | bytes | int) -> str:
    return os.fsdecode(name) if isinstance(name, str | bytes) else f"descriptor {name}"
