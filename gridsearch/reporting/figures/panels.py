"""Which axis of a study goes where in its heatmap, and which point into which cell; from ranking to figure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final

from gridsearch.records import TrialState
from gridsearch.records.axis import identity
from gridsearch.reporting.figures.fonts import axis_names, level_names
from gridsearch.reporting.ranking.effects import strength
from gridsearch.reporting.ranking.points import RankedPoint, levels_of
from gridsearch.reporting.words.labels import distinct_labels
from gridsearch.reporting.words.text import written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.records import Value
    from gridsearch.reporting.ranking.ranking import Ranking

MOST_PANELS: Final = 12
LONGEST_TITLE: Final = 56


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Which axis goes where.

    Attributes:
        x: axis of the columns; y: axis of the rows.
        facets: axes with a panel for each of their values.
        collapsed: axes over which a cell shows its best point.
    """

    x: str
    y: str
    facets: tuple[str, ...]
    collapsed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel's cells, rows of y by columns of x; None where the grid has no such point.

    Attributes:
        facet: the values of the layout's facets here.
    """

    facet: tuple[Value, ...]
    points: tuple[tuple[RankedPoint | None, ...], ...]


def plan_layout(ranking: Ranking) -> Layout | None:
    """Choose the axes of the heatmap; None with fewer than two varying axes.

    Points of several recipes are kept in panels of their own, as far as two axes of the grid are left.
    """
    shares = strength(ranking)
    mixed = ranking.mixed if len(ranking.varying) - len(ranking.mixed) >= 2 else ()
    axes = sorted(ranking.varying, key=lambda a: (a in mixed, -shares[a], ranking.varying.index(a)))
    if len(axes) < 2:
        return None
    pair = {"lr", "batch"} if {"lr", "batch"} <= set(axes) else set(axes[:2])
    counts = {a: len(levels_of(ranking.points, a)) for a in axes}
    y, x = sorted(pair, key=lambda a: (counts[a], a == "batch", axes.index(a)))
    facets: list[str] = []
    panels = 1
    for axis in sorted((a for a in axes if a not in pair), key=lambda a: (a not in mixed, a != "norm")):
        if panels * counts[axis] <= MOST_PANELS:
            facets.append(axis)
            panels *= counts[axis]
    collapsed = tuple(a for a in axes if a not in pair and a not in facets)
    return Layout(x=x, y=y, facets=tuple(facets), collapsed=collapsed)


def panels_of(
    ranking: Ranking, layout: Layout, columns: Sequence[Value], rows: Sequence[Value]
) -> list[Panel]:
    """Put every point into its cell; where several share one, the first in the ranking stays."""
    cells: dict[tuple[tuple[bool, Value], ...], RankedPoint] = {}
    axes = (*layout.facets, layout.y, layout.x)
    for point in ranking.points:
        cells.setdefault(tuple(identity(point.level(a)) for a in axes), point)
    panels = []
    for facet in product(*(levels_of(ranking.points, a) for a in layout.facets)):
        head = tuple(identity(v) for v in facet)
        points = tuple(tuple(cells.get((*head, identity(r), identity(c))) for c in columns) for r in rows)
        if any(p is not None for row in points for p in row):
            panels.append(Panel(facet=facet, points=points))
    return panels


def panel_titles(ranking: Ranking, layout: Layout, panels: Sequence[Panel]) -> list[str]:
    """Return what each panel is about, no two alike: "norm none, optimizer sgd"; "" for the only one."""
    if not layout.facets:
        return [""] * len(panels)
    axes = axis_names(ranking.varying)
    names: dict[str, dict[tuple[bool, Value], str]] = {}
    for axis in layout.facets:
        levels = levels_of(ranking.points, axis)
        labels = level_names(axis, levels)
        names[axis] = {identity(v): label for v, label in zip(levels, labels, strict=True)}
    titles = [
        ", ".join(f"{axes[a]} {names[a][identity(v)]}" for a, v in zip(layout.facets, p.facet, strict=True))
        for p in panels
    ]
    return distinct_labels(titles, LONGEST_TITLE)


def why_missing(point: RankedPoint) -> str:
    """Return why a point has no value to draw, in one line or two: "failed", or "pruned" and the epoch."""
    if point.outsized and point.mean is not None:
        return f"out of range\n{written(point.mean)}"
    states = [t.state for t in point.trials]
    if point.diverged:
        return "diverged" if point.diverged == len(states) else f"diverged\n{point.diverged} of {len(states)}"
    for state in (TrialState.FAILED, TrialState.PRUNED, TrialState.RUNNING, TrialState.WAITING):
        if state in states:
            break
    else:
        return "no value"
    if state is TrialState.PRUNED:
        epochs = sorted(t.epochs for t in point.trials if t.state is TrialState.PRUNED)
        unit = "step" if point.settings.length is None else "epoch"
        return f"pruned\n{unit} {epochs[0]}" + (f" to {epochs[-1]}" if epochs[-1] > epochs[0] else "")
    return state.value


def missing_words(ranking: Ranking) -> str:
    """Return how many points have no value to draw, by reason: "3 failed, 1 diverged"; "" if none."""
    found: dict[str, int] = {}
    for point in ranking.points:
        if not point.drawable:
            word = why_missing(point).split("\n")[0]
            found[word] = found.get(word, 0) + 1
    return ", ".join(f"{n:,} {word}" for word, n in sorted(found.items(), key=lambda item: -item[1]))
