"""Images as files: the cache of decoded folders, one for each, and what is sent to other machines.

Below `folder_arrays`, which decodes where nothing is kept.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from gridsearch.errors import DataError
from gridsearch.files import draft_of, owned, put_in_place
from gridsearch.plugins import ImageData, Reading

if TYPE_CHECKING:
    from pathlib import Path

_KEPT = 8
"""Decoded folders in the cache; the least recently used goes."""

_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels", "val_indices", "groups")


@dataclass(frozen=True, slots=True)
class Decoded:
    """The images of a folder, and the SHA-256 of what they were made of."""

    data: ImageData
    fingerprint: str


def read(path: Path) -> Decoded | None:
    """Read what `keep` wrote; None if it is not there, or was altered (the zip's own checksums tell).

    Nor is another user's file taken, which may say anything of these images.
    """
    import numpy as np

    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            if not owned(os.fstat(raw.fileno())):
                return None
            about = json.loads(file["about"].tobytes())
            parts: dict[str, Any] = {name: file.get(name) for name in _ARRAYS}
        data = ImageData(
            **parts,
            class_names=tuple(about["class_names"]),
            notes=tuple(about["notes"]),
            reading=_reading(about["reading"]),
        )
        with suppress(OSError):
            os.utime(path)
        return Decoded(data, about["fingerprint"])
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error):
        return None


def _reading(about: dict[str, Any] | None) -> Reading | None:
    if about is None:
        return None
    parts: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in about.items()}
    return Reading(**parts)


def as_sent(data: ImageData, fingerprint: str) -> bytes:
    """Return images as the bytes of a file for another machine, see `read_sent`."""
    file = io.BytesIO()
    _write(Decoded(data, fingerprint), file)
    return file.getvalue()


def read_sent(path: Path, fingerprint: str) -> ImageData:
    """Return the images of a file that another machine has sent.

    Raises:
        DataError: it does not hold those of this fingerprint, whole.
    """
    found = read(path)
    if found is None or found.fingerprint != fingerprint:
        raise DataError(
            "the images that were sent here are not those that the run has loaded", hint="run again"
        )
    return found.data


def _write(found: Decoded, file: IO[bytes]) -> None:
    data = found.data
    about = {
        "class_names": data.class_names,
        "notes": data.notes,
        "reading": None if data.reading is None else dataclasses.asdict(data.reading),
        "fingerprint": found.fingerprint,
    }
    arrays = {name: array for name in _ARRAYS if (array := getattr(data, name)) is not None}
    import numpy as np

    np.savez(file, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)


def keep(found: Decoded, path: Path) -> None:
    """Write decoded images; of others only the most recently used stay.

    Raises:
        OSError: they cannot be written.
    """
    with draft_of(path) as draft:
        with draft.open("wb") as file:
            _write(found, file)
        put_in_place(draft, path)
    newest_first = sorted(path.parent.glob("*.npz"), key=lambda kept: kept.stat().st_mtime, reverse=True)
    for old in newest_first[_KEPT:]:
        old.unlink(missing_ok=True)
