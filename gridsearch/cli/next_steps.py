"""The last lines of a command that wrote a report: how to look at it, and what comes after it."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from gridsearch import web_browser
from gridsearch.advice import near, quoted

if TYPE_CHECKING:
    from pathlib import Path

    from gridsearch.advice import Advice
    from gridsearch.display import Lines


def look_at(page: Path) -> str:
    """Return the command that opens a page on this machine, or where to find it if there is none."""
    shown = near(page)
    if sys.platform == "darwin":
        return quoted("open", shown)
    if sys.platform == "win32":
        return quoted("start", "", shown)
    if shutil.which("xdg-open") and web_browser.has_display():
        return quoted("xdg-open", shown)
    return f"open {quoted(shown)} in a browser"


def say_next(lines: Lines, page: Path, again: Advice, *, tested: bool) -> None:
    """Say how to open a report, and how to test its winner.

    Args:
        lines: where to.
        page: the report's.
        again: the commands about its study.
        tested: the winner has been tested already, or cannot be: there is nothing to advise.
    """
    steps = [look_at(page)]
    if not tested:
        steps.append(again.best())
    for number, step in enumerate(steps):
        lines.say(f"{'next:' if number == 0 else '     '} {step}")


def open_page(lines: Lines, page: Path) -> None:
    """Open a page in the browser; where there is none, say so and leave it."""
    if problem := web_browser.open_page(page):
        lines.warn(f"--open: {problem}")
