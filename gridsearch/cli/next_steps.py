"""The last lines of a command that wrote a report: how to look at it, and what comes after it."""

from __future__ import annotations

import os
import shutil
import sys
import webbrowser
from typing import TYPE_CHECKING

from gridsearch.advice import near, quoted

if TYPE_CHECKING:
    from pathlib import Path

    from gridsearch.advice import Advice
    from gridsearch.display import Lines

_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
"""Without any of these a Linux machine has no browser to open, or one that would take the terminal over."""


def look_at(page: Path) -> str:
    """Return the command that opens a page on this machine, or where to find it if there is none."""
    shown = near(page)
    if sys.platform == "darwin":
        return quoted("open", shown)
    if sys.platform == "win32":
        return quoted("start", "", shown)
    if shutil.which("xdg-open") and _has_display():
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
    if not _has_display():
        lines.warn(f"--open: there is no display here, so no browser; the page is {page}")
        return
    try:
        opened = webbrowser.open(page.resolve().as_uri())
    except webbrowser.Error:
        opened = False
    if not opened:
        lines.warn(f"--open: no browser could be opened; the page is {page}")


def _has_display() -> bool:
    return not sys.platform.startswith("linux") or any(os.environ.get(name) for name in _DISPLAYS)
