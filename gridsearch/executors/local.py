"""The executor with a worker process per core or accelerator on this machine."""

from __future__ import annotations

import codecs
import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from gridsearch.errors import GridsearchError
from gridsearch.executors.logs import LogStream, merged
from gridsearch.executors.shipping import pickled
from gridsearch.executors.worker_exit import MemoryKills, describe_exit, process_handle
from gridsearch.records import (
    Exported,
    LanesGiven,
    LanesTraining,
    Leave,
    LogText,
    Pack,
    PackEnded,
    PackStarted,
    Probed,
    ProbeRequest,
    TrialFailed,
    TrialFinished,
    WorkerDied,
    WorkerReady,
)
from gridsearch.records.wire import decode, encode
from gridsearch.training.memory import described

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gridsearch.plugins import Plugin
    from gridsearch.records import Event, Lane, PruningDecision, Task, WorkerSetup

_FAILED_STARTS_LIMIT = 3
_PIPE_SIZE = 1 << 16
_MOST_READS = (
    16  # at once, of a pipe's content each: one who never stops printing must not hold up the others
)
_LAST_OUTPUT = 1 << 14
"""Bytes of a worker's output in which the reason of its death is looked for."""

_END_SECONDS = 5.0
"""A worker has so long to end with what it has started, before it is killed."""


@dataclass(slots=True, eq=False)
class _Worker:
    setup: WorkerSetup
    process: subprocess.Popen[bytes]
    commands: IO[bytes]
    events: int
    output: int
    log: LogStream
    handle: int | None
    ready: bool = False
    task: Task | None = None
    rest: bytearray = field(default_factory=bytearray)
    trials: tuple[int, ...] = ()
    last_output: bytes = b""
    decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("backslashreplace")
    )


class LocalExecutor:
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
        self._objects = _inherited_file(pickled(objects)) if objects else None
        self._setups = {setup.name: setup for setup in setups}
        self._deliver = deliver
        self._workers: dict[str, _Worker] = {}
        self._selector = selectors.DefaultSelector()
        self._failed_starts = 0
        self._most = len(setups)
        self._kills = MemoryKills()

    @property
    def free(self) -> int:
        """Workers without a task, running or yet to be started."""
        return max(0, self._most - self.busy)

    @property
    def busy(self) -> int:
        """Workers with a task."""
        return sum(worker.task is not None for worker in self._workers.values())

    def use_fewer(self) -> bool:
        """Let one worker fewer have a task at a time; return whether there is one left to leave out."""
        fewer = self._most > 1
        self._most -= fewer
        return fewer

    def pids(self) -> dict[str, int]:
        """Return the process id of each running worker."""
        return {name: worker.process.pid for name, worker in self._workers.items()}

    def submit(self, task: Task) -> None:
        """Send a task to an idle worker, starting one if none is idle."""
        idle = [w for w in self._workers.values() if w.task is None]
        if idle:
            worker = idle[0]
        else:
            worker = self._start(next(s for s in self._setups.values() if s.name not in self._workers))
        worker.task = task
        # A worker that has just died is noticed by the next poll, which then reports its task with it.
        with contextlib.suppress(BrokenPipeError):
            _send(worker.commands, encode(task))

    def send_lanes(self, pack: str, lanes: Sequence[Lane]) -> None:
        """Send lanes to the worker that trains a pack; one that has died is noticed by the next poll."""
        self._send_to(pack, LanesGiven(pack=pack, lanes=tuple(lanes)))

    def send_decision(self, pack: str, decision: PruningDecision) -> None:
        """Send a pruning decision to the worker that trains a pack."""
        self._send_to(pack, decision)

    def leave(self) -> bool:
        """Send `Leave` to every worker that trains; return whether what they leave goes on from there."""
        for worker in self._workers.values():
            if isinstance(worker.task, Pack):
                with contextlib.suppress(BrokenPipeError):
                    _send(worker.commands, encode(Leave()))
        return all(setup.resumable for setup in self._setups.values())

    def end_worker(self, task: str) -> None:
        """End the worker of a pack (its id) or of a measurement (its key); the next poll reports it."""
        for worker in self._workers.values():
            its = worker.task.key if isinstance(worker.task, ProbeRequest) else worker.task and worker.task.id
            if its == task:
                _signal(worker.process, signal.SIGTERM)
                _signal(worker.process, signal.SIGCONT)  # somebody may have stopped it

    def poll(self, timeout: float) -> None:
        """Deliver what the workers say, and who has died."""
        for key, _ in self._selector.select(timeout):
            worker: _Worker = key.data
            if self._workers.get(worker.setup.name) is not worker:  # its end came with the descriptor before
                continue
            if key.fd == worker.output:
                self._read_output(worker)
            elif key.fd == worker.handle:
                self._read_rest(worker)
                self._worker_ended(worker)
            elif not self._read(worker):
                self._worker_ended(worker)

    def _read(self, worker: _Worker) -> bool:
        """Deliver what a worker has said; False at the end of its pipe."""
        chunk = os.read(worker.events, 1 << 20)
        begun, newline, rest = chunk.rpartition(b"\n")
        lines: list[bytes] = []
        if newline:  # only what is new is looked through: an event may be as long as what a model says
            lines = bytes(worker.rest + begun).split(b"\n")
            worker.rest.clear()
        worker.rest += rest
        for event in merged([decode(line) for line in lines]):
            self._handle(worker, event)
        return bool(chunk)

    def _read_rest(self, worker: _Worker) -> None:
        """Deliver what a worker that has ended said before; a child of its may hold the pipe open."""
        os.set_blocking(worker.events, False)
        with contextlib.suppress(BlockingIOError):
            while self._read(worker):
                pass

    def _read_output(self, worker: _Worker) -> None:
        """Log what was written to a worker's descriptors 1 and 2 so far; children of its may hold the pipe open."""
        with contextlib.suppress(BlockingIOError, KeyError):
            for _ in range(_MOST_READS):
                chunk = os.read(worker.output, _PIPE_SIZE)
                worker.last_output = (worker.last_output + chunk)[-_LAST_OUTPUT:]
                worker.log.write(worker.decoder.decode(chunk))
                if not chunk:
                    self._selector.unregister(worker.output)  # the other end is closed
                    break

    def stop(self) -> None:
        """Kill every worker and wait for its end."""
        for worker in self._workers.values():
            with contextlib.suppress(BrokenPipeError):
                worker.commands.close()
        for worker in self._workers.values():
            _signal(worker.process, signal.SIGTERM)
        for worker in self._workers.values():
            _end(worker.process)
            self._close(worker)
        self._workers.clear()
        self._selector.close()
        if self._objects is not None:
            self._objects.close()

    def _handle(self, worker: _Worker, event: Event) -> None:
        if isinstance(event, WorkerReady):
            worker.ready = True
            self._failed_starts = 0
        elif isinstance(event, PackStarted | LanesTraining):
            self._read_output(worker)
            worker.log.end()
            worker.trials = event.trials
        elif isinstance(event, TrialFinished | TrialFailed):
            # What was written before the trial's end belongs to its log, and was written before this event.
            self._read_output(worker)
            worker.log.end()
        elif isinstance(event, PackEnded | Probed | Exported):
            worker.task, worker.trials = None, ()
        self._deliver(event)

    def _send_to(self, pack: str, command: LanesGiven | PruningDecision) -> None:
        for worker in self._workers.values():
            if isinstance(worker.task, Pack) and worker.task.id == pack:
                with contextlib.suppress(BrokenPipeError):
                    _send(worker.commands, encode(command))
                if isinstance(command, LanesGiven):
                    worker.trials += tuple(lane.trial.id for lane in command.lanes)

    def _start(self, setup: WorkerSetup) -> _Worker:
        commands_read, commands_write = os.pipe()
        events_read, events_write = os.pipe()
        output_read, output_write = os.pipe()
        os.set_blocking(output_read, False)
        objects = () if self._objects is None else (self._objects.fileno(),)
        try:
            process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                [
                    *(sys.executable, "-P", "-m", "gridsearch.executors.worker_process"),
                    *map(str, (commands_read, events_write, os.getpid(), *objects)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output_write,
                stderr=output_write,
                pass_fds=(commands_read, events_write, *objects),
                env=worker_environment(threads=setup.threads),
                start_new_session=True,
            )
        finally:
            os.close(commands_read)
            os.close(events_write)
            os.close(output_write)
        handle = process_handle(process.pid)
        log = LogStream(lambda text: self._log(setup.name, text))
        commands = os.fdopen(commands_write, "wb")
        worker = _Worker(setup, process, commands, events_read, output_read, log, handle)
        self._workers[setup.name] = worker
        for descriptor in filter(None, (events_read, output_read, handle)):
            self._selector.register(descriptor, selectors.EVENT_READ, worker)
        with contextlib.suppress(BrokenPipeError):
            _send(worker.commands, encode(setup))
        return worker

    def _log(self, worker: str, text: str) -> None:
        """Deliver text for the logs of the trials that a worker trains; there is none between packs."""
        if trials := self._workers[worker].trials:
            self._deliver(LogText(trials=trials, text=text))

    def _worker_ended(self, worker: _Worker) -> None:
        """Handle a worker's exit: report what it was working on, and kill what it started."""
        _end(worker.process)
        code = worker.process.returncode
        memory = code == -signal.SIGKILL and self._kills.another()
        self._read_output(worker)
        worker.log.end()
        tail = worker.last_output.decode(errors="replace").strip().splitlines()
        why = f", out of memory? The limit is {described()}" if memory else ""
        message = describe_exit(code) + why + (f": {tail[-1]}" if tail else "")
        self._close(worker)
        del self._workers[worker.setup.name]
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= _FAILED_STARTS_LIMIT:
                self.stop()
                raise GridsearchError(
                    f"workers end before they are ready: {message}",
                    hint="`gridsearch doctor` tells what is wrong; `--executor inline` trains without workers",
                )
        pack = worker.task.id if isinstance(worker.task, Pack) else None
        if isinstance(
            worker.task, ProbeRequest
        ):  # it cost a worker; the trials will show whether it costs theirs
            self._deliver(Probed(worker=worker.setup.name, key=worker.task.key, seconds_per_image={}))
        self._deliver(WorkerDied(worker=worker.setup.name, pack=pack, message=message, memory=memory))

    def _close(self, worker: _Worker) -> None:
        for descriptor in filter(None, (worker.events, worker.output, worker.handle)):
            with contextlib.suppress(KeyError):
                self._selector.unregister(descriptor)
            with contextlib.suppress(OSError):
                os.close(descriptor)
        with contextlib.suppress(BrokenPipeError):
            worker.commands.close()


def _inherited_file(content: bytes) -> IO[bytes]:
    """Return a file without a name that holds this for the workers to inherit."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the executor
    file.write(content)
    file.flush()
    return file


def _send(stream: IO[bytes], line: bytes) -> None:
    stream.write(line + b"\n")
    stream.flush()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a worker, with all that the user's model has started; see `worker_process`."""
    if sys.platform == "linux":
        _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + _END_SECONDS
        ended = os.WEXITED | os.WNOWAIT | os.WNOHANG  # not reaped: its number stays its own for what follows
        while os.waitid(os.P_PID, process.pid, ended) is None and time.monotonic() < deadline:
            time.sleep(0.005)
    # A worker leads a session of its own: where nothing could end what it leaves, this ends what stayed in that.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, number)


_HUGE_PAGES = "glibc.malloc.hugetlb=1"


def worker_environment(*, threads: int) -> dict[str, str]:
    """Return a worker's environment: what a process must know before it starts.

    These are our module search path, the number of threads, and that glibc asks for huge pages, which it does
    from its start or never: eight LeNets' step at batch 100 went from 27.5 to 25.1 ms, at batch 10 from 3.9 to
    3.6 ms, since activations and optimizer states are streamed and a page of 4 KiB ends each prefetch.
    """
    here = [entry or str(os.getcwd()) for entry in sys.path]  # noqa: PTH109 - sys.path holds strings
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
