"""Executors carry packs to devices and events back; the coordinator alone writes what they report.

`InlineExecutor` trains in this process (tests, debugging, classes that live in a script's `__main__`);
`LocalExecutor` keeps a worker process per core or accelerator.  It is a `WorkerPool`, which knows packs and deaths,
on a `Transport`, which knows how lines travel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.records import Lane, PruningDecision, Task

__all__ = ["Executor"]


class Executor(Protocol):
    """Where packs go.  Events are delivered to the callable given at construction, during `poll`."""

    @property
    def free(self) -> int:
        """How many packs could be submitted now."""
        ...

    @property
    def busy(self) -> int:
        """How many packs are under way."""
        ...

    def submit(self, task: Task) -> None:
        """Hand over a pack, or a request to measure or to export one; `free` must be above 0."""
        ...

    def send_lanes(self, pack: str, lanes: Sequence[Lane]) -> None:
        """Answer the `LanesWanted` of a pack; no lanes will do."""
        ...

    def send_decision(self, pack: str, decision: PruningDecision) -> None:
        """Answer an `EpochEnded` or a `StepEnded` of a pack; needed only where trials are pruned."""
        ...

    def leave(self) -> bool:
        """Ask for all packs to be left at their next epoch's end; return whether they then go on from there."""
        ...

    def end_worker(self, task: str) -> None:
        """End the worker of a pack (its id) or of a measurement (its key), if it can be; it is reported as dead."""
        ...

    def use_fewer(self) -> bool:
        """Work on one pack fewer at a time; return whether there was one to spare."""
        ...

    def expect(self, *, more: bool) -> None:
        """Take note of whether trials wait that were not submitted: where none does, free workers may be given back."""
        ...

    def poll(self, timeout: float) -> None:
        """Deliver what has happened; wait at most `timeout` seconds for the first event."""
        ...

    def stop(self) -> None:
        """End all work at once; no process is left.  May be called twice."""
        ...
