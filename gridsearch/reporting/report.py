"""From a study to its report folder: the last stage, where ranking, tables, figures and page meet."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gridsearch.errors import ArtifactError
from gridsearch.reporting.document import export_json
from gridsearch.reporting.frames import ranking_csv, trials_csv
from gridsearch.reporting.page import Classes, PageFigure, render_page
from gridsearch.reporting.predictions import (
    Predictions,
    balanced_accuracy,
    confusion_matrix,
    describe_pairs,
    macro_f1,
    most_confused,
    per_class,
    per_class_csv,
)
from gridsearch.reporting.ranking import RankedPoint, Ranking, rank
from gridsearch.reporting.selection import filter_data
from gridsearch.reporting.text import listed, metric_name, plural, printable, show_metric, show_params

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from matplotlib.figure import Figure

    from gridsearch.records import StudyData, TrialRecord, Value

PAGE: Final = "index.html"
FIGURE_STEMS: Final = ("heatmap", "confusion", "curves")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFiles:
    """What a report consists of.

    Attributes:
        page: index.html.
        files: all files, the page among them.
        ranking: the ranking that it shows.
    """

    folder: Path
    page: Path
    files: tuple[Path, ...]
    ranking: Ranking


def write_report(
    data: StudyData,
    *,
    folder: Path,
    predictions: Callable[[int], Predictions | None],
    write: Callable[[Path, bytes], None] | None = None,
    where: Mapping[str, Value] | None = None,
) -> ReportFiles:
    """Write ranking, tables, figures and page of a study into a folder; a figure of an earlier report goes.

    Args:
        data: the study.
        folder: where to; made if it is not there.
        predictions: the stored validation predictions of a trial by its number, None if there are none.
        write: writes a file so that a reader never finds half of it; default: temporary file and rename.
        where: only trials with these values (see `filter_data`).

    Raises:
        UsageError: `where` names nothing that is there.
    """
    write = write or write_atomic
    data = filter_data(data, where or {})
    ranking = rank(data)
    folder.mkdir(parents=True, exist_ok=True)
    contents: dict[str, bytes] = {
        "ranking.csv": ranking_csv(data, ranking=ranking),
        "ranking.json": export_json(data, ranking=ranking).encode(),
        "trials.csv": trials_csv(data),
    }
    figures = _study_figures(data, ranking)
    winner, notes = _winner_predictions(ranking, predictions)
    classes: Classes | None = None
    if winner is not None:
        figures["confusion"], classes = _winner_figure(data, ranking, winner)
        contents["per_class.csv"] = per_class_csv(winner, data.class_names)
    for stem, figure in figures.items():
        contents[f"{stem}.png"], contents[f"{stem}.svg"] = figure.png, figure.svg
    page = render_page(
        data, ranking, figures=list(figures.values()), classes=classes, notes=notes, where=where or {}
    )
    contents[PAGE] = page.encode(
        "utf-8", "replace"
    )  # last, so that the page never tells of files yet to come
    _remove_stale(folder, set(contents))
    for name, content in contents.items():
        write(folder / name, content)
    return ReportFiles(
        folder=folder, page=folder / PAGE, files=tuple(folder / name for name in contents), ranking=ranking
    )


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file beside its place, flush it and rename it: readers find the old one or the new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _study_figures(data: StudyData, ranking: Ranking) -> dict[str, PageFigure]:
    from gridsearch.reporting.figures.curves import curves_figure
    from gridsearch.reporting.figures.heatmap import heatmap_figures

    pictures: dict[str, PageFigure] = {}
    for stem, figure in heatmap_figures(data, ranking=ranking).items():
        pictures[stem] = _picture(figure, title="Over the grid", alt=_heatmap_alt(ranking))
    curves = curves_figure(data, ranking=ranking)
    if curves is not None:
        sets = "train" if ranking.by_train else "train beside validation"
        alt = f"Loss and accuracy by epoch of the best points, {sets}."
        pictures["curves"] = _picture(curves, title="Learning curves", alt=alt)
    return pictures


def _winner_predictions(
    ranking: Ranking, predictions: Callable[[int], Predictions | None]
) -> tuple[Predictions | None, list[str]]:
    trial = ranking.best_trial
    if trial is None:
        return None, []
    try:
        found = predictions(trial.number)
    except (ArtifactError, OSError, ValueError) as error:
        return None, [
            f"The predictions of trial {trial.number} cannot be used: {printable(str(error), 300)}."
        ]
    if found is None or not len(found.labels):
        return None, [
            f"Trial {trial.number} has no stored validation predictions, so there is no confusion matrix."
        ]
    return found, []


def _winner_figure(data: StudyData, ranking: Ranking, winner: Predictions) -> tuple[PageFigure, Classes]:
    from gridsearch.reporting.figures.confusion import confusion_figure

    best, trial = ranking.best, ranking.best_trial
    assert best is not None and trial is not None
    matrix = confusion_matrix(winner)
    pairs = most_confused(matrix, data.class_names)
    note = _winner_note(best, trial, ranking, images=len(winner.labels))
    figure = confusion_figure(
        matrix, class_names=data.class_names, title="Confusion matrix of the winner", note=note
    )
    commonest = f" Commonest mistake: {pairs[0].words}." if pairs else " No mistakes."
    alt = f"Confusion matrix of {len(matrix)} classes: rows true, columns predicted.{commonest}"
    classes = Classes(
        results=per_class(matrix, data.class_names),
        balanced_accuracy=balanced_accuracy(matrix),
        macro_f1=macro_f1(matrix),
        pairs=describe_pairs(pairs),
    )
    return _picture(figure, title="Confusion matrix", alt=alt), classes


def _winner_note(best: RankedPoint, trial: TrialRecord, ranking: Ranking, *, images: int) -> str:
    seed = f" (seed {trial.seed} alone, of {plural(best.n, 'seed')})" if best.n > 1 else ""
    params = show_params(best.params, ranking.varying, limit=80) if ranking.varying else ""
    return f"Trial {trial.number}{seed}. {plural(images, 'validation image')}. {params}".strip()


def _picture(figure: Figure, *, title: str, alt: str) -> PageFigure:
    from gridsearch.reporting.figures.canvas import png_bytes, svg_bytes

    return PageFigure(title=title, alt=alt, png=png_bytes(figure), svg=svg_bytes(figure))


def _heatmap_alt(ranking: Ranking) -> str:
    best = ranking.best
    axes = listed([printable(a, 40) for a in ranking.varying])
    top = ""
    if best is not None:
        params = show_params(best.params, ranking.varying, limit=120)
        top = f" Best: {params} with {show_metric(best.mean, ranking.metric)}."
    metric = metric_name(ranking.metric).capitalize()
    return f"{metric} over {axes}.{top} The numbers are in the ranking's table."


def _remove_stale(folder: Path, names: set[str]) -> None:
    """Remove figures that an earlier report had and this one has not: an old winner's would mislead."""
    for stem in FIGURE_STEMS:
        for kind in ("png", "svg"):
            for old in folder.glob(f"{stem}*.{kind}"):
                if old.name not in names:
                    old.unlink(missing_ok=True)
    if "per_class.csv" not in names:
        (folder / "per_class.csv").unlink(missing_ok=True)
