"""What the runner and the nodes of a cluster send each other, as bytes: lines, output, and files.

Between `RemoteChannel` on the runner's side and `NodeWorker` on a node.  Whatever carries the bytes (an actor's calls,
a socket) sees nothing else, and keeps their order.

Files travel because nodes share no folder with the runner.  A file belongs to a place, which each side knows as a
folder of its own: the scratch folder of an attempt, or the folder of an export.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from gridsearch.records import ExportRequest, Lane


class RunFiles(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """What a run's workers need that lies on the runner's machine, by the SHA-256 of each content.

    Attributes:
        objects: of the plug-ins of the runner's session (`shipping.pickled`), "" where there are none.
        code: of the user's own files, by absolute path there.
        roots: absolute paths there of the folders from which modules among these are imported.
        images: of the datasets (`kept_images.write`), by fingerprint.
    """

    objects: str = ""
    code: dict[str, str] = {}
    roots: tuple[str, ...] = ()
    images: dict[str, str] = {}


class FileSent(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A file of a place, whole: new, or other than before."""

    place: str
    name: str
    content: bytes


class FileGone(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A file of a place is not there any more."""

    place: str
    name: str


class StartWorker(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Asks a node to start a worker.

    Attributes:
        setup: the line of its setup, with paths of the runner's machine.
        files: what it needs of that.
        shared: whether the node sees the runner's folders, so that no file travels.
    """

    setup: bytes
    files: RunFiles
    shared: bool = False


class CommandSent(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A command for the worker, as a line, with the files that are in its places."""

    line: bytes
    files: list[FileSent] = []


class EndWorker(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Asks a node to end its worker."""


class LinesSent(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Events of the worker, a line each."""

    lines: list[bytes]


class OutputSent(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """What was written to the worker's descriptors 1 and 2."""

    content: bytes


class WorkerEnded(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The worker has ended: how, and whether for lack of memory; its node is there and starts another."""

    message: str
    memory: bool = False


Message: TypeAlias = (
    StartWorker | CommandSent | EndWorker | FileSent | FileGone | LinesSent | OutputSent | WorkerEnded
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Message])


def to_bytes(messages: list[Message]) -> bytes:
    """Encode messages, in their order."""
    return _encoder.encode(messages)


def from_bytes(content: bytes) -> list[Message]:
    """Decode what `to_bytes` gave.

    Raises:
        ValueError: it is something else.
    """
    return _decoder.decode(content)


def place_of(task: Lane | ExportRequest) -> str:
    """Return the place of a lane's scratch folder, or of an export."""
    if isinstance(task, ExportRequest):
        return f"export-{task.id}"
    return f"{task.trial.id}-{task.trial.attempt}"


def is_name(name: str) -> bool:
    """Whether this names a file of a place: no folder, no draft."""
    return bool(name) and not name.startswith(".") and not set("/\\\0") & set(name)
