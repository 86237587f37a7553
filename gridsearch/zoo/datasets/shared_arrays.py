"""Large arrays that all processes of a machine share: files in the cache that each of them maps into its memory.

Below `shared_images`, which says what they are.  The system keeps one copy of a mapped file, whoever reads it, and
gives that memory back when something else needs it: what does not fit is read from the file again, piece by piece.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gridsearch import files
from gridsearch.folders import cache_root
from gridsearch.zoo.datasets.cache import Beat, exclusive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import numpy as np

_KEPT = 8
"""Sets of arrays in the cache; the least recently used goes."""

_FORM = 1
"""Raised when the files of a set become others."""

_ARRAYS, _ABOUT = "arrays", "about.json"
_PIECE = 8 << 20  # bytes


@dataclass(frozen=True, slots=True)
class SharedArrays:
    """A set of arrays in mapped memory, which cannot be written to.

    Attributes:
        arrays: by their names.
        about: what was kept beside them.
    """

    arrays: Mapping[str, np.ndarray]
    about: Mapping[str, Any]


Made = tuple["Mapping[str, np.ndarray]", "Mapping[str, Any]"]
"""Arrays by their names, views of any layout among them, and JSON."""


def find(key: str) -> SharedArrays | None:
    """Return the arrays that `find_or_make` kept; None where there are none, or where a byte of them differs.

    Nor are another user's files taken, which may say anything.
    """
    return _read(_folder(key) / _ARRAYS)


def find_or_make(key: str, make: Callable[[Beat], Made]) -> SharedArrays:
    """Return the arrays of a key, made by one process for all; of other keys only the last used stay.

    Args:
        key: says what they are: a hash, and words without a slash.
        make: gives them, and calls its argument now and then where that takes long; they are written in C order, piece
            by piece.

    Raises:
        OSError: they cannot be written.
        Exception: whatever `make` raises.
    """
    found = find(key)
    if found is not None:
        return found
    folder = _folder(key)
    with exclusive(folder) as beat:
        found = find(key)  # another process may have made them meanwhile
        if found is None:
            _write(folder / _ARRAYS, *make(beat), beat)
            found = _read(folder / _ARRAYS, verified=True)
    if found is None:
        raise OSError(None, "cannot be read back", str(folder))
    _forget_old(folder.parent)
    return found


def _folder(key: str) -> Path:
    return cache_root() / files.SHARED / key


def _write(place: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any], beat: Beat) -> None:
    with files.private_folder(place.parent) as draft:
        digests = {}
        for name, array in arrays.items():
            path = draft / f"{name}.npy"
            _write_array(path, array, beat)
            beat()
            digests[name] = files.sha256_of(path)
        content = {"form": _FORM, "sha256": digests, "about": dict(about)}
        files.write_whole(draft / _ABOUT, json.dumps(content).encode())
        shutil.rmtree(place, ignore_errors=True)  # a set that was damaged
        files.rename(draft, place)


def _write_array(path: Path, array: np.ndarray, beat: Beat) -> None:
    import numpy as np

    mapped = np.lib.format.open_memmap(path, mode="w+", dtype=array.dtype, shape=array.shape)
    for rows in _pieces(array):
        beat()
        mapped[rows] = array[rows]
    mapped.flush()


def _pieces(array: np.ndarray) -> Iterator[slice]:
    """Give the rows of an array in pieces of some megabytes."""
    rows = max(1, _PIECE * len(array) // max(1, array.nbytes))
    for first in range(0, len(array), rows):
        yield slice(first, first + rows)


def _read(place: Path, *, verified: bool = False) -> SharedArrays | None:
    """Map a set of arrays.

    Args:
        place: its folder.
        verified: whether this process has just written them.
    """
    import numpy as np

    content = files.read_json(place / _ABOUT)
    digests = content.get("sha256")
    if content.get("form") != _FORM or not isinstance(digests, dict):
        return None
    arrays = {}
    try:
        if not files.owned((place / _ABOUT).stat()):
            return None
        for name, digest in digests.items():
            path = place / f"{name}.npy"
            if not files.owned(path.stat()) or not (verified or files.sha256_of(path) == digest):
                return None
            arrays[name] = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        os.utime(place.parent)
    except (OSError, ValueError, EOFError):
        return None
    return SharedArrays(arrays, content.get("about", {}))


def _forget_old(parent: Path) -> None:
    def last_used(folder: Path) -> float:
        with suppress(OSError):
            return folder.stat().st_mtime
        return 0.0

    for old in sorted(parent.iterdir(), key=last_used, reverse=True)[_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
