"""How lines travel between the runner and its workers; all that `WorkerPool` knows of an engine.

A worker is a process that runs `worker.serve`: it reads commands and writes events, one record a line
(`records.wire`), and what its code prints goes to its descriptors 1 and 2.  A transport starts such processes where its
engine says, carries lines, output and ends, and knows nothing of packs, trials or logs.  `PipeTransport` starts them on
this machine.

Everything happens in the runner's thread.  A transport may have threads of its own, which do no more than collect what
arrives until `poll` takes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gridsearch.records import WorkerSetup
    from gridsearch.records.wire import Command

__all__ = ["Arrival", "Channel", "Ended", "Leaving", "Lines", "Output", "Said", "Transport"]


class Channel(Protocol):
    """The way to one worker, from its start to its end; none of these calls waits for the worker or raises."""

    @property
    def name(self) -> str:
        """The worker's name, as in its setup; after its end another channel may have it."""
        ...

    def send(self, command: Command) -> None:
        """Send a command; to a worker that has ended it is lost, and `poll` reports the end."""
        ...

    def output(self) -> bytes:
        """Return what has come from descriptors 1 and 2 and was not returned before.

        What the worker had flushed before it sent an event is there when `poll` gives that event: so it belongs to the
        log of the trial that trained then.
        """
        ...

    def end(self) -> None:
        """Ask the worker to end now, and all that it has started, even if it was stopped; `poll` reports the end."""
        ...


@dataclass(frozen=True, slots=True)
class Lines:
    """Events that a worker has sent, without their line ends, in their order; none is given twice."""

    channel: Channel
    lines: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Output:
    """There is something for `Channel.output`."""

    channel: Channel


@dataclass(frozen=True, slots=True)
class Ended:
    """A worker has ended, whoever wanted that; the last that is given of its channel.

    Attributes:
        message: how, in words: "killed by SIGKILL", "node 10.0.0.7 has gone".
        memory: whether the kernel ended it for lack of memory, as far as is known.
        place_gone: its place has ended with it (a node that was lost, an allocation that was preempted or timed out),
            so that it is not the worker's own code that ended it.
    """

    channel: Channel
    message: str
    memory: bool = False
    place_gone: bool = False


@dataclass(frozen=True, slots=True)
class Leaving:
    """A worker's place will end soon: it shall leave its pack with checkpoints, and gets no other.

    Attributes:
        message: why, in words: "allocation 12 on node7: its time is nearly over".
    """

    channel: Channel
    message: str


@dataclass(frozen=True, slots=True)
class Said:
    """What the user may want to know of the engine: what the run waits for, what it has lost."""

    message: str
    warning: bool = False


Arrival: TypeAlias = Lines | Output | Ended | Leaving | Said


class Transport(Protocol):
    """Where an engine's workers are started and heard."""

    @property
    def startable(self) -> Sequence[WorkerSetup]:
        """Workers that `start` can start at once, each by its setup; those that run now are not among them.

        Where places come and go, a worker is startable from when its place is there (an actor that lives, an allocation
        that has connected back) until that goes.
        """
        ...

    def start(self, setup: WorkerSetup) -> Channel:
        """Start a startable worker, with the setup as the first command that it is sent; it may end at once.

        Raises:
            OSError: the system starts no more processes.
        """
        ...

    def poll(self, timeout: float) -> Iterator[Arrival]:
        """Give what has arrived, in each channel's order; wait at most `timeout` seconds for the first.

        It is a generator whose consumer acts on each arrival before the next is taken: it may send to any channel,
        start workers, and `close`, after which no more is given.

        Raises:
            GridsearchError: no worker can come any more, or none has come for as long as the transport waits.
        """
        ...

    def close(self) -> None:
        """End all workers and places at once and wait for their end; nothing is left.  May be called twice."""
        ...
