"""``status``: counts by state, who trains what, who left trials behind; ``stop``: asks those who train to end."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

from gridsearch import display
from gridsearch.cli import standard_streams
from gridsearch.cli.commands.queries import empty_table
from gridsearch.cli.ending_signals import exit_code
from gridsearch.records.image_metrics import ACCURACY
from gridsearch.reporting.words.text import metric_name, show_replicate, show_seconds
from gridsearch.service.prepare.options import Places
from gridsearch.service.queries import studies
from gridsearch.service.run.resumed_trials import where_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rich.console import RenderableType

    from gridsearch.reporting.output.listing import Listing
    from gridsearch.service.queries.studies import StudyStatus
    from gridsearch.store import IdleRunner, RunnerAtWork

_WATCH_SECONDS = 2.0
_STATES = ("complete", "diverged", "failed", "pruned", "running", "waiting")
_RARE = ("diverged", "failed", "pruned")
_SHOWN_RUNNING = 12
_IDLE_CHECKS = 3
"""Watching ends after so many checks in a row that find no runner at work."""


def status(arguments: argparse.Namespace) -> int:
    """Counts by state, running trials, ETA."""
    places = Places.find(arguments.home, arguments.store)
    if not arguments.watch:
        _print_status(studies.status(places, arguments.study), arguments)
        return 0
    if arguments.json:
        while not standard_streams.reader_left():
            _print_status(studies.status(places, arguments.study), arguments)
            sys.stdout.flush()
            time.sleep(_WATCH_SECONDS)
        return 0
    return _watch(places, arguments)


def _watch(places: Places, arguments: argparse.Namespace) -> int:
    """Show the status, again and again, until nothing waits or runs; the last of it stays on the terminal."""
    from rich.live import Live

    idle = 0
    with Live(console=display.console(no_color=arguments.no_color), auto_refresh=False) as live:
        try:
            while True:
                found = studies.status(places, arguments.study)
                live.update(_status_view(found, studies.idle_runners(places)), refresh=True)
                idle = 0 if not found or studies.anybody_at_work(places) else idle + 1
                ended = found and not any(s.open for s in found)
                # Not at the first idle check: a run that has just begun has claimed nothing yet.
                if ended or idle >= _IDLE_CHECKS or standard_streams.reader_left():
                    return 0
                time.sleep(_WATCH_SECONDS)
        except KeyboardInterrupt as interrupt:  # the way to leave, and no error
            return exit_code(interrupt)


def _status_view(found: list[StudyStatus], idle: Sequence[IdleRunner]) -> RenderableType:
    """Return what `--watch` shows: the table, and below it the trials that train now and who trains them."""
    from rich.console import Group
    from rich.text import Text

    if not found:
        return Text("no studies yet; watching for the first (Ctrl-C ends this)")
    running = [(entry.name, trial) for entry in found for trial in entry.running]
    several = len({name for name, _ in running}) > 1
    lines = [
        f"{f'{name} ' if several else ''}trial {trial.number}  "
        f"{display.progress_text(trial.epochs, trial.settings)}  "
        f"{display.params_text(trial.params)} {show_replicate(trial)}"
        for name, trial in running[:_SHOWN_RUNNING]
    ]
    if len(running) > _SHOWN_RUNNING:
        lines.append(f"and {len(running) - _SHOWN_RUNNING:,} more")
    return Group(
        _status_table(found),
        *(Text(line, no_wrap=True, overflow="ellipsis") for line in lines),
        *(Text(line) for entry in found for line in runner_lines(entry)),
        *(Text(line) for line in idle_lines(idle)),
    )


def idle_lines(idle: Sequence[IdleRunner]) -> list[str]:
    """Return who holds no trial, the processes of a machine in one line."""
    machines: dict[str, list[int]] = {}
    for runner in idle:
        machines.setdefault(runner.host, []).append(runner.pid)
    return [
        f"process{'es' * (len(pids) > 1)} {', '.join(map(str, pids[:_SHOWN_RUNNING]))}"
        f"{f' and {len(pids) - _SHOWN_RUNNING} more' * (len(pids) > _SHOWN_RUNNING)} on {host} "
        f"wait{'s' * (len(pids) == 1)} for trials"
        for host, pids in machines.items()
    ]


def stop(arguments: argparse.Namespace) -> int:
    """Ask the runners of a study to end, at their next epoch's end or at once."""
    asked = studies.stop(_places(arguments), arguments.study, now=arguments.now)
    if arguments.json:
        runners = [{"host": each.host, "pid": each.pid, "trials": list(each.trials)} for each in asked]
        print(json.dumps({"schema": 1, "study": arguments.study, "now": arguments.now, "runners": runners}))
        return 0
    out = display.console(no_color=arguments.no_color)
    for line in asked_lines(arguments.study, asked, now=arguments.now):
        out.print(line, soft_wrap=True)
    return 0


def asked_lines(study: str, asked: Sequence[RunnerAtWork], *, now: bool) -> list[str]:
    """Return which runners of a study were asked to stop, and when they will."""
    when = "now" if now else "at the end of its epoch"
    lines = []
    for runner in asked:
        wait = "wait" if len(runner.trials) > 1 else "waits"
        named = f"process {runner.pid} on {runner.host}"
        lines.append(f"{named} was asked to stop {when}; {_trials(runner.trials)} then {wait}")
    return lines or [f"no runner is training study {study!r}"]


def runner_lines(entry: StudyStatus) -> list[str]:
    """Return who trains what since when, what was left behind and where it goes on, and the command that does it."""
    lines = []
    for runner in entry.runners:
        if not runner.gone:
            since = "" if runner.since is None else f" since {display.local_time(runner.since)}"
            lines.append(
                f"{entry.name}: process {runner.pid} on {runner.host} trains {_trials(runner.trials)}{since}"
            )
        else:
            wait = "wait" if len(runner.trials) > 1 else "waits"
            lines.append(f"{entry.name}: its runner{_where(runner)} is gone; {_trials(runner.trials)} {wait}")
    alike: dict[str, list[int]] = {}
    for trial, epoch in entry.resumable:
        alike.setdefault(where_text(epoch, trial.settings), []).append(trial.number)
    for where, numbers in alike.items():
        continues = "continue" if len(numbers) > 1 else "continues"
        lines.append(f"{entry.name}: {_trials(numbers)} {continues} from {where}")
    for number, seconds in entry.quiet.items():
        lines.append(
            f"{entry.name}: trial {number}: no epoch or step has ended for {show_seconds(seconds, whole=True)}"
        )
    if entry.idle:
        lines.append(f"{entry.name}: no runner is training it; {entry.again.goes_on()}")
    return lines


def _where(runner: RunnerAtWork) -> str:
    if runner.pid is None:
        return ""
    seen = "" if runner.seen is None else f", last seen {display.local_time(runner.seen)}"
    return f" (process {runner.pid} on {runner.host}{seen})"


def _trials(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:_SHOWN_RUNNING]))
    more = f" and {len(numbers) - _SHOWN_RUNNING:,} more" if len(numbers) > _SHOWN_RUNNING else ""
    return f"trial{'s' * (len(numbers) > 1)} {shown}{more}"


def _print_status(found: list[StudyStatus], arguments: argparse.Namespace) -> None:
    idle = studies.idle_runners(_places(arguments))
    if arguments.json:
        waits = [{"host": each.host, "pid": each.pid} for each in idle]
        content = {"schema": 1, "studies": [entry.to_json() for entry in found]}
        print(json.dumps({**content, "idle": waits} if waits else content))
        return
    out = display.console(no_color=arguments.no_color)
    if not found:
        out.print(f"no studies yet; try: {_places(arguments).again.first_run()}", soft_wrap=True)
        return
    out.print(_status_table(found))
    for entry in found:
        for trial in entry.running:
            out.print(
                f"  {entry.name} trial {trial.number}: {display.params_text(trial.params)} {show_replicate(trial)}, "
                f"{display.progress_text(trial.epochs, trial.settings)}",
                soft_wrap=True,
            )
        for line in runner_lines(entry):
            out.print(f"  {line}", soft_wrap=True)
    for line in idle_lines(idle):
        out.print(line, soft_wrap=True)


def _places(arguments: argparse.Namespace) -> Places:
    return Places.find(arguments.home, arguments.store)


def _status_table(found: list[StudyStatus]) -> Listing:
    """Return counts by state; a state in which no trial ended badly or early is left out, for narrow terminals."""
    shown = [s for s in _STATES if s not in _RARE or any(entry.counts[s] for entry in found)]
    by = ["ranked by"] if any(entry.metric != ACCURACY for entry in found) else []
    table = empty_table("study", *by, *shown, "ETA")
    for column in table.columns[1:]:
        column.no_wrap = True
    for entry in found:
        counts = [f"{entry.counts[column]:,}" for column in shown]
        eta = show_seconds(entry.eta, whole=True) if entry.open else "done"
        table.add_row(entry.name, *(metric_name(entry.metric) for _ in by), *counts, eta)
    return table


COMMANDS = {"status": status, "stop": stop}
