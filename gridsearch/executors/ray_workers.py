"""Workers on a Ray cluster: an actor for each device or core, which keeps a worker process there.

Below `WorkerPool`, as its transport.  Ray places actors and carries bytes; its own retries are off, since the store's
attempts say which result counts.  Actors come when there is a place for them and go with their nodes.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from gridsearch import files
from gridsearch._version import __version__
from gridsearch.errors import EngineUnreachable, UnusableError
from gridsearch.executors import ray as cluster
from gridsearch.executors.node_worker import NodeWorker
from gridsearch.executors.pool import WorkerPool
from gridsearch.executors.remote_channel import RemoteChannel
from gridsearch.executors.run_files import pack_run
from gridsearch.executors.transport import Ended, Said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gridsearch.executors.run_files import PackedRun
    from gridsearch.executors.transport import Arrival
    from gridsearch.plugins import ImageData, Plugin
    from gridsearch.records import Event, WorkerSetup

PATIENCE = 1800.0
"""Seconds for which a run without any worker waits for the cluster to give one."""

_LOOK_SECONDS = 1.0
_HEAD_SECONDS = 40.0
"""So long the cluster's head may be gone, while workers go on without it; after 60 s Ray itself ends this process."""

_SAY_SECONDS = 5.0
_SAY_AGAIN_SECONDS = 60.0
_NODE_POLL_SECONDS = 10.0
_END_SECONDS = 7.0
_FAILED_STARTS_LIMIT = 3
_COMPARED = ("torch", "numpy")
_FOLDER = "gridsearch-node-"
_LOCK = ".lock"
_LEFT_SECONDS = 3600.0


class RayExecutor(WorkerPool):
    """A pool whose workers are kept by actors of a Ray cluster.

    Args:
        setup: of any worker; its device says what an actor asks of the cluster.
        deliver: takes each event, in `poll`.
        own: the models, or the function, that workers use.
        images: by fingerprint.
        workers: so many actors are asked for, whatever places the cluster has; None for as many as it has.
        most: no more than this.

    Raises:
        UsageError: ray is not installed, or a plug-in of the session cannot leave it.
        UnusableError: the cluster is of another version, or refuses us.
        EngineUnreachable: it does not answer.
    """

    def __init__(
        self,
        setup: WorkerSetup,
        deliver: Callable[[Event], None],
        *,
        own: Sequence[Plugin],
        images: Mapping[str, ImageData],
        workers: int | None,
        most: int,
    ) -> None:
        transport = RayTransport(pack_run(setup, own, images), workers=workers, most=most)
        super().__init__(transport, deliver, resumable=setup.resumable)


class Keeper:
    """The actor: keeps a worker on its node, with a folder of its own.

    Args:
        contents: what travels with the run, in the object store, by SHA-256.
    """

    def __init__(self, contents: Mapping[str, Any]) -> None:
        self._contents = contents
        self._ends = contextlib.ExitStack()
        folder = self._ends.enter_context(files.private_folder(_folder_of_nodes()))
        self._ends.enter_context(FileLock(folder / _LOCK))
        self._worker = NodeWorker(folder, self._content)
        self._ends.callback(self._worker.close)

    def hello(self) -> dict[str, str]:
        """Return where it is and which versions are there."""
        ray = cluster.package()
        context = ray.get_runtime_context()
        gpus = ",".join(map(str, context.get_accelerator_ids().get("GPU", ())))
        return {"node": ray.util.get_node_ip_address(), "gpus": gpus, **versions()}

    def take(self, content: bytes) -> None:
        """See `NodeWorker.take`."""
        self._worker.take(content)

    def poll(self, timeout: float) -> bytes:
        """See `NodeWorker.poll`."""
        return self._worker.poll(timeout)

    def close(self) -> None:
        """End the worker and remove the folder."""
        self._ends.close()

    def _content(self, digest: str) -> bytes:
        content: bytes = cluster.package().get(self._contents[digest])
        return content


def _folder_of_nodes() -> Path:
    """Return the folder of this machine for actors' own, without those of actors that were killed.

    Raises:
        UnusableError: it is another user's.
    """
    folder = Path(tempfile.gettempdir()) / f"{_FOLDER}{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if not files.is_ours_alone(folder):
        raise UnusableError(f"{folder} is another user's, or others may write to it", hint="remove it")
    for lock in folder.glob(f"{files.PARTIAL}*/{_LOCK}"):
        with contextlib.suppress(OSError, Timeout):
            if time.time() - lock.stat().st_mtime > _LEFT_SECONDS:  # one that is being made is left alone
                with FileLock(lock, timeout=0):  # nobody holds that of a killed actor
                    shutil.rmtree(lock.parent, ignore_errors=True)
    return folder


def versions() -> dict[str, str]:
    """Return the versions on which results depend, of the machine that is asked."""
    found = {"gridsearch": __version__, "python": platform.python_version()}
    for package in _COMPARED:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


@dataclass(slots=True, eq=False)
class _Place:
    setup: WorkerSetup
    actor: Any
    answer: Any
    """The call that it has not answered yet."""

    node: str = ""
    channel: RemoteChannel | None = None


class _Head:
    """The cluster's head: nothing is asked of it while it is gone, since Ray would wait for an answer.

    Attributes:
        gone_since: when it was first found gone; None while it is there.
    """

    def __init__(self) -> None:
        self._address = cluster.head()
        self.gone_since: float | None = None

    def is_there(self) -> bool:
        """Look for it."""
        if cluster.listens(self._address, timeout=_LOOK_SECONDS):
            self.gone_since = None
        else:
            self.gone_since = self.gone_since or time.monotonic()
        return self.gone_since is None


class RayTransport:
    """Starts workers by actors; see `Transport`.

    Args:
        packed: what travels with the run, put into the object store once.
        workers: so many actors are asked for; None for as many as the cluster has places for.
        most: no more than this.
    """

    def __init__(self, packed: PackedRun, *, workers: int | None, most: int) -> None:
        self._ray = cluster.connect()
        self._packed = packed
        self._contents = {digest: self._ray.put(content) for digest, content in packed.contents.items()}
        self._workers, self._most = workers, most
        self._places: dict[str, _Place] = {}
        self._last_look = float("-inf")
        self._waiting_since: float | None = None
        self._said_at = 0.0
        self._failed_starts = 0
        self._other_versions: set[str] = set()
        self._closed = False
        self._head = _Head()
        gpus = {"num_gpus": 1, "num_cpus": 0} if packed.setup.device != "cpu" else {"num_cpus": 1}
        self._actor = self._ray.remote(
            **gpus,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
            concurrency_groups={"commands": 1, "events": 1},  # each in its order
        )(Keeper)

    @property
    def startable(self) -> Sequence[WorkerSetup]:
        """The workers whose actors are there and keep none."""
        return [place.setup for place in self._places.values() if place.node and place.channel is None]

    def start(self, setup: WorkerSetup) -> RemoteChannel:
        """Let an actor start its worker."""
        place = self._places[setup.name]
        take = place.actor.take.options(concurrency_group="commands")
        place.channel = RemoteChannel(setup, self._packed.files, take.remote)
        return place.channel

    def poll(self, timeout: float) -> Iterator[Arrival]:
        """Give what has come from the nodes, and which have gone."""
        yield from self._look()
        asked = {place.answer: place for place in self._places.values()}
        if not asked:
            time.sleep(timeout)
            return
        ready, _ = self._ray.wait(list(asked), num_returns=1, timeout=timeout)
        if ready:
            ready, _ = self._ray.wait(list(asked), num_returns=len(asked), timeout=0)
        for answer in ready:
            place = asked[answer]
            if self._closed or self._places.get(place.setup.name) is not place:
                continue
            try:
                found = self._ray.get(answer)
            except self._ray.exceptions.RayError as error:
                yield from self._lost(place, error)
                continue
            place.answer = place.actor.poll.options(concurrency_group="events").remote(_NODE_POLL_SECONDS)
            if not place.node:
                yield from self._joined(place, found)
            elif place.channel is not None:
                yield from self._arrived(place, place.channel, found)

    def close(self) -> None:
        """End all workers and actors; a cluster that was started here ends, too."""
        if self._closed:
            return
        self._closed = True
        if not self._head.is_there():
            cluster.abandon()  # its nodes end what it ran
            return
        there = [place for place in self._places.values() if place.node]
        if there:
            ends = [place.actor.close.options(concurrency_group="commands").remote() for place in there]
            self._ray.wait(ends, num_returns=len(ends), timeout=_END_SECONDS)
        for place in self._places.values():
            self._end(place)
        self._places.clear()
        cluster.disconnect()

    def _arrived(self, place: _Place, channel: RemoteChannel, content: bytes) -> Iterator[Arrival]:
        for arrival in channel.arrived(content):
            if isinstance(arrival, Ended):
                place.channel = None
            yield arrival

    def _joined(self, place: _Place, facts: dict[str, str]) -> Iterator[Arrival]:
        """Take an actor that has come up.

        Raises:
            UnusableError: it is of another version of this program.
        """
        ours, theirs = versions(), facts["gridsearch"]
        if theirs != ours["gridsearch"]:
            raise UnusableError(
                f"node {facts['node']} has gridsearch {theirs}, and this machine {ours['gridsearch']}",
                hint="install the same version on every node",
            )
        others = ", ".join(
            f"{name} {facts.get(name)} (here {ours[name]})" for name in ours if facts.get(name) != ours[name]
        )
        if others and others not in self._other_versions:
            self._other_versions.add(others)
            yield Said(
                f"node {facts['node']} has {others}: its results may differ in their last digits",
                warning=True,
            )
        place.node = facts["node"]
        self._failed_starts = 0

    def _lost(self, place: _Place, error: Exception) -> Iterator[Arrival]:
        """Take note of an actor that does not answer any more.

        Raises:
            UnusableError: no actor comes up, and it is not for want of a node.
        """
        del self._places[place.setup.name]
        self._end(place)  # where it lives all the same, unseen
        if place.channel is not None:
            exceptions = self._ray.exceptions
            memory = isinstance(error, exceptions.OutOfMemoryError)
            yield Ended(
                place.channel, f"node {place.node}: {cluster.one_line(error)}", memory, place_gone=not memory
            )
        elif not place.node:
            self._failed_starts += 1
            if self._failed_starts >= _FAILED_STARTS_LIMIT and not any(p.node for p in self._places.values()):
                raise UnusableError(
                    f"no actor of the Ray cluster comes up: {cluster.one_line(error)}",
                    hint="every node needs this version of gridsearch, see docs/scale.md",
                )

    def _end(self, place: _Place) -> None:
        if not self._head.is_there():
            return
        with contextlib.suppress(Exception):
            self._ray.kill(place.actor, no_restart=True)

    # Actors come and go

    def _look(self) -> Iterator[Arrival]:
        """Ask for actors where there are places for more, and say what is waited for.

        Raises:
            EngineUnreachable: none has come for too long, or the cluster's head is gone.
        """
        now = time.monotonic()
        if self._closed or now - self._last_look < _LOOK_SECONDS:
            return
        self._last_look = now
        if not self._head.is_there():
            self._require_head(now)
            return
        there = cluster.places(self._packed.setup.device)
        wanted = min(self._most, self._workers or max(1, there))
        numbers = (number for number in range(wanted) if f"w{number}" not in self._places)
        for number in numbers:
            actor = self._actor.remote(self._contents)
            setup = replace(self._packed.setup, name=f"w{number}")
            hello = actor.hello.options(concurrency_group="events").remote()
            self._places[setup.name] = _Place(setup, actor, hello)
        yield from self._say_what_is_waited_for(now, there)

    def _require_head(self, now: float) -> None:
        """Let workers go on for a while without the cluster's head: it may be started again.

        Raises:
            EngineUnreachable: it was not.
        """
        if self._head.gone_since is not None and now - self._head.gone_since > _HEAD_SECONDS:
            raise EngineUnreachable(
                f"the head of the Ray cluster has not answered for {_HEAD_SECONDS:.0f} s",
                hint="the same command continues once there is a cluster",
            )

    def _say_what_is_waited_for(self, now: float, there: int) -> Iterator[Arrival]:
        if any(place.node for place in self._places.values()):
            self._waiting_since = None
            return
        if self._waiting_since is None:
            self._waiting_since, self._said_at = now, now + _SAY_SECONDS - _SAY_AGAIN_SECONDS
        waited = now - self._waiting_since
        unit = cluster.resource(self._packed.setup.device)
        if waited > PATIENCE:
            raise EngineUnreachable(
                f"the Ray cluster has given no worker for {PATIENCE / 60:.0f} minutes; each needs 1 {unit}, "
                f"and the nodes that are there have {there}",
                hint="the same command continues once there are nodes; `ray status` shows what the cluster has",
            )
        if now - self._said_at >= _SAY_AGAIN_SECONDS:
            self._said_at = now
            yield Said(
                f"waiting for the Ray cluster: each worker needs 1 {unit}, and the nodes that are there have {there}; "
                f"the run ends if none comes within {PATIENCE / 60:.0f} minutes"
            )
