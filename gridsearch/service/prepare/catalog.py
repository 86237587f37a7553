"""Finds what a spec names: the dataset and the models, their options and what identifies them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gridsearch import plugins
from gridsearch.advice import is_own
from gridsearch.errors import RAISED, SpecError, UsageError, nearest, said
from gridsearch.records import DataFacts, ImageSettings
from gridsearch.records.study_kinds import IMAGES
from gridsearch.zoo import datasets
from gridsearch.zoo.pretrained import frozen_of, open_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gridsearch.plugins import ImageData, Plugin
    from gridsearch.records import Settings, TrialDraft, Value


class Catalog:
    """The plug-ins of one run, each found once; the `Resolver` that a spec expands with.

    Args:
        dataset: locator of the dataset, or a class or function.
        root: folder of the datasets' files.
        objects: models, optimizers and augmentations given as a class or function from Python, by the name that the
            spec uses for them.
        version: stands for what of the user's own code has no address.
    """

    def __init__(
        self,
        dataset: str | Any,
        root: Path,
        objects: Mapping[str, Any] | None = None,
        *,
        version: str | None = None,
    ) -> None:
        self.root = root
        self.version = version
        self.dataset: Plugin = (
            datasets.open_dataset(dataset) if isinstance(dataset, str) else plugins.of_object(dataset)
        )
        self._given = {
            name: plugins.of_object(target, name=name, version=version)
            for name, target in (objects or {}).items()
        }
        self._models: dict[str, Plugin] = {}
        self._parts: dict[tuple[str, str], Plugin] = {}
        self._facts: dict[str, DataFacts] = {}
        self._shared: dict[str, str] = {}

    @property
    def subject(self) -> str:
        """What a study of it is about: the dataset's display name."""
        return self.dataset.name

    @property
    def setup(self) -> dict[str, Any]:
        """What a worker's setup says of them."""
        dataset = self.dataset.locator or self.dataset.name
        return {
            "kind": IMAGES.name,
            "dataset": dataset,
            "models": self.locators,
            "data_root": str(self.root),
            "images": dict(self._shared),
            "takes_state": True,
        }

    @property
    def locators(self) -> dict[str, str]:
        """Where each model, optimizer and augmentation that was found lies, by display name."""
        return {plugin.name: plugin.locator for plugin in self.own}

    @property
    def named(self) -> dict[str, dict[str, str]]:
        """What the user's own code was named by, by kind and display name; "" for what lives in this process alone."""
        models = {p.name: p.locator for p in self._models.values() if is_own("model", p.name)}
        data = {p.name: p.locator for p in (self.dataset,) if is_own("dataset", p.name)}
        named = {"model": models, "dataset": data}
        for (kind, _), plugin in self._parts.items():
            if is_own(kind, plugin.name):
                named.setdefault(kind, {})[plugin.name] = plugin.locator
        return {kind: found for kind, found in named.items() if found}

    @property
    def own(self) -> tuple[Plugin, ...]:
        """What has its code in the trials' keys: models, optimizers, augmentations; a dataset has its images there."""
        return (*self._models.values(), *self._parts.values())

    @property
    def objects(self) -> dict[str, Plugin]:
        """The plug-ins that exist in this process alone, by display name."""
        found = [*self.own, self.dataset]
        return {plugin.name: plugin for plugin in found if not plugin.locator}

    @property
    def available(self) -> bool:
        """Whether the dataset can be loaded without fetching anything."""
        return datasets.available(self.dataset, self.root)

    def place_of(self, name: str) -> str:
        """Return the locator of a model that was found by a name; the name itself where nobody asked for it."""
        plugin = self._models.get(name)
        return plugin.locator or name if plugin is not None else name

    def find_model(self, name: str) -> Plugin:
        """Find a model by its locator, or by the display name of one that was found by its locator; once."""
        if name not in self._models:
            shown = {plugin.name: plugin for plugin in self._models.values()}
            found = self._given.get(name) or shown.get(name) or open_model(name)
            self._models[name] = _told_apart(found, shown)
        return self._models[name]

    def known_as(self, trials: Callable[[], Iterable[Settings]]) -> None:
        """Take the addresses under which a study's trials have models of the session; see `Plugin.known_as`."""
        if any(plugin.older for plugin in self._given.values()):
            sources = {source for settings in trials() for source in settings.versions().values()}
            self._given = {name: plugin.known_as(sources) for name, plugin in self._given.items()}

    def find_part(self, kind: str, name: str) -> Plugin:
        """Find an optimizer or an augmentation by its locator, or by the display name of one that was found; once.

        Args:
            kind: "optimizer" or "augment".
            name: its locator, or the name under which it was given from Python.

        Raises:
            PluginError: there is none, or it is none.
        """
        if (kind, name) not in self._parts:
            shown = {plugin.name: plugin for (other, _), plugin in self._parts.items() if other == kind}
            group, check = PARTS[kind]
            found = self._given.get(name) or shown.get(name) or plugins.find(name, group)
            others = {plugin.name: plugin for plugin in self.own}
            self._parts[kind, name] = _told_apart(check(found), others)
        return self._parts[kind, name]

    def recognize(self, shown: str, options: Mapping[str, Value], source: str | None) -> None:
        """Let models of one name in several folders bear those names under which a study has them.

        Args:
            shown: the name of a model in the study.
            options: its options there.
            source: its address there.
        """
        twins = {k: p for k, p in self._models.items() if _base(p.name) == _base(shown)}
        right = next((k for k, p in twins.items() if p.identity(options) == source), None)
        if right is None and shown not in {p.name for p in twins.values()}:  # edited: by where it lies
            right = next((k for k, p in twins.items() if f"/{p.locator}".endswith(f"/{shown}")), None)
        if right is None or twins[right].name == shown:
            return
        for key, plugin in twins.items():
            if plugin.name == shown:
                self._models[key] = replace(plugin, name=twins[right].name)
        self._models[right] = replace(twins[right], name=shown)

    def model(self, name: str, options: Mapping[str, Value]) -> tuple[str, dict[str, Value], str | None]:
        """Return a model's display name, its complete options, and the hash of its source and files.

        Raises:
            PluginError: there is no such model, or it does not import.
            SpecError: it does not take one of the options, or lacks one that it needs.
        """
        plugin = self.find_model(name)
        full = _complete(plugin, options, "model")
        return plugin.name, full, plugin.identity(full)

    def optimizer(
        self, name: str, options: Mapping[str, Value], given: Iterable[str]
    ) -> tuple[str, dict[str, Value], str | None]:
        """Return an optimizer's display name, its complete options, and the hash of its source; see `Resolver`.

        Raises:
            SpecError: options that it does not take, or lacks.
        """
        plugin = self.find_part("optimizer", name)
        trained = next(iter(plugins.parameters_of(plugin.target)), "params")  # whatever it is called
        takes, every = plugin.options((trained,)), plugin.accepts_any_option()
        problems = [
            f"{key}: optimizer {plugin.name!r} takes no {needed}"
            for key in given
            for needed in ("weight_decay" if key == "weight_decay" else "lr",)
            if needed not in takes and not every
        ]
        for option in options:
            if option in ("lr", "weight_decay"):
                problems.append(f"optimizer.{option}: use the recipe's key {option} instead")
            elif option not in takes and not every:
                problems.append(
                    f"optimizer.{option}: {plugin.name!r} has no such option{nearest(option, takes)}"
                )
        needed = [o for o in plugin.required_options() if o not in (*options, trained, "lr", "weight_decay")]
        problems += [f"optimizer.{option}: {plugin.name!r} needs this option" for option in needed]
        if problems:
            raise SpecError(problems)
        defaults = {k: v for k, v in takes.items() if v is not None and k not in ("lr", "weight_decay")}
        source = plugin.source if is_own("optimizer", plugin.name) else None
        return plugin.name, {**defaults, **options}, source

    def augment(self, name: str) -> tuple[str, dict[str, Value], str | None]:
        """Return an augmentation's display name, no options, and the hash of its source; see `Resolver`."""
        plugin = self.find_part("augment", name)
        return plugin.name, {}, plugin.source

    def data(self, options: Mapping[str, Value]) -> tuple[str, dict[str, Value], str]:
        """Return the dataset's display name, its complete options, and the fingerprint of its images.

        Raises:
            DataError: the data is missing or damaged.
            SpecError: it does not take one of the options.
        """
        full = _complete(self.dataset, options, "data")
        if datasets.has_own_fingerprint(self.dataset):
            return self.dataset.name, full, datasets.fingerprint(self.dataset, self.root, full)
        return self.dataset.name, full, self.known(full)[1]

    def grouped_by(self, name: str) -> dict[str, Value]:
        """Return the options with which the dataset groups its images by a column; none where it names no columns."""
        return datasets.group_options(self.dataset, name)

    def images(self, options: Mapping[str, Value]) -> ImageData:
        """Load the images, verified."""
        return self.known(options)[0]

    def known(self, options: Mapping[str, Value], *, wanted: str | None = None) -> tuple[ImageData, str]:
        """Load the images, and give the fingerprint of just these; what they are is kept.

        Args:
            options: complete, as `data` gives them.
            wanted: see `datasets.load_known`.
        """
        images, fingerprint = datasets.load_known(self.dataset, self.root, dict(options), wanted=wanted)
        if fingerprint not in self._facts:
            self._facts[fingerprint] = _facts(images, self.dataset.locator)
        if (key := datasets.key_of(images, fingerprint)) is not None:
            self._shared[fingerprint] = key
        return images, fingerprint

    def images_of(self, settings: Iterable[Settings]) -> dict[str, ImageData]:
        """Return the images that trials of these settings train on, by fingerprint.

        Raises:
            DataError: they are not what they were when the trials were made.
        """
        found: dict[str, ImageData] = {}
        for each in map(ImageSettings.of, settings):
            if each.data_fingerprint not in found:
                images, fingerprint = self.known(each.data_options, wanted=each.data_fingerprint)
                if fingerprint != each.data_fingerprint:
                    raise datasets.images_changed(each.dataset)
                found[fingerprint] = images
        return found

    def facts(self, drafts: Iterable[TrialDraft]) -> dict[str, DataFacts]:
        """Return what the images of trials are, by fingerprint.

        Raises:
            DataError: they are not what they were when the trials were made.
        """
        needed = {d.settings.data_fingerprint: ImageSettings.of(d.settings) for d in drafts}
        return {fingerprint: self.fact(settings) for fingerprint, settings in needed.items()}

    def fact(self, settings: ImageSettings) -> DataFacts:
        """Return what the images are that a trial of these settings trains on; see `facts`."""
        fingerprint = settings.data_fingerprint
        if fingerprint in self._facts:
            return self._facts[fingerprint]
        if self.known(settings.data_options, wanted=fingerprint)[1] != fingerprint:
            raise datasets.images_changed(settings.dataset)
        return self._facts[fingerprint]

    def seen(self, drafts: Iterable[TrialDraft]) -> tuple[DataFacts, ...]:
        """Return what is known of those images of trials that were loaded already, each described but once."""
        found = [self._facts.get(d.settings.data_fingerprint) for d in drafts]
        return tuple({facts.described: facts for facts in found if facts is not None}.values())

    def feature_bytes(self, settings: Iterable[Settings], images: int) -> int:
        """Return the size of what trials with frozen backbones train on in place of so many images."""
        found = 0
        for name, options in models_of(settings):
            frozen = frozen_of(self.find_model(name).target, dict(options))
            found += 0 if frozen is None else frozen.feature_bytes(dict(options), images)
        return found

    def fetch(self, say: Callable[[str], None]) -> None:
        """Bring the dataset's files if they are not there yet."""
        if not self.available:
            datasets.fetch(self.dataset, self.root, say=say)

    def passed(self, name: str, options: Mapping[str, Value], images: ImageData) -> dict[str, Any]:
        """Return what a model's constructor gets of the images' shape under names of its own."""
        plugin = self.find_model(name)
        channels, *sides = images.train_images.shape[1:]
        smallest = plugin.smallest_input or (1, 1)
        height, width = (max(side, least) for side, least in zip(sides, smallest, strict=True))
        return plugin.passed(
            in_channels=channels,
            num_classes=len(images.class_names),
            image_size=(height, width),
            options=options,
        )

    def build(
        self, name: str, options: Mapping[str, Value], shape: tuple[int, int, int], classes: int
    ) -> Any:
        """Build a model as a worker would.

        Args:
            name: as `model` was asked for.
            options: the complete options.
            shape: (C, H, W) of the images that the network gets.
            classes: number of classes.

        Raises:
            UsageError: the model's own code raised.
        """
        try:
            return self.find_model(name).build(
                in_channels=shape[0], num_classes=classes, image_size=shape[1:], options=options
            )
        except UsageError:
            raise
        except RAISED as error:
            raise UsageError(
                f"model {name!r} cannot be built: {type(error).__name__}: {said(error)}"
            ) from error


PARTS: dict[str, tuple[str, Callable[[Plugin], Plugin]]] = {
    "optimizer": (plugins.OPTIMIZERS, plugins.as_optimizer),
    "augment": (plugins.AUGMENTATIONS, plugins.as_augmentation),
}
"""The kinds of code beside models that a trial may have, each with its group and what checks it."""


def _told_apart(plugin: Plugin, shown: Mapping[str, Plugin]) -> Plugin:
    """Return a plug-in whose name no other one bears: a file of a name that is taken shows its folders too."""
    name, folders = plugin.name, list(Path(plugin.locator.rpartition(":")[0]).parent.parts)
    while name in shown and shown[name].locator != plugin.locator and folders:
        name = f"{folders.pop().strip('/')}/{name}"
    return replace(plugin, name=name)


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _facts(images: ImageData, locator: str) -> DataFacts:
    import numpy as np

    classes = len(images.class_names)
    digest, counts = hashlib.sha256(), []
    for labels in (images.train_labels, images.test_labels):
        digest.update(b"none" if labels is None else np.ascontiguousarray(labels).tobytes() + b";")
        counts.append(
            None if labels is None else tuple(map(int, np.bincount(labels, minlength=classes)[:classes]))
        )
    return DataFacts(
        class_names=images.class_names,
        train=counts[0] or (),
        test=counts[1],
        labels=digest.hexdigest(),
        locator=locator,
        described=datasets.described(images),
        doubts=datasets.cautions(images),
    )


def _complete(plugin: Plugin, options: Mapping[str, Value], prefix: str) -> dict[str, Value]:
    reserved = (*plugins.SHAPE_ARGUMENTS, "root") if prefix == "data" else plugins.SHAPE_ARGUMENTS
    known = plugin.options(reserved)
    words = plugin.shape_words() if prefix == "model" else {}
    problems = [
        f"{prefix}.{name}: {plugin.name!r} has no such option" + (nearest(name, known) if known else "")
        for name in options
        if name not in known and not plugin.accepts_any_option()
    ]
    problems += [
        f"{prefix}.{name}: {plugin.name!r} needs this option"
        for name in plugin.required_options()
        if name not in options and name not in reserved and name not in words
    ]
    if problems:
        raise SpecError(problems)
    # what the data's shape alone decides is no option, unless somebody makes it one
    free = {name for name in words if name in plugin.required_options() and options.get(name) is None}
    return {name: value for name, value in {**known, **options}.items() if name not in free}


def models_of(settings: Iterable[Settings]) -> dict[tuple[str, tuple[tuple[str, Value], ...]], None]:
    """Return each model of some settings with its options, in the order in which they come up first."""
    return {(s.model, tuple(sorted(s.model_options.items()))): None for s in map(ImageSettings.of, settings)}
