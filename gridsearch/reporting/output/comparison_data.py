"""From the studies of a comparison to what its page's script draws, and to the table of all their trials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gridsearch import files
from gridsearch.reporting.output.answer_data import Asked, answer_data
from gridsearch.reporting.output.figure_data import MOST_CURVE_LETTERS, figure_data, on_one_scale, whose
from gridsearch.reporting.output.page import Drawn
from gridsearch.reporting.output.page_tables import MOST_TRIALS, Row, Table, long_table
from gridsearch.reporting.output.report_parts import PREFIX
from gridsearch.reporting.output.shown_metrics import shown_metrics
from gridsearch.reporting.output.trial_table import TrialColumns, suffix_of
from gridsearch.reporting.ranking.comparison import ComparedAxes
from gridsearch.reporting.ranking.selection import folder_of
from gridsearch.reporting.words.text import printable, show_params

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

    from gridsearch.records import TrialRecord
    from gridsearch.reporting.ranking.winner_differences import Side

TRIALS_FILE: Final = "the trials.csv of each study's report"


def drawn_sides(sides: Sequence[Side], *, folder: Path, pixels: np.ndarray | None = None) -> Drawn:
    """Return what the script of a comparison's page draws.

    Args:
        sides: the studies, in the order in which the page has them.
        folder: of the comparison; the studies' folders lie beside it.
        pixels: the training images [N, C, H, W] of the first study's winner; None without.
    """
    axes = ComparedAxes.of(sides)
    studies = [_side(side, of=len(sides), folder=folder, axes=axes) for side in sides]
    there = [study for study in studies if study is not None]
    on_one_scale(there)
    asked = [
        Asked(data=side.data, ranking=side.ranking, predictions=side.predictions)
        for side in sides
        if side.data.kind.classifies
    ]
    answers = answer_data(asked, pixels=pixels) if len(asked) == len(sides) == len(there) else None
    return Drawn.of(studies, answers)


def _side(side: Side, *, of: int, folder: Path, axes: ComparedAxes) -> dict[str, Any] | None:
    data, ranking = side.data, side.ranking
    found = figure_data(
        data,
        ranking,
        winner=side.stored_predictions() if data.kind.classifies else None,
        by=shown_metrics(data, predictions=side.predictions, among=of),
        letters=MOST_CURVE_LETTERS // of,
    )
    if found is None:
        return None
    if found["confusion"] is not None:
        found["confusion"]["of"] = f"{printable(data.name)}: {whose(ranking)}"
    name = f"{printable(data.name)}: {winner_words(side, axes)}"
    return found | {"label": name, "suffix": suffix_of(data.name), "address": _address(side, folder)}


def _address(side: Side, folder: Path) -> str:
    """Return where the report of a study lies, seen from the comparison; "" where it has none."""
    part = folder_of(side.data)
    name = f"{side.data.name}/{f'{PREFIX}{part}' if part else files.REPORT}/{files.PAGE}"
    return f"../{name}" if (folder.parent / name).is_file() else ""


def winner_words(side: Side, axes: ComparedAxes) -> str:
    """Return a winner's values of the axes, in words."""
    return show_params(axes.params(side.winner), limit=160)


def trials_of(sides: Sequence[Side]) -> tuple[Table, int]:
    """Return the table of all studies' trials, each's best points first, and how many columns say what a trial is."""
    axes = ComparedAxes.of(sides)
    columns = TrialColumns.of([side.ranking for side in sides], axes.names)
    rows: list[Row] = []
    for side in sides:
        params = {t.number: axes.params(p) for p in side.ranking.listed for t in p.trials}
        shown = _best_first(side)[: MOST_TRIALS // len(sides)]
        rows += [columns.row(t, side.data, side.ranking, params.get(t.number)) for t in shown]
    every = sum(len(side.data.trials) for side in sides)
    return long_table("trials", columns.headings, rows, of=every), columns.settings


def _best_first(side: Side) -> list[TrialRecord]:
    return [trial for point in side.ranking.listed for trial in point.trials]
