"""Workers in Slurm allocations: which of them are there, what they say, and what becomes of those that end.

Stands between `WorkerPool`, which gives workers packs, and `slurm.Allocations`.  Each allocation connects back to this
process (`connections`) from where Slurm has started it (`allocation`), and then has places for workers.  One that waits
in Slurm's queue is no failure, and neither is one that is preempted or comes to the end of its time: it says so before
(`Leaving`), Slurm requeues the former, and this asks for another in place of the latter.  One that somebody has
cancelled is not replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import secrets
import threading
import time
from typing import TYPE_CHECKING, TypeAlias

from gridsearch.errors import EngineUnreachable, GridsearchError, UsageError
from gridsearch.executors.allocation import CONTROL, RUNNER, address_of, addressed
from gridsearch.executors.connections import Listener, Peer, host_and_port, own_addresses
from gridsearch.executors.node_messages import RunFiles
from gridsearch.executors.pool import WorkerPool
from gridsearch.executors.remote_channel import RemoteChannel
from gridsearch.executors.shipping import pickled
from gridsearch.executors.slurm import Allocations, JobState
from gridsearch.executors.slurm_allocations import Awaited, RunAllocation
from gridsearch.executors.slurm_folder import NAME, make_folder, remove_folder, this_process, write_private
from gridsearch.executors.transport import Ended, Leaving, Said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from gridsearch.executors.connections import Connection
    from gridsearch.executors.slurm_words import AllocationRequest
    from gridsearch.executors.transport import Arrival, Channel
    from gridsearch.plugins import Plugin
    from gridsearch.records import Event, WorkerSetup

_FAILED_STARTS_LIMIT = 3
_END_SECONDS = 10.0
_LOOK_SECONDS = 5.0
"""How often Slurm is asked for states while an allocation waits, starts or ends."""

_LOOK_SELDOM_SECONDS = 60.0
"""And how often while all of them run."""

_ASK_AGAIN_SECONDS = 60.0

SPARE_SECONDS = 60.0
"""Once nothing has waited for so long, allocations without work are given back."""

ADDRESS = "GRIDSEARCH_LISTEN"
"""Names the host, or host:port, by which nodes reach the runner, where they do not by its own names."""

_Item: TypeAlias = "tuple[str, Peer, bytes] | Mapping[str, JobState]"


class SlurmExecutor(WorkerPool):
    """Keeps the workers of one run in Slurm's allocations.

    Args:
        setups: one for each worker; those of an allocation follow one another.
        deliver: takes each event, in `poll`.
        request: what each allocation shall have.
        home: a folder that nodes see under the same path.
        objects: plug-ins that only this process has, by display name; workers get copies.
        cluster: see `slurm.Allocations`.

    Raises:
        UsageError: Slurm takes an option not, or an object cannot leave this process.
        UnusableError: Slurm or submitit is not here, or gives no allocation.
        EngineUnreachable: Slurm does not answer.
    """

    def __init__(
        self,
        setups: Sequence[WorkerSetup],
        deliver: Callable[[Event], None],
        *,
        request: AllocationRequest,
        home: Path,
        objects: Mapping[str, Plugin] | None = None,
        cluster: str = "slurm",
    ) -> None:
        content = pickled(objects) if objects else None
        self._slurm = SlurmTransport(setups, request=request, home=home, objects=content, cluster=cluster)
        self._spare_since: float | None = None
        super().__init__(self._slurm, deliver, resumable=all(setup.resumable for setup in setups))

    def expect(self, *, more: bool) -> None:
        """Give allocations back that have had nothing to do for long; ask for them again once more trials wait."""
        now = time.monotonic()
        self._spare_since = None if more else self._spare_since or now
        self._slurm.spare = self._spare_since is not None and now - self._spare_since > SPARE_SECONDS
        if self._slurm.spare:
            self.end_idle("nothing waits")


class SlurmTransport:
    """Asks for allocations and carries the lines of their workers; see `Transport` and the module.

    Args:
        setups: one for each worker; those of an allocation follow one another.
        request: what each allocation shall have.
        home: a folder that nodes see under the same path.
        objects: see `shipping.pickled`.
        cluster: see `slurm.Allocations`.

    Attributes:
        spare: whether allocations without workers are given back, and none is asked for.
    """

    def __init__(
        self,
        setups: Sequence[WorkerSetup],
        *,
        request: AllocationRequest,
        home: Path,
        objects: bytes | None = None,
        cluster: str = "slurm",
    ) -> None:
        size = request.workers
        self._allocations = [RunAllocation(setups[i : i + size]) for i in range(0, len(setups), size)]
        self._arrived: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._awaited = Awaited()
        self._failed_starts = 0
        self._ask_again = 0.0
        self._closed = False
        self.spare = False
        token = secrets.token_hex(6)
        self._folder = make_folder(home, token)
        self._listener: Listener | None = None
        try:
            self._run_files = self._put_objects(objects)
            self._listener = self._listen(size)
            self._jobs = Allocations(request, self._folder, name=NAME + token, cluster=cluster)
            jobs = self._jobs.submit(len(self._allocations))
        except BaseException:
            self._remove()
            raise
        for allocation, job in zip(self._allocations, jobs, strict=True):
            allocation.job = job
        self._look = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _put_objects(self, objects: bytes | None) -> RunFiles:
        if objects is None:
            return RunFiles()
        digest = hashlib.sha256(objects).hexdigest()
        write_private(self._folder / digest, objects)
        return RunFiles(objects=digest)

    def _listen(self, workers: int) -> Listener:
        """Wait for allocations, and write where they find this process."""
        key = secrets.token_bytes(32)
        try:
            host, port = host_and_port(os.environ.get(ADDRESS, ""))
            listener = Listener(key, self._welcome, port=port)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"${ADDRESS}={os.environ.get(ADDRESS, '')}: cannot be listened on: {error}"
            ) from error
        addresses = [(each, listener.port) for each in ([host] if host else own_addresses())]
        run = {"addresses": addresses, "key": key.hex(), "workers": workers, **this_process()}
        write_private(self._folder / RUNNER, json.dumps(run).encode())
        return listener

    # The transport

    @property
    def startable(self) -> Sequence[WorkerSetup]:
        """The workers that can be started in the allocations that are there."""
        return [setup for allocation in self._allocations for setup in allocation.startable]

    def start(self, setup: WorkerSetup) -> Channel:
        """Start a worker in its allocation."""
        allocation = next(each for each in self._allocations if setup in each.startable)
        place, peer = list(allocation.setups).index(setup), allocation.peer
        assert peer is not None
        channel = RemoteChannel(
            setup, self._run_files, lambda content: peer.send(addressed(place, content)), shared=True
        )
        allocation.running[place] = channel
        return channel

    def poll(self, timeout: float) -> Iterator[Arrival]:
        """Give what the workers say, who ends, and what the run waits for."""
        waiting = timeout
        while True:
            try:
                item = self._arrived.get(timeout=waiting) if waiting else self._arrived.get_nowait()
            except queue.Empty:
                break
            waiting = 0.0
            if isinstance(item, tuple):
                yield from self._take(*item)
            else:
                yield from self._compare(item)
            if self._closed:
                return
        if self.spare:
            yield from self._give_back()
        yield from self._awaited.now(self._allocations)

    def close(self) -> None:
        """End all allocations, and remove the run's folder."""
        if self._closed:
            return
        self._closed = True
        self._look.set()
        waiting = [each.job for each in self._allocations if each.job and each.peer is None]
        self._jobs.cancel(waiting)
        ending = [each for each in self._allocations if each.peer is not None]
        for allocation in ending:
            allocation.end()
        peers = {allocation.peer for allocation in ending}
        deadline = time.monotonic() + _END_SECONDS
        while peers and time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                item = self._arrived.get(timeout=0.1)
                if isinstance(item, tuple) and item[0] == "gone":
                    peers.discard(item[1])
        self._jobs.cancel([each.job for each in ending if each.peer in peers])
        self._jobs.wait(max(0.0, deadline - time.monotonic()))
        self._remove()

    def _remove(self) -> None:
        if self._listener is not None:
            self._listener.close()
        remove_folder(self._folder)

    # In threads of their own

    def _welcome(self, connection: Connection, hello: bytes) -> None:
        peer = Peer(connection, self._peer_said)
        self._arrived.put(("hello", peer, hello))
        peer.begin()

    def _peer_said(self, peer: Peer, message: bytes | None) -> None:
        self._arrived.put(("gone", peer, b"") if message is None else ("said", peer, message))

    def _watch(self) -> None:
        """Ask Slurm for states: seldom, while all is well."""
        while not self._closed:
            all_run = all(each.peer is not None or each.given_up for each in self._allocations)
            self._look.wait(_LOOK_SELDOM_SECONDS if all_run else _LOOK_SECONDS)
            self._look.clear()
            if not self._closed and (states := self._jobs.states()) is not None:
                self._arrived.put(states)

    # What arrived

    def _take(self, what: str, peer: Peer, message: bytes) -> Iterator[Arrival]:
        if what == "hello":
            self._came(peer, json.loads(message))
            return
        allocation = next((each for each in self._allocations if each.peer is peer), None)
        if allocation is None:  # it has been replaced
            return
        if what == "gone":
            yield from self._gone(allocation)
            return
        place, content = address_of(message)
        if place == CONTROL:
            yield from self._leaves(allocation, content.decode())
        elif channel := allocation.running.get(place):
            for arrival in channel.arrived(content):
                if isinstance(arrival, Ended):
                    del allocation.running[place]
                    yield Ended(
                        channel, arrival.message, memory=arrival.memory, place_gone=bool(allocation.leaving)
                    )
                else:
                    yield arrival
            if allocation.leaving and not allocation.running:
                allocation.end()

    def _came(self, peer: Peer, hello: Mapping[str, int | str]) -> None:
        """Take an allocation in that has connected, for the first time or after Slurm has requeued it."""
        allocation = next((each for each in self._allocations if each.job == hello["job"]), None)
        if allocation is None or allocation.peer is not None:
            peer.close()
            return
        allocation.peer, allocation.host = peer, str(hello["host"])
        allocation.places, allocation.leaving, allocation.came = int(hello["workers"]), "", True
        self._failed_starts = 0

    def _leaves(self, allocation: RunAllocation, reason: str) -> Iterator[Arrival]:
        """Let the workers of an allocation leave that ends soon."""
        if allocation.leaving:
            return
        allocation.leaving = f"allocation {allocation.job} on {allocation.host}: {reason}"
        for channel in list(allocation.running.values()):
            yield Leaving(channel, allocation.leaving)
        if not allocation.running:
            allocation.end()

    def _gone(self, allocation: RunAllocation) -> Iterator[Arrival]:
        """Report the workers of an allocation that is not there any more."""
        allocation.peer = None
        lost = f"the connection to allocation {allocation.job} on {allocation.host} has ended"
        running, allocation.running = allocation.running, {}
        for channel in running.values():
            yield Ended(channel, allocation.leaving or lost, place_gone=True)
        self._look.set()

    def _compare(self, states: Mapping[str, JobState]) -> Iterator[Arrival]:
        """Ask for another where an allocation has ended, and note for what the others wait."""
        self._awaited.states = states
        ended = [
            each
            for each in self._allocations
            if each.peer is None
            and each.job
            and not each.given_up
            and not ((state := states.get(each.job)) and (state.waits or state.runs))
        ]
        for allocation in ended:
            state = states.get(allocation.job, JobState("gone"))
            if state.state.startswith("CANCELLED"):
                allocation.given_up = True
                yield Said(f"allocation {allocation.job} was cancelled: it is not replaced", warning=True)
                continue
            if not allocation.came:
                self._count_failed_start(allocation, state)
            allocation.job, allocation.came = "", False
        yield from self._replace()
        if all(each.given_up for each in self._allocations):
            raise EngineUnreachable(
                "all allocations were cancelled: waiting trials continue with the next run",
                hint="run the same command again",
            )

    def _count_failed_start(self, allocation: RunAllocation, state: JobState) -> None:
        """Note that an allocation ended before it was there.

        Raises:
            EngineUnreachable: so did others, and none has come since.
        """
        self._failed_starts += 1
        words = self._jobs.last_words(allocation.job)
        if self._failed_starts >= _FAILED_STARTS_LIMIT:
            raise EngineUnreachable(
                f"allocations end before they reach this runner; the last, job {allocation.job} "
                f"({state.state}), said: {words}",
                hint=f"nodes must see this home and this Python, and reach this machine by TCP (${ADDRESS} names it)",
            )

    def _give_back(self) -> Iterator[Arrival]:
        """End the allocations that run no worker."""
        for allocation in self._allocations:
            if allocation.startable and not allocation.running:
                allocation.leaving = "nothing waits"
                allocation.end()
                yield Said(f"allocation {allocation.job} is idle: it is released")

    def _replace(self) -> Iterator[Arrival]:
        """Ask for allocations in place of those that have ended.

        Raises:
            GridsearchError: Slurm gives none, and there is no other.
        """
        missing = [each for each in self._allocations if not each.job and not each.given_up]
        if not missing or self.spare or time.monotonic() < self._ask_again:
            return
        try:
            for allocation, job in zip(missing, self._jobs.submit(len(missing)), strict=True):
                allocation.job = job
        except GridsearchError as error:
            self._ask_again = time.monotonic() + _ASK_AGAIN_SECONDS
            if len(missing) == len([each for each in self._allocations if not each.given_up]):
                raise
            yield Said(f"{error.message}; asked again in a minute", warning=True)
