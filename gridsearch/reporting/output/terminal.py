"""From a ranking to the table that `run` and `report` print; readable without colour and in 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gridsearch.records import StudyData, TrialState
from gridsearch.reporting.findings.study_findings import find
from gridsearch.reporting.output.cautions import mixed_words
from gridsearch.reporting.output.headline import (
    headline,
    show_interval,
    show_mean,
    show_rank,
    time_spent,
    without_value,
)
from gridsearch.reporting.output.loss_groups import loss_groups
from gridsearch.reporting.ranking.pareto import front_words
from gridsearch.reporting.ranking.ranking import Ranking, rank
from gridsearch.reporting.ranking.selection import part_words
from gridsearch.reporting.words.text import metric_name, plural, show_params, show_seconds

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table
    from rich.text import Text

    from gridsearch.reporting.ranking.points import RankedPoint

MOST_ERRORS: Final = 8
_BAD: Final = (TrialState.DIVERGED, TrialState.FAILED, TrialState.PRUNED)


def print_ranking(
    data: StudyData, *, console: Console | None = None, limit: int = 20, ranking: Ranking | None = None
) -> Group:
    """Return the ranking as something rich prints, and print it if a console is given.

    Args:
        data: the study.
        console: where to print; None to print nothing.
        limit: rows of the table at most; the rest is counted.
        ranking: `rank(data)` where the caller has it already.
    """
    from rich.console import Group

    from gridsearch.reporting.output.listing import WithCommand

    ranking = ranking or rank(data)
    words = headline(data, ranking)
    parts: list[Text | Table] = []
    if not data.whole:
        parts.append(_line(part_words(data), "bold yellow"))
    if words.warning:
        parts.append(_line(f"! {words.warning}", "bold red"))
    parts.append(_line(f"{words.won} {words.margin}".strip(), "bold"))
    if ranking.mixed:
        parts.append(_line(mixed_words(data, ranking), "yellow"))
    if words.test:
        parts.append(_line(words.test, "bold"))
    if ranking.listed:
        parts.append(_table(ranking, limit=limit))
    hidden = len(ranking.listed) - limit
    if hidden > 0:
        parts.append(_line(f"… and {hidden:,} more", "dim"))
    if ranking.tied:
        parts.append(_line("= tied with the best", "dim"))
    parts += _pareto(ranking)
    parts.extend(_losses(data))
    for finding in find(data, ranking):
        parts.append(_line(f"{finding.code} {finding.name}: {finding.sentence}", ""))
        if finding.command:
            parts.append(WithCommand(f"  {finding.command}"))
    if words.ensembles:
        parts.append(_line(words.ensembles, ""))
    parts.extend(_line(caution, "dim") for caution in words.cautions)
    counts = ", ".join(f"{n:,} {state}" for state, n in ranking.counts.items() if n) or "no trials yet"
    parts.append(_line(f"{counts}; {time_spent(data)}", "dim"))
    group = Group(*parts)
    if console is not None:
        console.print(group)
    return group


def _table(ranking: Ranking, *, limit: int) -> Table:
    from rich import box
    from rich.text import Text

    from gridsearch.reporting.output.listing import Listing

    table = Listing(box=box.SIMPLE_HEAD)
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("params", overflow="fold", ratio=1)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column(short_heading(ranking.metric), justify="right", no_wrap=True)
    sure = any(p.ci_low is not None for p in ranking.listed[:limit])
    if sure:
        table.add_column("95 % interval", justify="right", no_wrap=True)
    kept: tuple[str, ...] = ("train_accuracy",) if sure else ("val_loss", "train_accuracy")  # 80 columns
    if not ranking.kind.classifies:
        kept = ranking.others[: 0 if sure else 2]
    others = [m for m in (*ranking.class_metrics[:1], *kept) if m != ranking.metric]
    others = [m for m in others if any(p.metric_mean(m) is not None for p in ranking.listed[:limit])]
    table.spare = len(others) + 1
    for metric in others:
        table.add_column(short_heading(metric), justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    for point in ranking.listed[:limit]:
        style = "bold green" if point is ranking.best else "dim" if point.mean is None else ""
        table.add_row(
            _rank(point, ranking),
            Text(show_params(point.params)),
            str(point.n),
            _result(point, ranking),
            *([show_interval(point, ranking.digits_of())] if sure else []),
            *(ranking.digits_of(m).show(point.metric_mean(m)) for m in others),
            show_seconds(point.seconds),
            style=style,
            end_section=bool(ranking.incomparable) and point is ranking.points[-1],
        )
    return table


def _pareto(ranking: Ranking) -> list[Text | Table]:
    """Return what the Pareto front is, and its points; nothing where nobody asked for it."""
    from rich import box
    from rich.text import Text

    from gridsearch.reporting.output import pareto_table
    from gridsearch.reporting.output.listing import Listing

    if ranking.pareto is None:
        return []
    table = Listing(box=box.SIMPLE_HEAD)
    first, *others = pareto_table.headings(ranking.pareto)
    table.add_column(first, overflow="fold", ratio=1)
    for heading in others:
        table.add_column(Text(heading), justify="right", no_wrap=True)
    for row in pareto_table.rows(ranking.pareto, ranking.varying):
        table.add_row(*map(Text, row))
    more = pareto_table.hidden(ranking.pareto)
    rest = [_line(f"… and {more:,} more", "dim")] if more else []
    return [_line(front_words(ranking.pareto), "bold"), table, *rest]


def _rank(point: RankedPoint, ranking: Ranking) -> str:
    return show_rank(point, tied=point.tied_with_best and bool(ranking.tied))


def short_heading(metric: str) -> str:
    """Return a metric's name for a narrow column."""
    short = {
        "val_accuracy": "val acc",
        "train_accuracy": "train acc",
        "val_loss": "val loss",
        "balanced_accuracy": "balanced",
    }
    return short.get(metric, metric_name(metric))


def _result(point: RankedPoint, ranking: Ranking) -> str:
    if point.diverged:
        return f"{show_mean(point, ranking.digits_of())} diverged" if point.values else "diverged"
    if point.mean is None and point.pruned:
        return "pruned"
    if point.pruned:
        return f"{show_mean(point, ranking.digits_of())} pruned"
    if point.mean is None:
        return without_value(point)
    if point.ci_low is not None:  # the interval stands beside it, and 80 columns hold no more
        return show_mean(point, ranking.digits_of(), spread=False)
    return show_mean(point, ranking.digits_of())


def _losses(data: StudyData) -> list[Text]:
    """List the trials that diverged, failed or were pruned, those with the same reason on one line."""
    lines = []
    for state in _BAD:
        groups = loss_groups(data, state)
        if not groups:
            continue
        trials = sum(len(group.trials) for group in groups)
        lines.append(_line(f"{plural(trials, 'trial')} {state.value}:", "yellow"))
        lines += [_line(f"  {group.in_words(data.axes)}", "") for group in groups[:MOST_ERRORS]]
        if hidden := sum(len(group.trials) for group in groups[MOST_ERRORS:]):
            lines.append(_line(f"  … and {hidden:,} more", "dim"))
    return lines


def _line(text: str, style: str) -> Text:
    from rich.text import Text

    return Text(text, style=style)
