"""The tables of the page: points, trials, classes, and the trials that were lost, as rows of text.

A long table's first rows stand in the HTML; the others go into it as JSON, for the page's script to show.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gridsearch.records import StudyData, TrialRecord, TrialState
from gridsearch.reporting.output.headline import show_interval, show_rank, show_result
from gridsearch.reporting.output.loss_groups import LossGroup, loss_groups
from gridsearch.reporting.output.plain_tables import axis_columns
from gridsearch.reporting.ranking.points import RankedPoint, finite
from gridsearch.reporting.stats.uncertainty import Basis
from gridsearch.reporting.words.text import (
    NOTHING,
    metric_name,
    printable,
    show_metric,
    show_param,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.reporting.figures.pictures import Classes
    from gridsearch.reporting.ranking.ranking import Ranking

MOST_POINTS: Final = 10_000
MOST_TRIALS: Final = 10_000
MOST_STATIC: Final = 200
"""Rows of a table that stand in the HTML; the script shows the others as they are scrolled to, sorted or filtered."""
MOST_FAILURES: Final = 50
MOST_LINKS: Final = 40
"""Trials of a group of failures that are named."""
MOST_CLASSES: Final = 300


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table: its cells as text, and what the template marks it with."""

    cells: tuple[str, ...]
    kind: str = ""
    anchor: str = ""
    links: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading, and whether it holds numbers."""

    title: str
    numeric: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A long table: some rows in the HTML, more for the script, the rest in a file.

    Attributes:
        name: its element's id.
        more: the rows for the script, as JSON that is safe inside a script element; "" if there are none.
        extra: how many those are.
        hidden: how many rows are not in the page at all.
    """

    name: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    more: Any
    extra: int
    hidden: int


def long_table(name: str, columns: Sequence[Column], rows: Sequence[Row], *, of: int) -> Table:
    """Return a table of rows, of so many that there are in the study."""
    from markupsafe import Markup

    extra = rows[MOST_STATIC:]
    text = json.dumps([[r.cells, r.kind, r.links, *_own_anchor(r)] for r in extra], separators=(",", ":"))
    # no "<" in a script element: neither "</script>" nor "<!--" can come out of a name
    more = Markup(text.replace("<", "\\u003c")) if extra else ""  # noqa: S704  escaped for its place
    return Table(
        name=name,
        columns=columns,
        rows=rows[:MOST_STATIC],
        more=more,
        extra=len(extra),
        hidden=of - len(rows),
    )


def _own_anchor(row: Row) -> list[str]:
    """Return the row's id where it does not follow from its number."""
    return [] if row.anchor in ("", f"trial-{row.cells[0]}") else [row.anchor]


def shown_trials(data: StudyData, ranking: Ranking) -> frozenset[int]:
    """Return the numbers of the trials that get a row: some that were lost, then those of the best points."""
    if len(data.trials) <= MOST_TRIALS:
        return frozenset(t.number for t in data.trials)
    numbers = [t.number for p in ranking.listed for t in p.trials]
    bad = [t.number for t in data.trials if t.state in (TrialState.FAILED, TrialState.DIVERGED)][
        :MOST_FAILURES
    ]
    return frozenset([*bad, *numbers[: MOST_TRIALS - len(bad)]])


def point_columns(ranking: Ranking, axes: Sequence[str]) -> list[Column]:
    """Return the headings of the ranking; the last one's cells hold links to the trials."""
    results = [
        Column("n", True),
        Column(metric_name(ranking.metric), True),
        *([Column("95 % interval", True), Column("tied", False)] if _sure(ranking) else []),
        *(Column(metric_name(m), True) for m in ranking.others),
        Column("seconds", True),
        Column("trials", True),
    ]
    titles = axis_titles(axes, ["rank", *(column.title for column in results)])
    return [
        Column("rank", True),
        *(Column(title, _numeric(ranking.listed, a)) for a, title in zip(axes, titles, strict=True)),
        *results,
    ]


def axis_titles(axes: Sequence[str], taken: Sequence[str]) -> tuple[str, ...]:
    """Return the headings of axes: their names, "params.n" where another column bears that of one."""
    return axis_columns([printable(a) for a in axes], taken)


def point_row(point: RankedPoint, ranking: Ranking, axes: Sequence[str], shown: frozenset[int]) -> Row:
    """Return a point as a row of the ranking."""
    cells = (
        show_rank(point),
        *(show_param(point.params, a) for a in axes),
        str(point.n),
        show_result(point, ranking.digits_of()),
        *([show_interval(point, ranking.digits_of()), _tied(point, ranking)] if _sure(ranking) else []),
        *(ranking.digits_of(m).show(point.metric_mean(m)) for m in ranking.others),
        without_unit(point.seconds),
    )
    kind = "best" if point is ranking.best else "" if point.drawable else "lost"
    links = tuple(str(t.number) for t in point.trials)
    return Row(cells, kind, "", tuple(n for n in links if int(n) in shown))


def _sure(ranking: Ranking) -> bool:
    """Whether the ranking has a basis for intervals and ties."""
    return ranking.uncertainty.basis is not Basis.NOTHING


def without_unit(seconds: float | None) -> str:
    """Return seconds without a unit, which the heading names; a quick function's too."""
    if seconds is None:
        return NOTHING
    if seconds >= 9.95:
        return f"{seconds:.1f}"
    return f"{seconds:.2f}" if seconds >= 0.095 else f"{seconds:.2g}"


def filter_example(ranking: Ranking) -> str:
    """Return what a reader may type to filter the ranking: "words, or lr=0.01, or validation accuracy>91.20"."""
    examples = ["words"]
    if (best := ranking.best) is not None:
        titles = [column.title for column in point_columns(ranking, ranking.varying)]
        examples += [f"{titles[1]}={show_param(best.params, axis)}" for axis in ranking.varying[:1]]
    if means := [p.mean for p in ranking.points if p.mean is not None]:
        middle = ranking.digits_of().show(means[len(means) // 2], unit=False)
        sign = ">" if ranking.direction == "maximize" else "<"
        examples.append(f"{metric_name(ranking.metric)}{sign}{middle}")
    return ", or ".join(examples)


def _tied(point: RankedPoint, ranking: Ranking) -> str:
    return "best" if point is ranking.best else "tied" if point.tied_with_best else ""


def losses(data: StudyData, shown: frozenset[int]) -> list[dict[str, Any]]:
    """Return the lists of trials that came to no full result: their titles, groups of them, how many more."""
    found = []
    for anchor, title, states in (
        ("failures", "Diverged and failed trials", (TrialState.FAILED, TrialState.DIVERGED)),
        ("pruned", "Pruned trials", (TrialState.PRUNED,)),
    ):
        groups = sorted(
            (group for state in states for group in loss_groups(data, state)), key=lambda g: -len(g.trials)
        )
        if groups:
            items = [_loss(group, data, shown) for group in groups[:MOST_FAILURES]]
            hidden = sum(len(group.trials) for group in groups[MOST_FAILURES:])
            found.append({"anchor": anchor, "title": title, "groups": items, "hidden": hidden})
    return found


def _loss(group: LossGroup, data: StudyData, shown: frozenset[int]) -> dict[str, Any]:
    first, state = group.trials[0], group.trials[0].state
    reason = printable(group.reason or "no reason recorded", 400)
    if state is TrialState.PRUNED:
        by = f"by {first.pruner} " if first.pruner else ""
        length = first.settings.length
        when = f"step {first.epochs}" if length is None else f"epoch {first.epochs} of {length}"
        reason = f"{by}after {when}{_reached_words(group.trials, data)}"
    return {
        "trials": [(t.number, t.number in shown) for t in group.trials[:MOST_LINKS]],
        "count": len(group.trials),
        "more": max(0, len(group.trials) - MOST_LINKS),
        "state": state.value,
        "params": group.settings(data.axes, limit=200),
        "reason": reason,
    }


def _reached_words(trials: Sequence[TrialRecord], data: StudyData) -> str:
    """Return what trials had last shown: " at 31.20 % validation accuracy", of several the lowest and the highest."""
    values = sorted(v for t in trials if (v := _reached(t, data)) is not None)
    if not values:
        return ""
    ends = dict.fromkeys(show_metric(v, data.metric) for v in (values[0], values[-1]))
    return f" at {' to '.join(ends)} {metric_name(data.metric)}"


def _reached(trial: TrialRecord, data: StudyData) -> float | None:
    """Return what a trial had last shown of the metric that ranks."""
    if steps := data.steps.get(trial.number):
        return finite(steps[-1].metrics.get(data.metric))
    rows = data.epochs.get(trial.number)
    return finite(getattr(rows[-1], data.metric, None)) if rows else None


CLASS_COLUMNS: Final = [
    Column("class", False),
    Column("images", True),
    Column("recall", True),
    Column("precision", True),
    Column("F1", True),
    Column("most often predicted as", False),
]


def class_rows(classes: Classes | None) -> list[Row]:
    """Return the winner's classes as rows; none without its predictions."""
    if classes is None:
        return []
    return [
        Row(
            (
                r.name,
                str(r.images),
                *(_percent(x) for x in (r.recall, r.precision, r.f1)),
                r.taken_for or NOTHING,
            )
        )
        for r in classes.results[:MOST_CLASSES]
    ]


def hidden_classes(classes: Classes | None) -> int:
    """Return how many classes stand beyond the last of `class_rows`."""
    return 0 if classes is None else max(0, len(classes.results) - MOST_CLASSES)


def _percent(share: float | None) -> str:
    return show_metric(share, "recall", digits=1)


def _numeric(points: Sequence[RankedPoint], axis: str) -> bool:
    values = [p.params.get(axis) for p in points]
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
