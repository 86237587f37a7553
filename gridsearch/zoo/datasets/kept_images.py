"""The cache of decoded folders: one file for each, named by what it was made of.

Below `folder_arrays`, which decodes where nothing is kept.
"""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gridsearch.files import draft_of, owned, put_in_place
from gridsearch.plugins import ImageData, Reading

if TYPE_CHECKING:
    from pathlib import Path

_KEPT = 8
"""Decoded folders in the cache; the least recently used goes."""

_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True, slots=True)
class Decoded:
    """The images of a folder, and the SHA-256 of what they were made of."""

    data: ImageData
    fingerprint: str


def read(path: Path) -> Decoded | None:
    """Read what `keep` wrote; None if it is not there, or was altered (the zip's own checksums tell).

    Nor is another user's file taken, which may say anything of these images.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            if not owned(os.fstat(raw.fileno())):
                return None
            about = json.loads(file["about"].tobytes())
            parts: dict[str, Any] = {name: file.get(name) for name in _ARRAYS}
        reading: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in about["reading"].items()
        }
        data = ImageData(
            **parts,
            class_names=tuple(about["class_names"]),
            notes=tuple(about["notes"]),
            reading=Reading(**reading),
        )
        with suppress(OSError):
            os.utime(path)
        return Decoded(data, about["fingerprint"])
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error):
        return None


def keep(found: Decoded, path: Path) -> None:
    """Write decoded images; of others only the most recently used stay.

    Raises:
        OSError: they cannot be written.
    """
    data = found.data
    assert data.reading is not None
    about = {
        "class_names": data.class_names,
        "notes": data.notes,
        "reading": dataclasses.asdict(data.reading),
        "fingerprint": found.fingerprint,
    }
    arrays = {name: array for name in _ARRAYS if (array := getattr(data, name)) is not None}
    with draft_of(path) as draft:
        with draft.open("wb") as file:
            np.savez(file, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)
        put_in_place(draft, path)
    newest_first = sorted(path.parent.glob("*.npz"), key=lambda kept: kept.stat().st_mtime, reverse=True)
    for old in newest_first[_KEPT:]:
        old.unlink(missing_ok=True)
