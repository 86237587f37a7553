"""What a trial costs: in seconds where something was measured, else in relative units."""

from __future__ import annotations

import json
import statistics
from abc import ABC, abstractmethod
from functools import singledispatch
from typing import TYPE_CHECKING

from gridsearch.planning.probes import probe_key, work_on_images
from gridsearch.records import ImageSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gridsearch.planning.probes import Probe
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
            repr(work_on_images(settings)),
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
