"""What a trial costs: in seconds where something was measured, else in relative units."""

from __future__ import annotations

import json
import math
import statistics
from abc import ABC, abstractmethod
from collections import defaultdict
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import singledispatch
from typing import TYPE_CHECKING, Any

from gridsearch import files
from gridsearch.records import ImageSettings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gridsearch.records import Settings

# A training step's fixed cost in units of one image's cost.  LeNet on one core: 1.3 ms at batch 10, 1.9 at
# 20, 6.9 at 100 is 0.7 ms and 0.062 ms an image.  It only has to order trials until something was measured.
_STEP_IN_IMAGES = 11.0
_IMAGE_SECONDS = 62e-6
"""That image's cost, alone; only for comparing trials that nobody has measured with others."""

_SHARED = 0.4
"""The share of that cost that a pack does not save; likewise."""

_SIDE_BY_SIDE = 1.15
"""How much slower an image is on a CPU whose cores all train than in a probe, until that was measured; 1.07 to
1.39 on two cores."""

_RECENT = 64

_CLOSE = 1.03
"""Costs that differ by less are taken as equal: the smaller pack starts sooner and ends more evenly."""


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
        **_of_images(settings),
    }
    return json.dumps(facts, sort_keys=True, separators=(",", ":"))


def _of_images(settings: ImageSettings) -> dict[str, object]:
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
            known = _probes(content)
            for key, probe in new.items():
                known[key] = known[key].merged(probe) if key in known else probe
            return {key: asdict(probe) for key, probe in known.items()}

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


@singledispatch
def relative_cost(settings: Settings) -> float:  # noqa: ARG001 - others know their settings
    """Return what a trial costs beside others of its study; one is like the other where nobody knows more."""
    return 1.0


@relative_cost.register(ImageSettings)
def image_cost(settings: ImageSettings, *, train_images: int = 50_000) -> float:
    """Return what a trial costs in units of one image through the network, steps' fixed cost included.

    Args:
        settings: the trial's.
        train_images: images of one epoch before `subset`; any number does for comparing trials without one.
    """
    images = min(settings.subset or train_images, train_images)
    batch = max(min(settings.batch, images), 1)
    return settings.epochs * images * (1.0 + _STEP_IN_IMAGES / batch)


class CostModel(ABC):
    """Estimates seconds of training.

    Args:
        known: measurements by probe key.
        device: what `devices.describe` calls the device, "" where it makes no difference.
    """

    def __init__(self, known: Mapping[str, Probe], *, device: str = "") -> None:
        self._known = dict(known)
        self._slowdown: float | None = None
        self._device = device

    @abstractmethod
    def key(self, settings: Settings) -> str:
        """The trial's key in the cache."""

    @abstractmethod
    def seconds(self, settings: Settings, *, lanes: int = 1) -> float | None:
        """Seconds of one trial as its share of a pack of so many lanes, None where nothing was measured."""

    @abstractmethod
    def units(self, settings: Settings) -> float:
        """Relative cost of one trial, to order trials that nobody has measured."""

    def images(self, settings: Settings) -> int:  # noqa: ARG002 - see `ImageCost`
        """Training images of one epoch, which is what costs are measured by; 1 where there are none."""
        return 1

    def probe(self, settings: Settings) -> Probe | None:
        """The measurement that the trial's seconds come from, if there is one."""
        return self._known.get(self.key(settings))

    def guess(self, settings: Settings, *, lanes: int = 1) -> float:
        """Like `seconds`, and where nothing was measured what a LeNet would take, to compare trials by."""
        known = self.seconds(settings, lanes=lanes)
        if known is not None:
            return known
        return self.units(settings) * _IMAGE_SECONDS * (_SHARED + (1 - _SHARED) / lanes)

    def share(self, settings: Settings, lanes: int) -> float:
        """Return what a trial costs as a lane of a pack of so many, as a share of what it costs alone."""
        return self.guess(settings, lanes=lanes) / self.guess(settings)

    def left(self, settings: Settings, *, lanes: int, epochs: int, elapsed: float) -> float:
        """Return what a trial that trains still costs as a lane of a pack of so many, as `guess` says.

        An epoch under way counts as far as it has come: to take one that is nearly over for a whole one would let other
        workers believe that this one is busy for long.

        Args:
            settings: the trial's.
            lanes: of the pack.
            epochs: that have ended.
            elapsed: seconds since the last of them did; beyond what an epoch takes they say nothing.
        """
        whole = self.guess(settings, lanes=lanes)
        if settings.length is None:
            return whole
        epoch = whole / settings.length
        return max(0.0, whole - epochs * epoch - min(elapsed / lanes, epoch))

    @property
    def slowdown(self) -> float:
        """How much longer an image took in runs than in probes, over all that this device has trained."""
        if self._slowdown is None:
            device = json.dumps(self._device)
            ratios = [p.slowdown for key, p in self._known.items() if f'"device":{device}' in key]
            known = [ratio for ratio in ratios if ratio is not None]
            side_by_side = _SIDE_BY_SIDE if self._device.startswith("cpu") else 1.0
            self._slowdown = statistics.median(known) if known else side_by_side
        return self._slowdown

    def learn(self, key: str, probe: Probe) -> None:
        """Take in a measurement that was made meanwhile."""
        self._known[key] = self._known[key].merged(probe) if key in self._known else probe


class ImageCost(CostModel):
    """Estimates seconds of training networks on images.

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
        super().__init__(known, device=device)
        self._shape = shape
        self._classes = classes
        self._train_images = train_images
        self._keys: dict[tuple[object, ...], str] = {}

    def images(self, settings: Settings) -> int:
        """Training images of one epoch."""
        return min(ImageSettings.of(settings).subset or self._train_images, self._train_images)

    def key(self, settings: Settings) -> str:
        """The trial's key in the cache; made once for all trials that share it, of which there may be many."""
        settings = ImageSettings.of(settings)
        kind = (
            *(*settings.code, repr(settings.model_options)),
            *(settings.batch, settings.optimizer, settings.augment, settings.dtype),
            repr(_of_images(settings)),
        )
        key = self._keys.get(kind)
        if key is None:
            key = probe_key(settings, device=self._device, shape=self._shape, classes=self._classes)
            self._keys[kind] = key
        return key

    def seconds(self, settings: Settings, *, lanes: int = 1) -> float | None:
        """Seconds of one trial as its share of a pack of so many lanes, None where nothing was measured."""
        probe = self.probe(settings)
        each = probe.cost(lanes, self.slowdown) if probe is not None else None
        return None if each is None else ImageSettings.of(settings).epochs * self.images(settings) * each

    def units(self, settings: Settings) -> float:
        """Relative cost of one trial, in images through the network."""
        return image_cost(ImageSettings.of(settings), train_images=self._train_images)


class FunctionCost(CostModel):
    """Estimates seconds of a plain function's trials: as long as those took that were called before."""

    def key(self, settings: Settings) -> str:
        """The trial's key in the cache: the function as it is."""
        name, source = settings.code
        return json.dumps({"objective": name, "source": source})

    def seconds(self, settings: Settings, *, lanes: int = 1) -> float | None:  # noqa: ARG002 - one after another
        """Seconds of one trial, None where none was called before."""
        probe = self.probe(settings)
        return probe.cost(1) if probe is not None else None

    def units(self, settings: Settings) -> float:
        """One trial is like the other."""
        return relative_cost(settings)
