"""A worker on a node of a cluster: the part on that node, which keeps the worker process and its files.

Stands between `RemoteChannel` on the runner's side, to which an engine carries its messages, and the same worker
process with the same pipes as on the runner's own machine (`PipeTransport`): what the user's code does to its process
ends that process and not this one.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from gridsearch.executors.local import PipeTransport
from gridsearch.executors.node_messages import (
    CommandSent,
    EndWorker,
    FileGone,
    FileSent,
    LinesSent,
    OutputSent,
    StartWorker,
    WorkerEnded,
    from_bytes,
    is_name,
    place_of,
    to_bytes,
)
from gridsearch.executors.run_files import UnpackedRun, unpack_run
from gridsearch.executors.transport import Ended, Lines, Output
from gridsearch.records import ExportRequest, Lane, LanesGiven, Pack, PackStarted
from gridsearch.records.wire import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gridsearch.executors.node_messages import Message
    from gridsearch.executors.transport import Channel
    from gridsearch.records.wire import Command

    _CommandT = TypeVar("_CommandT", bound=Command)


_PACK_STARTED = f'["{PackStarted.__name__}"'.encode()


class NodeWorker:
    """Keeps one worker process at a time; a thread may `take` while another waits in `poll`.

    The thread that takes must live as long as the workers that it starts: the kernel ends these with it.

    Args:
        folder: of this object alone, for files; whoever made it removes it.
        content: gives what travels with a run by its SHA-256, see `node_messages.RunFiles`.
        end: the signal that ends the worker, see `worker_process`.
    """

    def __init__(
        self, folder: Path, content: Callable[[str], bytes], *, end: signal.Signals = signal.SIGTERM
    ) -> None:
        self._end = end
        self._folder = folder
        self._content = content
        self._transport: PipeTransport | None = None
        self._channel: Channel | None = None
        self._files: NodeFiles | None = None
        self._changed = threading.Condition()
        self._failed: WorkerEnded | None = None

    def take(self, content: bytes) -> None:
        """Do what the runner's messages ask for, in order; where that fails the worker ends, and `poll` says why."""
        for message in from_bytes(content):
            try:
                self._take(message)
            except Exception as error:  # noqa: BLE001 - the runner says what a node cannot do
                self.close()
                with self._changed:
                    self._failed = WorkerEnded(f"its node cannot go on: {type(error).__name__}: {error}")
                    self._changed.notify_all()

    def _take(self, message: Message) -> None:
        match message:
            case StartWorker():
                self._start(message)
            case CommandSent() if self._channel is not None:
                command = decode(message.line)
                if self._files is not None:
                    command = self._files.placed(command, message.files)
                self._channel.send(command)
            case EndWorker() if self._channel is not None:
                self._channel.end()
            case _:  # of a worker that has ended
                pass

    def poll(self, timeout: float) -> bytes:
        """Return messages for the runner; wait at most `timeout` seconds for the first."""
        with self._changed:
            if self._transport is None and self._failed is None:
                self._changed.wait(timeout)
            transport, failed, self._failed = self._transport, self._failed, None
        if failed is not None:
            return to_bytes([failed])
        return to_bytes([] if transport is None else list(self._arrived(transport, timeout)))

    def close(self) -> None:
        """End the worker, and wait for its end."""
        with self._changed:
            transport, self._transport, self._channel = self._transport, None, None
        if transport is not None:
            transport.close()

    def _start(self, message: StartWorker) -> None:
        self.close()
        setup = decode(message.setup)
        if message.shared:
            run = UnpackedRun(setup, self._content(message.files.objects) if message.files.objects else None)
        else:
            run = unpack_run(setup, message.files, self._folder, self._content)
        transport = PipeTransport([run.setup], objects=run.objects, roots=run.roots, end=self._end)
        channel = transport.start(run.setup)
        with self._changed:
            self._transport, self._channel = transport, channel
            self._files = None if message.shared else NodeFiles(self._folder / "places")
            self._changed.notify_all()

    def _arrived(self, transport: PipeTransport, timeout: float) -> Iterator[Message]:
        """Yield what the worker did; files are there before the events that speak of them."""
        for arrival in transport.poll(timeout):
            if not isinstance(arrival, Lines | Output | Ended):
                continue  # of which pipes give none
            if isinstance(arrival, Lines):
                yield from self._lines(arrival.channel, list(arrival.lines))
                continue
            yield from self._output(arrival.channel)
            if isinstance(arrival, Ended):
                yield from self._new_files()
                yield WorkerEnded(arrival.message, arrival.memory)
                self.close()
                return
        yield from self._new_files()

    def _lines(self, channel: Channel, lines: list[bytes]) -> Iterator[Message]:
        """Yield events: the start of a pack before what its code has printed since, all others after that."""
        started = 1 + max((i for i, line in enumerate(lines) if line.startswith(_PACK_STARTED)), default=-1)
        if started:
            yield LinesSent(lines[:started])
        yield from self._output(channel)
        yield from self._new_files()
        if lines[started:]:
            yield LinesSent(lines[started:])

    def _output(self, channel: Channel) -> Iterator[Message]:
        if output := channel.output():
            yield OutputSent(output)

    def _new_files(self) -> Iterator[Message]:
        return iter(()) if self._files is None else self._files.changes()


class NodeFiles:
    """Folders of a node that stand for folders of the runner: says what has changed in them.

    Args:
        folder: holds a folder for each place; emptied with each task.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, tuple[int, int]]] = {}

    def placed(self, command: _CommandT, files: list[FileSent]) -> _CommandT:
        """Return a command with folders of this node, in which these files are now."""
        with self._lock:
            if isinstance(command, Pack | ExportRequest):
                shutil.rmtree(self._folder, ignore_errors=True)
                self._known.clear()
            if isinstance(command, Pack | ExportRequest | LanesGiven):
                command = replace(command, lanes=tuple(self._placed_lane(lane) for lane in command.lanes))
            if isinstance(command, ExportRequest):
                command = replace(command, folder=str(self._make(place_of(command))))
            for file in files:
                if file.place in self._known and is_name(file.name):
                    path = self._folder / file.place / file.name
                    path.write_bytes(file.content)
                    self._known[file.place][file.name] = _stamp(path.stat())
        return command

    def changes(self) -> Iterator[Message]:
        """Yield what is new, other and gone since the last call."""
        with self._lock:
            for place, known in self._known.items():
                there = self._there(place)
                for name, stamp in there.items():
                    if known.get(name) != stamp:
                        try:
                            content = (self._folder / place / name).read_bytes()
                        except FileNotFoundError:
                            continue
                        known[name] = stamp
                        yield FileSent(place, name, content)
                for name in set(known) - set(there):
                    del known[name]
                    yield FileGone(place, name)

    def _there(self, place: str) -> dict[str, tuple[int, int]]:
        found = {}
        for entry in os.scandir(self._folder / place):
            if is_name(entry.name) and entry.is_file(follow_symlinks=False):
                try:
                    found[entry.name] = _stamp(entry.stat(follow_symlinks=False))
                except FileNotFoundError:
                    continue
        return found

    def _placed_lane(self, lane: Lane[Any]) -> Lane[Any]:
        return replace(lane, scratch=str(self._make(place_of(lane))))

    def _make(self, place: str) -> Path:
        folder = self._folder / place
        folder.mkdir(parents=True, exist_ok=True)
        self._known.setdefault(place, {})
        return folder


def _stamp(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_size, facts.st_mtime_ns
