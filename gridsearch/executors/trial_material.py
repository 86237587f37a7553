"""What a worker trains with: a trial's images, its model and its user's own code, found by their locators and kept.

Between a worker's setup, which has the locators, and `pack_trainer`, which trains.
"""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gridsearch.errors import PluginError
from gridsearch.plugins.file_loader import renew

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from gridsearch.plugins import ImageData, Plugin
    from gridsearch.records import ImageSettings, Value, WorkerSetup
    from gridsearch.training.own_code import OwnCode
    from gridsearch.training.resident_data import ResidentCache, ResidentData
    from gridsearch.zoo.pretrained.frozen_features import FrozenFeatures


class TrialMaterial:
    """Gives what trials need, each as its key names it; what has changed since the run began is refused.

    Args:
        setup: the worker's, with all locators.
        device: where images are kept.
        objects: plug-ins given as objects from Python, by display name; they stand for their locators.
    """

    def __init__(self, setup: WorkerSetup, device: torch.device, objects: Mapping[str, Plugin]) -> None:
        self._setup, self._device, self._objects = setup, device, objects
        # Not on the class, whose caches would keep every trainer of a session with all its data.
        self._resident = lru_cache(maxsize=2)(self._load)
        self._find = lru_cache(maxsize=64)(self._found)

    def cache(self, settings: ImageSettings) -> ResidentCache:
        """Return the images that a trial's key names.

        Raises:
            DataError: there are others by now.
        """
        return self._resident(tuple(sorted(settings.data_options.items())), settings.data_fingerprint)

    def data(self, settings: ImageSettings) -> ResidentData:
        """Return the images that a trial trains on, split as it asks; raises as `cache` does."""
        return self.cache(settings)(settings)

    def build(self, settings: ImageSettings, data: ResidentData) -> torch.nn.Module:
        """Return a new model of a trial, for such images; of features the head alone.

        Raises:
            PluginError: a file of it has changed since the run began.
            Exception: whatever the model raises.
        """
        if data.features is not None:
            from gridsearch.zoo.pretrained.backbones import head

            return head(data.channels, data.num_classes)
        plugin = self._model(settings)
        renew(plugin.target)  # what trials before this one have left in its module
        model = plugin.build(
            in_channels=data.channels,
            num_classes=data.num_classes,
            image_size=data.image_size,
            options=settings.model_options,
        )
        self._model(settings)  # a file that changed while it was read is no file that the key names
        return model

    def arithmetic(self, settings: ImageSettings) -> list[Mapping[str, Any]]:
        """Return in what a trial's own code computes otherwise than a new process does; it is imported for that.

        Raises:
            PluginError: a file of it is gone, or does not import.
        """
        names = [settings.model, *(name for _, name in settings.uses[2:])]
        return [self._find(name).arithmetic for name in names]

    def own(self, settings: ImageSettings) -> OwnCode:
        """Return the user's own optimizer and augmentation of a trial.

        Raises:
            PluginError: one of them has changed since the run began.
        """
        from gridsearch.training.own_code import OwnCode

        found: dict[str, Any] = {}
        for kind, name in settings.uses[2:]:
            plugin = self._find(name)
            if getattr(settings, f"{kind}_source") not in (None, plugin.source):
                raise PluginError(
                    f"{kind} {name!r}: a file of it has changed since the run began", hint="run again"
                )
            found[kind] = plugin.target
        return OwnCode(**found)

    def _load(self, options: tuple[tuple[str, Value], ...], fingerprint: str) -> ResidentCache:
        """Return the images of a fingerprint: those that are shared, else those that the dataset gives now.

        Raises:
            DataError: it gives others.
        """
        from gridsearch.training.resident_data import ResidentCache
        from gridsearch.zoo import datasets

        key = self._setup.images.get(fingerprint)
        images = None if key is None else datasets.find_shared(key)
        if images is None:
            images = self._read(options, fingerprint)
            key = datasets.key_of(images, fingerprint)
            images = datasets.share(images, fingerprint)
        return ResidentCache(
            images,
            device=self._device,
            smallest_input=lambda settings: self._model(settings).smallest_input,
            features=self._features,
            share=partial(datasets.share_resized, key),
        )

    def _read(self, options: tuple[tuple[str, Value], ...], fingerprint: str) -> ImageData:
        """Return the images of a fingerprint that were sent here, else those that the dataset gives now.

        Raises:
            DataError: they are others.
        """
        from gridsearch.zoo import datasets

        if (sent := self._setup.image_files.get(fingerprint)) is not None:
            return datasets.read_sent(Path(sent), fingerprint)
        plugin = self._objects.get(self._setup.dataset) or datasets.open_dataset(self._setup.dataset)
        root = Path(self._setup.data_root)
        images, found = datasets.load_known(plugin, root, dict(options), wanted=fingerprint)
        if found != fingerprint:
            raise datasets.images_changed(plugin.name)
        return images

    def _found(self, name: str) -> Plugin:
        from gridsearch.zoo.pretrained import open_model

        return self._objects.get(name) or open_model(self._setup.models[name])

    def _model(self, settings: ImageSettings) -> Plugin:
        plugin = self._find(settings.model)
        if plugin.identity(settings.model_options) != settings.model_source:
            raise PluginError(
                f"model {settings.model!r}: a file of it has changed since the run began", hint="run again"
            )
        return plugin

    def _features(self, settings: ImageSettings) -> FrozenFeatures | None:
        """Return what computes the features that a trial trains on; None where it trains on the images."""
        from gridsearch.zoo.pretrained import frozen_of

        plugin = self._model(settings)
        frozen = frozen_of(plugin.target, settings.model_options)
        if frozen is None:
            return None
        from gridsearch.zoo.pretrained.frozen_features import FrozenFeatures

        weights = str(settings.model_source)
        return FrozenFeatures(
            frozen, settings.model_options, weights, settings.data_fingerprint, self._device
        )
