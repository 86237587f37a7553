"""The headless Chromium of this machine, for the tests of pages and for the README's picture."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]


PATIENCE_MS = 120_000
"""How long a test waits for a page: as long as the machine's other work may take."""


def executable() -> str | None:
    """Where Chromium is, None where it is not."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


def drawn(page: Any) -> None:
    """Wait until the page has answered a new size of its window: it draws in the next frame."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


@contextmanager
def chromium(path: str) -> Iterator[Any]:
    """Start it; Playwright's event loop stays in the thread while it runs."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_FLAGS, timeout=PATIENCE_MS)
        yield browser
        browser.close()
