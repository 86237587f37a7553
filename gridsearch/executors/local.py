"""Worker processes on this machine: how they are started, and how lines travel to them and back through pipes."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from typing import IO, TYPE_CHECKING

from gridsearch.executors.pool import WorkerPool
from gridsearch.executors.shipping import pickled
from gridsearch.executors.transport import Ended, Lines, Output
from gridsearch.executors.warm_parent import ForkedProcess, WarmParent
from gridsearch.executors.worker_exit import MemoryKills, describe_exit, process_handle
from gridsearch.records.wire import encode
from gridsearch.training.memory import described

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gridsearch.executors.transport import Arrival
    from gridsearch.plugins import Plugin
    from gridsearch.records import Event, WorkerSetup
    from gridsearch.records.wire import Command

_PIPE_SIZE = 1 << 16
_MOST_READS = 16
"""Of a worker's output in a row, a pipe's content each: one that never stops printing must not hold up the others."""

_END_SECONDS = 5.0
"""A worker has so long to end with what it has started, before it is killed."""


class LocalExecutor(WorkerPool):
    """Keeps one worker process for each setup; a worker that died is replaced when there is work for it.

    Args:
        setups: one for each worker.
        deliver: takes each event, in `poll`.
        objects: plug-ins that only this process has, by display name; workers get copies.

    Raises:
        UsageError: one of these cannot leave this process.
    """

    def __init__(
        self,
        setups: Sequence[WorkerSetup],
        deliver: Callable[[Event], None],
        *,
        objects: Mapping[str, Plugin] | None = None,
    ) -> None:
        assert setups
        self._pipes = PipeTransport(setups, objects=pickled(objects) if objects else None)
        super().__init__(self._pipes, deliver, resumable=all(setup.resumable for setup in setups))

    def pids(self) -> dict[str, int]:
        """Return the process id of each running worker."""
        return self._pipes.pids()


class PipeTransport:
    """Starts workers as processes of this machine; see `Transport` and `worker_process`.

    Args:
        setups: of the workers that can be started, one at a time of each.
        objects: plug-ins that only the runner's process has, see `shipping.pickled`.
        roots: folders where workers look for modules first.
        end: the signal that ends them; see `worker_process` for what another than SIGTERM means.
    """

    def __init__(
        self,
        setups: Sequence[WorkerSetup],
        *,
        objects: bytes | None = None,
        end: signal.Signals = signal.SIGTERM,
        roots: Sequence[str] = (),
    ) -> None:
        self._setups = {setup.name: setup for setup in setups}
        self._objects = None if objects is None else _inherited_file(objects)
        self._running: dict[str, WorkerProcess] = {}
        self._selector = selectors.DefaultSelector()
        self._kills = MemoryKills()
        self._end = end
        self._roots = roots

    @property
    def startable(self) -> Sequence[WorkerSetup]:
        """The workers that do not run."""
        return [setup for name, setup in self._setups.items() if name not in self._running]

    def pids(self) -> dict[str, int]:
        """Return the process id of each running worker."""
        return {name: process.pid for name, process in self._running.items()}

    def start(self, setup: WorkerSetup) -> WorkerProcess:
        """Start a process."""
        environment = worker_environment(threads=setup.threads, roots=self._roots)
        objects = None if self._objects is None else self._objects.fileno()
        process = WorkerProcess(setup, objects, environment, end=self._end)
        self._running[setup.name] = process
        for descriptor in process.descriptors:
            self._selector.register(descriptor, selectors.EVENT_READ, process)
        process.send(setup)
        return process

    def poll(self, timeout: float) -> Iterator[Arrival]:
        """Give what the processes write, and who has ended."""
        selected = self._selector.select(timeout)
        # Output last: the event that a pack has begun was written before what its code prints.
        for key, _ in sorted(selected, key=lambda each: each[0].fd == each[0].data.output_end):
            process: WorkerProcess = key.data
            if self._running.get(process.name) is not process:  # its end came with the descriptor before
                continue
            if key.fd == process.output_end:
                yield Output(process)
            elif key.fd == process.handle:
                yield from self._rest(process)
                yield self._ended(process)
            else:
                lines = process.lines()
                if lines:
                    yield Lines(process, lines)
                elif lines is None:
                    yield self._ended(process)
            if process.output_closed:
                with contextlib.suppress(KeyError):
                    self._selector.unregister(process.output_end)

    def close(self) -> None:
        """Kill every process and wait for its end."""
        for process in self._running.values():
            process.close_commands()
            process.signal(self._end)
        for process in self._running.values():
            process.kill()
            self._release(process)
        self._running.clear()
        self._selector.close()
        if self._objects is not None:
            self._objects.close()

    def _rest(self, process: WorkerProcess) -> Iterator[Arrival]:
        """Give what a process that has ended said before; a child of its may hold the pipe open."""
        os.set_blocking(process.events, False)
        with contextlib.suppress(BlockingIOError):
            while (lines := process.lines()) is not None:
                if lines:
                    yield Lines(process, lines)

    def _ended(self, process: WorkerProcess) -> Ended:
        """Kill what a process that has ended has started, and say how it ended."""
        code = process.kill()
        memory = code == -signal.SIGKILL and self._kills.another()
        why = f", out of memory? The limit is {described()}" if memory else ""
        process.keep_output()
        self._release(process)
        del self._running[process.name]
        return Ended(process, describe_exit(code) + why, memory=memory)

    def _release(self, process: WorkerProcess) -> None:
        for descriptor in process.descriptors:
            with contextlib.suppress(KeyError):
                self._selector.unregister(descriptor)
        process.close()


class WorkerProcess:
    """A worker process, and the pipes to it.

    Args:
        setup: the worker's, of which this needs the name and the kind of study.
        objects: descriptor of a file that it inherits.
        environment: its environment.
        end: the signal that ends it.

    Attributes:
        name: the worker's.
        pid: of the process that waits for the worker, see `worker_process`.
        events: descriptor that its events are read from.
        output_end: descriptor that its output is read from; children of its may hold the other end.
        output_closed: whether nobody holds that any more.
        handle: descriptor that can be read once the process has ended; None where the system has none.
    """

    def __init__(
        self, setup: WorkerSetup, objects: int | None, environment: Mapping[str, str], *, end: signal.Signals
    ) -> None:
        self.name = setup.name
        self._end = end
        commands_read, commands_write = os.pipe()
        self.events, events_write = os.pipe()
        self.output_end, output_write = os.pipe()
        os.set_blocking(self.output_end, False)
        inherited = () if objects is None else (objects,)
        try:
            ends = (commands_read, events_write, output_write, *inherited)
            pid = WarmParent.fork(setup.kind, environment, end, ends)
            self._process: ForkedProcess | subprocess.Popen[bytes]
            self._process = (
                _started(end, commands_read, events_write, output_write, inherited, environment)
                if pid is None
                else ForkedProcess(pid)
            )
        except BaseException:
            for ours in (commands_write, self.events, self.output_end):
                os.close(ours)
            raise
        finally:
            os.close(commands_read)
            os.close(events_write)
            os.close(output_write)
        self.pid = self._process.pid
        self.handle = process_handle(self.pid)
        self.output_closed = False
        self._commands = os.fdopen(commands_write, "wb")
        self._rest = bytearray()
        self._kept = b""

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The descriptors that can be waited for."""
        return tuple(filter(None, (self.events, self.output_end, self.handle)))

    def send(self, command: Command) -> None:
        """Write a command; a process that has just ended is noticed by its descriptors."""
        with contextlib.suppress(BrokenPipeError):
            self._commands.write(encode(command) + b"\n")
            self._commands.flush()

    def lines(self) -> list[bytes] | None:
        """Return the lines that can be read now; None at the end of the pipe."""
        chunk = os.read(self.events, 1 << 20)
        begun, newline, rest = chunk.rpartition(b"\n")
        lines: list[bytes] = []
        if newline:  # only what is new is looked through: an event may be as long as what a model says
            lines = bytes(self._rest + begun).split(b"\n")
            self._rest.clear()
        self._rest += rest
        return lines if chunk else None

    def output(self) -> bytes:
        """Return what was written to the process's descriptors 1 and 2 since the last call."""
        found, self._kept = [self._kept], b""
        with contextlib.suppress(BlockingIOError):
            for _ in range(_MOST_READS if not self.output_closed else 0):
                chunk = os.read(self.output_end, _PIPE_SIZE)
                self.output_closed = not chunk  # the other end is closed
                found.append(chunk)
                if not chunk:
                    break
        return b"".join(found)

    def keep_output(self) -> None:
        """Read the output while the pipe is open, for a later `output`."""
        self._kept = self.output()

    def end(self) -> None:
        """End the process, even if somebody has stopped it."""
        self.signal(self._end)
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> int:
        """End it with all that the user's model has started, see `worker_process`; return its exit code."""
        if sys.platform == "linux":
            self.signal(self._end)
            deadline = time.monotonic() + _END_SECONDS
            # not reaped: its number stays its own for what follows
            ended = os.WEXITED | os.WNOWAIT | os.WNOHANG
            while os.waitid(os.P_PID, self.pid, ended) is None and time.monotonic() < deadline:
                time.sleep(0.005)
        # A worker leads a session of its own: where nothing could end what it leaves, this ends what stayed in that.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        return self._process.wait()

    def close_commands(self) -> None:
        """Close the pipe of its commands, at whose end a worker ends."""
        with contextlib.suppress(BrokenPipeError):
            self._commands.close()

    def close(self) -> None:
        """Close all descriptors."""
        for descriptor in self.descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self.output_closed = True
        self.close_commands()


def _started(
    end: signal.Signals,
    commands: int,
    events: int,
    output: int,
    inherited: tuple[int, ...],
    environment: Mapping[str, str],
) -> subprocess.Popen[bytes]:
    """Start a worker's process, which imports what it needs itself."""
    return subprocess.Popen(  # noqa: S603 - our own module, no shell
        [
            *(sys.executable, "-P", "-m", "gridsearch.executors.worker_process"),
            *map(str, (end.value, commands, events, os.getpid(), *inherited)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=(commands, events, *inherited),
        env=environment,
        start_new_session=True,
    )


def _inherited_file(content: bytes) -> IO[bytes]:
    """Return a file without a name that holds this for the workers to inherit."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the transport
    file.write(content)
    file.flush()
    return file


_HUGE_PAGES = "glibc.malloc.hugetlb=1"


def worker_environment(*, threads: int, roots: Sequence[str] = ()) -> dict[str, str]:
    """Return a worker's environment: what a process must know before it starts.

    These are our module search path, the number of threads, and that glibc asks for huge pages, which it does
    from its start or never: eight LeNets' step at batch 100 went from 27.5 to 25.1 ms, at batch 10 from 3.9 to
    3.6 ms, since activations and optimizer states are streamed and a page of 4 KiB ends each prefetch.
    """
    here = [*roots, *(entry or str(os.getcwd()) for entry in sys.path)]  # noqa: PTH109 - sys.path holds strings
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if "glibc.malloc.hugetlb" not in tunables:
        tunables = ":".join(filter(None, (tunables, _HUGE_PAGES)))
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(here)),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "GLIBC_TUNABLES": tunables,
    }
