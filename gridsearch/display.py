"""What a run shows while it goes on: a live picture on a terminal, plain lines anywhere else."""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from gridsearch.errors import escaped
from gridsearch.records import TrialFailed, TrialFinished, TrialState, early_stop_words, stopped_early
from gridsearch.reporting.output.listing import WithCommand
from gridsearch.reporting.words.text import (
    NOTHING,
    metric_name,
    plural,
    show_metric,
    show_params,
    show_replicate,
    show_seconds,
)
from gridsearch.spec.words import Worded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import ConsoleOptions, RenderableType

    from gridsearch.records import Settings, Trial, Value
    from gridsearch.service.run.progress import Progress, Running
    from gridsearch.spec.words import Words

_LINE_SECONDS = 30.0
"""Off a terminal, say how far it is at least this often."""

_SHOWN_WORKERS = 16

_SHOWN_AT_WORK = 4
"""Off a terminal, a line names so many trials, or places where trials are."""

_COUNTS = (
    (TrialState.COMPLETE, "done", "green"),
    (TrialState.RUNNING, "running", ""),
    (TrialState.WAITING, "waiting", ""),
    (TrialState.PRUNED, "pruned", ""),
    (TrialState.DIVERGED, "diverged", "yellow"),
    (TrialState.FAILED, "failed", "red"),
)
_RARE = (TrialState.PRUNED, TrialState.DIVERGED, TrialState.FAILED)

_NARROWEST = 20
"""What claims to be narrower is not asked: nothing could be read there."""

_USUAL = 80

BAR_STYLES: dict[str, Any] = {
    "complete_style": "cyan",
    "finished_style": "green",
    "pulse_style": "cyan",
}
"""The colours of a progress bar; rich's own are those of a failure."""

_EACH_SHOWN = 30
"""Of more trials the picture does not leave a line for each on the terminal."""

_LEAST_BAR, _LEAST_PARAMS = 4, 8
"""Columns below which a bar goes, and below which a trial's bar makes place for its params."""
_LINES_ABOVE = 7
"""Lines of a live picture beside those of trials, long params of the best among them."""

_COPIED = re.compile(r"gridsearch |--\w|://|(?:^|[\s'\"`(])(?:~|\.{0,2})/\w|\w/\S*\.\w")
"""What is to be copied whole: a command, an option, an address or a path; the terminal alone folds such a line."""


class _Console(Console):
    """A console that obeys no control character but rich's own; a closed pipe is for whoever runs the command."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render with the control characters of others escaped."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else escaped(text), style, control)

    def print(self, *objects: Any, **how: Any) -> None:
        """Print; of plain text rich would drop bells and the like without a word, where they are to be seen."""
        super().print(*(escaped(each) if isinstance(each, str) else each for each in objects), **how)

    def on_broken_pipe(self) -> None:
        """Let the error pass; rich would end the program with exit code 1."""
        raise BrokenPipeError


def console(*, stderr: bool = False, no_color: bool = False) -> Console:
    """Return a console on a standard stream as it is now, whoever redirects it later."""
    file: Any = sys.stderr if stderr else sys.stdout
    file = getattr(file, "styled", file)  # what is styled here has escaped the words of others already
    made = _Console(
        file=file,
        no_color=True if no_color else None,
        highlight=False,
        markup=False,  # brackets in paths, values and messages are what they are
        emoji=False,  # a model called file.py:Three:wide is no picture of a 3
        soft_wrap=not file.isatty(),
    )
    if made.width < _NARROWEST:  # COLUMNS=0 would hide all of it
        made.width = max(_NARROWEST, made.width) if made.width > 0 else _USUAL
    return made


def print_parts(out: Console, group: Group) -> None:
    """Print what a group holds; a line with a command is folded by the terminal alone."""
    for part in group.renderables:
        out.print(part, soft_wrap=True if isinstance(part, WithCommand) else None)


def params_text(params: Mapping[str, Value], words: Words | None = None) -> str:
    """Write params as the command line would: ``lr=0.01 batch=10``.

    Args:
        params: values by name.
        words: of the study, where the params do not bring them along.
    """
    return show_params(Worded(params, words) if words else params) if params else "(defaults)"


def size_text(count: float) -> str:
    """Write a number of bytes for people: ``12 B``, ``1.5 kB``, ``345 MB``."""
    unit = "B"
    for larger in ("kB", "MB", "GB"):
        if count < 999.5:
            break
        count, unit = count / 1000, larger
    return f"{count:.1f} {unit}" if count < 9.95 and unit != "B" else f"{count:,.0f} {unit}"


def local_time(moment: datetime) -> str:
    """Write a moment as the clock on the wall shows it, with its zone."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M %Z}"


def local_times(moments: Iterable[datetime]) -> tuple[str, list[str]]:
    """Write moments in the zone that holds now, which is said once; for a column of them."""
    here = datetime.now().astimezone().tzinfo
    assert here is not None
    return f"{here.tzname(None)}", [f"{moment.astimezone(here):%Y-%m-%d %H:%M}" for moment in moments]


def percent(value: float | None) -> str:
    """Write a fraction as per cent."""
    return NOTHING if value is None else f"{100 * value:.2f} %"


def _outcome(result: TrialFinished | TrialFailed, metric: str) -> str:
    if isinstance(result, TrialFailed):
        return f"failed: {result.message}"
    if result.state is TrialState.DIVERGED:
        return f"diverged: {result.message or ''}"
    if result.state is TrialState.PRUNED:
        return result.message or "pruned"
    return f"{metric_name(metric)} {show_metric(result.metrics.get(metric), metric)}"


class Lines:
    """Plain lines on standard error, for logs and pipes.

    Args:
        no_color: as on the command line.
        quiet: warnings only.
    """

    def __init__(self, *, no_color: bool, quiet: bool = False) -> None:
        self._console = console(stderr=True, no_color=no_color)
        self._quiet = quiet
        self._spoken = 0.0

    def _print(self, text: str, style: str | None = None) -> None:
        text = escaped(text)
        self._console.print(Text(text, style=style or ""), soft_wrap=True if _COPIED.search(text) else None)
        self._spoken = time.monotonic()

    def say(self, message: str) -> None:
        """Print a message."""
        if not self._quiet:
            self._print(message)

    def warn(self, message: str) -> None:
        """Print a warning."""
        self._print(f"warning: {message}", "yellow")

    def started(self, progress: Progress) -> None:
        """Say what begins."""
        left = progress.total - progress.ended
        where = f"{plural(progress.workers, 'worker')} on {progress.device}"
        self.say(f"training {left:,} of {plural(progress.total, 'trial')} with {where}")

    def updated(self, progress: Progress) -> None:
        """Say how far it is, now and then."""
        if not self._quiet and time.monotonic() - self._spoken > _LINE_SECONDS:
            now = _at_work(list(progress.running.values()))
            eta = f", about {show_seconds(progress.eta, whole=True)} left" if progress.eta is not None else ""
            self._print(f"{progress.ended:,}/{plural(progress.total, 'trial')}{eta}{f'; {now}' * bool(now)}")

    def trial_ended(self, progress: Progress, trial: Trial, result: TrialFinished | TrialFailed) -> None:
        """Print the trial's result."""
        if self._quiet:
            return
        seconds = "" if isinstance(result, TrialFailed) else f"  {show_seconds(result.seconds)}"
        style = "red" if isinstance(result, TrialFailed) else None
        params = params_text(trial.params, progress.words)
        outcome = _outcome(result, progress.metric)
        if isinstance(result, TrialFinished) and stopped_early(result.state, result.epochs, trial.settings):
            why = early_stop_words(result.epochs, trial.settings)
            outcome += f" after epoch {result.epochs} of {trial.settings.length} ({why})"
        text = f"{params} {show_replicate(trial)}  {outcome}{seconds}"
        self._print(f"[{progress.ended:,}/{progress.total:,}] trial {trial.number}  {text}", style)

    def ended(self, progress: Progress) -> None:
        """Leave."""


class Picture(Lines):
    """A live picture on a terminal: bar, ETA, best so far, counts, what each worker does."""

    def __init__(self, *, no_color: bool) -> None:
        super().__init__(no_color=no_color)
        self._live: Live | None = None
        self._drawn = 0.0
        self._best: object = None
        self._failures: Counter[str] = Counter()

    def started(self, progress: Progress) -> None:
        """Begin to draw."""
        super().started(progress)
        self._best = progress.best
        self._live = Live(
            self._draw(progress),
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start(refresh=True)

    def updated(self, progress: Progress) -> None:
        """Draw again, at most five times a second."""
        if self._live is not None and time.monotonic() - self._drawn > 0.2:
            self._drawn = time.monotonic()
            self._live.update(self._draw(progress), refresh=True)

    def trial_ended(self, progress: Progress, trial: Trial, result: TrialFinished | TrialFailed) -> None:
        """Print the result above the picture; of many trials only what is new: a better one, another failure."""
        if progress.total <= _EACH_SHOWN or self._is_news(progress, result):
            super().trial_ended(progress, trial, result)
        self._best = progress.best
        self.updated(progress)

    def _is_news(self, progress: Progress, result: TrialFinished | TrialFailed) -> bool:
        if not isinstance(result, TrialFailed):
            return progress.best is not self._best
        self._failures[result.message] += 1
        return self._failures[result.message] == 1

    def ended(self, progress: Progress) -> None:  # noqa: ARG002 - an observer's signature
        """Take the picture away; what was printed stays."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _draw(self, progress: Progress) -> RenderableType:
        total = max(progress.total_units, 1e-9)
        facts = (
            f"{progress.ended:,}/{plural(progress.total, 'trial')}",
            f"{show_seconds(round(progress.seconds), whole=True)} elapsed",
            f"{show_seconds(progress.eta, whole=True)} left" if progress.eta is not None else "estimating",
        )
        bar = min(30, self._console.width - sum(len(fact) + 2 for fact in facts))
        head = Table.grid(padding=(0, 2))
        for _ in facts:
            head.add_column(no_wrap=True)
        drawn = [ProgressBar(total=total, completed=min(progress.done_units, total), width=bar, **BAR_STYLES)]
        head.add_row(*(drawn if bar >= _LEAST_BAR else []), *facts)
        counts = progress.counts
        words = [
            Text(f"{counts[state]:,} {word}", style=style)
            for state, word, style in _COUNTS
            if counts[state] or state not in _RARE
        ]
        best = Text("best so far: none yet")
        if progress.best is not None:
            value, params = progress.best
            metric = metric_name(progress.metric)
            shown = show_metric(value, progress.metric)
            best = Text.assemble(
                "best so far: ", (shown, "bold"), f" {metric}  {params_text(params, progress.words)}"
            )
        return Group(head, Text(" · ").join(words), best, self._work(progress))

    def _work(self, progress: Progress) -> Table:
        """Draw a line for each trial that trains now, as many as fit on the terminal below the rest."""
        most = max(1, min(_SHOWN_WORKERS, self._console.height - _LINES_ABOVE))
        shown = list(progress.running.values())[:most]
        rows = [
            (
                running.worker or "",
                f"trial {running.trial.number}",
                progress_text(running.epoch, running.trial.settings),
                show_metric(running.value, progress.metric) if running.value is not None else "",
            )
            for running in shown
        ]
        left = self._console.width - sum(max(map(len, column)) + 2 for column in zip(*rows, strict=True))
        bar = 12 if self._console.width >= 90 else 6
        if left - bar - 2 < _LEAST_PARAMS:
            bar = 0
        left -= bar + 2 if bar else 0
        work = Table.grid(padding=(0, 2))
        for _ in range(6 if bar else 5):
            work.add_column(no_wrap=True)
        for running, (worker, trial, done, value) in zip(shown, rows, strict=True):
            length = running.trial.settings.length
            params = Text(params_text(running.trial.params, progress.words))
            params.truncate(max(0, left), overflow="ellipsis")  # a line each, not four
            drawn = ProgressBar(
                total=length, completed=running.epoch, width=bar, pulse=length is None, **BAR_STYLES
            )
            work.add_row(worker, trial, *([drawn] if bar else []), done, value, params)
        if (more := len(progress.running) - most) > 0:
            work.add_row("", f"{more:,} more")
        return work


def _at_work(running: Sequence[Running]) -> str:
    """Say how far trials are, on a line that stays one: a pack of 64 lanes are "64 trials epoch 3/10"."""
    places: dict[str, list[int]] = {}
    for each in running:
        places.setdefault(progress_text(each.epoch, each.trial.settings), []).append(each.trial.number)
    if len(running) <= _SHOWN_AT_WORK:
        return ", ".join(f"trial {number} {place}" for place, numbers in places.items() for number in numbers)
    said = [
        f"{f'trial {numbers[0]}' if len(numbers) == 1 else plural(len(numbers), 'trial')} {place}"
        for place, numbers in places.items()
    ]
    left = sum(map(len, list(places.values())[_SHOWN_AT_WORK:]))
    return ", ".join(said[:_SHOWN_AT_WORK]) + (f" and {left:,} more" if left else "")


def progress_text(done: int, settings: Settings) -> str:
    """Write how far a trial is: ``epoch 3/10``, or ``step 3`` of a function, of which nobody knows how many come."""
    return f"step {done}" if settings.length is None else f"epoch {done}/{settings.length}"


def observer(*, quiet: bool, no_color: bool) -> Lines:
    """Return what fits the standard error stream: a picture on a terminal, else lines."""
    if not quiet and console(stderr=True, no_color=no_color).is_terminal and sys.stderr.isatty():
        return Picture(no_color=no_color)
    return Lines(no_color=no_color, quiet=quiet)
