"""``run``, ``add``, ``worker`` and ``plan``: from words to a spec, and from an outcome to an exit code."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gridsearch import display
from gridsearch.cli import next_steps
from gridsearch.cli.argument_types import joined
from gridsearch.cli.nearest_form import require_pairs
from gridsearch.errors import UsageError
from gridsearch.reporting.words.text import metric_name, plural, show_seconds
from gridsearch.service.plan import planner
from gridsearch.service.plan.methods import WORDS
from gridsearch.service.prepare.named_code import NamedCode
from gridsearch.service.prepare.options import RUN_OPTIONS, Places, RunOptions, require_report
from gridsearch.service.prepare.replicates import TOP, MoreSeeds
from gridsearch.service.queries import studies
from gridsearch.service.run import running, store_worker
from gridsearch.service.run.notification import without_secrets
from gridsearch.spec import build
from gridsearch.spec.study_options import ORDERS, changes

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rich.console import Console

    from gridsearch.service.plan.plan_groups import Group
    from gridsearch.service.plan.planner import Plan
    from gridsearch.spec import StudySpec

_SPEC_OPTIONS = (
    *("study", "dataset", "model", "objective", "metric", "direction"),
    *("epochs", "seeds", "val", "folds", "group", "subset", "version", "sample", "order", "ignore"),
)


def run(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    """Expand, train what is missing, report."""
    options = run_options(arguments, command=shlex.join(["gridsearch", *without_secrets(words)]))
    require_report(open_it=arguments.open, report=options.report)
    observer = display.observer(quiet=arguments.quiet, no_color=arguments.no_color)
    spec = _spec(arguments)
    if spec is None:
        outcome = running.resume(arguments.study, options, observer=observer, **_of_stored(arguments))
    else:
        outcome = running.run(spec, options, observer=observer)
    if arguments.json:
        print(json.dumps(outcome.to_json(), allow_nan=False))
        _open(outcome, arguments, display.Lines(no_color=arguments.no_color))
    else:
        _show_outcome(outcome, arguments)
    return outcome.exit_code


def add(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    """Put a grid into the store, for workers to train."""
    options = run_options(arguments, command=shlex.join(["gridsearch", *words]))
    observer = display.Lines(no_color=arguments.no_color, quiet=arguments.quiet)
    spec = _spec(arguments)
    if spec is None:
        outcome = running.add_stored(arguments.study, options, observer=observer, **_of_stored(arguments))
    else:
        outcome = running.add(spec, options, observer=observer)
    added = outcome.added
    if arguments.json:
        counts = {name: getattr(added, name) for name in ("new", "reused", "offered_again", "in_flight")}
        print(json.dumps({"schema": 1, "study": outcome.study, "trials": len(set(added.ids)), **counts}))
    elif added.new or added.offered_again or added.in_flight:
        observer.say(f"`{outcome.again.worker()}` trains them")
    return 0


def worker(arguments: argparse.Namespace) -> int:
    """Train until told to stop, or until nothing waits."""
    named = NamedCode(
        models=[*(arguments.model or ()), *(arguments.code or ())],
        datasets=arguments.dataset or (),
        objectives=arguments.objective or (),
    )
    options = run_options(arguments)
    outcome = store_worker.work(
        options,
        named=named,
        studies=arguments.study or (),
        until_empty=arguments.until_empty,
        observer=display.observer(quiet=arguments.quiet, no_color=arguments.no_color),
    )
    lines = display.Lines(no_color=arguments.no_color, quiet=arguments.quiet)
    if arguments.json:
        print(json.dumps(outcome.to_json(), allow_nan=False))
    if outcome.signum is not None:
        lines.warn("interrupted; its unfinished trials wait for the next run")
    if outcome.failed:
        lines.warn(f"{plural(outcome.failed, 'trial')} failed: `{options.places.again.watch()}` counts them")
    for study in outcome.left:
        lines.warn(f"trials of study {study!r} are left waiting, see above")
    return outcome.exit_code


def plan(arguments: argparse.Namespace) -> int:
    """Say what run would do."""
    options = run_options(arguments)
    observer = display.Lines(no_color=arguments.no_color, quiet=arguments.quiet)
    spec = _spec(arguments)
    how: dict[str, Any] = {"probe": arguments.probe, "say": observer.say}
    if spec is None:
        found = planner.plan_stored(arguments.study, options, **how, **_of_stored(arguments))
    else:
        found = planner.plan(spec, options, **how)
    if arguments.json:
        print(json.dumps(found.to_json(), allow_nan=False))
        return 0
    for warning in found.warnings:
        observer.warn(warning)
    _show_plan(found, arguments)
    return 0


def _of_stored(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what may stand beside a stored study: plug-ins named again, more seeds; nothing else may."""
    for name in (
        *("epochs", "seeds", "val", "folds", "group", "subset"),
        *("metric", "direction", "version", "sample"),
    ):
        if getattr(arguments, name) is not None:
            raise UsageError(
                f"--{name} changes what is searched, but no grid is given",
                hint=f"give the grid again with --{name}, or leave it out to finish the study",
            )
    more = None
    if arguments.more_seeds is not None:
        more = MoreSeeds(arguments.more_seeds, arguments.top or TOP)
    return {
        "dataset": arguments.dataset,
        "models": [*(arguments.model or ()), *(arguments.code or ())],
        "objective": arguments.objective,
        "more": more,
    }


def run_options(arguments: argparse.Namespace, *, command: str = "") -> RunOptions:
    """Return the options of a run that a command has, those that it has not by their defaults."""
    given = {name: getattr(arguments, name) for name in RUN_OPTIONS if hasattr(arguments, name)}
    given |= {name: tuple(value) for name, value in given.items() if RUN_OPTIONS[name].many}
    changed = changes(
        {"order": getattr(arguments, "order", None), "ignore": joined(getattr(arguments, "ignore", None))}
    )
    places = Places.find(arguments.home, arguments.store)
    return RunOptions(places=places, command=command, changed=changed, **given)


def _spec(arguments: argparse.Namespace) -> StudySpec | None:
    """Return the spec that the arguments describe, None where they only name a stored study."""
    file, words = _file_and_words(arguments)
    given = {name: value for name in _SPEC_OPTIONS if (value := getattr(arguments, name)) is not None}
    models = given.pop("model", [])
    if "ignore" in given:
        given["ignore"] = joined(arguments.ignore)
    described = bool(words or file is not None or arguments.exclude or arguments.when or arguments.set)
    if arguments.top is not None and arguments.more_seeds is None:
        raise UsageError("--top has no effect without --more-seeds", hint="add --more-seeds N")
    if arguments.more_seeds is not None and not described and arguments.study is None:
        arguments.study = given["study"] = studies.only(Places.find(arguments.home, arguments.store))
    if arguments.more_seeds is not None and (described or "study" not in given):
        raise UsageError(
            "--more-seeds extends a study that exists, and takes no grid",
            hint="name the study with --study and leave the grid out; a grid takes --seeds N",
        )
    if not described and "study" in given:
        return None
    if arguments.code:
        raise UsageError(
            "--code is for an existing study, not for a grid",
            hint="name it in the grid: --set augment=FILE.py:NAME, or optimizer=FILE.py:NAME as an axis",
        )
    if models:
        given["model"] = models[-1]  # as with every option that is given twice
    if not described:
        raise UsageError(
            "nothing to search: no grid and no study file",
            hint=f"try: {Places.find(arguments.home, arguments.store).again.first_run()}",
        )
    return build(
        file=None if file is None else Path(file),
        words=words,
        exclude=[" ".join(group) for group in arguments.exclude or ()],
        when=arguments.when or (),
        options=given,
        settings=arguments.set or (),
    )


def _file_and_words(arguments: argparse.Namespace) -> tuple[str | None, list[str]]:
    """Return the study file, which may stand among the words of the grid, and these without it."""
    words = list(arguments.grid or ())
    files = [word for word in words if "=" not in word and word.endswith(".toml")]
    words = [word for word in words if word not in files]
    require_pairs("--grid", words)
    require_pairs("--set", arguments.set or ())
    if "=" in (arguments.file or "") and not Path(arguments.file).exists():
        raise UsageError(
            f"{arguments.file} is neither an option nor a study file; "
            f"did you mean `--grid {shlex.quote(arguments.file)}`?"
        )
    if arguments.file is not None:
        files.insert(0, arguments.file)
    if len(files) > 1:
        raise UsageError(f"two study files: {files[0]} and {files[1]}", hint="name one")
    return (files[0] if files else None), words


def _show_outcome(outcome: running.RunOutcome, arguments: argparse.Namespace) -> None:
    out = display.console(no_color=arguments.no_color)
    err = display.Lines(no_color=arguments.no_color, quiet=arguments.quiet)
    again = outcome.data.again
    # Without it, what was pruned would be trained to the end.
    prune = ("--prune", arguments.prune) if arguments.prune != "none" else ()
    left = f"{plural(outcome.open, 'trial')} {'is' if outcome.open == 1 else 'are'} left"
    if outcome.signum is not None:
        err.warn(f"interrupted; {left}: {again.goes_on(*prune)}" if outcome.open else "interrupted")
        return
    if outcome.report is not None:
        from gridsearch import reporting

        display.print_parts(out, reporting.print_ranking(outcome.data, limit=20, ranking=outcome.ranking))
        out.print(f"report: {outcome.report.page}", soft_wrap=True)
        for warning in outcome.report.warnings:
            err.warn(warning)
        _open(outcome, arguments, err)
    if outcome.open:
        err.warn(f"{left} waiting: {again.goes_on(*prune)}")
    lost = [t for t in outcome.data.trials if t.state == "diverged"]
    if lost and not any(t.state == "complete" for t in outcome.data.trials):
        some = f"all {len(lost):,}" if len(lost) > 1 else "the only one"
        which = some if len(lost) == len(outcome.data.trials) else plural(len(lost), "trial")
        err.warn(
            f"no trial has a result to rank: {which} diverged; the first: `{again.trial(lost[0].number)}`"
        )
    if outcome.failed:
        failed = [t.number for t in outcome.data.trials if t.state == "failed"]
        first = f"; the first: `{again.trial(failed[0])}`" if failed else ""
        err.warn(f"{plural(outcome.failed, 'trial')} failed{first}")
    if outcome.report is not None and outcome.report.page is not None:
        done = outcome.open or outcome.data.test is not None or not outcome.data.kind.classifies
        next_steps.say_next(err, outcome.report.page, again, tested=bool(done))


def _open(outcome: running.RunOutcome, arguments: argparse.Namespace, err: display.Lines) -> None:
    """Open the report in the browser, if that was asked for and there is one."""
    if arguments.open and outcome.report is not None and outcome.report.page is not None:
        next_steps.open_page(err, outcome.report.page)


def _show_plan(found: Plan, arguments: argparse.Namespace) -> None:
    out = display.console(no_color=arguments.no_color)
    seeds, uneven = divmod(found.trials, max(found.points, 1) * (found.folds or 1))
    folds = "" if found.folds is None else f" x {plural(found.folds, 'fold')}"
    # a stored study's points may lack some seeds
    each = ", " if uneven else f" x {plural(seeds, 'seed')}{folds} = "
    beside = [f"{plural(found.excluded, 'point')} excluded"] if found.excluded else []
    if found.sampled_from is not None:
        beside.insert(0, f"a sample of the grid's {plural(found.sampled_from, 'point')}")
    out.print(
        f"study {found.study}: {plural(found.points, 'point')}{each}{plural(found.trials, 'trial')}"
        + (f" ({', '.join(beside)})" if beside else "")
    )
    again = " (will be tried again)"
    out.print(
        f"new {found.new:,} · done {found.done:,} · failed {found.failed:,}{again if found.failed else ''} · "
        + (f"pruned {found.pruned:,}{again} · " if found.pruned else "")
        + f"waiting or running {found.open:,}"
    )
    better = ", the lower the better" if found.direction == "minimize" else ""
    out.print(f"ranked by {metric_name(found.metric)}{better}")
    if found.data:
        out.print(f"data: {found.data}", soft_wrap=True)
    if found.groups:
        _show_groups(out, found)
    if found.order != ORDERS[0] and found.first:
        first = ", then ".join(
            display.params_text(params) + (f" and {lanes - 1} more beside it" if lanes > 1 else "")
            for params, lanes in found.first
        )
        out.print(f"order: {found.order}, first {first}", soft_wrap=True)
    out.print(f"time: {_time_text(found)}", soft_wrap=True)
    if not found.kind.packs:
        out.print(f"disk: {_megabytes(found.disk_mb)}, plus what the {found.kind.name} itself writes")
        return
    disk = "unknown until the data is fetched" if found.disk_mb is None else _megabytes(found.disk_mb)
    out.print(f"memory: {_memory_text(found)} · disk: {disk}")
    for note in found.notes:
        out.print(note, soft_wrap=True)


def _show_groups(out: Console, found: Plan) -> None:
    """Print a table of the groups, and below it why those are not trained in a better way."""
    from gridsearch.reporting.output.listing import Listing

    table = Listing(box=None, header_style="bold")
    first = found.kind.code
    apart = ["params"] * any(group.params for group in found.groups)
    for name in (first, "batch", *apart, "trials", "lanes", "method", "time on one worker"):
        words = name in (first, "method", *apart)
        table.add_column(name, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    for group in found.groups:
        batch = "-" if group.batch is None else group.batch
        own = [display.params_text(group.params)] * len(apart)
        row = (group.model, batch, *own, group.trials, group.lanes, group.method)
        time = "unknown" if group.seconds is None else show_seconds(group.seconds, whole=True)
        table.add_row(*map(str, row), time)
    out.print(table)
    if any(g.lanes > 1 for g in found.groups):
        out.print("lanes: how many of the trials train side by side, as one program", soft_wrap=True)
    for line in dict.fromkeys(
        f"{g.method}: {g.model}: {_method_words(g)}" for g in found.groups if g.lanes > 1 and g.reason
    ):
        out.print(line, soft_wrap=True)


def _method_words(group: Group) -> str:
    """Return what a group's method means, where it is not the best one, and why it has no better one."""
    plain = group.method == "stacked" or group.reason.startswith("model ")  # a model that cannot run
    return group.reason if plain else f"{WORDS[group.method]}: {group.reason}"


def _megabytes(count: float | None) -> str:
    return "unknown" if count is None else display.size_text(1e6 * count)


def _memory_text(found: Plan) -> str:
    if found.memory is None:
        return "unknown (--probe measures it)"
    if found.memory.worker_mb is None:
        return f"{_megabytes(found.memory.beyond_torch_mb)} beyond torch's own"
    shared = (
        f", {_megabytes(found.memory.shared_mb)} of it images that all workers share"
        if found.memory.shared_mb
        else ""
    )
    return f"up to {_megabytes(found.memory.worker_mb)} per worker{shared}"


def _time_text(found: Plan) -> str:
    """Write how long the run takes; where some of it was never measured, what is known of the rest."""
    with_workers = f"with {plural(found.workers, 'worker')}"
    if found.seconds is not None:
        return f"about {show_seconds(found.seconds, whole=True)} {with_workers}, from start to end"
    measure = " (--probe measures a few steps)" if found.kind.packs else ""
    if found.least_seconds is not None:
        least, unmeasured = show_seconds(found.least_seconds, whole=True), plural(found.unmeasured, "trial")
        return f"at least {least} {with_workers}, {unmeasured} unmeasured{measure}"
    if not found.kind.packs:
        return f"unknown {with_workers}: the {found.kind.name} has not been called here yet"
    return f"unknown {with_workers}: nothing similar has been trained here yet{measure}"
