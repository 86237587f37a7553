"""From a spec to trials that can be stored: everything is found and checked before anything is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from gridsearch.errors import DataError, UsageError
from gridsearch.planning import CostModel, FunctionCost, ImageCost, ProbeCache
from gridsearch.records import ImageSettings, TrialDraft, trial_key
from gridsearch.service.prepare import user_code
from gridsearch.service.prepare.catalog import Catalog, images_changed, models_of
from gridsearch.service.prepare.functions import FunctionCatalog
from gridsearch.service.prepare.image_summary import image_warnings, renamed_arguments, summary
from gridsearch.service.prepare.replicates import has_result, more_replicates, stored_draft
from gridsearch.service.prepare.splitting import check_splits, split_sizes
from gridsearch.service.prepare.stored import Joining, check_models, find_again, joining, located, present
from gridsearch.service.queries.studies import existing
from gridsearch.spec import expand_study
from gridsearch.store import store_exists

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from gridsearch.plugins import ImageData
    from gridsearch.records import DataFacts, Settings, StudyData
    from gridsearch.service.prepare.options import Places
    from gridsearch.service.prepare.replicates import MoreSeeds
    from gridsearch.spec import StudySpec
    from gridsearch.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Trials with all that they need.

    Attributes:
        name: the study's name.
        axes: the axes of the grid.
        spec: the spec as JSON, for the record.
        catalog: the plug-ins that it names.
        drafts: every point with every seed.
        points: how many points that are.
        excluded: how many points were left out by `exclude`.
        warnings: what the user should know of the grid.
        images: the data of the first point, None where it was not loaded.
        ranked_by: metric and direction of a plain function; None for images, which accuracy ranks.
        stored: whether the trials are those of a study that is there, and no grid was given.
    """

    name: str
    axes: tuple[str, ...]
    spec: Mapping[str, Any]
    catalog: Catalog | FunctionCatalog
    drafts: tuple[TrialDraft, ...]
    points: int
    excluded: int = 0
    warnings: tuple[str, ...] = ()
    images: ImageData | None
    ranked_by: tuple[str, str] | None = None
    stored: bool = False

    @property
    def metric(self) -> str:
        """What the study ranks by; train accuracy only where nothing is held out."""
        if self.ranked_by is not None:
            return self.ranked_by[0]
        return "train_accuracy" if all(d.settings.trains_on_all for d in self.drafts) else "val_accuracy"

    @property
    def direction(self) -> str:
        """Which way is better: "maximize" or "minimize"; more accuracy is better."""
        return "maximize" if self.ranked_by is None else self.ranked_by[1]

    @property
    def facts(self) -> dict[str, DataFacts]:
        """What the images of all trials are, by their fingerprint.

        Raises:
            DataError: they are other than a moment ago.
        """
        return {} if isinstance(self.catalog, FunctionCatalog) else self.catalog.facts(self.drafts)

    @property
    def seen(self) -> tuple[DataFacts, ...]:
        """What is known of the images that were loaded."""
        return () if isinstance(self.catalog, FunctionCatalog) else self.catalog.seen(self.drafts)

    @property
    def described(self) -> str:
        """The images in one line, as they were understood; "" where none were loaded."""
        return " | ".join(facts.described for facts in self.seen)

    @property
    def at_hand(self) -> dict[str, ImageData]:
        """The loaded data by its fingerprint."""
        return {} if self.images is None else {self.drafts[0].settings.data_fingerprint: self.images}

    def cost(self, device: str, probes: ProbeCache) -> CostModel:
        """Return the cost model of these trials on a device."""
        if self.ranked_by is not None:
            return FunctionCost(probes.load())
        data = self.images
        assert data is not None
        train, _ = split_sizes(data, ImageSettings.of(self.drafts[0].settings))
        return ImageCost(
            probes.load(),
            device=device,
            shape=tuple(data.train_images.shape[1:]),
            classes=len(data.class_names),
            train_images=train,
        )


def prepare(
    spec: StudySpec,
    places: Places,
    *,
    objects: Mapping[str, Any] | None = None,
    dataset: Any = None,
    objective: Any = None,
    fetch: bool,
    say: Callable[[str], None],
) -> Prepared:
    """Expand a spec into drafts, with its data at hand.

    Args:
        spec: what to search.
        places: where the data lies.
        objects: models given as objects, by name.
        dataset: a dataset given as an object, instead of the spec's locator.
        objective: likewise the function of a study of one.
        fetch: bring the data if it is not there; else its fingerprint alone must do.
        say: takes a message.

    Raises:
        UsageError: what the spec names cannot be found, or does not fit the data.
        DataError: the data is missing or damaged.
    """
    if spec.objective is not None:
        function = FunctionCatalog(objective or spec.objective, metric=spec.metric, version=spec.version)
        function.known_as(partial(_stored_settings, spec.name, places))
        return _prepare_function(spec, function)
    catalog = Catalog(
        dataset if dataset is not None else spec.dataset, places.data, objects, version=spec.version
    )
    catalog.known_as(partial(_stored_settings, spec.name, places))
    expansion = expand_study(spec, catalog)
    if fetch:  # only now: what is wrong with the words is told without waiting for a download
        catalog.fetch(say)
    prepared = Prepared(
        name=spec.name,
        axes=spec.grid.axes,
        spec=located(spec.to_json(), catalog),
        catalog=catalog,
        drafts=tuple(expansion.drafts),
        points=expansion.points,
        excluded=expansion.excluded,
        warnings=(*expansion.warnings, *user_code.warnings(catalog.own, version=spec.version)),
        images=_images(catalog, expansion.drafts[0].settings, fetch=fetch),
    )
    if fetch:
        catalog.facts(expansion.drafts)  # all are read before anything is written
    check(prepared)
    if fetch and prepared.images is not None:
        _check_files(catalog, prepared.images, prepared.drafts)
    notes = [*summary(prepared.described, prepared.images)] if fetch else []
    if prepared.images is not None:
        notes += renamed_arguments(catalog, prepared.images, prepared.drafts)
    for note in notes:
        say(note)
    return replace(prepared, warnings=(*prepared.warnings, *image_warnings(prepared.seen)))


def _stored_settings(study: str, places: Places) -> list[Settings]:
    """Return the settings of all trials of a study; none where there is no such study yet."""
    if not store_exists(places.store):
        return []
    with existing(places) as store:
        return [trial.settings for trial in store.ledger(study)]


def _prepare_function(spec: StudySpec, catalog: FunctionCatalog) -> Prepared:
    expansion = expand_study(spec, catalog)
    return Prepared(
        name=spec.name,
        axes=spec.grid.axes,
        spec=spec.to_json(),
        catalog=catalog,
        drafts=expansion.drafts,
        points=expansion.points,
        excluded=expansion.excluded,
        warnings=(*expansion.warnings, *user_code.warnings(catalog.own, version=spec.version)),
        images=None,
        ranked_by=(spec.metric, spec.direction),
    )


def prepare_stored(
    study: str,
    places: Places,
    *,
    dataset: Any = None,
    models: Sequence[str] = (),
    objective: Any = None,
    objects: Mapping[str, Any] | None = None,
    more: MoreSeeds | None = None,
    say: Callable[[str], None],
) -> Prepared:
    """Take trials of a stored study: all without a result, whatever grids they came from, or more replicates.

    A user's own file is never run because a store names it: it has to be named again, and must be the same.

    Args:
        study: the study's name.
        places: where the store and the data lie.
        dataset: locator of the dataset, or the class or function itself, for a user's own.
        models: locators of models, or names of objects, for a user's own.
        objective: the function, or its locator, for a study of one.
        objects: models given as classes or functions, by name.
        more: more seeds for the best points, instead of all that is missing.
        say: takes a message.

    Raises:
        StudyNotFound: there is none.
        StoreError: more seeds are asked for, and no point has a result.
        UsageError: a user's own file is needed and was not named, or is another one by now.
        DataError: the data is missing, or other than it was.
    """
    with existing(places) as store:
        data = store.study_data(study)
        spec = store.spec(study)
    if not data.kind.classifies:
        _refuse(study, "is of a plain function", {"--dataset": dataset, "--model": models})
        drafts = _open_or_more(data, more)
        function = FunctionCatalog(
            objective or _stored_objective(data, spec), metric=data.metric, version=spec.get("version")
        )
        function.known_as(lambda: [draft.settings for draft in drafts])
        function.check_unchanged(study, [d.settings for d in drafts], spec)
        return Prepared(
            name=study,
            axes=data.axes,
            spec=spec,
            catalog=function,
            drafts=drafts,
            points=len({trial_key(d.settings, 0) for d in drafts}),
            images=None,
            ranked_by=(data.metric, data.direction),
            stored=True,
        )
    _refuse(study, "trains on images", {"--objective": objective})
    catalog = find_again(data, spec, places, dataset=dataset, models=models, objects=objects, say=say)
    drafts = _open_or_more(present(data, catalog, spec, say=say), more)
    check_models(
        data, catalog, spec, {d.settings.shape(): ImageSettings.of(d.settings) for d in drafts}.values()
    )
    prepared = Prepared(
        name=study,
        axes=data.axes,
        spec=located(spec, catalog),
        catalog=catalog,
        drafts=drafts,
        points=len({trial_key(d.settings, 0) for d in drafts}),
        images=_images(catalog, drafts[0].settings, fetch=True),
        stored=True,
    )
    for note in summary(prepared.described, prepared.images):
        say(note)
    return replace(prepared, warnings=(*prepared.warnings, *image_warnings(prepared.seen)))


def images_joined(store: Store, prepared: Prepared, places: Places) -> Joining:
    """Say how the images of a grid stand to those that its study holds.

    Raises:
        UsageError: the study is of another place of the same name, which holds other images.
    """
    ledger = store.ledger(prepared.name)
    if (
        not ledger
        or not isinstance(ledger[0].settings, ImageSettings)
        or not isinstance(prepared.catalog, Catalog)
    ):
        return Joining()
    spec = store.spec(prepared.name)
    return joining(prepared.name, ledger, spec, prepared.catalog, prepared.drafts, home=places.home)


def _open_or_more(data: StudyData, more: MoreSeeds | None) -> tuple[TrialDraft, ...]:
    """Return the trials without a result (all, where there is none), or more replicates of the best points."""
    if more is not None:
        return more_replicates(data, more)
    missing = [t for t in data.trials if not has_result(t)] or data.trials
    return tuple(stored_draft(t, data.axes) for t in missing)


def _stored_objective(data: StudyData, spec: Mapping[str, Any]) -> str:
    """Return the locator of a study's function.

    Raises:
        UsageError: it is a user's own, which has to be named again.
    """
    locator = str(spec.get("objective", data.dataset))
    if ":" in locator:
        raise UsageError(
            f"study {data.name!r} calls your own function {data.dataset!r}, whose code runs only when it is named",
            hint=data.again.name_again(),
        )
    return locator


def _refuse(study: str, why: str, options: Mapping[str, object]) -> None:
    """Refuse options that make no sense for a study of this kind.

    Raises:
        UsageError: one was given.
    """
    for option, value in options.items():
        if value:
            raise UsageError(f"{option}: study {study!r} {why}")


def check(prepared: Prepared) -> None:
    """Refuse what the data does not allow, before anything is written.

    Raises:
        UsageError: a split, or a dropout rate for a model without dropout.
    """
    if prepared.images is not None and isinstance(prepared.catalog, Catalog):
        check_splits(prepared.images, (ImageSettings.of(d.settings) for d in prepared.drafts))
        _check_dropout(prepared.catalog, prepared.images, prepared.drafts)


def _images(catalog: Catalog, settings: Settings, *, fetch: bool) -> ImageData | None:
    """Load the data of a trial; a plan does without where it was not fetched yet."""
    if not fetch and not catalog.available:
        return None
    settings = ImageSettings.of(settings)
    try:
        images, fingerprint = catalog.known(settings.data_options)
    except DataError:
        if fetch:
            raise
        return None
    if fingerprint != settings.data_fingerprint:
        raise images_changed(settings.dataset)
    return images


def _check_files(catalog: Catalog, images: ImageData, drafts: Sequence[TrialDraft]) -> None:
    """Build each model that reads a file once: what is not there, or does not fit, is told before all trials."""
    for name, options in sorted(models_of(d.settings for d in drafts), key=str):
        given = dict(options)
        reads = getattr(catalog.find_model(name).target, "file_options", ())
        if any(given.get(option) is not None for option in reads):
            catalog.build(name, given, _input_shape(catalog, name, images), len(images.class_names))


def _input_shape(catalog: Catalog, name: str, images: ImageData) -> tuple[int, int, int]:
    """Return (C, H, W) that a model gets: smaller images are resized to the smallest it takes."""
    channels, height, width = images.train_images.shape[1:]
    smallest = catalog.find_model(name).smallest_input or (1, 1)
    return channels, max(height, smallest[0]), max(width, smallest[1])


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
