"""Reads and checks the files of the MNIST family, between a folder of files and arrays.

An idx file is a magic number (two zero bytes, the type 8 for unsigned bytes, the number of dimensions), each
dimension as a big-endian 32-bit number, and the bytes (http://yann.lecun.com/exdb/mnist/, "file formats").
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """A file whose every byte is known: its name, its size in bytes and its SHA-256 in hexadecimal."""

    name: str
    size: int
    sha256: str


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
        into: a folder to write the extracted files to; never more than a file's pinned size.

    Returns:
        What is wrong, one line for each file that was not found whole; nothing if all are there.

    Raises:
        OSError: a file cannot be written.
    """
    problems = []
    for pinned in files:
        refused = []
        for path in _candidates(folder, pinned.name):
            problem = _extract(path, pinned, into / pinned.name)
            if problem is None:
                break
            refused.append(problem)
        else:
            problems.append(refused[0] if refused else f"{folder}: no {pinned.name} or {pinned.name}.gz")
    return tuple(problems)


def read(path: Path, *, shape: tuple[int | None, ...]) -> np.ndarray:
    """Read a raw idx file of unsigned bytes.

    Args:
        path: the file.
        shape: the dimensions that it must have, None where any number will do.

    Raises:
        ValueError: the header is not that of such a file, in one line with what was expected and found.
    """
    import numpy as np

    content = path.read_bytes()
    magic = bytes([0, 0, 8, len(shape)])
    if content[:4] != magic:
        raise ValueError(f"{path}: expected the header {magic.hex()}, found {content[:4].hex() or 'nothing'}")
    offset = 4 + 4 * len(shape)
    sizes = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, offset, 4))
    if any(expected not in (None, size) for expected, size in zip(shape, sizes, strict=True)):
        wanted = "x".join("N" if n is None else str(n) for n in shape)
        raise ValueError(f"{path}: expected the dimensions {wanted}, found {'x'.join(map(str, sizes))}")
    values = np.frombuffer(content, np.uint8, offset=min(offset, len(content)))
    if values.size != (expected := _product(sizes)):
        raise ValueError(f"{path}: expected {expected} bytes after the header, found {values.size}")
    return values.reshape(sizes)


def _product(sizes: tuple[int, ...]) -> int:
    product = 1  # as a Python number: a forged header overflows no array type
    for size in sizes:
        product *= size
    return product


def _candidates(folder: Path, name: str) -> Iterator[Path]:
    """Yield where a file may lie: here, in a sub-folder, or in the `raw` of one, torchvision's way."""
    spellings = (name, f"{name}.gz", name.replace("-idx", ".idx"), f"{name.replace('-idx', '.idx')}.gz")
    for pattern in ("", "*/", "*/*/"):
        for spelling in spellings:
            yield from sorted(path for path in folder.glob(pattern + spelling) if path.is_file())


def _extract(path: Path, pinned: PinnedFile, target: Path) -> str | None:
    """Copy one file, unzipped, and return what is wrong with it."""
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as out:
        try:
            with _opened(path) as file:
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


def _opened(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _sum_problem(path: Path, pinned: PinnedFile, found: str) -> str | None:
    if found == pinned.sha256:
        return None
    return f"{path}: expected SHA-256 {pinned.sha256[:16]}..., found {found[:16]}..."
