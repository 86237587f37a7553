"""The executor that keeps workers: it knows packs, lanes, decisions, logs and deaths, whatever carries its lines.

Stands between the coordinator, which submits tasks and takes events, and a `Transport`, which starts workers and
carries lines.  `LocalExecutor` is a pool of processes on this machine.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gridsearch.errors import GridsearchError
from gridsearch.executors.logs import LogStream, merged
from gridsearch.executors.transport import Ended, Leaving, Lines, Output, Said
from gridsearch.records import (
    EngineSays,
    Exported,
    LanesGiven,
    LanesTraining,
    LanesWanted,
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
    WorkerLeft,
    WorkerReady,
)
from gridsearch.records.wire import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.executors.transport import Channel, Transport
    from gridsearch.records import Event, Lane, PruningDecision, Task, WorkerSetup

_FAILED_STARTS_LIMIT = 3
_LAST_OUTPUT = 1 << 14
"""Bytes of a worker's output in which the reason of its death is looked for."""


@dataclass(slots=True, eq=False)
class _Worker:
    setup: WorkerSetup
    channel: Channel
    log: LogStream
    ready: bool = False
    task: Task | None = None
    leaving: str = ""
    trials: tuple[int, ...] = ()
    last_output: bytes = b""
    decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("backslashreplace")
    )


class WorkerPool:
    """Keeps workers, each of which has one task at a time; one that died is replaced when there is work for it.

    Args:
        transport: starts and hears them.
        deliver: takes each event, in `poll`.
        resumable: whether trials that are left at an epoch's end go on from there.
    """

    def __init__(self, transport: Transport, deliver: Callable[[Event], None], *, resumable: bool) -> None:
        self._transport = transport
        self._deliver = deliver
        self._resumable = resumable
        self._workers: dict[str, _Worker] = {}
        self._failed_starts = 0
        self._left_out = 0

    @property
    def free(self) -> int:
        """Workers without a task, running or yet to be started."""
        return max(0, self._most - self.busy)

    @property
    def busy(self) -> int:
        """Workers with a task."""
        return sum(worker.task is not None for worker in self._workers.values())

    @property
    def _most(self) -> int:
        """How many workers may have a task now."""
        staying = sum(not worker.leaving or worker.task is not None for worker in self._workers.values())
        there = staying + len(self._transport.startable)
        return min(there, max(1, there - self._left_out))

    def use_fewer(self) -> bool:
        """Let one worker fewer have a task at a time; return whether there is one left to leave out."""
        fewer = self._most > 1
        self._left_out += fewer
        return fewer

    def submit(self, task: Task) -> None:
        """Send a task to an idle worker, starting one if none is idle."""
        idle = [w for w in self._workers.values() if w.task is None and not w.leaving]
        worker = idle[0] if idle else self._start(self._transport.startable[0])
        worker.task = task
        worker.channel.send(task)

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
                worker.channel.send(Leave())
        return self._resumable

    def end_worker(self, task: str) -> None:
        """End the worker of a pack (its id) or of a measurement (its key); the next poll reports it."""
        for worker in self._workers.values():
            its = worker.task.key if isinstance(worker.task, ProbeRequest) else worker.task and worker.task.id
            if its == task:
                worker.channel.end()

    def expect(self, *, more: bool) -> None:
        """Do nothing: a worker that waits costs nobody anything."""

    def end_idle(self, why: str) -> None:
        """End the workers that have no task."""
        for worker in self._workers.values():
            if worker.task is None and not worker.leaving:
                self._let_leave(worker, why)

    def poll(self, timeout: float) -> None:
        """Deliver what the workers say, and who has died."""
        for arrival in self._transport.poll(timeout):
            if isinstance(arrival, Said):
                self._deliver(EngineSays(message=arrival.message, warning=arrival.warning))
                continue
            worker = self._workers.get(arrival.channel.name)
            if worker is None or worker.channel is not arrival.channel:
                continue
            match arrival:
                case Lines():
                    for event in merged([decode(line) for line in arrival.lines]):
                        self._handle(worker, event)
                case Output():
                    self._read_output(worker)
                case Leaving():
                    self._let_leave(worker, arrival.message)
                case Ended():
                    self._worker_ended(worker, arrival)

    def stop(self) -> None:
        """End every worker and wait for its end."""
        self._transport.close()
        self._workers.clear()

    def _read_output(self, worker: _Worker) -> None:
        """Log what was written to a worker's descriptors 1 and 2 so far."""
        output = worker.channel.output()
        worker.last_output = (worker.last_output + output)[-_LAST_OUTPUT:]
        worker.log.write(worker.decoder.decode(output))

    def _handle(self, worker: _Worker, event: Event) -> None:
        if isinstance(event, WorkerReady):
            worker.ready = True
            self._failed_starts = 0
        elif isinstance(event, PackStarted | LanesTraining):
            if isinstance(event, PackStarted):  # what is there has come since: between packs nothing waits
                worker.trials = event.trials
            self._read_output(worker)
            worker.log.end()
            worker.trials = event.trials
        elif isinstance(event, TrialFinished | TrialFailed):
            # What was written before the trial's end belongs to its log, and was written before this event.
            self._read_output(worker)
            worker.log.end()
        elif isinstance(event, PackEnded | Probed | Exported):
            worker.task, worker.trials = None, ()
        if worker.leaving and isinstance(event, LanesWanted):
            worker.channel.send(LanesGiven(pack=event.pack, lanes=()))
        elif worker.leaving and isinstance(event, TrialFailed):
            pass  # of a place that goes: its processes may have got its signal, and the trial goes on elsewhere
        elif worker.leaving and isinstance(event, PackEnded):
            self._deliver(WorkerLeft(worker=event.worker, pack=event.pack, message=worker.leaving))
        else:
            self._deliver(event)
        if worker.leaving and worker.task is None:
            worker.channel.end()

    def _let_leave(self, worker: _Worker, message: str) -> None:
        """Let a worker come to an epoch's end, and then end."""
        worker.leaving = message
        if worker.task is None:
            worker.channel.end()
        elif isinstance(worker.task, Pack):
            worker.channel.send(Leave())

    def _send_to(self, pack: str, command: LanesGiven | PruningDecision) -> None:
        for worker in self._workers.values():
            if isinstance(worker.task, Pack) and worker.task.id == pack:
                worker.channel.send(command)
                if isinstance(command, LanesGiven):
                    worker.trials += tuple(lane.trial.id for lane in command.lanes)

    def _start(self, setup: WorkerSetup) -> _Worker:
        log = LogStream(lambda text: self._log(setup.name, text))
        worker = self._workers[setup.name] = _Worker(setup, self._transport.start(setup), log)
        return worker

    def _log(self, worker: str, text: str) -> None:
        """Deliver text for the logs of the trials that a worker trains; there is none between packs."""
        if trials := self._workers[worker].trials:
            self._deliver(LogText(trials=trials, text=text))

    def _worker_ended(self, worker: _Worker, ended: Ended) -> None:
        """Report what a worker that has ended was working on."""
        self._read_output(worker)
        worker.log.end()
        tail = worker.last_output.decode(errors="replace").strip().splitlines()
        message = ended.message + (f": {tail[-1]}" if tail else "")
        del self._workers[worker.setup.name]
        if not worker.ready and not ended.place_gone and not worker.leaving:
            self._failed_starts += 1
            if self._failed_starts >= _FAILED_STARTS_LIMIT:
                self.stop()
                raise GridsearchError(
                    f"workers end before they are ready: {message}",
                    hint="`gridsearch doctor` says what is wrong; `--executor inline` trains without workers",
                )
        if isinstance(worker.task, ProbeRequest):
            # It cost a worker; the trials will show whether it costs theirs.
            self._deliver(Probed(worker=worker.setup.name, key=worker.task.key, seconds_per_image={}))
        pack = worker.task.id if isinstance(worker.task, Pack) else None
        if worker.leaving:
            if worker.task is not None:
                self._deliver(WorkerLeft(worker=worker.setup.name, pack=pack, message=worker.leaving))
            return
        self._deliver(
            WorkerDied(
                worker=worker.setup.name,
                pack=pack,
                message=message,
                memory=ended.memory,
                place_gone=ended.place_gone,
            )
        )
