"""What a trial costs: in seconds where something was measured, else in relative units."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections import defaultdict
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gridsearch.records import Settings

# A training step's fixed cost in units of one image's cost.  LeNet on one core: 1.3 ms at batch 10, 1.9 at
# 20, 6.9 at 100 is 0.7 ms and 0.062 ms an image.  It only has to order trials until something was measured.
_STEP_IN_IMAGES = 11.0
_RECENT = 64

_CLOSE = 1.03
"""Costs that differ by less are taken as equal: the smaller pack starts sooner and ends more evenly."""


def probe_key(settings: Settings, *, device: str, shape: tuple[int, ...], classes: int) -> str:
    """Return what the cost of one training image depends on, as a key of the cache.

    Args:
        settings: the trial's.
        device: what `devices.describe` calls the device (a GPU's or CPU's name).
        shape: (C, H, W) of the images.
        classes: number of classes.
    """
    parts = {
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
    }
    return json.dumps(parts, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Probe:
    """What was measured of one kind of trial.

    Attributes:
        seconds_per_image: one training image of one epoch of one lane, the epoch's evaluation included, by the
            number of lanes of its pack.
        memory_mb: peak resident memory of a worker beyond torch's own, where it was measured.
        probed: whether packs of several sizes were tried, so that the best size is known.
        epochs: how many trained epochs it rests on; 0 for a probe alone.
    """

    seconds_per_image: Mapping[int, float]
    memory_mb: float | None = None
    probed: bool = False
    epochs: int = 0

    def best_lanes(self, most: int) -> int:
        """Return the smallest size, up to `most`, that costs a lane hardly more than the best one does."""
        known = {lanes: cost for lanes, cost in self.seconds_per_image.items() if lanes <= most}
        if not known:
            return 1
        return min(lanes for lanes, cost in known.items() if cost <= _CLOSE * min(known.values()))

    def cost(self, lanes: int) -> float:
        """Return seconds per image in a pack of so many lanes, from the nearest size that was measured."""
        nearest = min(self.seconds_per_image, key=lambda known: (abs(known - lanes), known))
        return self.seconds_per_image[nearest]

    def merged(self, newer: Probe) -> Probe:
        """Return both measurements in one; the newer wins where both have a size."""
        return Probe(
            {**self.seconds_per_image, **newer.seconds_per_image},
            self.memory_mb if newer.memory_mb is None else newer.memory_mb,
            self.probed or newer.probed,
            newer.epochs or self.epochs,
        )


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
        try:
            content = json.loads(self._path.read_text())
            return {key: _read(entry) for key, entry in content.items()}
        except (OSError, ValueError, TypeError, AttributeError, KeyError):
            return {}

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
            observed = Probe({lanes: statistics.median(seen)}, epochs=len(seen))
            new[key] = new[key].merged(observed) if key in new else observed
        self._seen.clear()
        if new:
            self._merge(new)

    def _merge(self, new: Mapping[str, Probe]) -> None:
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            known = self.load()
            both = {key: known[key].merged(probe) if key in known else probe for key, probe in new.items()}
            content = {key: asdict(probe) for key, probe in (known | both).items()}
            handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.name)
            with os.fdopen(handle, "w") as file:
                json.dump(content, file, indent=0)
            Path(name).replace(self._path)


def _read(entry: dict[str, Any]) -> Probe:
    """Read one entry of the file; its sizes are text there."""
    sizes = {int(lanes): float(cost) for lanes, cost in entry.pop("seconds_per_image").items()}
    if not sizes:
        raise ValueError("no measurement")
    return Probe(sizes, **entry)


def relative_cost(settings: Settings, *, train_images: int = 50_000) -> float:
    """Return what a trial costs in units of one image through the network, steps' fixed cost included.

    Args:
        settings: the trial's.
        train_images: images of one epoch before `subset`; any number does for comparing trials without one.
    """
    images = min(settings.subset or train_images, train_images)
    batch = max(min(settings.batch, images), 1)
    return settings.epochs * images * (1.0 + _STEP_IN_IMAGES / batch)


class CostModel:
    """Estimates seconds of training.

    Args:
        known: measurements by probe key.
        device: see `probe_key`, likewise `shape` and `classes`.
        train_images: images of one epoch, before `subset`.
    """

    def __init__(
        self,
        known: Mapping[str, Probe],
        *,
        device: str,
        shape: tuple[int, ...],
        classes: int,
        train_images: int,
    ) -> None:
        self._known = known
        self._device = device
        self._shape = shape
        self._classes = classes
        self._train_images = train_images
        self._keys: dict[tuple[object, ...], str] = {}

    def images(self, settings: Settings) -> int:
        """Training images of one epoch."""
        return min(settings.subset or self._train_images, self._train_images)

    def key(self, settings: Settings) -> str:
        """The trial's key in the cache; made once for all trials that share it, of which there may be many."""
        kind = (
            *(settings.model, settings.model_source, repr(settings.model_options)),
            *(settings.batch, settings.optimizer, settings.augment, settings.dtype),
        )
        key = self._keys.get(kind)
        if key is None:
            key = probe_key(settings, device=self._device, shape=self._shape, classes=self._classes)
            self._keys[kind] = key
        return key

    def probe(self, settings: Settings) -> Probe | None:
        """The measurement that the trial's seconds come from, if there is one."""
        return self._known.get(self.key(settings))

    def seconds(self, settings: Settings, *, lanes: int = 1) -> float | None:
        """Seconds of one trial as its share of a pack of so many lanes, None where nothing was measured."""
        probe = self.probe(settings)
        if probe is None:
            return None
        return settings.epochs * self.images(settings) * probe.cost(lanes)

    def units(self, settings: Settings) -> float:
        """Relative cost of one trial, to order trials that nobody has measured."""
        return relative_cost(settings, train_images=self._train_images)
