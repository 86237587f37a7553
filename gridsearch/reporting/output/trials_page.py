"""From some trials of one study to their page: confusion matrices, curves and settings side by side."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gridsearch.errors import GridsearchError
from gridsearch.reporting.figures.confusion import confusion_figure, confusions_figure
from gridsearch.reporting.figures.curves import winners_figure
from gridsearch.reporting.figures.pictures import Pictures
from gridsearch.reporting.output.answer_data import Asked, answer_data
from gridsearch.reporting.output.figure_data import MOST_CURVE_LETTERS, figure_data, on_one_scale
from gridsearch.reporting.output.page import Drawn, rendered
from gridsearch.reporting.output.page_tables import long_table
from gridsearch.reporting.output.trial_table import TrialColumns
from gridsearch.reporting.stats.predictions import describe_pairs, most_confused, usable
from gridsearch.reporting.words.text import listed, printable, show_params, show_replicate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from gridsearch.plugins import ImageData
    from gridsearch.records import StudyData, TrialRecord
    from gridsearch.reporting.ranking.ranking import Ranking
    from gridsearch.reporting.stats.predictions import Predictions

MOST_PAIRS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialsPage:
    """A page on some trials, and the figure of their confusion matrices as files."""

    html: str
    png: bytes
    svg: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownTrial:
    """A trial with its confusion matrix [Y, Y], and what the matrix is called."""

    trial: TrialRecord
    matrix: np.ndarray
    title: str


def trials_page(
    data: StudyData,
    ranking: Ranking,
    shown: Sequence[ShownTrial],
    *,
    predictions: Callable[[int], Predictions | None],
    images: Callable[[TrialRecord], ImageData] | None = None,
    whole: str = "",
) -> TrialsPage:
    """Return the page of some trials that know the same classes.

    Args:
        data: their study.
        ranking: its ranking.
        shown: the trials.
        predictions: the stored validation predictions of a trial by its number.
        images: gives what a trial was trained on, or raises a GridsearchError; default: none are shown.
        whole: the address of the study's report, "" where there is none.
    """
    found = Pictures()
    names = data.classes_of(shown[0].trial.settings)
    _draw(found, data, ranking, shown)
    columns = TrialColumns.of([ranking], data.axes)
    rows = [columns.row(one.trial, data, ranking) for one in shown]
    numbers = listed([str(one.trial.number) for one in shown])
    html = rendered(
        "trials.html",
        title=f"Trial{'s' if len(shown) > 1 else ''} {numbers}",
        study=printable(data.name),
        whole=whole,
        pictures=found.by_stem,
        mistakes=[
            (one.title, describe_pairs(most_confused(one.matrix, names, limit=MOST_PAIRS))) for one in shown
        ],
        drawn=_drawn(data, ranking, shown, predictions=predictions, images=images, whole=whole),
        trials=long_table("trials", columns.headings, rows, of=len(rows)),
        settings=columns.settings,
    )
    confusion = found.by_stem["confusion"]
    return TrialsPage(html=html, png=confusion.png, svg=confusion.svg)


def _draw(found: Pictures, data: StudyData, ranking: Ranking, shown: Sequence[ShownTrial]) -> None:
    names = data.classes_of(shown[0].trial.settings)
    matrices, titles = [one.matrix for one in shown], [one.title for one in shown]
    alt = f"Confusion matrices of {listed(titles)}: rows true, columns predicted."
    found.add(
        "confusion",
        lambda: (
            confusions_figure(matrices, titles=titles, class_names=names)
            if len(shown) > 1
            else confusion_figure(matrices[0], class_names=names, title=titles[0])
        ),
        title="Confusion matrices" if len(shown) > 1 else "Confusion matrix",
        alt=alt,
    )
    points = {t.number: p for p in ranking.listed for t in p.trials}
    sides = [
        (data, replace(points[one.trial.number], trials=(one.trial,)), _name(one.trial, data))
        for one in shown
    ]
    found.add(
        "curves",
        lambda: winners_figure(sides, title="Learning curves."),
        title="Learning curves",
        alt=f"Loss and accuracy by epoch of {listed(titles)}.",
    )
    found.draw()


def _name(trial: TrialRecord, data: StudyData) -> str:
    return f"trial {trial.number}: {show_params(trial.params, data.axes, limit=120)} {show_replicate(trial)}"


def _drawn(
    data: StudyData,
    ranking: Ranking,
    shown: Sequence[ShownTrial],
    *,
    predictions: Callable[[int], Predictions | None],
    images: Callable[[TrialRecord], ImageData] | None,
    whole: str,
) -> Drawn:
    """Return what the page's script draws: each trial as a study of its own, which stands as it does in the whole."""
    studies, asked = [], []
    for one in shown:
        number = one.trial.number
        found = figure_data(
            data,
            ranking,
            winner=usable(predictions, number),
            only=number,
            letters=MOST_CURVE_LETTERS // len(shown),
        )
        studies.append(None if found is None else found | {"address": whole})
        asked.append(Asked(data=data, ranking=ranking, predictions=predictions, only=number))
    if None not in studies:
        on_one_scale([s for s in studies if s is not None])
    pixels = None
    if images is not None:
        try:
            pixels = images(shown[0].trial).train_images
        except (GridsearchError, OSError):
            pixels = None
    return Drawn.of(studies, answer_data(asked, pixels=pixels))
