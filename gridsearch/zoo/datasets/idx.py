"""Reads idx files, between the pinned files and arrays.

An idx file is a magic number (two zero bytes, the type 8 for unsigned bytes, the number of dimensions), each
dimension as a big-endian 32-bit number, and the bytes (http://yann.lecun.com/exdb/mnist/, "file formats").
"""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np


def read(path: Path, *, shape: tuple[int | None, ...]) -> np.ndarray:
    """Read an idx file of unsigned bytes, raw or gzipped (`.gz`).

    Args:
        path: the file.
        shape: the dimensions that it must have, None where any number will do.

    Raises:
        ValueError: the header is not that of such a file, in one line with what was expected and found.
    """
    import numpy as np

    content = _content(path)
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


def _content(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        with gzip.open(path) as file:
            return file.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} does not unzip: {error}") from error
