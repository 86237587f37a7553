"""Between a stored study and what it needs to go on: its images and models are found again, and are what they were.

Images and code belong to trials, not to a study: where some of its trials were trained on others than are there now,
the study goes on with those whose images and code are there.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gridsearch import locators
from gridsearch.advice import LOCATORS, command, is_own
from gridsearch.errors import DataError, GridsearchError, UsageError
from gridsearch.folders import expanded, tilde
from gridsearch.records import ImageSettings
from gridsearch.service.prepare.catalog import PARTS, Catalog
from gridsearch.service.prepare.named_code import file_of
from gridsearch.service.prepare.prepared import Joining
from gridsearch.service.prepare.user_code import CODE, check_same, of_todays_code, part_of
from gridsearch.spec import StudySpec
from gridsearch.zoo import datasets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from gridsearch.plugins import Plugin
    from gridsearch.records import Settings, StudyData, Trial, TrialDraft
    from gridsearch.records.settings import Shape
    from gridsearch.service.prepare.options import Places


def stored_dataset(data: StudyData, spec: Mapping[str, Any], home: Path) -> str:
    """Return the locator of a study's dataset.

    Args:
        data: the study.
        spec: as it was last asked for.
        home: beside it an older version's relative paths are looked for, if not in the working directory.

    Raises:
        UsageError: it is a user's own file, which has to be named again.
        DataError: the images are not where they were.
    """
    locator = str(spec.get("dataset", data.dataset))
    place = locators.placed(locator)
    if place is not None:
        kind, path = place
        found = next((each for each in _places(locator, home) if each.exists()), None)
        if found is None and (kind != "hf" or tilde(path).is_absolute()):  # or it is a name of the hub's
            gone = "no folder" if kind == "folder" else "not there"
            raise DataError(
                f"the images of study {data.name!r} were in {path}, which is {gone} now",
                hint=f"name where they are: --dataset {kind}:PATH",
            )
        return locator if found is None else f"{kind}:{found}"
    if ":" in locator:
        raise UsageError(
            f"study {data.name!r} uses your own dataset {data.dataset!r}, whose code runs only when it is named",
            hint=data.again.name_again(),
        )
    return locator


def find_again(
    data: StudyData,
    spec: Mapping[str, Any],
    places: Places,
    *,
    dataset: Any = None,
    models: Iterable[str] = (),
    objects: Mapping[str, Any] | None = None,
    say: Callable[[str], None],
) -> Catalog:
    """Return a catalog with a study's dataset, fetched, and the models that were named again.

    Args:
        data: the study.
        spec: as it was last asked for.
        places: where things lie.
        dataset: locator of the dataset, or the class or function itself, where it is named again.
        models: locators, or names of objects, for a user's own models, optimizers and augmentations.
        objects: those given as classes or functions, by name.
        say: takes a message.

    Raises:
        GridsearchError: one of them is not there.
    """
    given = dataset if dataset is not None else stored_dataset(data, spec, places.home)
    catalog = Catalog(given, places.data, objects, version=spec.get("version"))
    catalog.known_as(lambda: [trial.settings for trial in data.trials])
    kinds: dict[str, str] = {
        file_of(name): kind for trial in data.trials for kind, name in trial.settings.uses
    }
    for locator in models:
        kind = kinds.get(file_of(locator), "model")
        if kind in PARTS:
            catalog.find_part(kind, locator)
        else:
            catalog.find_model(locator)
    catalog.fetch(say)
    return catalog


def present(
    data: StudyData, catalog: Catalog, spec: Mapping[str, Any], *, say: Callable[[str], None]
) -> StudyData:
    """Return the part of a study whose images are those that are there now.

    Args:
        data: the study.
        catalog: has its dataset.
        spec: as the study was last asked for.
        say: takes a message on what is left out.

    Raises:
        DataError: there is none; the hint says what to type.
    """
    if not data.trials:
        return data
    here: dict[str, str | None] = {}
    trials = tuple(t for t in data.trials if _now(t.settings, catalog, here) == t.settings.data_fingerprint)
    if not trials:
        again = _command(spec, catalog.dataset.locator, data.again.where)
        raise DataError(
            f"the images of {catalog.subject!r} have changed since study {data.name!r} was made",
            hint=f"its trials stay as they are; new ones beside them: {again}"
            if again
            else "run the grid again: the changed data makes new trials beside the old",
        )
    return part_of(data, trials, "trained on other images than are there now", say=say)


def of_named_code(data: StudyData, catalog: Catalog, *, say: Callable[[str], None]) -> StudyData:
    """Return the part of a study whose own models, optimizers and augmentations are those that were named.

    See `user_code.of_todays_code`; what was not named stays, and `check_models` refuses it where it is needed.
    """
    if not catalog.own:
        return data
    known: dict[Shape, dict[str, bool]] = {}

    def code_of(stored: Settings) -> dict[str, bool]:
        settings = ImageSettings.of(stored)
        shape = settings.shape()
        if shape not in known:
            known[shape] = dict(_as_named(settings, catalog))
        return known[shape]

    return of_todays_code(data, code_of, say=say)


def _as_named(settings: ImageSettings, catalog: Catalog) -> Iterator[tuple[str, bool]]:
    """Yield the user's own code that a trial uses and that was named, and whether it is what the trial used."""
    catalog.recognize(settings.model, settings.model_options, settings.model_source)
    for kind, name in settings.uses:
        if not is_own(kind, name) or name not in catalog.locators:
            continue
        if kind in PARTS:
            yield name, catalog.find_part(kind, name).source == getattr(settings, f"{kind}_source")
        elif kind == "model":
            source = None
            with suppress(UsageError):  # by now it takes other options
                _, _, source = catalog.model(name, settings.model_options)
            yield name, source == settings.model_source


def check_models(
    data: StudyData, catalog: Catalog, spec: Mapping[str, Any], needed: Iterable[ImageSettings]
) -> None:
    """Refuse models that are not those that stored trials were trained with.

    Args:
        data: the study.
        catalog: has the models that were named again.
        spec: the study's, as it is stored.
        needed: the settings of the trials.

    Raises:
        UsageError: a user's own file is needed and was not named, or is another one by now.
    """
    study = data.name
    for settings in needed:
        catalog.recognize(settings.model, settings.model_options, settings.model_source)
        if is_own("model", settings.model) and settings.model not in catalog.locators:
            raise UsageError(
                f"study {study!r} uses your own model {settings.model!r}, whose code runs only when it is named",
                hint=data.again.name_again(),
            )
        _, _, source = catalog.model(settings.model, settings.model_options)
        plugin = catalog.find_model(settings.model)
        if source != settings.model_source:
            _check_files_there(study, plugin, settings)
        check_same(
            "model", plugin, source, settings.model_source, study=study, spec=spec, commands=data.commands
        )
        for kind, name in settings.uses:
            if kind in PARTS:
                _check_part(kind, name, data, catalog, spec, settings)


def _check_part(
    kind: str,
    name: str,
    data: StudyData,
    catalog: Catalog,
    spec: Mapping[str, Any],
    settings: ImageSettings,
) -> None:
    """Refuse an optimizer or augmentation that was not named, or is another one by now; see `check_models`."""
    if is_own(kind, name) and name not in catalog.locators:
        raise UsageError(
            f"study {data.name!r} uses your own {kind} {name!r}, whose code runs only when it is named",
            hint=data.again.name_again(),
        )
    plugin = catalog.find_part(kind, name)
    stored = getattr(settings, f"{kind}_source")
    if is_own(kind, name):
        check_same(kind, plugin, plugin.source, stored, study=data.name, spec=spec, commands=data.commands)


def _check_files_there(study: str, plugin: Plugin, settings: ImageSettings) -> None:
    """Refuse a model whose file is not where its option says: that is no other model.

    Raises:
        UsageError: such a file is not there.
    """
    for option in getattr(plugin.target, "file_options", ()):
        named = settings.model_options.get(option)
        if named in getattr(plugin.target, "published", ()):
            continue
        if isinstance(named, str) and not expanded(named).is_file():
            relative = not tilde(named).is_absolute()
            raise UsageError(
                f"study {study!r} reads model.{option}={named}, and there is no such file"
                + (" from this working directory" if relative else ""),
                hint="its path is part of the trials: go to the folder where the grid was given, or put it there"
                if relative
                else "put it back; a copy with other content makes other trials",
            )


def joining(
    study: str,
    ledger: Sequence[Trial],
    spec: Mapping[str, Any],
    catalog: Catalog,
    drafts: Iterable[TrialDraft],
    *,
    home: Path,
) -> Joining:
    """Say how a grid's images stand to those of its study.

    Args:
        study: its name.
        ledger: the trials that it holds.
        spec: as it was last asked for.
        catalog: what the grid names.
        drafts: the grid's trials.
        home: see `stored_dataset`.

    Raises:
        UsageError: the study is of another place of the same name, which holds other images.
    """
    stored = {t.settings.data_fingerprint: ImageSettings.of(t.settings) for t in ledger}
    if not stored or any(d.settings.data_fingerprint in stored for d in drafts):
        return Joining(same=bool(stored))
    here, there = catalog.dataset.locator, str(spec.get("dataset", ""))
    if catalog.subject in {s.dataset for s in stored.values()} and (
        not here or set(_places(here, home)) & set(_places(there, home))
    ):
        return Joining(earlier=len(ledger))
    known: dict[str, str | None] = {}
    if any(_now(settings, catalog, known) == fingerprint for fingerprint, settings in stored.items()):
        return Joining(same=True)
    if catalog.subject not in {s.dataset for s in stored.values()}:
        return Joining(earlier=len(ledger))  # of another dataset, which the store refuses
    raise UsageError(
        f"study {study!r} is of {_shown(there)}, and {_shown(here)} holds other images",
        hint="name another study with --study",
    )


def located(spec: Mapping[str, Any], catalog: Catalog) -> dict[str, Any]:
    """Return a spec whose dataset and model another working directory finds too."""
    found = dict(spec)
    if catalog.dataset.locator:
        found["dataset"] = catalog.dataset.locator
    if "model" in spec:
        found["model"] = catalog.place_of(str(spec["model"]))
    return found


def _now(settings: Settings, catalog: Catalog, known: dict[str, str | None]) -> str | None:
    """Return the fingerprint of what a dataset gives for a trial's options, None where it takes them no more."""
    options = ImageSettings.of(settings).data_options
    text = json.dumps(dict(options), sort_keys=True)
    if text not in known:
        known[text] = None
        with suppress(UsageError):
            known[text] = catalog.data(options)[2]
    wanted = settings.data_fingerprint
    if known[text] in (None, wanted) or not datasets.reads_as_before(catalog.dataset):
        return known[text]
    if (again := f"{text} {wanted}") not in known:
        known[again] = catalog.known(options, wanted=wanted)[1]
    return known[again]


def _places(locator: str, home: Path) -> list[Path]:
    """Return where what a locator names may lie; an older version has stored paths as they were typed."""
    path = tilde(_shown(locator))
    if path.is_absolute():
        return [path.resolve()]
    return [(base / path).resolve() for base in (Path.cwd(), home.parent)]


def _shown(locator: str) -> str:
    place = locators.placed(locator)
    return locator if place is None else place[1]


def _command(spec: Mapping[str, Any], dataset: str, where: Sequence[str]) -> str | None:
    """Return the command that runs a study's grid on a dataset; None where no command can name what it needs."""
    words = {name: value for name, value in spec.items() if name not in (LOCATORS, CODE)}
    try:
        study = StudySpec.from_json({**words, "dataset": dataset})
    except (GridsearchError, KeyError, TypeError, ValueError):
        return None
    if not dataset or "__main__:" in f"{dataset} {study.model}":
        return None
    return command("run", *study.arguments(), *where)
