"""``serve``: the report of every study of a home as pages that a server keeps up to date, and the button that stops.

A page is made anew in this process, and only for a reader who asks for it, when its study has changed; rarely
enough to leave nine tenths of a CPU to others.  Nothing is written but the request to stop, which takes the token
that stands in the pages: a page of another site cannot read it (see also `web_guard`).
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, quote

from gridsearch import display, reporting
from gridsearch.cli.commands.status import asked_lines, idle_lines, runner_lines
from gridsearch.errors import GridsearchError, StudyNotFound
from gridsearch.folders import tilde
from gridsearch.reporting.words.text import plural
from gridsearch.service.prepare.options import LEASE_SECONDS
from gridsearch.service.queries import studies
from gridsearch.service.queries.reports import live_report

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from wsgiref.types import StartResponse, WSGIEnvironment

    from gridsearch.service.prepare.options import Places
    from gridsearch.service.queries.studies import StudyStatus
    from gridsearch.store import Store

LOOK_SECONDS: Final = 1.0
"""The ledger is asked what has changed no more often, whoever asks."""
REST: Final = 10
SHORTEST_REST, LONGEST_REST = 3.0, 20.0
"""A page is not made again before so many times as long have passed as it took of a CPU, between these seconds."""
LARGEST_FORM: Final = 1000
_HEADERS: Final = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),  # no other page lays itself over the button
    ("Referrer-Policy", "no-referrer"),
)


@dataclass(slots=True)
class _Kept:
    """A study's page: for which state it was made, and when the next one may be."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    mark: str = ""
    page: reporting.LivePage | None = None
    due: float = 0.0


@dataclass(frozen=True, slots=True)
class _Answer:
    status: str
    kind: str
    text: str
    more: tuple[tuple[str, str], ...] = ()


class LivePages:
    """The WSGI application.

    Args:
        places: where things lie.
        store: the open store; it may be used by several threads.
    """

    def __init__(self, places: Places, store: Store) -> None:
        self._places, self._store = places, store
        self._secret = secrets.token_urlsafe(24)
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        self._marks: dict[str, str] = {}
        self._looked = -LOOK_SECONDS
        self._status: dict[str, tuple[str, StudyStatus]] = {}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        try:
            answer = self._answer(environ)
        except StudyNotFound as error:
            answer = _Answer("404 Not Found", "text/plain", f"{error.message}\n")
        except GridsearchError as error:
            answer = _Answer("503 Service Unavailable", "text/plain", f"{error.message}\n")
        content = answer.text.encode("utf-8", "replace")
        headers = [("Content-Type", f"{answer.kind}; charset=utf-8"), ("Content-Length", str(len(content)))]
        start_response(answer.status, [*headers, *_HEADERS, *answer.more])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [content]

    def _answer(self, environ: WSGIEnvironment) -> _Answer:
        path = (
            environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace")
        )  # as WSGI hands it on
        asks = environ["REQUEST_METHOD"]
        match [*path.split("/")[1:], asks]:
            case [""] | ["", "GET" | "HEAD"]:
                return _html(self._overview())
            case ["study", name, "", "GET" | "HEAD"]:
                return _html(self._page(name))
            case ["study", name, "now", "GET" | "HEAD"]:
                return _html(reporting.live_strip(self._standing(name, "stop")))
            case ["study", name, "stop", "POST"]:
                return self._stop(name, environ)
            case ["study", name, "GET" | "HEAD"]:
                # relative, for a proxy that has the pages below a path of its own
                return _Answer("308 Permanent Redirect", "text/plain", "", (("Location", f"{quote(name)}/"),))
            case [*_, "GET" | "HEAD"]:
                return _Answer("404 Not Found", "text/plain", "There is no such page.\n")
            case _:
                return _Answer("405 Method Not Allowed", "text/plain", "These pages are for reading.\n")

    def _overview(self) -> str:
        marks = self._look()
        summaries = {s.name: s for s in self._store.studies(sizes=False)}
        shown = []
        for name in reversed([n for n in marks if n in summaries]):
            summary, address = summaries[name], f"study/{quote(name, safe='')}/"
            about = f"on {summary.dataset}"
            more = {"title": summary.title, "about": about, "address": address}
            shown.append({**self._standing(name, f"{address}stop", counts=summary.counts), **more})
        idle = idle_lines(self._store.idle_runners(within=LEASE_SECONDS))
        live = reporting.Live("studies", self._secret)
        return reporting.live_overview(shown, place=str(tilde(self._places.home)), idle=idle, live=live)

    def _page(self, name: str) -> str:
        """Return a study's page: a new one if it has changed and a new one is due."""
        kept, mark = self._kept_of(name), self._mark(name)
        with kept.lock:
            if kept.page is None or (kept.mark != mark and time.monotonic() >= kept.due):
                begun = time.thread_time()
                live = reporting.Live(mark, self._secret)
                kept.page = live_report(self._store, name, kept=kept.page, root=self._places.data, live=live)
                kept.mark = mark
                rest = REST * (time.thread_time() - begun)
                kept.due = time.monotonic() + min(LONGEST_REST, max(SHORTEST_REST, rest))
            return kept.page.html

    def _standing(self, name: str, stop: str, *, counts: Mapping[str, int] | None = None) -> dict[str, Any]:
        """Return how far a study is and who trains it, in words.

        Args:
            name: the study's.
            stop: the address that stops it.
            counts: its trials by state, where the caller has them; of a study that nobody trains they are enough.
        """
        mark, kept = self._mark(name), self._kept_of(name)
        lines: list[str] = []
        eta, stoppable = "", False
        if counts is None or counts["running"] or counts["waiting"]:
            status = self._status_of(name, mark)
            counts = status.counts
            lines = [line.removeprefix(f"{name}: ") for line in runner_lines(status)]
            stoppable = any(not runner.gone for runner in status.runners)
            eta = "" if status.eta is None else f"About {display.duration_text(status.eta)} left."
        due = kept.mark == mark or time.monotonic() < kept.due
        return {
            "study": name,
            "words": _words(counts),
            "eta": eta,
            "lines": lines,
            "stoppable": stoppable,
            "stop": stop,
            "token": kept.mark if due and kept.page is not None else mark,
        }

    def _status_of(self, name: str, mark: str) -> StudyStatus:
        """Return how far a study is, read anew when it has changed or while somebody holds its trials."""
        known = self._status.get(name)
        if known is not None and known[0] == mark and not known[1].runners:
            return known[1]
        status = studies.status_of(self._store, name)
        self._status[name] = (mark, status)
        return status

    def _stop(self, name: str, environ: WSGIEnvironment) -> _Answer:
        given = environ.get("HTTP_X_GRIDSEARCH_TOKEN", "")
        if not hmac.compare_digest(given.encode(), self._secret.encode()):
            words = "This page is of an earlier server, or not of this one: load it again.\n"
            return _Answer("403 Forbidden", "text/plain", words)
        length = int(environ.get("CONTENT_LENGTH") or 0)
        form = parse_qs(environ["wsgi.input"].read(min(length, LARGEST_FORM)).decode("utf-8", "replace"))
        when = form.get("when", ["epoch"])[0]
        if when not in ("epoch", "now"):
            return _Answer("400 Bad Request", "text/plain", f"when={when}: epoch or now\n")
        asked = self._store.request_stop(name, at_once=when == "now")
        lines = asked_lines(name, asked, now=when == "now")
        return _Answer("200 OK", "text/plain", "\n".join(lines) + "\n")

    def _kept_of(self, name: str) -> _Kept:
        with self._lock:
            return self._kept.setdefault(name, _Kept())

    def _mark(self, name: str) -> str:
        """Return what distinguishes a study's state.

        Raises:
            StudyNotFound: there is no such study.
        """
        marks = self._look()
        if name not in marks:
            with self._lock:
                self._kept.pop(name, None)
            self._store.study_id(name)  # which says what names there are
            return ""
        return marks[name]

    def _look(self) -> dict[str, str]:
        with self._lock:
            if time.monotonic() - self._looked >= LOOK_SECONDS:
                self._marks = self._store.marks()
                self._looked = time.monotonic()
            return self._marks


def _words(counts: Mapping[str, int]) -> str:
    """Say how far a study is: "3 of 24 trials have ended: 2 complete, 1 failed; 4 running"."""
    total = sum(counts.values())
    ended = total - counts["running"] - counts["waiting"]
    parts = ", ".join(
        f"{n:,} {state}" for state, n in counts.items() if n and state not in ("running", "waiting")
    )
    going = f"; {counts['running']:,} running" if counts["running"] else ""
    if ended == total:
        return f"All {plural(total, 'trial')} have ended: {parts}." if total else "No trials."
    return f"{ended:,} of {plural(total, 'trial')} have ended{f': {parts}' if parts else ''}{going}."


def _html(text: str) -> _Answer:
    return _Answer("200 OK", "text/html", text)
