"""What runs in an allocation: it connects to the runner and keeps the workers that this asks for.

Stands between submitit, which calls `serve` there, and the runner's `slurm_transport`.  It runs one worker for each GPU
that the allocation sees, else one for each of its cores, as `node_worker.NodeWorker`.

    SIGTERM: Slurm ends the allocation soon: it is preempted, or was cancelled.
    SIGUSR2: its time is nearly over.

The runner gets notice of either; it lets the workers leave their packs at the end of the epoch, with checkpoints.
When the runner is gone, or says so, the workers are ended, and so does the allocation.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import struct
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gridsearch.executors.connections import ConnectionLost, connect
from gridsearch.executors.node_messages import to_bytes
from gridsearch.executors.node_worker import NodeWorker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gridsearch.executors.connections import Connection

RUNNER = "runner.json"
"""The file that says where the runner is and what proves that somebody is of its run; this user's alone."""

_PLACE = struct.Struct(">H")
CONTROL = 0xFFFF
"""What stands for the place of a worker in a message to or from the allocation itself."""

END = b"end"
"""Asks an allocation to end."""

_END_WORKER = signal.SIGHUP
"""Slurm sends it to nobody."""

_POLL_SECONDS = 0.5
_NOTHING = to_bytes([])
_REASONS = {signal.SIGTERM: "Slurm takes it away", signal.SIGUSR2: "its time is nearly over"}


def addressed(place: int, content: bytes) -> bytes:
    """Return a message for one of the allocation's workers, or from it."""
    return _PLACE.pack(place) + content


def address_of(message: bytes) -> tuple[int, bytes]:
    """Return the place that a message is for, or from, and its content."""
    return _PLACE.unpack_from(message)[0], message[_PLACE.size :]


def serve(folder: str) -> None:
    """Serve a run until its runner has no more work for this allocation, or is gone.

    Args:
        folder: the run's, which runner and nodes share.
    """
    noticed: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    for number, reason in _REASONS.items():
        signal.signal(number, lambda *_, reason=reason: noticed.put(reason))
    run = json.loads((Path(folder) / RUNNER).read_text())
    hello = json.dumps(_facts(run["workers"])).encode()
    try:
        connection = connect([tuple(each) for each in run["addresses"]], bytes.fromhex(run["key"]), hello)
    except ConnectionLost as error:
        print(f"no connection from {socket.gethostname()}: {error}", flush=True)  # noqa: T201 - the job's own log
        sys.stdout.flush()
        os._exit(1)
    with tempfile.TemporaryDirectory(prefix="gridsearch-") as own:
        allocation = _Allocation(connection, Path(folder), Path(own))
        threading.Thread(target=allocation.listen, args=(noticed,), daemon=True).start()
        while (notice := noticed.get()) is not None:
            with contextlib.suppress(ConnectionLost):  # the listening thread notices
                connection.send(addressed(CONTROL, notice.encode()))
        allocation.close()
    os._exit(0)  # not through submitit, which would write a result that nobody reads


class _Allocation:
    """The workers of an allocation.

    Args:
        connection: to the runner.
        folder: the run's.
        own: a folder of this machine.
    """

    def __init__(self, connection: Connection, folder: Path, own: Path) -> None:
        self._connection = connection
        self._folder = folder
        self._own = own
        self._workers: dict[int, NodeWorker] = {}
        self._threads: list[threading.Thread] = []
        self._closed = False

    def listen(self, noticed: queue.SimpleQueue[str | None]) -> None:
        """Do what the runner asks for, until it is gone or wants no more; the workers live as long as this thread."""
        with contextlib.suppress(ConnectionLost):
            while (message := address_of(self._connection.receive())) != (CONTROL, END):
                place, content = message
                self._worker(place).take(content)
        noticed.put(None)
        threading.Event().wait()  # for `serve` to end them

    def _worker(self, place: int) -> NodeWorker:
        if place not in self._workers:
            own = self._own / str(place)
            own.mkdir()
            self._workers[place] = NodeWorker(own, self._content, end=_END_WORKER)
            thread = threading.Thread(target=self._pass_on, args=(place,), daemon=True)
            self._threads.append(thread)
            thread.start()
        return self._workers[place]

    def _content(self, digest: str) -> bytes:
        return (self._folder / digest).read_bytes()

    def _pass_on(self, place: int) -> None:
        """Send the runner what a worker does."""
        with contextlib.suppress(ConnectionLost):
            while not self._closed:
                content = self._workers[place].poll(_POLL_SECONDS)
                if content != _NOTHING:
                    self._connection.send(addressed(place, content))

    def close(self) -> None:
        """End the workers and the connection."""
        self._closed = True
        for thread in self._threads:
            thread.join()
        for worker in self._workers.values():
            worker.close()
        self._connection.close()


def _facts(workers: int) -> Mapping[str, Any]:
    """Return what the runner wants to know of this allocation."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = len([device for device in (visible or "").split(",") if device])
    return {
        "job": _job(),
        "host": socket.gethostname(),
        "restarts": int(os.environ.get("SLURM_RESTART_COUNT", "0")),
        "workers": min(workers, devices or len(os.sched_getaffinity(0))),
    }


def _job() -> str:
    """Return the id of this job, as submitit calls it."""
    of = os.environ
    if "SLURM_ARRAY_JOB_ID" in of:
        return f"{of['SLURM_ARRAY_JOB_ID']}_{of['SLURM_ARRAY_TASK_ID']}"
    return of.get("SLURM_JOB_ID") or of["SUBMITIT_LOCAL_JOB_ID"]
