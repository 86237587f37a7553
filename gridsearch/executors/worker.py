"""The worker: packs come in, training happens, events go out.  It never sees the store.

As a process it is started by `LocalExecutor` through `worker_process`.  Each message is one line of JSON
(`wire.encode`).  The worker ends when its command pipe closes, so that it never outlives the runner, whatever kills
that; on Linux the kernel kills it besides.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO

from gridsearch.executors.function_trainer import FunctionRunner
from gridsearch.executors.logs import flush_native_output
from gridsearch.executors.pack_trainer import PackTrainer
from gridsearch.executors.pruning_replies import PruningReplies
from gridsearch.executors.shipping import Received
from gridsearch.executors.worker_exit import go_first_when_memory_runs_out
from gridsearch.records import (
    EpochEnded,
    Event,
    ExportRequest,
    LanesGiven,
    Leave,
    Pack,
    PackEnded,
    PruningDecision,
    StepEnded,
    StillTraining,
    TrialFailed,
    TrialFinished,
    WorkerReady,
    WorkerSetup,
)
from gridsearch.records.study_kinds import FUNCTION, IMAGES
from gridsearch.records.wire import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gridsearch.plugins import Plugin
    from gridsearch.records import Task

_SIGN_SECONDS = 10.0
"""A worker that takes steps says something at least this often."""


def make_trainer(
    setup: WorkerSetup, emit: Callable[[Event], None], objects: Mapping[str, Plugin] | None = None
) -> PackTrainer | FunctionRunner:
    """Return what executes packs of the setup's kind of study."""
    return _TRAINERS[setup.kind](setup, emit, objects)


_TRAINERS: Mapping[str, type[PackTrainer | FunctionRunner]] = MappingProxyType(
    {IMAGES.name: PackTrainer, FUNCTION.name: FunctionRunner}
)


def load(kind: str) -> None:
    """Import what a worker needs for a kind of study, as far as that is known before it has its setup."""
    if _TRAINERS[kind] is PackTrainer:  # a second's work
        import gridsearch.training.lane_checkpoints
        import gridsearch.training.loop
        import gridsearch.training.resident_data
        import gridsearch.zoo.datasets  # noqa: F401 - they are kept where imports are


class EventPipe:
    """The way to the coordinator; whole lines, from any thread."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._last_sent = time.monotonic()

    def send(self, event: Event) -> None:
        """Send an event; a child that the user's code forked, and that came back from it, ends here instead."""
        if os.getpid() != self._process:
            os._exit(1)
        line = encode(event) + b"\n"
        self._last_sent = time.monotonic()
        with self._lock:
            self._stream.write(line)
            self._stream.flush()

    def still_training(self, pack: str) -> bool:
        """Say that a pack takes its steps, if nothing was said for long; return that it is not left for that."""
        if time.monotonic() - self._last_sent >= _SIGN_SECONDS:
            self.send(StillTraining(pack=pack))
        return False


class _Inbox:
    """The coordinator's commands as they come, each kind in a queue of its own.

    Attributes:
        work: packs, and what else is to be done, one after the other.
        given: answers to a pack that asked for more lanes.
        decided: which trials shall end now.
        leaving: set once the worker shall leave its pack.
    """

    def __init__(self) -> None:
        self.work: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self.given: queue.SimpleQueue[LanesGiven] = queue.SimpleQueue()
        self.decided: queue.SimpleQueue[PruningDecision] = queue.SimpleQueue()
        self.leaving = threading.Event()

    def read(self, commands: BinaryIO) -> None:
        """Sort commands until the pipe closes, then end this process: nobody wants the result any more."""
        queues: dict[type, queue.SimpleQueue[Any]] = {LanesGiven: self.given, PruningDecision: self.decided}
        for line in commands:
            command = decode(line)
            if isinstance(command, Leave):
                self.leaving.set()
            else:
                queues.get(type(command), self.work).put(command)
        os._exit(0)


def serve(
    commands_fd: int,
    events_fd: int,
    objects_fd: int | None = None,
    *,
    pack_ended: Callable[[], None] | None = None,
) -> None:
    """Serve the coordinator until it closes the command pipe.

    Args:
        commands_fd: the pipe that commands come from.
        events_fd: the pipe that events go to.
        objects_fd: a file with the plug-ins of the runner's session, see `shipping`.
        pack_ended: called after each pack.
    """
    go_first_when_memory_runs_out()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner decides, a key on its terminal is not for us
    commands = os.fdopen(commands_fd, "rb")
    setup: WorkerSetup = decode(commands.readline())
    inbox = _Inbox()
    threading.Thread(target=inbox.read, args=(commands,), daemon=True).start()
    pipe = EventPipe(os.fdopen(events_fd, "wb"))
    replies = PruningReplies(inbox.decided)

    def emit(event: Event) -> None:
        if setup.pruning and isinstance(event, EpochEnded | StepEnded):
            replies.expect(event)
        if isinstance(event, TrialFinished | TrialFailed | PackEnded):
            flush_native_output()
        pipe.send(event)

    trainer = make_trainer(setup, emit, None if objects_fd is None else Received(os.fdopen(objects_fd, "rb")))
    pipe.send(WorkerReady(worker=setup.name, device=setup.device))
    while True:
        task = inbox.work.get()
        if isinstance(task, Pack):
            trainer.train(
                task,
                stop=partial(pipe.still_training, task.id),
                leave=inbox.leaving.is_set,
                given=lambda: inbox.given.get().lanes,
                pruned=replies.pruned,
            )
            if pack_ended is not None:
                pack_ended()
        else:
            assert isinstance(trainer, PackTrainer)
            pipe.send(trainer.export(task) if isinstance(task, ExportRequest) else trainer.probe(task))
