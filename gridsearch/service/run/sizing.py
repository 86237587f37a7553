"""How many lanes the packs of a group get: as the user says, else as was measured, here or in an earlier run.

Where the user says the number of workers too, the packs themselves are settled here, for the run as for the plan.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from gridsearch.planning import Probe, relative_cost, settle
from gridsearch.records import ImageSettings, ProbeRequest
from gridsearch.reporting.words.text import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.planning import CostModel, ProbeCache
    from gridsearch.records import Probed, Settings, Trial, TrialDraft
    from gridsearch.service.prepare.options import RunOptions

T = TypeVar("T", bound="Trial | TrialDraft")

SIZES = (1, 2, 4, 8, 16, 32)
"""Pack sizes that are measured; on the CPUs that were tried, 32 lanes gain little over 16."""

_MANY_SIZES = (1, 4, 16, 64, 256)
"""Those of an accelerator, which a small network alone leaves idle; a size that does not fit ends the measuring."""

_WORTH_PROBING = 10.0
"""Seconds of a group's training below which measuring (two to three seconds) costs more than it brings: the
best size is rarely a quarter faster than the one that is taken unmeasured."""

_UNPROBED = 4
"""Lanes of such a group's packs: rarely the best number, and rarely worse than one."""


def sizes(device: str) -> tuple[int, ...]:
    """Return the pack sizes that are measured on a device."""
    return SIZES if device.startswith("cpu") else _MANY_SIZES


@dataclass(frozen=True, slots=True)
class PackRoom:
    """The memory for a pack.

    Attributes:
        limit_mb: megabytes that one pack may take.
        of_mb: what is free for its worker, of which that takes some before it has a pack, and a reserve stays.
    """

    limit_mb: float
    of_mb: float


class Sizing:
    """The number of lanes of each group.

    Args:
        lanes: what the user asked for, None to measure.
        device: where the packs train.
        cost: knows what was measured before, and learns what is measured now.
        probes: takes what is measured now.
        room: the memory that one pack may take, None for as much as it likes.
    """

    def __init__(
        self,
        *,
        lanes: int | None,
        device: str,
        cost: CostModel,
        probes: ProbeCache,
        room: PackRoom | None = None,
    ) -> None:
        self._asked = lanes
        self._measured = sizes(device)
        self._cost = cost
        self._probes = probes
        self._room = room
        self._limit = None if room is None else room.limit_mb
        self._short: dict[str, str] = {}
        self._told = 0
        self._asking: dict[str, ProbeRequest] = {}
        self._tried: set[str] = set()
        self._caps: dict[str, int] = {}

    def cap(self, settings: Settings, lanes: int) -> int:
        """Give packs of a group no more lanes than this from now on, at least one; return how many."""
        key = self._cost.key(settings)
        self._caps[key] = max(1, min(lanes, self._caps.get(key, lanes)))
        return self._caps[key]

    def lanes(self, settings: Settings, count: int) -> int | None:
        """Return how many lanes a pack of `count` waiting trials may have; None if that must be measured first."""
        found = self._uncapped(settings, count)
        return found if found is None else min(found, self._caps.get(self._cost.key(settings), found))

    def _uncapped(self, settings: Settings, count: int) -> int | None:
        if self._asked is not None or count == 1:
            return self._asked or 1
        known = self._cost.probe(settings)
        if known is not None and known.knows(self._fitting(known, min(count, max(self._measured)))):
            return self._noted(settings, count, known.best_lanes(self._fitting(known, max(self._measured))))
        if self._cost.key(settings) in self._tried:
            return 1
        if count * self._cost.guess(settings, lanes=_UNPROBED) < _WORTH_PROBING:
            return self.unmeasured(settings, count)
        return None

    def unmeasured(self, settings: Settings, count: int) -> int:
        """Return how many lanes a group of `count` waiting trials gets whose best number nobody knows."""
        known = self._cost.probe(settings)
        if known is None or not known.seconds_per_image:
            # without room for any pack, several lanes would only be tried to be ended by the kernel
            return self._noted(settings, count, 1 if self._limit == 0 else _UNPROBED)
        return self._noted(settings, count, known.best_lanes(self._fitting(known, max(self._measured))))

    def news(self) -> list[str]:
        """Return where memory made packs smaller than they would be otherwise, in words, each once."""
        told, self._told = self._told, len(self._short)
        return list(self._short.values())[told:]

    def request(self, settings: Settings, count: int) -> ProbeRequest:
        """Return what a worker is asked to measure for a group of `count` waiting trials."""
        request = ProbeRequest(
            key=self._cost.key(settings),
            settings=ImageSettings.of(settings),
            lanes=tuple(size for size in self._measured if size < 2 * count),
            limit_mb=self._limit,
        )
        self._asking[request.key] = request
        return request

    def record(self, event: Probed) -> Settings:
        """Record what was measured, and return the settings of the group; nothing measured means one lane."""
        self._tried.add(event.key)
        request = self._asking.pop(event.key)
        if event.seconds_per_image:
            found = Probe(
                event.seconds_per_image, event.memory_mb, upto=max(request.lanes), worker_mb=event.worker_mb
            )
            tried = max(found.seconds_per_image)
            if self._fitting(found, 2 * tried) < 2 * tried:  # more memory, another time, may hold more lanes
                found = replace(found, upto=tried)
            self._probes.put(event.key, found)
            self._cost.learn(event.key, found)
        return request.settings

    def _noted(self, settings: Settings, count: int, lanes: int) -> int:
        """Return the number of lanes; note if it would be another one, or larger ones be measured, with more memory."""
        key, known, room = self._cost.key(settings), self._cost.probe(settings), self._room
        if room is None or key in self._short:
            return lanes
        wanted, needed = _UNPROBED, None
        if known is not None and known.seconds_per_image:
            best = known.best_lanes(max(self._measured))
            wanted = best if best > lanes else 2 * lanes if lanes == max(known.seconds_per_image) else lanes
            wanted = min(wanted, count, max(self._measured))
            needed = known.megabytes(wanted) or 0.0
        if min(wanted, count) > lanes and (needed is None or needed > room.limit_mb):
            self._short[key] = _shortage(settings, lanes, min(wanted, count), needed, room)
        return lanes

    def _fitting(self, known: Probe, most: int) -> int:
        """Return how many lanes, up to `most`, fit into the memory; one always does, or nothing would."""
        if self._limit is None:
            return most
        fits = [n for n in range(1, most + 1) if (known.megabytes(n) or 0.0) <= self._limit]
        return max(fits, default=1)


def _shortage(settings: Settings, lanes: int, wanted: int, needed_mb: float | None, room: PackRoom) -> str:
    """Say that packs of a group get fewer lanes than wanted, what memory there is, and what would be needed."""
    takes = "" if needed_mb is None else f", and {wanted} lanes take {needed_mb:,.0f} MB"
    return (
        f"memory is short: packs of {settings.code[0]} at batch {settings.get('batch')} get "
        f"{plural(lanes, 'lane')} at most, not {wanted}: of {room.of_mb:,.0f} MB for each worker, "
        f"{room.limit_mb:,.0f} MB are left for its pack{takes}"
    )


def settled_packs(
    trials: Sequence[T], options: RunOptions, rank: Callable[[T], float] | None = None
) -> list[tuple[str, ...]]:
    """Return the keys of the trials of each pack.

    Args:
        trials: all of the study, in the order in which it got (or will get) them.
        options: `settled` is true of them.
        rank: which trials go first; the packs are the same whatever it says, and only go in another order.
    """
    assert options.lanes is not None
    assert options.workers is not None
    # nothing that was measured may have a say: it would not be the same the next time
    packs = settle(
        trials, lanes=options.lanes, workers=options.workers, cost=lambda trial: relative_cost(trial.settings)
    )
    if rank is not None:
        packs.sort(key=lambda pack: min(map(rank, pack)))
    return [tuple(trial.key for trial in pack) for pack in packs]
