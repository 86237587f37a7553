"""What end-to-end tests share: the servers as processes, and a real browser."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.browser import PATIENCE_MS


@pytest.fixture
def serve():
    """Start a server command and give its address; whatever happens, it is gone afterwards."""
    started: list[subprocess.Popen] = []

    def start(command: str, *words: str) -> tuple[subprocess.Popen, str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "gridsearch", command, "--port", "0", *words],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        started.append(process)
        said = ""
        while "http://" not in said:
            line = process.stderr.readline()
            assert line, f"{command} ended: {said}"
            said += line
        return process, re.search(r"http://[^\s]+", said)[0]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


class Seen:
    """A page, and all that went wrong on it."""

    def __init__(self, page):
        self.page = page
        self.problems: list[str] = []
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", lambda m: self.problems.append(m.text) if m.type == "error" else None)
        page.on(
            "response", lambda r: self.problems.append(f"{r.status} {r.url}") if r.status >= 400 else None
        )


@pytest.fixture
def browse(browser):
    """A page of a real browser, which notes errors."""
    page = browser.new_page(viewport={"width": 1400, "height": 1200})
    page.set_default_timeout(PATIENCE_MS)
    yield Seen(page)
    page.close()
