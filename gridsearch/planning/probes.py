"""What was measured of trials' costs: probes of packs and epochs that were trained, kept in a file of the home.

Below `estimates`, which says what a trial will cost by them.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from gridsearch import files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gridsearch.records import ImageSettings

_RECENT = 64

_CLOSE = 1.05
"""Costs that differ by less are taken as equal, as those of one size in two processes differ by as much: the smaller
pack starts sooner and ends more evenly."""


def probe_key(settings: ImageSettings, *, device: str, shape: tuple[int, ...], classes: int) -> str:
    """Return what the cost of one training image depends on, as a key of the cache.

    Args:
        settings: the trial's.
        device: what `devices.describe` calls the device (a GPU's or CPU's name).
        shape: (C, H, W) of the images.
        classes: number of classes.
    """
    facts = {
        "device": device,
        "model": settings.model,
        "options": dict(settings.model_options),
        "source": settings.model_source,
        "shape": list(shape),
        "classes": classes,
        "batch": settings.batch,
        "optimizer": settings.optimizer,
        "augment": settings.augment,
        "dtype": settings.dtype,
        **work_on_images(settings),
    }
    return json.dumps(facts, sort_keys=True, separators=(",", ":"))


def work_on_images(settings: ImageSettings) -> dict[str, object]:
    """Return what else is done to the images of a step; nothing where there is none, as in caches of before."""
    found: dict[str, object] = {}
    if settings.mixup > 0 or settings.cutmix > 0:
        found["mixes"] = True
    if "randaugment" in settings.augment:
        found["operations"] = settings.operations
    return found


@dataclass(frozen=True, slots=True)
class Probe:
    """What was measured of one kind of trial.

    Attributes:
        seconds_per_image: one training image of one epoch of one lane, the epoch's evaluation included, by the
            number of lanes of its pack; from a probe, which times a few steps (a CPU's by processor time).
        memory_mb: megabytes of a pack beyond torch's own and the data's, by its number of lanes.
        upto: the largest number of lanes that a probe was asked for; 0 where there was none.
        observed: as `seconds_per_image`, by wall time, of epochs that were really trained.
        epochs: how many those were.
        worker_mb: megabytes of a worker without a pack and the images; None where that was not measured.
    """

    seconds_per_image: Mapping[int, float] = field(default_factory=dict)
    memory_mb: Mapping[int, float] = field(default_factory=dict)
    upto: int = 0
    observed: Mapping[int, float] = field(default_factory=dict)
    epochs: int = 0
    worker_mb: float | None = None

    def knows(self, most: int) -> bool:
        """Whether a probe has measured which size up to `most` is best."""
        if not self.seconds_per_image:
            return False
        return self.upto >= most or max(self.seconds_per_image) < self.upto

    def best_lanes(self, most: int) -> int:
        """Return the smallest size, up to `most`, that costs a lane hardly more than the best one does."""
        known = {lanes: cost for lanes, cost in self.seconds_per_image.items() if lanes <= most}
        if not known:
            return 1
        return min(lanes for lanes, cost in known.items() if cost <= _CLOSE * min(known.values()))

    @property
    def slowdown(self) -> float | None:
        """How much longer an image took in runs than in the probe; None where not both are known."""
        ratios = [
            seen / self.seconds_per_image[lanes]
            for lanes, seen in self.observed.items()
            if lanes in self.seconds_per_image
        ]
        return statistics.median(ratios) if ratios else None

    def cost(self, lanes: int, slowdown: float = 1.0) -> float | None:
        """Return seconds per image of a lane in a pack of so many; what was trained counts before a probe.

        Args:
            lanes: of the pack.
            slowdown: see the property; used where this kind of trial was not trained yet.
        """
        if lanes in self.observed:
            return self.observed[lanes]
        if self.seconds_per_image:
            return _between(self.seconds_per_image, lanes) * (self.slowdown or slowdown)
        return _between(self.observed, lanes) if self.observed else None

    def megabytes(self, lanes: int) -> float | None:
        """Return the memory of a pack of so many lanes; it grows in proportion beyond what was measured."""
        if not self.memory_mb:
            return None
        near = min(self.memory_mb, key=lambda known: (known < lanes, abs(known - lanes)))
        return self.memory_mb[near] * (lanes / near if lanes > near else 1.0)

    def merged(self, newer: Probe) -> Probe:
        """Return both measurements in one; a newer probe takes the older one's place."""
        first = newer if newer.upto else self
        return Probe(
            first.seconds_per_image,
            first.memory_mb,
            first.upto,
            {**self.observed, **newer.observed},
            newer.epochs or self.epochs,
            first.worker_mb,
        )


def _between(known: Mapping[int, float], lanes: int) -> float:
    """Return the cost at a size between two that were measured; it falls about as 1 / lanes does."""
    below = max((size for size in known if size <= lanes), default=min(known))
    above = min((size for size in known if size >= lanes), default=max(known))
    if below >= above:
        return known[above if lanes < below else below]
    share = (1 / below - 1 / lanes) / (1 / below - 1 / above)
    return known[below] + share * (known[above] - known[below])


class ProbeCache:
    """Measured costs, kept in one JSON file that several runners may update.

    A damaged file counts as empty: everything in it can be measured again.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: dict[tuple[str, int], list[float]] = defaultdict(list)

    def load(self) -> dict[str, Probe]:
        """Read all measurements."""
        return _probes(files.read_json(self._path))

    def observe(self, key: str, lanes: int, seconds_per_image: float) -> None:
        """Remember the cost of a lane's epoch that was really trained; `save` writes the median."""
        seen = self._seen[key, lanes]
        seen.append(seconds_per_image)
        del seen[:-_RECENT]

    def put(self, key: str, probe: Probe) -> None:
        """Write one measurement at once."""
        self._merge({key: probe})

    def save(self) -> None:
        """Write what was observed since the last call; a cache that cannot be written is no error."""
        new: dict[str, Probe] = {}
        for (key, lanes), seen in self._seen.items():
            observed = Probe(observed={lanes: statistics.median(seen)}, epochs=len(seen))
            new[key] = new[key].merged(observed) if key in new else observed
        self._seen.clear()
        if new:
            self._merge(new)

    def _merge(self, new: Mapping[str, Probe]) -> None:
        def merged(content: dict[str, Any]) -> dict[str, Any]:
            known = _probes({key: content[key] for key in new if key in content})
            for key, probe in new.items():
                content[key] = asdict(known[key].merged(probe) if key in known else probe)
            return content

        with suppress(OSError):
            files.update_json(self._path, merged)


def _probes(content: Mapping[str, Any]) -> dict[str, Probe]:
    """Read the entries of the file; those that are damaged are left out."""
    found = {}
    for key, entry in content.items():
        with suppress(ValueError, TypeError, AttributeError, KeyError):
            found[key] = _read(entry)
    return found


def _read(entry: dict[str, Any]) -> Probe:
    """Read one entry of the file, which anybody may have written; its sizes are text there.

    Raises:
        ValueError: a number in it is none of times or sizes.
    """
    for name in ("seconds_per_image", "memory_mb", "observed"):
        entry[name] = {int(size): float(cost) for size, cost in entry[name].items()}
        if not all(size > 0 and 0 <= cost < math.inf for size, cost in entry[name].items()):
            raise ValueError(f"{name} of {entry[name]}")
    if 0 in entry["seconds_per_image"].values():
        raise ValueError("an image in no time")
    if (own := entry.get("worker_mb")) is not None and not 0 <= float(own) < math.inf:
        raise ValueError(f"a worker of {own} MB")
    return Probe(**{**entry, "upto": int(entry["upto"]), "epochs": int(entry["epochs"])})
