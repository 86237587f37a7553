"""Opens a page in the user's browser: for ``--open``, and for `show` of a result in Python; below both."""

from __future__ import annotations

import os
import sys
import webbrowser
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
"""Without any of these a Linux machine has no browser to open, or one that would take the terminal over."""


def has_display() -> bool:
    """Return whether a browser could show anything on this machine."""
    return not sys.platform.startswith("linux") or any(os.environ.get(name) for name in _DISPLAYS)


def open_page(page: Path) -> str:
    """Open a page in the browser.

    Args:
        page: its file.

    Returns:
        Why it could not be opened, and where it lies; "" where it was.
    """
    if not has_display():
        return f"there is no display here, so no browser; the page is {page}"
    try:
        opened = webbrowser.open(page.resolve().as_uri())
    except webbrowser.Error:
        opened = False
    return "" if opened else f"no browser could be opened; the page is {page}"
