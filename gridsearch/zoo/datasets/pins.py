"""Checks single files against what is known of them, and copies them out of a folder where they may lie packed."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_CHUNK = 1 << 20
_PACKED = ".gz"


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """A file whose every byte is known: its name, its size in bytes and its SHA-256 in hexadecimal.

    A name that ends in `.gz` is that of a packed file which is kept packed: its sum is the one that the world
    knows.  Any other file is served with `.gz` behind its name and kept unpacked.
    """

    name: str
    size: int
    sha256: str

    @property
    def packed(self) -> bool:
        """Whether the file is kept as it is served."""
        return self.name.endswith(_PACKED)

    @property
    def served(self) -> str:
        """The file's name where it is served."""
        return self.name if self.packed else self.name + _PACKED


def problem_of(path: Path, pinned: PinnedFile) -> str | None:
    """Return in one line what is wrong with a file, found against expected; None if it is the pinned one."""
    try:
        if not path.exists():
            return f"{path} is missing"
        if (size := path.stat().st_size) != pinned.size:
            return f"{path}: expected {pinned.size} bytes, found {size}"
        with path.open("rb") as file:
            return _sum_problem(path, pinned, hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        return f"{path} cannot be read: {error.strerror or error}"


def collect(folder: Path, files: Sequence[PinnedFile], into: Path) -> tuple[str, ...]:
    """Copy the pinned files out of a folder, where they may be raw or gzipped and lie nested, each verified.

    Args:
        folder: holds the files themselves, or `raw/`, `MNIST/raw/` and the like with them.
        files: what to look for.
        into: a folder to write the files to; never more than a file's pinned size.

    Returns:
        What is wrong, one line for each file that was not found whole; nothing if all are there.

    Raises:
        OSError: a file cannot be written.
    """
    problems = []
    for pinned in files:
        refused = []
        for path in _candidates(folder, pinned):
            problem = _extract(path, pinned, into / pinned.name)
            if problem is None:
                break
            refused.append(problem)
        else:
            problems.append(refused[0] if refused else f"{folder}: no {_either(pinned)}")
    return tuple(problems)


def _candidates(folder: Path, pinned: PinnedFile) -> Iterator[Path]:
    """Yield where a file may lie: here, in a sub-folder, or in the `raw` of one, torchvision's way."""
    dotted = pinned.name.replace("-idx", ".idx")
    spellings = [pinned.name, dotted]
    if not pinned.packed:
        spellings = [pinned.name, pinned.served, dotted, dotted + _PACKED]
    for pattern in ("", "*/", "*/*/"):
        for spelling in dict.fromkeys(spellings):
            yield from sorted(path for path in folder.glob(pattern + spelling) if path.is_file())


def _extract(path: Path, pinned: PinnedFile, target: Path) -> str | None:
    """Copy one file, unzipped, and return what is wrong with it."""
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as out:
        try:
            with _opened(path, pinned) as file:
                while size <= pinned.size and (chunk := file.read(min(_CHUNK, pinned.size + 1 - size))):
                    digest.update(chunk)
                    size += len(chunk)
                    out.write(chunk)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            return f"{path} does not unzip: {error}"
        except PermissionError as error:
            return f"{path} cannot be read: {error.strerror}"
    if size > pinned.size:
        return f"{path}: expected {pinned.size} bytes, found more"
    if size < pinned.size:
        return f"{path}: expected {pinned.size} bytes, found {size}"
    return _sum_problem(path, pinned, digest.hexdigest())


def _opened(path: Path, pinned: PinnedFile) -> IO[bytes]:
    """Open a file as it is kept: unpacked, unless the pinned file is the packed one."""
    unpack = path.suffix == _PACKED and not pinned.packed
    return cast("IO[bytes]", gzip.open(path)) if unpack else path.open("rb")


def _sum_problem(path: Path, pinned: PinnedFile, found: str) -> str | None:
    if found == pinned.sha256:
        return None
    return f"{path}: expected SHA-256 {pinned.sha256[:16]}..., found {found[:16]}..."


def _either(pinned: PinnedFile) -> str:
    return pinned.name if pinned.packed else f"{pinned.name} or {pinned.served}"
