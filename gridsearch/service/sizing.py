"""How many lanes the packs of a group get: as the user says, else as was measured, here or in an earlier run.

Where the user says the number of workers too, the packs themselves are settled here, for the run as for the plan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsearch.planning import Probe, relative_cost, settle
from gridsearch.records import ProbeRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.planning import CostModel, ProbeCache
    from gridsearch.records import Probed, Settings, Trial, TrialDraft
    from gridsearch.service.options import RunOptions

SIZES = (1, 2, 4, 8, 16)
"""Pack sizes that are measured; on the CPUs that were tried, 16 lanes gain little over 8."""

_MANY_SIZES = (1, 4, 16, 64, 256)
"""Those of an accelerator, which a small network alone leaves idle; a size that does not fit ends the measuring."""

_WORTH_PROBING = 4_000
"""Steps of a group below which measuring costs more than it brings."""

_UNPROBED = 4
"""Lanes of such a group's packs: rarely the best number, and rarely worse than one."""


def sizes(device: str) -> tuple[int, ...]:
    """Return the pack sizes that are measured on a device."""
    return SIZES if device.startswith("cpu") else _MANY_SIZES


class Sizing:
    """The number of lanes of each group.

    Args:
        lanes: what the user asked for, None to measure.
        device: where the packs train.
        cost: knows what was measured before.
        probes: takes what is measured now.
    """

    def __init__(self, *, lanes: int | None, device: str, cost: CostModel, probes: ProbeCache) -> None:
        self._asked = lanes
        self._measured = sizes(device)
        self._cost = cost
        self._probes = probes
        self._sizes: dict[str, int] = {}
        self._asking: dict[str, Settings] = {}

    def lanes(self, settings: Settings, count: int) -> int | None:
        """Return how many lanes a pack of `count` waiting trials may have; None if that must be measured first."""
        if self._asked is not None or count == 1:
            return self._asked or 1
        key = self._cost.key(settings)
        if key not in self._sizes:
            known = self._cost.probe(settings)
            if known is not None and known.probed:
                self._sizes[key] = known.best_lanes(max(self._measured))
            elif count * settings.epochs * self._cost.images(settings) / settings.batch < _WORTH_PROBING:
                self._sizes[key] = _UNPROBED
        return self._sizes.get(key)

    def request(self, settings: Settings, count: int) -> ProbeRequest:
        """Return what a worker is asked to measure for a group of `count` waiting trials."""
        key = self._cost.key(settings)
        self._asking[key] = settings
        return ProbeRequest(
            key=key, settings=settings, lanes=tuple(size for size in self._measured if size <= max(count, 1))
        )

    def take(self, event: Probed) -> Settings:
        """Take note of what was measured, and return the settings of the group; nothing measured means one lane."""
        self._sizes[event.key] = 1
        if event.seconds_per_image:
            found = Probe(event.seconds_per_image, event.memory_mb, probed=True)
            self._probes.put(event.key, found)
            self._sizes[event.key] = found.best_lanes(max(self._measured))
        return self._asking.pop(event.key)


def settled_packs(trials: Sequence[Trial | TrialDraft], options: RunOptions) -> list[tuple[str, ...]]:
    """Return the keys of the trials of each pack.

    Args:
        trials: all of the study, in the order in which it got (or will get) them.
        options: `settled` is true of them.
    """
    assert options.lanes is not None
    assert options.workers is not None
    # nothing that was measured may have a say: it would not be the same the next time
    packs = settle(
        trials, lanes=options.lanes, workers=options.workers, cost=lambda trial: relative_cost(trial.settings)
    )
    return [tuple(trial.key for trial in pack) for pack in packs]
