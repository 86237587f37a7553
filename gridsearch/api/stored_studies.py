"""What Python does with studies that are there: `load`, `compare`, `best`; and `predict`, with what `best` exported.

Between the caller, whose arguments `keywords` and `given` read, and the service, which does what the command line's
commands of these names do.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gridsearch.api.arguments import with_nearest_name
from gridsearch.api.given import Objects, images_of
from gridsearch.api.keywords import flag, places, read, run_options, study_name, where_of
from gridsearch.api.result import StudyResult
from gridsearch.api.searches import listed, outside_of_imports
from gridsearch.api.watching import Watcher
from gridsearch.errors import UsageError
from gridsearch.files import PAGE, REPORT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gridsearch.records import Value
    from gridsearch.service.queries.comparisons import Compared
    from gridsearch.service.winner.best import BestOutcome
    from gridsearch.service.winner.exported import Prediction


@with_nearest_name
def load(study: str, *, store: str | None = None, home: str | os.PathLike[str] | None = None) -> StudyResult:
    """Read a study from the store.

    Args:
        study: its name.
        store: the database's URL; default: $GRIDSEARCH_STORE, or gridsearch.db in home.
        home: folder of the store; default: $GRIDSEARCH_HOME, or "runs".

    Returns:
        Its results as they are now; a running study may be read too.

    Raises:
        StudyNotFound: there is no such study.
        StoreError: there is no store, or it cannot be read.
    """
    from gridsearch.service.queries import studies
    from gridsearch.service.queries.reports import rank_study

    study_name(study)
    place = places({"home": home, "store": store})
    with studies.existing(place) as opened:
        data = opened.study_data(study)
        ranking = rank_study(opened, data)
    page = place.home / study / REPORT / PAGE
    counts = data.counts()
    return StudyResult(
        data,
        ranking,
        page if page.exists() else None,
        failed=counts["failed"],
        open=counts["waiting"] + counts["running"],
        places=place,
    )


@with_nearest_name
def compare(
    *studies: str,
    where: Mapping[str, Value] | None = None,
    by: str | None = None,
    store: str | None = None,
    home: str | os.PathLike[str] | None = None,
) -> Compared:
    """Compare studies of one store, and write a page that shows the comparison.

    Args:
        *studies: names of two to five studies.
        where: compare only trials with these values.
        by: the metric that ranks each study, see `StudyResult.by`; default: its own.
        store: the database's URL; default as on the command line.
        home: where the store lies; default as on the command line.

    Returns:
        `page` (its path), `comparison` (winners, differences and shared points; `to_json()`) and `warnings`.

    Raises:
        StudyNotFound: there is no study of that name.
        GridsearchError: as on the command line; `exit_code` says which kind.
    """
    from gridsearch.service.queries import studies as service
    from gridsearch.service.queries.comparisons import compare_studies

    names, chosen = [study_name(study) for study in studies], where_of(where)
    here = places({"home": home, "store": store})
    with service.existing(here) as opened:
        return compare_studies(opened, names, where=chosen, by=by, root=here.data)


@with_nearest_name
def best(  # noqa: PLR0913 - each option of the command line by its name, for `help` and editors
    study: str,
    *,
    where: Mapping[str, Value] | None = None,
    again: bool = False,
    model: str | Callable[..., Any] | Sequence[Any] | None = None,
    code: str | Callable[..., Any] | Sequence[Any] | None = None,
    dataset: Any = None,
    home: str | os.PathLike[str] | None = None,
    store: str | None = None,
    device: Any = None,
    executor: str | None = None,
    slurm: Mapping[str, Any] | str | Sequence[str] | None = None,
    quiet: bool = False,
) -> BestOutcome:
    """Retrain a study's winner on training and validation images, test it once, and export the model.

    Args:
        study: its name.
        where: choose the winner among the trials with these values.
        again: use the test set again; the result no longer counts as a clean test.
        model: the winner's model, if it is your own: "file.py:Name", "module:Name", or the class or function itself.
        code: your own optimizer or augmentation, in the same forms.
        dataset: your own dataset, or "folder:PATH" if the folder has moved.
        home: folder of the store and of all files of the studies; default as on the command line.
        store: the database's URL; default as on the command line.
        device: "auto" (default), "cpu", "cuda", "cuda:N", "mps", or a `torch.device`.
        executor: "local" trains in a worker process, "inline" in this one, "ray" and "slurm" on a cluster; default:
            "local".
        slurm: options of sbatch for the allocation.
        quiet: no progress and no messages; warnings all the same.

    Raises:
        GridsearchError: as on the command line; `exit_code` says which kind.
        KeyboardInterrupt: it was interrupted before the test set was used; the same call continues.
    """
    from gridsearch.service.winner import best as service

    outside_of_imports()
    given = {
        "home": home,
        "store": store,
        "device": device,
        "model": model,
        "code": code,
        "dataset": dataset,
        "slurm": slurm,
    }
    given = {name: value for name, value in given.items() if value is not None}
    watcher, objects = Watcher(quiet=flag("quiet", quiet)), Objects()
    named = objects.named(given)
    asked = None if executor is None else read("executor", executor)
    found = service.best(
        study_name(study),
        run_options({**given, "executor": objects.executor(asked, watcher.warn)}),
        where=where_of(where),
        again=flag("again", again),
        observer=watcher,
        dataset=objects.dataset or named.get("dataset"),
        models=[*listed(named.get("model")), *listed(named.get("code"))],
        objects=objects.models,
    )
    if found.signum is not None:
        raise KeyboardInterrupt
    watcher.finish()
    return found


@with_nearest_name
def predict(
    folder: str | os.PathLike[str],
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
) -> list[Prediction]:
    """Classify image files with an exported model.

    Neither torch nor the model's code is needed.

    Args:
        folder: a folder that `best` exported.
        images: paths of one file or several, of any size.

    Returns:
        A prediction for each image, in the order given: its class and the probability of every class.

    Raises:
        UsageError: there is no such folder.
        ArtifactError: the folder is not an export, or a file in it is missing or was changed.
        DataError: an image cannot be used.
    """
    from gridsearch.service.winner.exported import ExportedModel, Refused, unusable

    if not isinstance(folder, str | os.PathLike):
        raise UsageError(f"folder must be a path, not {type(folder).__name__}")
    files = images_of(images)
    found = ExportedModel.load(os.fspath(folder)).predict(files)
    good = [each for each in found if not isinstance(each, Refused)]
    if len(good) < len(found):
        raise unusable([each for each in found if isinstance(each, Refused)])
    return good
