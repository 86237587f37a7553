"""Prepares studies that train networks on images: the dataset and the models are found, and fit each other.

One of the two kinds that `preparation` chooses between; `stored` finds again what a stored study needs.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gridsearch.errors import DataError, UsageError
from gridsearch.planning import ImageCost
from gridsearch.records import ImageSettings
from gridsearch.records.image_metrics import (
    ACCURACY,
    TOP,
    TRAIN_ACCURACY,
    image_metric,
    known_metric,
    require_class,
)
from gridsearch.service.prepare import stored, user_code
from gridsearch.service.prepare.catalog import Catalog, models_of
from gridsearch.service.prepare.image_summary import image_warnings, renamed_arguments, summary
from gridsearch.service.prepare.prepared import Joining, Prepared, stored_fields
from gridsearch.service.prepare.replicates import open_or_more
from gridsearch.service.prepare.splitting import check_splits, split_sizes
from gridsearch.service.prepare.tried_models import check_outputs
from gridsearch.spec import expand_study
from gridsearch.users_code import kept_apart
from gridsearch.zoo import datasets
from gridsearch.zoo.pretrained import frozen_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from gridsearch.planning import ProbeCache
    from gridsearch.plugins import ImageData
    from gridsearch.records import DataFacts, Settings, StudyData, Trial, TrialDraft
    from gridsearch.service.prepare.options import Places
    from gridsearch.service.prepare.prepared import Given
    from gridsearch.service.prepare.replicates import MoreSeeds
    from gridsearch.spec import StudySpec

_TRIED = 8
"""Images on which an augmentation of the user's own is tried."""

_PLAIN = ImageSettings()
_OF_IMAGES = ("augment", "mixup", "cutmix")
"""Keys that change images while they are trained on."""

_CLASS_BYTES, _IMAGE_BYTES = 2, 17
"""What stored predictions hold: half-precision logits of each class; label, index and the like of each image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedImages(Prepared):
    """Trials that train networks on images.

    Attributes:
        catalog: the plug-ins that the study names.
        images: the data of the first point, None where it was not loaded.
        asked: the metric that was asked for, or by which a stored study goes; None for accuracy.
    """

    catalog: Catalog
    images: ImageData | None
    asked: str | None = None

    @property
    def metric(self) -> str:
        """What was asked for, else validation accuracy; train accuracy only where nothing is held out."""
        if all(d.settings.trains_on_all for d in self.drafts):
            return TRAIN_ACCURACY
        return self.asked or ACCURACY

    @property
    def direction(self) -> str:
        """That of the metric."""
        known = known_metric(self.metric)
        return known.direction if known is not None else "maximize"

    @property
    def class_names(self) -> tuple[str, ...]:
        """By label, of the images that were loaded."""
        return () if self.images is None else self.images.class_names

    @property
    def facts(self) -> dict[str, DataFacts]:
        """What the images of all trials are, by their fingerprint.

        Raises:
            DataError: they are other than a moment ago.
        """
        return self.catalog.facts(self.drafts)

    @property
    def described(self) -> str:
        """The images in one line, as they were understood; "" where none were loaded."""
        return " | ".join(facts.described for facts in self.catalog.seen(self.drafts))

    @property
    def loaded(self) -> dict[str, ImageData]:
        """The loaded images by their fingerprint."""
        return {} if self.images is None else {self.drafts[0].settings.data_fingerprint: self.images}

    def feature_bytes(self, images: int) -> int:
        """Return the size of the features of so many images by all frozen backbones."""
        return self.catalog.feature_bytes((draft.settings for draft in self.drafts), images)

    def cost(self, device: str, probes: ProbeCache) -> ImageCost | None:
        """Return the cost model of these trials on a device; None where no images were loaded."""
        data = self.images
        if data is None:
            return None
        train, _ = split_sizes(data, ImageSettings.of(self.drafts[0].settings))
        return ImageCost(
            probes.load(),
            device=device,
            shape=tuple(data.train_images.shape[1:]),
            classes=len(data.class_names),
            train_images=train,
        )

    def bytes_kept(self) -> int | None:
        """Return the size of a trial's predictions."""
        if self.images is None:
            return None
        _, val = split_sizes(self.images, ImageSettings.of(self.drafts[0].settings))
        return val * (_CLASS_BYTES * len(self.images.class_names) + _IMAGE_BYTES)

    def joining(self, ledger: Sequence[Trial], spec: Mapping[str, Any], *, home: Path) -> Joining:
        """Say how the grid's images stand to those that its study holds; see `Prepared`."""
        if any(trial.settings.kind is not self.kind for trial in ledger[:1]):
            return Joining()  # the store refuses it
        if not self.stored:
            _check_same_metric(self.name, str(spec.get("metric", "accuracy")), self.asked or ACCURACY)
        return stored.joining(self.name, ledger, spec, self.catalog, self.drafts, home=home)

    @property
    def summary(self) -> Iterator[str]:
        """One line on what the images were understood as, then those on what was done to them."""
        return summary(self.described, self.images)

    def with_doubts(self) -> PreparedImages:
        """Return the trials with what puts results on their images in doubt among the warnings."""
        found = [*self.warnings, *image_warnings(self.catalog.seen(self.drafts))]
        if (images := self.images) is not None:
            every = [ImageSettings.of(d.settings) for d in self.drafts]
            if any(_draws_a_split(s, images) for s in every if s.group is None):
                found += [warning] if (warning := datasets.divided_groups(images)) else []
            if any(s.group is not None for s in every):
                found += datasets.own_doubts(images, grouped=True)
        return replace(self, warnings=tuple(found))


def _draws_a_split(settings: ImageSettings, images: ImageData) -> bool:
    """Whether a trial's validation or test images are held out here, and are not those that the dataset brings."""
    validates = settings.folds is not None or (settings.val != 0 and images.val_indices is None)
    return validates or images.test_images is None


def prepare_images(
    spec: StudySpec,
    places: Places,
    given: Given,
    earlier: Callable[[], Iterable[Settings]],
    *,
    fetch: bool,
    say: Callable[[str], None],
) -> PreparedImages:
    """Expand a spec into drafts, with its data at hand; see `preparation.prepare`.

    Args:
        spec: what to search.
        places: where the data lies.
        given: plug-ins that are objects.
        earlier: gives the settings of the trials that the study holds.
        fetch: bring the data if it is not there, and share it with the workers; else its fingerprint alone must do.
        say: takes a message.
    """
    dataset = given.dataset if given.dataset is not None else spec.dataset
    catalog = Catalog(dataset, places.data, given.objects, version=spec.version)
    catalog.known_as(earlier)
    expansion = expand_study(spec, catalog)
    if fetch:  # only now: what is wrong with the words is said without waiting for a download
        catalog.fetch(say)
    prepared = PreparedImages(
        name=spec.name,
        axes=spec.grid.axes,
        spec=stored.located(spec.to_json() | expansion.noted, catalog),
        catalog=catalog,
        drafts=expansion.drafts,
        points=expansion.points,
        excluded=expansion.excluded,
        warnings=(*expansion.warnings, *user_code.warnings(catalog.own, version=spec.version)),
        images=_images(catalog, expansion.drafts[0].settings, fetch=fetch),
        asked=spec.image_metric,
    )
    _check_metric(spec, prepared)
    if fetch:
        catalog.facts(expansion.drafts)  # all are read before anything is written
    if prepared.images is not None:
        check(catalog, prepared.images, prepared.drafts, files=fetch)
        _check_outputs(catalog, prepared.images, prepared.drafts)
    notes = [*prepared.summary] if fetch else []
    if prepared.images is not None:
        notes += renamed_arguments(catalog, prepared.images, prepared.drafts)
    for note in notes:
        say(note)
    return prepared.with_doubts()


def stored_images(
    data: StudyData,
    spec: Mapping[str, Any],
    places: Places,
    given: Given,
    *,
    more: MoreSeeds | None,
    say: Callable[[str], None],
) -> PreparedImages:
    """Take trials of a stored study of images; see `preparation.prepare_stored`."""
    catalog = stored.find_again(
        data, spec, places, dataset=given.dataset, models=given.models, objects=given.objects, say=say
    )
    part = stored.of_named_code(stored.present(data, catalog, spec, say=say), catalog, say=say)
    drafts = open_or_more(part, more)
    needed = {d.settings.shape(): ImageSettings.of(d.settings) for d in drafts}
    stored.check_models(data, catalog, spec, needed.values())
    prepared = PreparedImages(
        **stored_fields(data, drafts),
        spec=stored.located(spec, catalog),
        catalog=catalog,
        images=_images(catalog, drafts[0].settings, fetch=True),
        asked=data.metric,
    )
    for note in prepared.summary:
        say(note)
    return prepared.with_doubts()


def _check_same_metric(study: str, stored: str, asked: str) -> None:
    """Refuse another metric than the one that a study goes by.

    Raises:
        UsageError: it is another.
    """
    before, now = image_metric(stored), image_metric(asked)
    if before.name != now.name:
        raise UsageError(
            f"study {study!r} is ranked by {before.word}, not by {now.word}",
            hint=f"give --metric {shlex.quote(before.word)} as before, and see `report --by {shlex.quote(now.word)}`; "
            "or name another study with --study",
        )


def _check_metric(spec: StudySpec, prepared: PreparedImages) -> None:
    """Refuse a metric that these images cannot have.

    Raises:
        UsageError: nothing is held out, the class is not there, or there are too few classes.
    """
    if prepared.asked is None:
        return
    if prepared.metric == TRAIN_ACCURACY:
        raise UsageError(
            f"metric {spec.metric}: nothing is held out (val=0), and metrics are those of held-out images",
            hint="leave --metric out, or hold some out with --val",
        )
    if names := prepared.class_names:
        require_class(image_metric(spec.metric), names, of=f"dataset {prepared.catalog.subject!r}")
        if prepared.asked == "top3" and len(names) <= TOP:
            raise UsageError(f"metric top3: there are only {len(names)} classes, so that it is always 1")


def check(catalog: Catalog, images: ImageData, drafts: Sequence[TrialDraft], *, files: bool = False) -> None:
    """Refuse what the data does not allow, before anything is written.

    Args:
        catalog: the plug-ins of the trials.
        images: their data.
        drafts: the trials.
        files: whether models that read a file are built, to see whether it is there and fits.

    Raises:
        UsageError: a split, a dropout rate for a model without dropout, an optimizer or augmentation of the user's own
            that does not work, or a file that does not fit.
    """
    check_splits(images, (ImageSettings.of(d.settings) for d in drafts))
    _check_dropout(catalog, images, drafts)
    _check_frozen(catalog, drafts)
    _check_own_code(catalog, images, drafts)
    if files:
        _check_files(catalog, images, drafts)


def _images(catalog: Catalog, settings: Settings, *, fetch: bool) -> ImageData | None:
    """Load the data of a trial; a plan does without where it was not fetched yet."""
    if not fetch and not catalog.available:
        return None
    settings = ImageSettings.of(settings)
    try:
        images, fingerprint = catalog.known(settings.data_options, wanted=settings.data_fingerprint)
    except DataError:
        if fetch:
            raise
        return None
    if fingerprint != settings.data_fingerprint:
        raise datasets.images_changed(settings.dataset)
    return datasets.share(images, fingerprint) if fetch else images


def _check_files(catalog: Catalog, images: ImageData, drafts: Sequence[TrialDraft]) -> None:
    """Build each model that reads a file once: what is not there, or does not fit, is reported before any trial."""
    for name, options in sorted(models_of(d.settings for d in drafts), key=str):
        given = dict(options)
        reads = getattr(catalog.find_model(name).target, "file_options", ())
        if any(given.get(option) is not None for option in reads):
            catalog.build(name, given, _input_shape(catalog, name, images), len(images.class_names))


def _check_outputs(catalog: Catalog, images: ImageData, drafts: Sequence[TrialDraft]) -> None:
    """Refuse models of the user's own that give no logits; see `tried_models`."""
    every = [draft.settings for draft in drafts]
    shapes = {name: _input_shape(catalog, name, images) for name, _ in models_of(every)}
    check_outputs(catalog, shapes, len(images.class_names), every)


def _input_shape(catalog: Catalog, name: str, images: ImageData) -> tuple[int, int, int]:
    """Return (C, H, W) that a model gets: smaller images are resized to the smallest it takes."""
    channels, height, width = images.train_images.shape[1:]
    smallest = catalog.find_model(name).smallest_input or (1, 1)
    return channels, max(height, smallest[0]), max(width, smallest[1])


def _check_own_code(catalog: Catalog, images: ImageData, drafts: Sequence[TrialDraft]) -> None:
    """Make each optimizer that is not built in, and call each augmentation of the user's own on a few images.

    Raises:
        UsageError: one of them does not work.
    """
    asked: set[tuple[str, ...]] = set()
    for settings in (ImageSettings.of(d.settings) for d in drafts):
        for kind, name in settings.uses[2:]:
            question = (kind, name, str(settings.optimizer_options) if kind == "optimizer" else "")
            if question in asked:
                continue
            asked.add(question)
            from gridsearch.training import check_augment, check_optimizer

            target = catalog.find_part(kind, name).target
            with kept_apart():
                if kind == "optimizer":
                    check_optimizer(target, settings)
                else:
                    check_augment(target, settings, images.train_images[:_TRIED])


def _check_frozen(catalog: Catalog, drafts: Sequence[TrialDraft]) -> None:
    """Refuse changes to the images of a network whose backbone is frozen: its features are computed once, without."""
    for settings in map(ImageSettings.of, (draft.settings for draft in drafts)):
        if frozen_of(catalog.find_model(settings.model).target, settings.model_options) is None:
            continue
        for key in _OF_IMAGES:
            if (value := getattr(settings, key)) != getattr(_PLAIN, key):
                raise UsageError(
                    f"{key}={value}: model.freeze=backbone computes the features of each image once, unchanged",
                    hint=f"leave {key} out, or train the whole network: model.freeze=none",
                )


def _check_dropout(catalog: Catalog, images: ImageData, drafts: Sequence[TrialDraft]) -> None:
    """Refuse a dropout rate for a model without dropout layers: its points would all be the same."""
    wanted = models_of(d.settings for d in drafts if d.settings.get("dropout") is not None)
    if not wanted:
        return
    from gridsearch.training import has_dropout

    for name, options in sorted(wanted, key=str):
        shape = _input_shape(catalog, name, images)
        if not has_dropout(catalog.build(name, dict(options), shape, len(images.class_names))):
            raise UsageError(
                f"dropout: model {name!r} has no dropout layer that it could set",
                hint="leave dropout out, or take a model that has one",
            )
