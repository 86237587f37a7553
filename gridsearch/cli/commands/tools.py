"""Commands beside the search: ``dashboard``, ``serve``, ``tensorboard``, ``store``, ``data``, ``models`` ..."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from gridsearch import display, locators
from gridsearch.errors import UsageError
from gridsearch.folders import tilde
from gridsearch.service.prepare.options import LEASE_SECONDS, Places
from gridsearch.service.queries import studies
from gridsearch.service.queries.named_runs import NamedRuns
from gridsearch.web_guard import LOOPBACK

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from gridsearch.zoo.datasets import Inspection


def dashboard(arguments: argparse.Namespace) -> int:
    """Serve Optuna's dashboard until interrupted."""
    from gridsearch.store import serve_dashboard

    say = _say(arguments)
    places = Places.find(arguments.home, arguments.store)
    with studies.existing(places) as store:
        _warn_of_host(arguments)
        for study, trials in studies.too_large_for_dashboard(store):
            again = dataclasses.replace(places.again, study=study)
            say(
                f"study {study!r} has {trials:,} trials, all of which the dashboard loads whenever it is opened: "
                f"`{again.report()}` shows them at once"
            )
        signum = serve_dashboard(
            store,
            host=arguments.host,
            port=arguments.port,
            ready=lambda url: say(f"Optuna dashboard on {url} (Ctrl-C ends it)"),
        )
    return 128 + signum if signum else 0


def serve(arguments: argparse.Namespace) -> int:
    """Serve the reports of all studies, live, until interrupted."""
    from gridsearch.cli.commands.live_pages import LivePages
    from gridsearch.web_server import serve_application

    lines = display.Lines(no_color=arguments.no_color, quiet=arguments.quiet)
    places = Places.find(arguments.home, arguments.store)
    with studies.existing(places) as store:
        _warn_of_host(arguments, can="read studies and stop their runs")
        with contextlib.suppress(AttributeError, OSError):
            os.nice(10)  # those who train come first
        signum = serve_application(
            LivePages(places, store, warn=lines.warn),
            name="serve",
            host=arguments.host,
            port=arguments.port,
            ready=lambda url: lines.say(f"live reports on {url}/ (Ctrl-C ends it)"),
        )
    return 128 + signum if signum else 0


def tensorboard(arguments: argparse.Namespace) -> int:
    """Serve TensorBoard until interrupted."""
    from gridsearch.reporting.output.tensorboard_server import serve_tensorboard

    places, say = Places.find(arguments.home, arguments.store), _say(arguments)
    if arguments.study is not None and arguments.all:
        raise UsageError("--study names one study, --all takes all: give one of them")
    with studies.existing(places) as store:
        if arguments.study is not None:
            store.study_data(arguments.study)
    _warn_of_host(arguments)
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(TemporaryDirectory(prefix="gridsearch-tensorboard-"))
            runs = NamedRuns(Path(folder), places, study=arguments.study, every=arguments.all)
        except OSError:  # no folder, or no links on this file system: the runs bear their trials' numbers
            logdir, refresh = studies.tensorboard_folder(places, arguments.study), _nothing
        else:
            logdir, refresh = runs.folder, runs.refresh
            if runs.others:
                say(
                    f"study {runs.study}, the newest of {runs.others + 1}; --study NAME shows another, --all all"
                )
        where = {"host": arguments.host, "port": arguments.port}
        return 128 + serve_tensorboard(logdir, **where, say=say, refresh=refresh)


def _nothing() -> None:
    pass


def store(arguments: argparse.Namespace) -> int:
    """Copy a store into another database."""
    from gridsearch.store import copy_store, masked

    places = Places.find(arguments.home, arguments.source)
    copied = copy_store(arguments.source, arguments.target, home=places.home, lease=LEASE_SECONDS)
    rows = sum(each.rows for each in copied.values())
    if arguments.json:
        tables = {name: {"rows": each.rows, "digest": each.digest} for name, each in copied.items()}
        there = {"from": masked(arguments.source), "to": masked(arguments.target)}
        print(json.dumps({"schema": 1, **there, "rows": rows, "tables": tables}))
    else:
        filled = sum(each.rows > 0 for each in copied.values())
        print(
            f"{rows:,} rows of {filled} tables are in {arguments.target}, the same as in {arguments.source}"
        )
    _say(arguments)(
        f"the files of the trials are not in a store, and stay in {tilde(places.home)}: name it with --home"
    )
    return 0


def _say(arguments: argparse.Namespace) -> Callable[[str], None]:
    lines = display.Lines(no_color=arguments.no_color, quiet=arguments.quiet)
    return lines.say


def _warn_of_host(arguments: argparse.Namespace, *, can: str = "read and delete studies") -> None:
    if arguments.host not in LOOPBACK:
        lines = display.Lines(no_color=arguments.no_color)
        lines.warn(f"listening on {arguments.host}: anybody who can reach this address can {can}")


def data(arguments: argparse.Namespace) -> int:
    """List, show, fetch or verify datasets."""
    from gridsearch.zoo import datasets

    places = Places.find(arguments.home, arguments.store)
    if arguments.action == "list":
        return _list_data(places, arguments)
    if arguments.name is None:
        raise UsageError(f"data {arguments.action}: which one?", hint="`gridsearch data list` shows them")
    if arguments.action == "show":
        from gridsearch.service.queries.shown_data import show_data

        shown = show_data(arguments.name, places, settings=arguments.set or (), say=_say(arguments))
        _print(arguments, shown.to_json(), "\n".join(shown.lines))
        return 0
    plugin = datasets.open_dataset(arguments.name)
    if arguments.action == "fetch":
        source = tilde(arguments.source) if arguments.source else None
        if source is not None and not source.is_dir():
            raise UsageError(f"--from {arguments.source}: no such folder")
        where = datasets.fetch(plugin, places.data, source, say=_say(arguments))
        _print(arguments, {"schema": 1, "dataset": plugin.name, "source": where}, f"{plugin.name}: {where}")
        return 0
    found = datasets.examine(plugin, places.data)
    if arguments.json:
        content = {"schema": 1, "dataset": plugin.name, "problems": found.problems, "told": found.notes}
        print(json.dumps(content))
    else:
        _show_inspection(plugin.name, found, quiet=arguments.quiet)
    return 4 if found.problems else 0


def _show_inspection(name: str, found: Inspection, *, quiet: bool) -> None:
    for line in () if quiet else found.notes:
        print(line)
    if len(found.problems) > 1 or (found.problems and found.notes):  # and not a refusal of the whole
        one = len(found.problems) == 1
        count = "1 file has a problem" if one else f"{len(found.problems)} files have problems"
        leaves = f", and a run leaves {'it' if one else 'them'} out" if locators.placed(name) else ""
        print(f"{name}: {count}{leaves}")
    for line in found.problems:
        print(line)
    if not found.problems and not quiet:
        print(f"{name}: all files are as they should be")


def _print(arguments: argparse.Namespace, content: dict[str, Any], text: str) -> None:
    if arguments.json:
        print(json.dumps(content))
    elif not arguments.quiet:
        print(text)


def _list_data(places: Places, arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from gridsearch.reporting.output.listing import Listing
    from gridsearch.zoo import datasets

    found = datasets.listing(places.data)
    if arguments.json:
        print(json.dumps({"schema": 1, "datasets": [asdict(entry) for entry in found]}, default=str))
        return 0
    table = Listing(spare=1, box=None, header_style="bold")
    for name in ("dataset", "state", "size", "images", "classes", "licence", "where from"):
        table.add_column(name, overflow="fold", no_wrap=name in ("size", "images", "classes"))
    for entry in found:
        size = "" if entry.size is None else display.size_text(entry.size)
        classes = "" if entry.classes is None else str(entry.classes)
        table.add_row(entry.name, entry.state, size, entry.image_shape, classes, entry.licence, entry.source)
    out = display.console(no_color=arguments.no_color)
    out.print(table)
    for entry in found:
        if entry.problem:
            out.print(f"{entry.name}: {entry.problem}", style="red", soft_wrap=True)
    out.print(f"files: {places.data}", soft_wrap=True)
    return 0


def models(arguments: argparse.Namespace) -> int:
    """List the models, or show the layers of one."""
    from gridsearch.service.queries import models as service

    if arguments.action == "list":
        found = service.list_models()
        if arguments.json:
            print(json.dumps({"schema": 1, "models": [entry.to_json() for entry in found]}))
            return 0
        _show_models(found, arguments)
        return 0
    if arguments.name is None:
        raise UsageError("models show: which one?", hint="`gridsearch models list` shows them")
    places = Places.find(arguments.home, arguments.store)
    shown = service.show_model(
        arguments.name, places, dataset=arguments.dataset or "fmnist", settings=arguments.set or ()
    )
    if arguments.json:
        print(json.dumps(shown.to_json()))
        return 0
    _show_layers(shown, arguments)
    return 0


def _show_models(found: list[Any], arguments: argparse.Namespace) -> None:
    from gridsearch.reporting.output.listing import Listing

    table = Listing(box=None, header_style="bold")
    for name in ("model", "what it is", "options"):
        table.add_column(name, overflow="fold")
    for entry in found:
        table.add_row(entry.name, entry.summary, display.params_text(entry.options) if entry.options else "")
    display.console(no_color=arguments.no_color).print(table)


def _show_layers(shown: Any, arguments: argparse.Namespace) -> None:
    from gridsearch.reporting.output.listing import Listing

    out = display.console(no_color=arguments.no_color)
    out.print(f"{shown.name} for {shown.dataset}: images {shown.input_shape}, {shown.classes} classes")
    table = Listing(box=None, header_style="bold")
    for name in ("layer", "type", "output shape", "parameters"):
        number = name == "parameters"
        table.add_column(name, justify="right" if number else "left", overflow="fold", no_wrap=number)
    for row in shown.table.rows:
        table.add_row(row.name, row.type, str(row.output_shape), f"{row.parameters:,}")
    table.add_section()
    table.add_row("total", "", "", f"{shown.table.total:,}", style="bold")
    out.print(table)
    if shown.table.trainable != shown.table.total:
        out.print(f"trainable: {shown.table.trainable:,}")


def doctor(arguments: argparse.Namespace) -> int:
    """Say what is wrong and how to fix it; exit code 4 if something is."""
    from dataclasses import asdict

    from gridsearch.service.queries.doctor import examine
    from gridsearch.service.queries.engines import engines

    if arguments.dataset and not arguments.model:
        raise UsageError("doctor --dataset: of which model?", hint="name it with --model")
    places = Places.find(arguments.home, arguments.store)
    found = examine(places, model=arguments.model, dataset=arguments.dataset)
    bad = any(finding.verdict == "bad" for finding in found)
    if arguments.json:
        there = [{"engine": e.name, "ready": e.ready, "missing": list(e.missing)} for e in engines()]
        findings = [asdict(finding) for finding in found]
        print(json.dumps({"schema": 1, "healthy": not bad, "findings": findings, "engines": there}))
        return 4 if bad else 0
    out = display.console(no_color=arguments.no_color)
    styles = {"ok": "green", "note": "yellow", "bad": "bold red"}
    for finding in found:
        if arguments.quiet and finding.verdict != "bad":
            continue
        line = f"{finding.subject}: {finding.detail}"
        out.print(f"{finding.verdict:<4} ", style=styles[finding.verdict], end="")
        out.print(line, soft_wrap=True)
        if finding.mend:
            out.print(f"     to fix: {finding.mend}", soft_wrap=True)
    if not arguments.quiet:
        out.print(
            "problems found, see above" if bad else "no problems found",
            style="bold red" if bad else "bold green",
        )
    return 4 if bad else 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "dashboard": dashboard,
    "serve": serve,
    "tensorboard": tensorboard,
    "store": store,
    "data": data,
    "models": models,
    "doctor": doctor,
}
