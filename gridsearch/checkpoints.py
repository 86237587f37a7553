"""Checkpoints as files: where a trial goes on from when its worker, its runner or its machine has gone.

Stands below the workers, which write and read them, and the store, which hands them from one attempt to the next.
They lie in the scratch folder of the attempt that wrote them, so that a worker which was paused and has lost its claim
cannot touch those of its successor.  A checkpoint is one file in the safetensors format: tensors, and in the header's
metadata the rest as JSON.  Its name bears its place in the order, its epoch and the SHA-256 of its bytes:

    checkpoint-000012-30-<64 hexadecimal digits>.safetensors

It appears whole or not at all, and the one before it stays until two newer ones are whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gridsearch import files
from gridsearch.records.wire import decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from gridsearch.records import Event

KEPT: Final = 2
"""So many of a trial's checkpoints are kept: the newest, and the one before it."""

METADATA: Final = "gridsearch"
"""The key of the JSON text in a file's metadata."""

_NAME = re.compile(r"checkpoint-(\d{6,12})-(\d{1,12})-([0-9a-f]{64})\.safetensors")
_LENGTH_BYTES = 8
_SHARE = 0.01
"""Of the time that passes, no more than this goes into checkpoints."""


class Damaged(Exception):
    """A checkpoint is not what was written."""


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """A checkpoint, by what its name says.

    Attributes:
        path: the file.
        order: grows from one checkpoint of a trial to the next.
        epoch: epochs, or steps, that had ended.
        sha256: of its bytes.
    """

    path: Path
    order: int
    epoch: int
    sha256: str

    def read(self) -> bytes:
        """Return its bytes.

        Raises:
            Damaged: they are not those that were written, or cannot be read.
        """
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise Damaged(f"{self.path.name} cannot be read: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise Damaged(f"{self.path.name} is not what was written")
        return content


class Pace:
    """When there is to be a checkpoint: often enough, and never so often that it costs a hundredth of the time.

    Args:
        interval: seconds between two, 0 for one at every epoch's end whatever it costs, None for none.
    """

    def __init__(self, interval: float | None) -> None:
        self.interval = interval
        self._pause = interval or 0.0
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time for one."""
        return self.interval is not None and time.monotonic() - self._last >= self._pause

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Measure how long a checkpoint takes to write, for the pause until the next."""
        began = time.monotonic()
        yield
        self._last = time.monotonic()
        if self.interval:
            self._pause = max(self.interval, (self._last - began) / _SHARE)


def checkpoints_in(folder: Path) -> list[CheckpointFile]:
    """Return the checkpoints in a folder, newest first; none where there is no folder."""
    if not folder.is_dir():
        return []
    found = [
        CheckpointFile(path, int(match[1]), int(match[2]), match[3])
        for path in folder.iterdir()
        if (match := _NAME.fullmatch(path.name)) and path.is_file() and not path.is_symlink()
    ]
    return sorted(found, key=lambda file: file.order, reverse=True)


def write_checkpoint(folder: Path, content: bytes, *, epoch: int, kept: int = KEPT) -> CheckpointFile | None:
    """Write a checkpoint and remove those that are older than the one before it.

    Args:
        folder: the scratch folder of the attempt; where it is gone, the trial is another's by now.
        content: a file in the safetensors format, see `facts_of`.
        epoch: epochs, or steps, that have ended.
        kept: how many are there afterwards, at most.

    Returns:
        The file, None where there is no such folder.

    Raises:
        OSError: it cannot be written; the others are as they were.
    """
    before = checkpoints_in(folder)
    order = before[0].order + 1 if before else 1
    digest = hashlib.sha256(content).hexdigest()
    path = folder / f"checkpoint-{order:06d}-{epoch}-{digest}.safetensors"
    try:
        files.write_whole(path, content)
    except FileNotFoundError:
        if folder.is_dir():
            raise
        return None
    for old in before[kept - 1 :]:
        old.path.unlink(missing_ok=True)
    return CheckpointFile(path, order, epoch, digest)


def as_lines(events: Iterable[Event]) -> list[str]:
    """Return events as JSON texts, for the facts of a checkpoint."""
    return [encode(event).decode() for event in events]


def as_events(lines: Sequence[str], attempt: int) -> tuple[Any, ...]:
    """Read what `as_lines` wrote, as events of another attempt."""
    return tuple(dataclasses.replace(decode(line.encode()), attempt=attempt) for line in lines)


def facts_of(content: bytes) -> dict[str, Any]:
    """Return the JSON object in the metadata of a checkpoint's bytes.

    Raises:
        Damaged: there is none.
    """
    try:
        length = int.from_bytes(content[:_LENGTH_BYTES], "little")
        header = json.loads(content[_LENGTH_BYTES : _LENGTH_BYTES + length])
        facts = json.loads(header["__metadata__"][METADATA])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged("it is no checkpoint") from error
    if not isinstance(facts, dict):
        raise Damaged("it is no checkpoint")
    return facts
