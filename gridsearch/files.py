"""Files that are there whole or not at all, and what tells whether they are; stands below all layers."""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

if TYPE_CHECKING:
    from collections.abc import Iterator

_READABLE = 0o644
_PATIENCE = 10.0  # seconds; those who hold such a lock only read and write a small file
_OTHERS_MAY_WRITE = 0o022


def write_whole(path: Path, content: bytes, *, mode: int = _READABLE) -> None:
    """Write a file beside its place, flush it to the disk and rename it: readers find the old one or the new one.

    Args:
        path: where; its folder exists.
        content: all of it.
        mode: who may read it.

    Raises:
        OSError: it cannot be written; what was there is as it was.
    """
    with draft_of(path) as draft:
        draft.write_bytes(content)
        put_in_place(draft, path, mode=mode)


@contextmanager
def draft_of(path: Path, *, prefix: str = ".partial-") -> Iterator[Path]:
    """Give an empty file beside a file's place, and take it away afterwards if it is still there."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=path.suffix)
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def put_in_place(draft: Path, path: Path, *, mode: int = _READABLE) -> None:
    """Move a finished draft to its place, once its bytes are on the disk.

    Raises:
        OSError: it cannot be; what was there is as it was.
    """
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.chmod(mode)
    draft.replace(path)
    sync_folder(path.parent)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file that several processes read, change and write.

    Raises:
        OSError: the lock's file cannot be made, or another process holds it for too long.
    """
    with FileLock(path.with_name(f".{path.name}.lock"), timeout=_PATIENCE):
        yield


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk, where the system can."""
    with suppress(PermissionError):  # Windows opens no folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_ours_alone(path: Path) -> bool:
    """Return whether a file or folder is this user's, and nobody else may write to it.

    Code from anywhere else must not be run: another user may have put it there.
    """
    if os.name != "posix":
        return True
    try:
        facts = path.lstat()
    except OSError:
        return False
    return facts.st_uid == os.getuid() and not facts.st_mode & _OTHERS_MAY_WRITE
