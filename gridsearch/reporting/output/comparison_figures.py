"""The figures of a comparison of studies: curves of the winners, the grids on one scale, confusion matrices."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gridsearch.reporting.output.comparison_data import winner_words
from gridsearch.reporting.ranking.comparison import ComparedAxes, Comparison
from gridsearch.reporting.stats.predictions import confusion_matrix, describe_pairs, most_confused
from gridsearch.reporting.words.text import capitalized, listed, metric_name, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from gridsearch.reporting.figures.pictures import Pictures
    from gridsearch.reporting.figures.scale import Scale
    from gridsearch.reporting.ranking.winner_differences import Side

MOST_PAIRS: Final = 5


def add(found: Pictures, comparison: Comparison) -> list[tuple[str, Sequence[str]]]:
    """Add what the page shows, to be drawn; return each winner's commonest mistakes in words."""
    from gridsearch.reporting.figures.curves import winners_figure
    from gridsearch.reporting.figures.scale import common_scale

    sides, axes = comparison.sides, ComparedAxes.of(comparison.sides)
    names = [printable(s.data.name) for s in sides]
    found.add(
        "curves",
        lambda: winners_figure(
            [(s.data, s.winner, f"{n}: {winner_words(s, axes)}") for s, n in zip(sides, names, strict=True)]
        ),
        title="Learning curves of the winners",
        alt=f"Loss and accuracy by epoch of the winners of {listed(names)}.",
    )
    one = len({(s.data.metric, s.data.direction) for s in sides}) == 1
    scale = common_scale([s.ranking for s in sides]) if one else None
    for side, name in zip(sides, names, strict=True):
        found.add(
            f"heatmap-{side.data.name}",
            partial(_heatmap, side, scale),
            title=name,
            alt=f"{capitalized(metric_name(side.data.metric))} over the grid of {name}.",
        )
    return _add_confusions(found, sides, names)


def _heatmap(side: Side, scale: Scale | None) -> Figure | None:
    from gridsearch.reporting.figures.heatmap import heatmap_figures

    return heatmap_figures(side.data, ranking=side.ranking, scale=scale).get("heatmap")


def _add_confusions(
    found: Pictures, sides: Sequence[Side], names: Sequence[str]
) -> list[tuple[str, Sequence[str]]]:
    from gridsearch.reporting.figures.confusion import confusion_figure, confusions_figure

    there: list[tuple[str, Side, Any]] = []
    for side, name in zip(sides, names, strict=True):
        if not side.data.kind.classifies:  # nobody expects one
            continue
        stored = side.stored_predictions()
        if stored is None:
            found.notes.append(f"The winner of {name} has no usable predictions, so no confusion matrix.")
        else:
            there.append((name, side, confusion_matrix(stored)))
    alike = len({(m.shape, s.class_names) for _, s, m in there}) == 1
    if alike and len(there) > 1:
        alt = f"Confusion matrices of the winners of {listed([n for n, _, _ in there])}: rows true, columns predicted."
        found.add(
            "confusion",
            lambda: confusions_figure(
                [m for _, _, m in there],
                titles=[
                    f"{n}: trial {s.ranking.best_trial.number}" for n, s, _ in there if s.ranking.best_trial
                ],
                class_names=there[0][1].class_names,
                title="Confusion matrices of the winners",
            ),
            title="Confusion matrices",
            alt=alt,
        )
    else:
        for name, side, matrix in there:
            figure = partial(
                confusion_figure,
                matrix,
                class_names=side.class_names,
                title=f"Confusion matrix of the winner of {name}",
            )
            alt = f"Confusion matrix of the winner of {name}: rows true, columns predicted."
            found.add(f"confusion-{side.data.name}", figure, title=f"Confusion matrix: {name}", alt=alt)
        if len(there) > 1:
            found.notes.append("The studies' classes differ, so each matrix stands by itself.")
    return [
        (name, describe_pairs(most_confused(matrix, side.class_names, limit=MOST_PAIRS)))
        for name, side, matrix in there
        if matrix.sum() > matrix.trace()
    ]
