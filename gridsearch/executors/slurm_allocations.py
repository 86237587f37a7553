"""What a run knows of its allocations, and says of them.

Stands below `slurm_transport`, which takes in what they report and what Slurm says of their jobs.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gridsearch.executors.allocation import CONTROL, END, addressed
from gridsearch.executors.transport import Said

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gridsearch.executors.connections import Peer
    from gridsearch.executors.remote_channel import RemoteChannel
    from gridsearch.executors.slurm import JobState
    from gridsearch.records import WorkerSetup

_SAY_SECONDS = 30.0
"""What the run waits for is said this often at most."""


@dataclass(slots=True, eq=False)
class RunAllocation:
    """One that the run has, or has asked for.

    Attributes:
        setups: of its workers.
        job: the id of its job; "" where there is none at the moment.
        peer: the connection, while there is one.
        host: where it runs.
        places: how many workers it can run.
        leaving: why it ends soon.
        running: workers by their places.
        came: whether it has ever connected under this job.
        given_up: whether it is not replaced.
    """

    setups: Sequence[WorkerSetup]
    job: str = ""
    peer: Peer | None = None
    host: str = ""
    places: int = 0
    leaving: str = ""
    running: dict[int, RemoteChannel] = field(default_factory=dict)
    came: bool = False
    given_up: bool = False

    @property
    def startable(self) -> Sequence[WorkerSetup]:
        """The workers that can be started in it now."""
        if self.peer is None or self.leaving:
            return ()
        return [setup for i, setup in enumerate(self.setups[: self.places]) if i not in self.running]

    def end(self) -> None:
        """Ask it to end."""
        if self.peer is not None:
            self.peer.send(addressed(CONTROL, END))


class Awaited:
    """What the run waits for, in words: once it is known, and whenever it is other than before.

    Attributes:
        states: of the jobs, as Slurm said last.
    """

    def __init__(self) -> None:
        self.states: Mapping[str, JobState] = {}
        self._last = ""
        self._at = float("-inf")

    def now(self, allocations: Sequence[RunAllocation]) -> Iterator[Said]:
        """Give a sentence, if there is something new to be said."""
        if not self.states or time.monotonic() - self._at < _SAY_SECONDS:
            return
        there = [each for each in allocations if not each.given_up]
        running = sum(each.peer is not None for each in there)
        waits: Counter[str] = Counter()
        for each in there:
            state = self.states.get(each.job)
            if each.peer is None and state is not None and state.waits:
                waits[f"in partition {state.partition} ({state.reason})"] += 1
        if not waits and not self._last:
            return
        begun = f"{running} of {len(there)} allocations run"
        words = ", ".join(
            [begun, *(f"{n} wait{'s' * (n == 1)} {where}" for where, n in sorted(waits.items()))]
        )
        if words != self._last:
            self._last, self._at = words, time.monotonic()
            yield Said(words)
