"""The runner's side of a worker on a node: a `Channel` whose commands and events travel as messages, with their files.

Stands between `WorkerPool` and an engine's transport, which has only to carry bytes to the node's `NodeWorker` and
back, in order.  The runner alone writes under its home: what a worker leaves in its folders on the node is written here
into those of the runner, before the events that speak of it are passed on.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gridsearch import files
from gridsearch.errors import unwritable
from gridsearch.executors.node_messages import (
    CommandSent,
    EndWorker,
    FileGone,
    FileSent,
    LinesSent,
    OutputSent,
    RunFiles,
    StartWorker,
    WorkerEnded,
    from_bytes,
    is_name,
    place_of,
    to_bytes,
)
from gridsearch.executors.transport import Ended, Lines, Output
from gridsearch.records import ExportRequest, LanesGiven, Pack, Unwritable
from gridsearch.records.wire import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gridsearch.executors.node_messages import Message
    from gridsearch.executors.transport import Arrival
    from gridsearch.records import WorkerSetup
    from gridsearch.records.wire import Command


class RemoteChannel:
    """The way to one worker on a node.

    Args:
        setup: the worker's, with paths of this machine.
        run_files: what travels with the run.
        carry: takes bytes for the node's `NodeWorker.take`; it neither waits nor raises.
        shared: whether the node sees this machine's folders, so that no file travels.
    """

    def __init__(
        self, setup: WorkerSetup, run_files: RunFiles, carry: Callable[[bytes], None], *, shared: bool = False
    ) -> None:
        self._name = setup.name
        self._carry = carry
        self._shared = shared
        self._places: dict[str, Path] = {}
        self._output = b""
        self._put(StartWorker(encode(setup), run_files, shared))

    @property
    def name(self) -> str:
        """The worker's name."""
        return self._name

    def send(self, command: Command) -> None:
        """Send a command, with the files in the folders that it names: what an interrupted trial goes on from."""
        if isinstance(command, Pack | ExportRequest):
            self._places.clear()
        there: dict[str, Path] = {}
        if isinstance(command, Pack | ExportRequest | LanesGiven) and not self._shared:
            there = {place_of(lane): Path(lane.scratch) for lane in command.lanes}
            self._places |= there
        if isinstance(command, ExportRequest):
            self._places[place_of(command)] = Path(command.folder)
        self._put(
            CommandSent(encode(command), [file for place in there.items() for file in _files_in(*place)])
        )

    def output(self) -> bytes:
        """Return what the worker printed that was not returned before."""
        found, self._output = self._output, b""
        return found

    def end(self) -> None:
        """Ask the node to end the worker."""
        self._put(EndWorker())

    def arrived(self, content: bytes) -> Iterator[Arrival]:
        """Yield what a `NodeWorker.poll` of the worker's node gave."""
        for message in from_bytes(content):
            match message:
                case LinesSent():
                    yield Lines(self, message.lines)
                case OutputSent():
                    self._output += message.content
                    yield Output(self)
                case FileSent() | FileGone():
                    yield from self._write(message)
                case WorkerEnded():
                    yield Ended(self, message.message, message.memory)

    def _put(self, message: Message) -> None:
        self._carry(to_bytes([message]))

    def _write(self, file: FileSent | FileGone) -> Iterator[Arrival]:
        """Bring a file to this machine; a folder that is gone is that of a trial which is another's by now."""
        folder = self._places.get(file.place)
        if folder is None or not is_name(file.name):
            return
        try:
            if isinstance(file, FileGone):
                (folder / file.name).unlink(missing_ok=True)
                return
            if file.place.startswith("export-"):
                folder.mkdir(parents=True, exist_ok=True)
            if folder.is_dir():
                files.write_whole(folder / file.name, file.content)
        except OSError as error:
            if not folder.is_dir():
                return
            refused = unwritable(folder / file.name, error)
            event = Unwritable(worker=self._name, message=refused.message, hint=refused.hint)
            yield Lines(self, [encode(event)])


def _files_in(place: str, folder: Path) -> Iterator[FileSent]:
    """Yield the files of a place as they are now."""
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if is_name(path.name) and path.is_file() and not path.is_symlink():
                yield FileSent(place, path.name, path.read_bytes())
