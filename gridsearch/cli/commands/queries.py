"""Commands about what is there: ``report``, ``export``, ``study``, ``trial``; `status` has a module of its own."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from gridsearch import display
from gridsearch.cli import next_steps
from gridsearch.cli.argument_types import conditions, ignored
from gridsearch.errors import UsageError, escaped
from gridsearch.records import early_stop_words
from gridsearch.reporting.words.digits import Digits
from gridsearch.reporting.words.text import plural, show_seconds
from gridsearch.service.prepare.options import Places
from gridsearch.service.queries import studies
from gridsearch.spec.words import words_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from gridsearch.records import TrialRecord
    from gridsearch.reporting.output.listing import Listing
    from gridsearch.service.queries.reports import ParetoQuestion
    from gridsearch.service.queries.studies import TrialView

_LOG_LINES = 30
_MOST_STEPS = 40
_RARE = ("diverged", "failed", "pruned")


def report(arguments: argparse.Namespace) -> int:
    """Rank, draw, write the report."""
    from gridsearch import reporting
    from gridsearch.service.queries.reports import make_report

    if len(arguments.study) > 1 or arguments.trial:
        from gridsearch.cli.commands import side_by_side

        if arguments.pareto or arguments.model:
            raise UsageError("--pareto takes one study, and no --trial")
        return side_by_side.trials(arguments) if arguments.trial else side_by_side.studies(arguments)
    places = Places.find(arguments.home, arguments.store)
    with studies.existing(places) as store:
        made = make_report(
            store,
            arguments.study[0],
            where=conditions(arguments.where or ()),
            by=arguments.by,
            root=places.data,
            ignore=ignored(arguments),
            pareto=_pareto(arguments, places),
        )
    if arguments.json:
        print(json.dumps(made.json, allow_nan=False))
    else:
        out = display.console(no_color=arguments.no_color)
        display.print_parts(out, reporting.print_ranking(made.data, limit=50, ranking=made.ranking))
        if made.page is not None:
            out.print(f"report: {made.page}", soft_wrap=True)
    err = display.Lines(no_color=arguments.no_color, quiet=arguments.quiet)
    for warning in made.warnings:
        err.warn(warning)
    if arguments.open and made.page is not None:
        next_steps.open_page(err, made.page)
    return 0


def _pareto(arguments: argparse.Namespace, places: Places) -> ParetoQuestion | None:
    """Return by what points are compared, None where nobody asks."""
    from gridsearch.service.queries.reports import ParetoQuestion

    if arguments.pareto is None:
        if arguments.model:
            raise UsageError("--model has no effect without --pareto", hint="add --pareto accuracy,latency")
        return None
    return ParetoQuestion(words=arguments.pareto, places=places, models=arguments.model or ())


def export(arguments: argparse.Namespace) -> int:
    """Hand a study over to other programs, or write its trials to standard output."""
    from gridsearch.service.queries import exporting

    to = exporting.require_target(arguments.to or ("json" if arguments.json else arguments.format or "csv"))
    if arguments.to is not None and arguments.format is not None:
        raise UsageError(f"--format {arguments.format} and --to {to}: give only one of them")
    places = Places.find(arguments.home, arguments.store)
    with studies.existing(places) as store:
        made = exporting.export(store, arguments.study, to=to, by=arguments.by, output=arguments.output)
    err = display.Lines(no_color=arguments.no_color, quiet=arguments.quiet)
    if made.text:
        sys.stdout.write(made.text)
    elif arguments.json:
        print(json.dumps(made.to_json()))
    elif to in exporting.TRACKERS:
        print(f"{plural(made.new, 'run')} written, {made.kept} there already: {made.where}")
    for note in made.notes:
        err.warn(note)
    if made.left:
        err.warn(
            f"{plural(made.left, 'trial')} without a result yet {'is' if made.left == 1 else 'are'} left out"
        )
    return 0


def empty_table(first: str, *rest: str) -> Listing:
    """Return an empty table: a column of words, and columns of numbers."""
    from gridsearch.reporting.output.listing import Listing

    table = Listing(box=None, header_style="bold")
    table.add_column(first, overflow="fold")
    for name in rest:
        table.add_column(escaped(name), justify="right", no_wrap=True)
    return table


def study(arguments: argparse.Namespace) -> int:
    """List, delete or clean studies."""
    places = Places.find(arguments.home, arguments.store)
    if arguments.action == "list":
        return _list_studies(places, arguments)
    if arguments.name is None:
        raise UsageError(
            f"study {arguments.action}: which one?", hint=f"`{places.again.studies()}` shows them"
        )
    err = display.Lines(no_color=arguments.no_color, quiet=arguments.quiet)
    if arguments.action == "clean":
        freed = studies.clean(places, arguments.name, warn=err.warn)
        _answer(
            arguments,
            {"schema": 1, "study": arguments.name, "freed_bytes": freed},
            f"{display.size_text(freed)} freed",
        )
        return 0
    deleted = {"schema": 1, "deleted": arguments.name}, f"study {arguments.name!r} is deleted"
    if studies.end_deletion(places, arguments.name):
        _answer(arguments, *deleted)
        return 0
    found = studies.status(places, arguments.name)[0]
    if not arguments.yes:
        trials = plural(sum(found.counts.values()), "trial")
        question = f"delete study {arguments.name!r} with {trials} and all its files? [y/N] "
        if not sys.stdin.isatty():
            raise UsageError(
                "study delete asks for confirmation, and nobody can answer here", hint="add --yes"
            )
        print(question, end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            err.say("nothing was deleted")
            return 0
    studies.delete(places, arguments.name, warn=err.warn)
    _answer(arguments, *deleted)
    return 0


def _answer(arguments: argparse.Namespace, content: dict[str, Any], text: str) -> None:
    if arguments.json:
        print(json.dumps(content))
    elif not arguments.quiet:
        print(text)


def _titled(name: str, title: str) -> str:
    """Return a study's name, with that which somebody gave it in the dashboard."""
    return name if name == title else f"{name} (in the dashboard: {title})"


def _list_studies(places: Places, arguments: argparse.Namespace) -> int:
    found = studies.summaries(places)
    if arguments.json:
        content = [
            {
                "study": s.name,
                "title": s.title,
                "dataset": s.dataset,
                "metric": s.metric,
                "direction": s.direction,
                "created": s.created.isoformat(),
                "counts": dict(s.counts),
                "bytes": s.size,
            }
            for s in found
        ]
        print(json.dumps({"schema": 1, "studies": content}))
        return 0
    out = display.console(no_color=arguments.no_color)
    if not found:
        out.print(f"no studies yet; try: {places.again.first_run()}", soft_wrap=True)
        return 0
    zone, made = display.local_times(s.created for s in found)
    ended = [
        s for s in ("complete", *_RARE) if s not in ("diverged", "pruned") or any(f.counts[s] for f in found)
    ]
    table = empty_table("study", "dataset", "trials", *ended, "unfinished", "size", f"made ({zone})")
    for s, moment in zip(found, made, strict=True):
        unfinished = s.counts["waiting"] + s.counts["running"]
        numbers = (sum(s.counts.values()), *(s.counts[state] for state in ended), unfinished)
        table.add_row(
            _titled(s.name, s.title),
            s.dataset,
            *(f"{n:,}" for n in numbers),
            display.size_text(s.size),
            moment,
        )
    out.print(table)
    return 0


def trial(arguments: argparse.Namespace) -> int:
    """Show one trial."""
    view = studies.view_trial(Places.find(arguments.home, arguments.store), arguments.study, arguments.number)
    if arguments.json:
        print(json.dumps(_trial_json(view), allow_nan=False))
        return 0
    out = display.console(no_color=arguments.no_color)
    record = view.trial
    out.print(f"trial {record.number} of study {view.study.name}: {record.state}", style="bold")
    facts = {
        "params": display.params_text(record.params),
        "seed": str(record.seed),
        "fold": "" if record.settings.fold is None else f"{record.settings.fold} of {record.settings.folds}",
        "attempts": str(record.attempts),
        **_trained(record),
        "time": show_seconds(record.seconds),
    }
    end = {
        "why" if record.state == "pruned" else "error": record.error or "",
        "key": record.key,
        "log": view.log_path or "",
    }
    own = (*facts, *end, "settings")
    metrics = {
        escaped(f"metrics.{n}" if n in own else n): _metric_text(n, v, view)
        for n, v in record.metrics.items()
    }
    lines = facts | metrics | end
    width = max(map(len, lines))
    for name, text in lines.items():
        if text:
            out.print(f"  {name:<{width}}  {text}", soft_wrap=True)
    settings = {k: v for k, v in record.settings.flat().items() if k not in record.params}
    rest = display.params_text(settings, words_of([settings]))
    out.print(f"  {'settings':<{width}}  {rest}")
    if view.epochs:
        out.print(_epoch_table(view))
    if view.steps:
        out.print(_step_table(view))
    if view.log:
        tail = view.log.rstrip().splitlines()[-_LOG_LINES:]
        out.print(f"last lines of the log ({view.log_path}):", style="bold", soft_wrap=True)
        for line in tail:
            out.print(f"  {line}", soft_wrap=True)
    return 0


def _metric_text(name: str, value: float, view: TrialView) -> str:
    """Write a metric with the digits in which the study's trials differ; --json has all of them."""
    if name == "parameters":
        return f"{value:,.0f}"
    values = (t.metrics.get(name) for t in view.study.trials)
    return Digits.of([v for v in (value, *values) if v is not None], name).show(value)


def _trained(record: TrialRecord) -> dict[str, str]:
    if record.settings.length is None:
        return {"steps": str(record.epochs)} if record.epochs else {}
    why = f" ({early_stop_words(record.epochs, record.settings)})" if record.stopped_early else ""
    return {"epochs": f"{record.epochs} of {record.settings.length}{why}"}


def _seconds(value: float) -> str:
    """Write seconds below a heading that names the unit."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def _step_table(view: TrialView) -> Listing:
    names = list(dict.fromkeys(name for row in view.steps for name in row.metrics))
    table = empty_table("step", *names, "seconds")
    every = -(-len(view.steps) // _MOST_STEPS)
    if every > 1:
        table.caption = f"one in {every} of {len(view.steps):,} steps; --json has them all"
    digits = {name: Digits.of((row.metrics.get(name) for row in view.steps), name) for name in names}
    for row in (*view.steps[:-1:every], view.steps[-1]):
        cells = (digits[name].show(row.metrics.get(name)) for name in names)
        table.add_row(f"{row.step:,}", *cells, _seconds(row.seconds))
    return table


def _epoch_table(view: TrialView) -> Listing:
    table = empty_table(
        "epoch", "train loss", "train acc", "val loss", "val acc", "lr", "seconds", "images/s"
    )
    losses = Digits.of((row.val_loss or row.train_loss for row in view.epochs), "val_loss")
    for row in view.epochs:
        table.add_row(
            str(row.epoch),
            losses.show(row.train_loss),
            display.percent(row.train_accuracy),
            losses.show(row.val_loss),
            display.percent(row.val_accuracy),
            f"{row.lr:.3g}",
            _seconds(row.seconds),
            f"{row.images_per_second:,.0f}",
        )
    return table


def _trial_json(view: TrialView) -> dict[str, Any]:
    from gridsearch import reporting

    whole = reporting.report_json(view.study)
    entry = next(t for t in whole["trials"] if t["number"] == view.trial.number)
    curves: list[dict[str, Any]] = [
        {name: getattr(row, name) for name in row.__slots__} | {"train_loss": _finite(row.train_loss)}
        for row in view.epochs
    ]
    for row in curves:
        row["val_loss"] = _finite(row["val_loss"])
    curves += [
        {"step": row.step, "seconds": row.seconds, "metrics": {k: _finite(v) for k, v in row.metrics.items()}}
        for row in view.steps
    ]
    return {"schema": 1, "study": view.study.name, "trial": entry, "curves": curves, "log": view.log_path}


def _finite(value: float | None) -> float | None:
    import math

    return value if value is not None and math.isfinite(value) else None


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "report": report,
    "export": export,
    "study": study,
    "trial": trial,
}
