"""``serve``: the report of every study of a home as pages that a server keeps up to date, and the button that stops.

A page is made anew in this process, and only for a reader who asks for it, when its study has changed; while
somebody trains, rarely enough to leave nine tenths of a CPU to them.  Nothing is written but the request to stop, which
takes the token that stands in the pages: a page of another site cannot read it (see also `web_guard`).
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, quote

from gridsearch import files, reporting
from gridsearch.cli.commands.status import asked_lines, idle_lines, runner_lines
from gridsearch.errors import GridsearchError, StudyNotFound
from gridsearch.folders import tilde
from gridsearch.reporting.words.text import plural, printable, show_seconds
from gridsearch.service.prepare.options import LEASE_SECONDS
from gridsearch.service.queries import studies
from gridsearch.service.queries.reports import live_report
from gridsearch.store import masked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from wsgiref.types import StartResponse, WSGIEnvironment

    from gridsearch.service.prepare.options import Places
    from gridsearch.service.queries.studies import StudyStatus
    from gridsearch.store import Store

LOOK_SECONDS: Final = 1.0
"""The ledger is asked what has changed no more often, whoever asks."""
REST: Final = 10
"""While somebody trains a study, nothing is made of it again before so many times as long as that took of a CPU."""
SHORTEST_REST: Final = 3.0
"""A page is made no more often, whoever trains."""
LARGEST_FORM: Final = 1000
_HEADERS: Final = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),  # no other page lays itself over the button
    ("Referrer-Policy", "no-referrer"),
)


@dataclass(slots=True)
class _Kept:
    """What is kept of a study: its page, and how far it is.

    Attributes:
        lock: held by whoever makes the page.
        mark: the state of the study that the page shows.
        page: the page.
        due: when the next one may be made, on the monotonic clock.
        fair: when it may be made while somebody trains.
        asking: held by whoever asks how far the study is.
        known: the state of the study, and how far it is then.
        known_fair: as `fair`, to ask again.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    mark: str = ""
    page: reporting.LivePage | None = None
    due: float = 0.0
    fair: float = 0.0
    asking: threading.Lock = field(default_factory=threading.Lock)
    known: tuple[str, StudyStatus] | None = None
    known_fair: float = 0.0


@dataclass(frozen=True, slots=True)
class _Answer:
    status: str
    kind: str
    text: str
    more: tuple[tuple[str, str], ...] = ()


class _Refused(Exception):
    """A request that is not obeyed.

    Args:
        answer: what the client gets.
    """

    def __init__(self, answer: _Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class LivePages:
    """The WSGI application.

    Args:
        places: where things lie.
        store: the open store; it may be used by several threads.
        warn: is called with what is wrong here, once for each problem.
    """

    def __init__(self, places: Places, store: Store, *, warn: Callable[[str], None]) -> None:
        self._places, self._store, self._warn = places, store, warn
        self._warned: set[str] = set()
        self._secret = secrets.token_urlsafe(24)
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        self._marks: dict[str, str] = {}
        self._looked = -LOOK_SECONDS

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        answer = self._whatever_comes(environ)
        content = answer.text.encode("utf-8", "replace")
        headers = [("Content-Type", f"{answer.kind}; charset=utf-8"), ("Content-Length", str(len(content)))]
        start_response(answer.status, [*headers, *_HEADERS, *answer.more])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [content]

    def _whatever_comes(self, environ: WSGIEnvironment) -> _Answer:
        """Return the answer to a request; an error is one of a line."""
        try:
            return self._answer(environ)
        except _Refused as refused:
            return refused.answer
        except StudyNotFound as error:
            return _plain("404 Not Found", error.message)
        except GridsearchError as error:
            return _plain("503 Service Unavailable", error.message)
        except OSError as error:
            where = error.filename or self._places.home
            return _plain("503 Service Unavailable", f"{where}: {error.strerror or error}")
        except Exception as error:  # noqa: BLE001 - the last place where an error can become one line
            said = f"a bug in gridsearch: {type(error).__name__}: {printable(str(error), 500)}"
            if said not in self._warned:
                self._warned.add(said)
                self._warn(f"{said} (at {environ.get('PATH_INFO', '')[:100]!r})")
            return _plain("500 Internal Server Error", said)

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
                return _plain("404 Not Found", "There is no such page.")
            case _:
                return _plain("405 Method Not Allowed", "These pages are for reading.")

    def _overview(self) -> str:
        marks = self._look()
        summaries = {s.name: s for s in self._store.studies(sizes=False)}
        shown = []
        for name in reversed([n for n in marks if n in summaries]):
            summary, address = summaries[name], f"study/{quote(name, safe='')}/"
            about = "" if summary.dataset == summary.title else summary.dataset
            more = {"title": summary.title, "about": about, "address": address}
            with suppress(StudyNotFound):  # deleted at this moment
                shown.append({**self._standing_or_problem(name, f"{address}stop", summary.counts), **more})
        idle = idle_lines(self._store.idle_runners(within=LEASE_SECONDS))
        live = reporting.Live("studies", self._secret)
        return reporting.live_overview(shown, place=_place(self._places), idle=idle, live=live)

    def _standing_or_problem(self, name: str, stop: str, counts: Mapping[str, int]) -> dict[str, Any]:
        """Return what `_standing` does, or why a study cannot be read: the others are listed all the same."""
        try:
            return self._standing(name, stop, counts=counts)
        except StudyNotFound:
            raise
        except GridsearchError as error:
            nothing = {"eta": "", "lines": [], "stoppable": False, "unit": "epoch", "token": ""}
            return {"study": name, "words": error.message, "stop": stop, **nothing}

    def _page(self, name: str) -> str:
        """Return a study's page: a new one if it has changed and a new one is due."""
        kept, mark = self._kept_of(name), self._mark(name)
        with kept.lock:
            if kept.page is None or (kept.mark != mark and not self._rests(name, mark)):
                begun = time.thread_time()
                live = reporting.Live(mark, self._secret)
                kept.page = live_report(self._store, name, kept=kept.page, root=self._places.data, live=live)
                kept.mark = mark
                kept.due = time.monotonic() + SHORTEST_REST
                kept.fair = _fair(begun)
            return kept.page.html

    def _rests(self, name: str, mark: str) -> bool:
        """Return whether it is too early for a new page of a study that has changed."""
        kept, now = self._kept_of(name), time.monotonic()
        return now < kept.due or (now < kept.fair and _trained(self._status_of(name, mark)))

    def _standing(self, name: str, stop: str, *, counts: Mapping[str, int] | None = None) -> dict[str, Any]:
        """Return how far a study is and who trains it, in words.

        Args:
            name: the study's.
            stop: the address that stops it.
            counts: its trials by state, where the caller has them; of a study that nobody trains they are enough.
        """
        mark, kept = self._mark(name), self._kept_of(name)
        lines: list[str] = []
        eta, stoppable, unit = "", False, "epoch"
        if counts is None or counts["running"] or counts["waiting"]:
            status = self._status_of(name, mark)
            counts = status.counts
            lines = [line.removeprefix(f"{name}: ") for line in runner_lines(status)]
            stoppable = _trained(status)
            unit = next((trial.settings.kind.unit for trial in status.running), unit)
            eta = "" if status.eta is None else f"About {show_seconds(status.eta, whole=True)} left."
        stays = kept.page is not None and (kept.mark == mark or self._rests(name, mark))
        return {
            "study": name,
            "words": _words(counts),
            "eta": eta,
            "lines": lines,
            "stoppable": stoppable,
            "unit": unit,
            "stop": stop,
            "token": kept.mark if stays else mark,
        }

    def _status_of(self, name: str, mark: str) -> StudyStatus:
        """Return how far a study is, read anew when it has changed or while somebody holds its trials."""
        kept = self._kept_of(name)
        with kept.asking:
            if kept.known is not None:
                of, status = kept.known
                if (of == mark and not status.runners) or (
                    _trained(status) and time.monotonic() < kept.known_fair
                ):
                    return status
            begun = time.thread_time()
            status = studies.status_of(self._store, name)
            kept.known, kept.known_fair = (mark, status), _fair(begun)
            return status

    def _stop(self, name: str, environ: WSGIEnvironment) -> _Answer:
        given = environ.get("HTTP_X_GRIDSEARCH_TOKEN", "")
        if not hmac.compare_digest(given.encode(), self._secret.encode()):
            words = "This page comes from another or an earlier server: reload it."
            return _plain("403 Forbidden", words)
        when = _form(environ).get("when", "epoch")
        if when not in ("epoch", "now"):
            return _plain("400 Bad Request", f"when={printable(when, 100)}: epoch or now")
        self._mark(name)  # which knows the name
        asked = self._store.request_stop(name, at_once=when == "now")
        lines = asked_lines(name, asked, now=when == "now")
        return _plain("200 OK", "\n".join(lines))

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
            raise StudyNotFound(printable(name, 100), marks)
        return marks[name]

    def _look(self) -> dict[str, str]:
        with self._lock:
            if time.monotonic() - self._looked >= LOOK_SECONDS:
                self._marks = self._store.marks()
                self._looked = time.monotonic()
            return self._marks


def _fair(begun: float) -> float:
    """Return when something may be made again beside those who train, on the monotonic clock.

    Args:
        begun: when making it began, by the CPU time of this thread.
    """
    return time.monotonic() + REST * (time.thread_time() - begun)


def _trained(status: StudyStatus) -> bool:
    """Return whether somebody trains a study."""
    return any(not runner.gone for runner in status.runners)


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


def _place(places: Places) -> str:
    """Return where the studies lie: the home, or the store where that lies elsewhere."""
    own = f"sqlite:///{places.home / files.DATABASE}"
    return str(tilde(places.home)) if places.store == own else masked(places.store)


def _form(environ: WSGIEnvironment) -> dict[str, str]:
    """Return the fields that a page sent, the first of each name.

    Raises:
        _Refused: there are more than any page of ours sends, or they did not come.
    """
    length = environ.get("CONTENT_LENGTH") or "0"
    if not (length.isascii() and length.isdigit()):
        raise _Refused(_plain("400 Bad Request", "Content-Length is no number."))
    if len(length) > 9 or int(length) > LARGEST_FORM:
        raise _Refused(_plain("413 Content Too Large", "No page of this server sends that much."))
    try:
        text = environ["wsgi.input"].read(int(length)).decode("utf-8", "replace")
    except TimeoutError:
        raise _Refused(_plain("408 Request Timeout", "The rest of the request did not come.")) from None
    return {name: values[0] for name, values in parse_qs(text).items()}


def _plain(status: str, line: str) -> _Answer:
    return _Answer(status, "text/plain", f"{line}\n")


def _html(text: str) -> _Answer:
    return _Answer("200 OK", "text/html", text)
