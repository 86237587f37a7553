"""Notifies somebody that a run has ended, failed or was interrupted, by Apprise; the one module that knows it.

A URL holds secrets: it is never shown nor stored, and only its kind ("json://...") is named.  What cannot be delivered
is a warning: a run never fails for it.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from gridsearch.errors import GridsearchError, UsageError, nearest
from gridsearch.reporting.output.headline import headline
from gridsearch.reporting.words.text import plural, show_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gridsearch.records import StudyData
    from gridsearch.reporting import Ranking
    from gridsearch.service.run.progress import Observer

VARIABLE: Final = "GRIDSEARCH_NOTIFY"
"""URLs for all runs, separated by blanks: other than a word of a command line, nobody else on the machine sees them."""

_SCHEME: Final = re.compile(r"([a-z][a-z0-9]{1,20})://", re.IGNORECASE)


class Notifier:
    """Sends messages to the URLs of one run.

    Args:
        urls: Apprise's.
        study: what the messages are about.
        observer: is warned of what could not be delivered.

    Raises:
        UsageError: a URL that Apprise does not take, or no Apprise.
    """

    def __init__(self, urls: Sequence[str], study: str, observer: Observer) -> None:
        self._study, self._observer = study, observer
        self._targets = [(_kind(url), _target(url)) for url in urls]

    def ended(
        self, data: StudyData, ranking: Ranking, *, failed: int, left: int, seconds: float, signum: int | None
    ) -> None:
        """Say what a run came to.

        Args:
            data: the study.
            ranking: its points.
            failed: trials of the run that failed.
            left: trials of the run without a result.
            seconds: how long it took.
            signum: the signal that ended it, None where none did.
        """
        how = "has ended" if signum is None else f"was interrupted ({signal.Signals(signum).name})"
        words = [headline(data, ranking).won, f"{show_seconds(seconds)} in all."]
        words += [f"{plural(failed, 'trial')} failed."] if failed else []
        words += (
            [f"{plural(left, 'trial')} {'is' if left == 1 else 'are'} left: {data.again.goes_on()}."]
            if left
            else []
        )
        well = signum is None and not failed and not left
        self._send(f"gridsearch: {self._study} {how}", " ".join(words), "success" if well else "warning")

    def broke(self, error: BaseException) -> None:
        """Say that a run ended with an error."""
        if isinstance(error, KeyboardInterrupt):
            self._send(
                f"gridsearch: {self._study} was interrupted",
                "Finished trials are kept, the others wait.",
                "warning",
            )
            return
        known = error.message if isinstance(error, GridsearchError) else type(error).__name__
        self._send(f"gridsearch: {self._study} failed", known, "failure")

    def _send(self, title: str, body: str, kind: str) -> None:
        for name, target in self._targets:
            try:
                with _silent():
                    delivered = bool(target.notify(body=body, title=title, notify_type=kind))
            except Exception:  # noqa: BLE001 - whatever a service's client raises, and it may hold the URL
                delivered = False
            if not delivered:
                self._observer.warn(f"--notify {name}: the message could not be delivered")


@contextmanager
def notifying(urls: Sequence[str], study: str, observer: Observer) -> Iterator[Notifier]:
    """Give what sends messages about a run, and send one where the run ends with an error.

    Args:
        urls: those that were given; default: what the environment names.
        study: the study's name.
        observer: is warned of what could not be delivered.

    Raises:
        UsageError: a URL that Apprise does not take, before anything else is done.
    """
    notifier = Notifier(urls or os.environ.get(VARIABLE, "").split(), study, observer)
    try:
        yield notifier
    except UsageError:  # whoever typed it is there
        raise
    except BaseException as error:
        notifier.broke(error)
        raise


def without_secrets(words: Sequence[str]) -> list[str]:
    """Return the words of a command line as they may be kept: the URLs after `--notify` are left out."""
    found, hidden = [], False
    for word in words:
        if hidden:
            found.append("***")
        else:
            found.append("--notify=***" if word.startswith("--notify=") else word)
        hidden = not hidden and word == "--notify"
    return found


@contextmanager
def _silent() -> Iterator[None]:
    """Keep Apprise from logging, since its messages may hold parts of a URL, and from warnings about its own code."""
    logger = logging.getLogger("apprise")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def _kind(url: str) -> str:
    """Return what may be shown of a URL."""
    found = _SCHEME.match(url)
    return f"{found[1].lower()}://..." if found else "(a text that is no URL)"


def _target(url: str) -> Any:
    try:
        with _silent():
            import apprise
    except ImportError as error:
        raise UsageError(
            f"--notify needs Apprise: {error}", hint="pip install 'gridsearch[notify]'"
        ) from None
    target = apprise.Apprise()
    with _silent():
        taken = target.add(url)
    if taken:
        return target
    with _silent():
        services = target.details()["schemas"]
    known = {n for each in services for n in (*(each["protocols"] or ()), *(each["secure_protocols"] or ()))}
    scheme = found[1].lower() if (found := _SCHEME.match(url)) else ""
    near = nearest(scheme, known)
    why = f"Apprise knows no such service{near if 'did you mean' in near else ''}"
    raise UsageError(
        f"--notify {_kind(url)}: {'something that this service needs is missing' if scheme in known else why}",
        hint="URLs are written as on https://appriseit.com/services/ (json://HOST/PATH, mailto://..., slack://...)",
    )
