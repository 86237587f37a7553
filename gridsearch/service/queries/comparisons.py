"""Compares what is in the store: studies with studies, and the confusion matrices of any trials."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gridsearch import reporting, web_browser
from gridsearch.errors import ArtifactError, GridsearchWarning, UsageError
from gridsearch.files import PAGE
from gridsearch.reporting.words.text import plural
from gridsearch.service.queries.report_folder import alone_in
from gridsearch.service.queries.reports import chosen, images_of, rank_study, read_predictions, reader

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from gridsearch.records import StudyData, TrialRecord, Value
    from gridsearch.reporting import Comparison, Predictions, Side
    from gridsearch.store import Store

MOST_STUDIES: Final = 5
"""As many as there are colours that can be told apart."""
MOST_TRIALS: Final = 12
MOST_PAIRS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Compared:
    """A comparison of studies that was written.

    Attributes:
        page: its index.html.
        warnings: what could not be shown, and why.
    """

    comparison: Comparison
    page: Path
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        """Return one line: where its page lies."""
        return f"<Compared: {self.page}>"

    def show(self) -> Path:
        """Open the page in the browser, and return it; where there is no browser, a warning names it.

        Warns:
            GridsearchWarning: no browser could be opened.
        """
        if problem := web_browser.open_page(self.page):
            warnings.warn(problem, GridsearchWarning, stacklevel=2)
        return self.page


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialClasses:
    """What a trial gets wrong.

    Attributes:
        matrix: counts [Y, Y], rows true, columns predicted; None where `problem` says why there is none.
        pairs: its commonest mistakes in words.
    """

    trial: TrialRecord
    matrix: np.ndarray | None
    accuracy: float | None
    pairs: tuple[str, ...]
    problem: str | None

    def to_json(self) -> dict[str, Any]:
        """Return one entry of `report --trial --json`."""
        return {
            "number": self.trial.number,
            "params": dict(self.trial.params),
            **self.trial.settings.replicate(self.trial.seed),
            "accuracy": self.accuracy,
            "matrix": None if self.matrix is None else self.matrix.tolist(),
            "pairs": list(self.pairs),
            "problem": self.problem,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialsDrawn:
    """Confusion matrices side by side.

    Attributes:
        files: the PNG and the SVG of their confusion matrices.
        page: the page on which they stand side by side.
    """

    study: str
    trials: tuple[TrialClasses, ...]
    files: tuple[Path, ...]
    page: Path

    def to_json(self) -> dict[str, Any]:
        """Return the content of `report --trial --json`."""
        return {
            "schema": 1,
            "study": self.study,
            "trials": [t.to_json() for t in self.trials],
            "files": [str(f) for f in self.files],
            "page": str(self.page),
        }


def compare_studies(
    store: Store,
    names: Sequence[str],
    *,
    where: Mapping[str, Value] | None = None,
    by: str | None = None,
    root: Path | None = None,
) -> Compared:
    """Compare studies, and write the comparison's page beside their folders.

    Args:
        store: the open store.
        names: of two to five studies.
        where: only the trials where all of these hold, in each study.
        by: the metric that ranks each study; default: its own.
        root: folder of the datasets' files, where images are looked for; nothing is ever fetched.

    Raises:
        UsageError: one study twice, or more than five.
        StudyNotFound: there is none of that name.
        StoreError: one of them has no result yet, or the page cannot be written.
    """
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise UsageError(f"--study {twice[0]}: given twice; a study is compared with another")
    if not 2 <= len(names) <= MOST_STUDIES:
        raise UsageError(f"{plural(len(names), 'study')}: two to {MOST_STUDIES} are compared at a time")
    sides, warnings = [], []
    for name in names:
        data, notes = chosen(store, store.study_data(name), where=where, by=by)
        sides.append(
            reporting.Side(data=data, ranking=rank_study(store, data), predictions=reader(store, data))
        )
        warnings += [f"study {name!r}: {note}" for note in notes]
    folder = store.home.comparison_dir(names, _part(sides))
    with alone_in(store, folder, names):
        files = reporting.write_comparison(
            sides,
            folder=folder,
            images=lambda data, trial: images_of(store, data.name, trial, root=root),
            write=store.home.write_beside,
        )
    return Compared(comparison=files.comparison, page=files.page, warnings=(*warnings, *files.notes))


def _part(sides: Sequence[Side]) -> str:
    """Return a name for what of the studies is compared; "" where they are whole, by their own metrics."""
    return "+".join(dict.fromkeys(name for s in sides if (name := reporting.folder_of(s.data))))


def draw_trials(store: Store, study: str, numbers: Sequence[int], *, root: Path | None = None) -> TrialsDrawn:
    """Put any trials side by side on a page in the study's report folder; their confusion matrices as PNG and SVG too.

    A trial whose predictions cannot be used is left out, and `problem` says why.

    Args:
        store: the open store.
        study: the study's name.
        numbers: of its trials.
        root: folder of the datasets' files, where images are looked for; nothing is ever fetched.

    Raises:
        UsageError: more than twelve, or a study of a function.
        StoreError: the study or a trial is not there, or a file cannot be written.
        ArtifactError: none of the trials has predictions that can be used.
    """
    numbers = list(dict.fromkeys(numbers))
    if len(numbers) > MOST_TRIALS:
        raise UsageError(f"{len(numbers)} trials: at most {MOST_TRIALS} are drawn side by side")
    data = store.study_data(study)
    if not data.kind.classifies:
        raise UsageError(
            f"--trial: study {data.name!r} is of {data.kind.noun}, whose trials have no classes to draw",
            hint=f"`{data.again.trial(numbers[0])}` shows one; the study's report has two of them beside each other",
        )
    found: list[TrialClasses] = []
    for number in numbers:
        read = _classes(store, data, number)
        first = next((t for t in found if t.matrix is not None), None)
        if first is not None and read.matrix is not None and (why := _unlike(data, first, read)):
            read = _without(read.trial, why)
        found.append(read)
    drawn = [t for t in found if t.matrix is not None]
    if not drawn:
        raise ArtifactError("; ".join(t.problem for t in found if t.problem))
    stem = f"trials-{'-'.join(str(t.trial.number) for t in drawn)}"
    folder = store.home.report_dir(study)
    made = reporting.trials_page(
        data,
        rank_study(store, data),
        [
            reporting.ShownTrial(trial=t.trial, matrix=t.matrix, title=_title(t))
            for t in drawn
            if t.matrix is not None
        ],
        predictions=reader(store, data),
        images=lambda trial: images_of(store, study, trial, root=root),
        whole=PAGE if (folder / PAGE).is_file() else "",
    )
    paths = (folder / f"{stem}-confusion.png", folder / f"{stem}-confusion.svg", folder / f"{stem}.html")
    contents = (made.png, made.svg, made.html.encode("utf-8", "replace"))
    with alone_in(store, folder, [study]):
        for path, content in zip(paths, contents, strict=True):
            store.home.write_beside(path, content)
    return TrialsDrawn(study=study, trials=tuple(found), files=paths[:2], page=paths[2])


def _unlike(data: StudyData, first: TrialClasses, other: TrialClasses) -> str:
    """Return why a trial cannot stand beside another, "" where it can."""
    assert first.matrix is not None and other.matrix is not None
    known, wanted = len(other.matrix), len(first.matrix)
    if known != wanted:
        return f"trial {other.trial.number} knows {known} classes, not {wanted}"
    its, theirs = (data.classes_of(t.trial.settings) for t in (other, first))
    if its != theirs:
        return f"trial {other.trial.number} predicts other classes than trial {first.trial.number}"
    return ""


def _classes(store: Store, data: StudyData, number: int) -> TrialClasses:
    study = data.name
    trial, _ = store.trial_record(study, number)
    names = data.classes_of(trial.settings)
    stored: Predictions | None = None
    problem = f"trial {number} has no stored validation predictions ({trial.state.value})"
    try:
        stored = read_predictions(store, study, trial)
    except (ArtifactError, OSError, ValueError) as error:
        problem = error.message if isinstance(error, ArtifactError) else str(error)
    if stored is None or not len(stored.labels):
        return _without(trial, problem)
    matrix = reporting.confusion_matrix(stored)
    pairs = reporting.describe_pairs(reporting.most_confused(matrix, names, limit=MOST_PAIRS))
    accuracy = int(matrix.trace()) / int(matrix.sum())
    return TrialClasses(trial=trial, matrix=matrix, accuracy=accuracy, pairs=pairs, problem=None)


def _without(trial: TrialRecord, problem: str) -> TrialClasses:
    return TrialClasses(trial=trial, matrix=None, accuracy=None, pairs=(), problem=problem)


def _title(found: TrialClasses) -> str:
    assert found.accuracy is not None
    return f"Trial {found.trial.number}, {100 * found.accuracy:.2f} %"
