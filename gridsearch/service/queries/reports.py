"""Makes a study's report from the store, and gives Optuna's dashboard its heatmap."""

from __future__ import annotations

import functools
import threading
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from gridsearch import reporting
from gridsearch.advice import is_own
from gridsearch.errors import ArtifactError, DataError, StoreError, StudyNotFound, UsageError
from gridsearch.files import PREDICTIONS
from gridsearch.folders import can_be_made
from gridsearch.records import ImageSettings, TrialState
from gridsearch.service.prepare.catalog import Catalog
from gridsearch.service.prepare.stored import stored_dataset
from gridsearch.service.queries.latency import Latencies, measure
from gridsearch.service.queries.report_folder import alone_in

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from gridsearch.plugins import ImageData
    from gridsearch.records import StudyData, TrialRecord, Value
    from gridsearch.reporting import ParetoFront, Predictions, Ranking
    from gridsearch.service.prepare.options import Places
    from gridsearch.store import Store


@dataclass(frozen=True, slots=True)
class Report:
    """A report that was written.

    Attributes:
        data: what it is about.
        ranking: the ranking that it shows.
        page: the page's path; None where the home cannot be written, and so has none.
        json: the content of `report --json`.
        warnings: what could not be shown, and why.
    """

    data: StudyData
    ranking: Ranking
    page: Path | None
    json: dict[str, Any]
    warnings: tuple[str, ...]


@functools.cache
def preload_report() -> threading.Thread:
    """Begin to load what a report is drawn with, beside what goes on: a second or two that it then needs no more.

    Returns:
        The thread that does it, once a process.
    """
    thread = threading.Thread(target=reporting.preload)
    thread.start()
    return thread


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """Which trials of a study a report is about, and how it ranks them; see `make_report`."""

    given: StudyData | None
    where: Mapping[str, Value] | None
    by: str | None
    ignore: Sequence[str]

    def of(self, store: Store, study: str) -> tuple[StudyData, tuple[str, ...]]:
        """Return them as they are now, unless they were read already, and what `chosen` has to say."""
        data = self.given or store.study_data(study)
        if self.ignore:
            data = replace(data, spec={**data.spec, "ignore": [*data.spec.get("ignore", ()), *self.ignore]})
        return chosen(store, data, where=self.where, by=self.by)


def make_report(  # noqa: PLR0913  (each option of the command by its name)
    store: Store,
    study: str,
    *,
    where: Mapping[str, Value] | None = None,
    by: str | None = None,
    data: StudyData | None = None,
    images: Mapping[str, ImageData] | None = None,
    root: Path | None = None,
    ignore: Sequence[str] = (),
    pareto: ParetoQuestion | None = None,
) -> Report:
    """Rank, draw and write the report of a study as it is now; that of a part of it in a folder of its own.

    Args:
        store: the open store.
        study: the study's name.
        where: only the trials where all of these hold.
        by: the metric that ranks; default: the study's own.
        data: the study, if it was read already.
        images: datasets that the caller has at hand, by their fingerprint.
        root: folder of the datasets' files, where another one is looked for; nothing is ever fetched.
        ignore: codes of findings to leave out, beside those that the study leaves out always.
        pareto: by which quantities the points are compared besides.

    Raises:
        StudyNotFound: there is none.
        UsageError: no such trials, metric or class.
        StoreError: none of its trials has a result yet, or the page cannot be written.
        ArtifactError: the stored predictions cannot give the metric.
    """
    asked = _Asked(given=data, where=where, by=by, ignore=ignore)
    data, notes = asked.of(store, study)
    folder = store.home.report_dir(study, reporting.folder_of(data))
    with ExitStack() as stack:
        another = store.folder_problem(study)
        writable = can_be_made(folder) and another is None
        if writable:
            preload_report().join()  # before it is drawn in two processes
            if stack.enter_context(alone_in(store, store.home.report_dir(study), [study], also=folder)):
                data, notes = asked.of(store, study)  # as it is after the report that was waited for
        warnings: list[str] = list(notes)
        predictions = _with_warnings(reader(store, data), warnings)
        compare = None
        if pareto is not None:
            compare = partial(pareto_of, store, data, pareto, predictions=predictions, warnings=warnings)
        page = None
        if writable:
            made = reporting.write_report(
                data,
                folder=folder,
                predictions=predictions,
                images=lambda trial: _images(
                    ImageSettings.of(trial.settings), study, store, at_hand=images or {}, root=root
                ),
                write=store.home.write_beside,
                pareto=compare,
            )
            ranking, page, content = made.ranking, made.page, made.json
            if data.whole:
                _show_in_dashboard(store, data.name, folder, warnings)
    if page is None:
        ranking = reporting.rank(data, predictions=predictions)
        if compare is not None:
            ranking = replace(ranking, pareto=compare(ranking))
        content = reporting.report_json(data, ranking=ranking)
        warnings.append(
            f"{another}: there is no page; another --home gets one"
            if another
            else f"{folder} cannot be written, so there is no page; a copy of the home gets one: name it with --home"
        )
    return Report(data, ranking, page, content, reporting.each_once(warnings))


def _show_in_dashboard(store: Store, study: str, folder: Path, warnings: list[str]) -> None:
    """Give Optuna's dashboard the heatmaps of a report, which is whole without: a store may be there to be read only.

    Raises:
        StudyNotFound: the study was deleted meanwhile.
    """
    try:
        for path in sorted(folder.glob("heatmap*.png")):
            store.add_artifact(study=study, path=path)  # the dashboard reads a study anew each time
    except StudyNotFound:
        raise
    except StoreError as error:
        warnings.append(f"Optuna's dashboard does not show the heatmaps of this report: {error.message}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParetoQuestion:
    """By what points are compared beside the metric that ranks.

    Attributes:
        words: quantities, as they are typed.
        places: where the data and the cache of latencies lie.
        models: the user's own models, named again, whose latency is measured.
    """

    words: Sequence[str]
    places: Places
    models: Sequence[str] = ()


def pareto_of(
    store: Store,
    data: StudyData,
    asked: ParetoQuestion,
    ranking: Ranking,
    *,
    predictions: Callable[[int], Predictions | None],
    warnings: list[str],
) -> ParetoFront:
    """Compare the points of a ranking by several quantities; latencies are measured on this machine.

    Args:
        store: the open store.
        data: the study.
        asked: by what.
        ranking: the study's.
        predictions: the stored validation predictions of a trial by its number.
        warnings: takes what could not be measured, and why.

    Raises:
        UsageError: an unknown quantity or class, or a latency that cannot be measured here.
        ArtifactError: no point has all of them.
        GridsearchError: images or code that a latency needs are not here.
    """
    quantities = reporting.quantities_of(asked.words)
    if not data.kind.classifies:
        raise UsageError(
            f"--pareto: study {data.name!r} is of {data.kind.noun}, and not of networks on images"
        )
    found = Latencies()
    if any(q.name == reporting.LATENCY for q in quantities):
        found = measure(
            store,
            data,
            ranking.ranked,
            asked.places,
            images=lambda settings: _images(settings, data.name, store, at_hand={}, root=asked.places.data),
            models=asked.models,
        )
        warnings += found.problems
    return reporting.pareto_front(
        data,
        ranking,
        quantities,
        predictions=predictions,
        latencies=found.by_point,
        measured=found.how,
    )


def live_report(
    store: Store,
    study: str,
    *,
    kept: reporting.LivePage | None = None,
    root: Path | None = None,
    live: reporting.Live,
) -> reporting.LivePage:
    """Return a study's page as it stands now, also where no trial has ended; nothing is written.

    Args:
        store: the open store.
        study: the study's name.
        kept: the page as it was made before.
        root: folder of the datasets' files, where the images are looked for; nothing is ever fetched.
        live: what the page needs to know of its server.

    Raises:
        StudyNotFound: there is none.
    """
    data = store.study_data(study)
    return reporting.live_page(
        data,
        predictions=_with_warnings(reader(store, data), []),
        images=lambda trial: images_of(store, study, trial, root=root),
        kept=kept,
        live=live,
    )


def chosen(
    store: Store, data: StudyData, *, where: Mapping[str, Value] | None = None, by: str | None = None
) -> tuple[StudyData, tuple[str, ...]]:
    """Return what was asked for of a study, and what to say of trials that do not have the metric.

    Args:
        store: the open store.
        data: the study.
        where: only the trials where all of these hold.
        by: the metric that ranks; default: the study's own.

    Raises:
        UsageError: no such trials, metric or class.
        StoreError: none of its trials has a result yet.
        ArtifactError: the stored predictions cannot give the metric.
    """
    if where:
        data = reporting.filter_data(data, where)
    require_result(data)
    return reporting.ranked_by(data, by, predictions=reader(store, data)) if by is not None else (data, ())


def _with_warnings(
    read: Callable[[int], Predictions | None], warnings: list[str]
) -> Callable[[int], Predictions | None]:
    """Make predictions that cannot be used a warning and none."""

    def predictions(number: int) -> Predictions | None:
        try:
            return read(number)
        except ArtifactError as error:
            warnings.append(error.message)
            return None

    return predictions


def require_result(data: StudyData) -> None:
    """Refuse a study of which there is nothing to report.

    Raises:
        StoreError: none of its trials has a result yet.
    """
    if not any(trial.state is TrialState.COMPLETE for trial in data.trials):
        counts = ", ".join(f"{n} {state}" for state, n in data.counts().items() if n) or "no trials"
        follow = f"`{data.again.watch()}` shows how far it is"
        raise StoreError(
            f"study {data.name!r} has no finished trial to report on ({counts})",
            hint=follow if data.counts()[TrialState.RUNNING] else data.to_a_result,
        )


def rank_study(store: Store, data: StudyData) -> Ranking:
    """Rank a study with its stored predictions, as far as they can be read."""
    return reporting.rank(data, predictions=reader(store, data))


def reader(store: Store, data: StudyData) -> Callable[[int], Predictions | None]:
    """Return what reads the stored predictions of a study's trials by their number, see `read_predictions`."""
    trials = {trial.number: trial for trial in data.trials}
    hashes = functools.cache(
        lambda: store.hashes(data.name, PREDICTIONS)
    )  # of all trials, once one is asked for
    return lambda number: _read(store, data.name, trials[number], hashes().get(number))


def read_predictions(store: Store, study: str, trial: TrialRecord) -> Predictions | None:
    """Read a trial's stored validation predictions; None where it never had any.

    Raises:
        ArtifactError: they are gone, their bytes are not those that were stored, or they disagree with the trial.
    """
    there = store.artifacts(study, trial.number).get(PREDICTIONS)
    return _read(store, study, trial, None if there is None else there.sha256)


def _read(store: Store, study: str, trial: TrialRecord, sha256: str | None) -> Predictions | None:
    if sha256 is None:
        return None
    path = store.home.trial_file(study, trial.number, PREDICTIONS)
    found = as_predictions(store.home.read_verified(path, sha256))
    reporting.require_agreement(found, trial.metrics.get("val_accuracy"), trial=trial.number)
    return found


def as_predictions(content: bytes) -> Predictions:
    """Return what the bytes of a predictions file hold."""
    import safetensors.numpy

    tensors = safetensors.numpy.load(content)
    logits = tensors["logits"]
    return reporting.Predictions(
        logits.astype("float32") if logits.dtype == "float16" else logits,
        tensors["labels"],
        tensors.get("indices"),
        tensors.get("predicted"),
    )


def images_of(store: Store, study: str, trial: TrialRecord, *, root: Path | None) -> ImageData:
    """Load the images that a trial was trained on; see `_images`."""
    return _images(ImageSettings.of(trial.settings), study, store, at_hand={}, root=root)


def _images(
    settings: ImageSettings, study: str, store: Store, *, at_hand: Mapping[str, ImageData], root: Path | None
) -> ImageData:
    """Load the images that a trial was trained on, if they are here and still the same.

    Raises:
        GridsearchError: they are not, or only code of the user's own could give them.
    """
    if settings.data_fingerprint in at_hand:
        return at_hand[settings.data_fingerprint]
    spec = store.spec(study)
    named = str(spec.get("dataset", settings.dataset))
    if is_own("dataset", named):
        raise DataError(f"dataset {settings.dataset!r} is your own code, which a report does not run")
    locator = stored_dataset(store.study_data(study), spec, store.home.root)
    if root is None:
        raise DataError(f"dataset {settings.dataset!r} is not available")
    catalog = Catalog(locator, root)
    if not catalog.available:
        raise DataError(f"dataset {settings.dataset!r} is not on this machine")
    images, fingerprint = catalog.known(settings.data_options, wanted=settings.data_fingerprint)
    if fingerprint != settings.data_fingerprint:
        raise DataError(f"the images of {settings.dataset!r} have changed since the study was made")
    return images
