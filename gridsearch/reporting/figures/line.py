"""The study's values over its one varying axis: a point for every seed, a line through the means."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gridsearch.reporting.figures.canvas import (
    ACCENT,
    INK,
    PALETTE,
    new_figure,
    plain_text,
    settled,
    sheet_title,
    text_width,
)
from gridsearch.reporting.figures.panels import level_name, missing_words, why_missing
from gridsearch.reporting.levels import level_of, levels_of
from gridsearch.reporting.ranking import RankedPoint, Ranking, identity
from gridsearch.reporting.text import is_share, metric_name, printable, show_metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gridsearch.records import Value

MOST_TICKS = 40


def axis_figure(ranking: Ranking, axis: str, *, scale: tuple[float, float, str] | None = None) -> Figure:
    """Return a figure of the metric over an axis; levels stand at equal distances, as the grid lists them.

    Args:
        ranking: the points.
        axis: the one that varies.
        scale: the lowest and highest value to make room for, unless some are beyond them (the third is not "");
            default: the study's own.
    """
    levels = levels_of(ranking.points, axis)
    places = {identity(v): i for i, v in enumerate(levels)}
    names = [level_name(v) for v in levels]
    widest = max(text_width(n, 9) for n in names)
    width = min(max(5.6, 1.4 + 0.75 * len(levels)), 13.0)
    slanted = widest > 0.9 * (width - 1.4) / len(levels)
    figure = new_figure(width, 3.6 + (widest / math.sqrt(2) if slanted else 0.0))
    axes = figure.add_subplot()
    _draw_seeds(axes, ranking, axis, places)
    _draw_means(axes, ranking, axis, places, joined=not any(isinstance(v, str | bool | None) for v in levels))
    _mark_missing(axes, ranking, axis, places)
    if scale is not None and not scale[2]:
        room = 0.2 * (scale[1] - scale[0])
        axes.set_ylim(scale[0] - room, scale[1] + room)
    step = math.ceil(len(levels) / MOST_TICKS)
    axes.set_xticks(range(0, len(levels), step), names[::step])
    axes.set_xlim(-0.6, len(levels) - 0.4)
    for label in axes.get_xticklabels():
        label.set(
            rotation=45 if slanted else 0,
            ha="right" if slanted else "center",
            rotation_mode="anchor",
            va="top",
        )
    axes.set(xlabel=printable(axis, 40), ylabel=metric_name(ranking.metric))
    if is_share(ranking.metric):
        axes.yaxis.set_major_formatter(lambda v, _: show_metric(v, ranking.metric, digits=1))
    axes.grid(visible=True, axis="y", color="#e3e5e9", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    plain_text([*axes.get_xticklabels(), axes.xaxis.label, axes.yaxis.label])
    sheet_title(figure, f"{metric_name(ranking.metric).capitalize()} over {printable(axis)}", _note(ranking))
    return settled(figure)


def _place(point: RankedPoint, axis: str, places: dict[tuple[bool, Value], int]) -> int:
    return places[identity(level_of(point, axis))]


def _draw_seeds(axes: Axes, ranking: Ranking, axis: str, places: dict[tuple[bool, Value], int]) -> None:
    spots = [(_place(p, axis, places), v) for p in ranking.points if p.n > 1 for v in p.values]
    if spots:
        axes.scatter(
            [x for x, _ in spots], [y for _, y in spots], s=14, color=PALETTE[0], alpha=0.45, linewidths=0
        )


def _draw_means(
    axes: Axes, ranking: Ranking, axis: str, places: dict[tuple[bool, Value], int], *, joined: bool
) -> None:
    means = sorted((_place(p, axis, places), p.mean) for p in ranking.points if p.mean is not None)
    if not means:
        return
    x, y = zip(*means, strict=True)
    axes.plot(
        x, y, marker="o", markersize=6, color=PALETTE[0], linestyle="-" if joined else "none", linewidth=1.4
    )
    labelled = len(means) <= 16
    for point in ranking.points:
        if labelled and point.mean is not None:
            axes.annotate(
                show_metric(point.mean, ranking.metric, unit=False),
                (_place(point, axis, places), point.mean),
                xytext=(0, 8),
                textcoords="offset points",
                ha="center",
                size=8,
                color=INK,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.7},
            )
    best = ranking.best
    if best is not None and best.mean is not None:
        axes.plot(
            _place(best, axis, places),
            best.mean,
            marker="o",
            markersize=12,
            fillstyle="none",
            color=ACCENT,
            mew=2,
        )
    axes.margins(y=0.18)


def _mark_missing(axes: Axes, ranking: Ranking, axis: str, places: dict[tuple[bool, Value], int]) -> None:
    for point in ranking.points:
        if point.mean is None or point.diverged:
            place = _place(point, axis, places)
            axes.axvspan(
                place - 0.4, place + 0.4, facecolor="#eceef1", edgecolor="#a9adb6", hatch="///", linewidth=0
            )
            axes.text(
                place,
                0.04,
                why_missing(point).replace("\n", " "),
                transform=axes.get_xaxis_transform(),
                ha="center",
                va="bottom",
                rotation=90,
                size=7.5,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
            )


def _note(ranking: Ranking) -> str:
    notes = ["Best point ringed."]
    if ranking.most_seeds > 1:
        notes.append("Small dots: seeds.")
    if missing := missing_words(ranking):
        notes.append(f"Hatched: no result ({missing}).")
    if ranking.by_train:
        notes.append("By TRAIN accuracy: nothing was held out.")
    return " ".join(notes)
