"""What a run from Python shows: warnings as Python's own, progress as lines, or as one cell's output in a notebook.

Between the service, which calls an observer, and whoever called; lines and pictures are those of `gridsearch.display`.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gridsearch.api.python_words import in_python_words
from gridsearch.display import Lines, Picture, observer, params_text
from gridsearch.errors import GridsearchWarning
from gridsearch.reporting.words.text import plural, show_metric, show_seconds

if TYPE_CHECKING:
    from gridsearch.records import Trial, TrialFailed, TrialFinished
    from gridsearch.service.run.progress import Observer, Progress

_OURS = f"{Path(__file__).parents[1]}{os.sep}"
_DRAWN_SECONDS = 0.5


def warn(message: str) -> None:
    """Warn at the line of the caller's own that led here, so that filters and registries work as they should."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back
    warnings.warn_explicit(
        in_python_words(message),
        GridsearchWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=frame.f_globals.get("__name__", "__main__"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


class Watcher:
    """An observer whose warnings are Python's; one that a filter turns into an error ends a run only at its end.

    Args:
        quiet: no progress and no messages; warnings all the same.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._shown: Observer = _observer(quiet=quiet)
        self._training = False
        self._waiting: list[str] = []
        self._raised: GridsearchWarning | None = None

    def say(self, message: str) -> None:
        """Show a message."""
        self._shown.say(message)

    def warn(self, message: str) -> None:
        """Warn; a live picture is taken away first."""
        if self._training and isinstance(self._shown, Picture):
            self._waiting.append(message)
            return
        try:
            warn(message)
        except GridsearchWarning as error:
            if not self._training:
                raise
            self._raised = self._raised or error

    def started(self, progress: Progress) -> None:
        """Training begins: what has begun is brought to its end."""
        self._training = True
        self._shown.started(progress)

    def updated(self, progress: Progress) -> None:
        """Show how far it is."""
        self._shown.updated(progress)

    def trial_ended(self, progress: Progress, trial: Trial, result: TrialFinished | TrialFailed) -> None:
        """Show a trial's result."""
        self._shown.trial_ended(progress, trial, result)

    def ended(self, progress: Progress) -> None:
        """Leave the picture, and warn of what came up meanwhile."""
        self._shown.ended(progress)
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            try:
                warn(message)
            except GridsearchWarning as error:
                self._raised = self._raised or error

    def finish(self) -> None:
        """Raise the first warning that a filter has made an error, now that all is written.

        Raises:
            GridsearchWarning: there was one.
        """
        self._training = False
        if self._raised is not None:
            raise self._raised


class Cell(Lines):
    """A few lines below a notebook's cell: what was said, and one line of progress that is drawn anew."""

    def __init__(self, *, no_color: bool = True) -> None:
        super().__init__(no_color=no_color)
        self._said: list[str] = []
        self._now = ""
        self._handle: Any = None
        self._drawn = float("-inf")

    def say(self, message: str) -> None:
        """Add a line."""
        self._said.append(message)
        self._draw()

    def updated(self, progress: Progress) -> None:
        """Draw the line of progress again, now and then."""
        if time.monotonic() - self._drawn > _DRAWN_SECONDS:
            self._now = _progress_line(progress)
            self._draw()

    def trial_ended(self, progress: Progress, trial: Trial, result: TrialFinished | TrialFailed) -> None:  # noqa: ARG002
        """Count it."""
        self.updated(progress)

    def ended(self, progress: Progress) -> None:
        """Leave the last line."""
        self._now = _progress_line(progress)
        self._draw()

    def _draw(self) -> None:
        display = importlib.import_module("IPython.display").display
        text = "\n".join([*self._said, *([self._now] if self._now else [])])
        self._drawn = time.monotonic()
        if self._handle is None:
            self._handle = display({"text/plain": text}, raw=True, display_id=True)
        else:
            self._handle.update({"text/plain": text}, raw=True)


def _progress_line(progress: Progress) -> str:
    ended = f"{progress.ended:,}/{plural(progress.total, 'trial')}"
    words = [ended, f"{show_seconds(round(progress.seconds), whole=True)} elapsed"]
    if progress.ended < progress.total and progress.eta is not None:
        words.append(f"about {show_seconds(progress.eta, whole=True)} left")
    if progress.best is not None:
        value, params = progress.best
        words.append(f"best so far {show_metric(value, progress.metric)}  {params_text(params)}")
    return " · ".join(words)


def _observer(*, quiet: bool) -> Observer:
    return Cell() if not quiet and _in_notebook() else observer(quiet=quiet, no_color=False)


def _in_notebook() -> bool:
    """Whether this is a kernel whose front end draws below cells."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = get_ipython() if get_ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")
