"""Between the user's code and its trial's log: what is printed, a line at a time, and errors in one line."""

from __future__ import annotations

import contextlib
import ctypes
import io
import sys
from itertools import groupby
from typing import TYPE_CHECKING

from gridsearch.errors import GridsearchError, cut, said, valid_text
from gridsearch.records import LogText

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gridsearch.records import Event


_MOST_HELD = 1 << 16
"""Characters of a line that are held back until it ends."""


class LogStream(io.TextIOBase):
    """Passes on what is printed: whole lines, and what of a line has been flushed or is too long to be held back.

    Args:
        pass_on: takes the text.
    """

    def __init__(self, pass_on: Callable[[str], None]) -> None:
        self._pass_on = pass_on
        self._held: list[str] = []
        self._count = 0
        self._within_line = False

    def writable(self) -> bool:
        """Say yes."""
        return True

    def write(self, text: str) -> int:
        """Pass on the lines that are whole."""
        whole, newline, rest = valid_text(text).rpartition("\n")
        self._hold(whole + newline)
        if newline:
            self.flush()
        self._hold(rest)
        if self._count > _MOST_HELD:
            self.flush()
        return len(text)

    def _hold(self, text: str) -> None:
        if text:
            self._held.append(text)
            self._count += len(text)

    def flush(self) -> None:
        """Pass on the line that has begun, as far as it has come."""
        if self._held:
            text, self._held, self._count = "".join(self._held), [], 0
            self._within_line = not text.endswith("\n")
            self._pass_on(text)

    def end(self) -> None:
        """Pass on the line that has begun, and end it."""
        if self._held or self._within_line:
            self._hold("\n")
            self.flush()


def merged(events: Sequence[Event]) -> Iterator[Event]:
    """Yield events with the texts that follow one another for the same logs as one, for which a log is opened once."""
    for trials, some in groupby(events, lambda event: event.trials if isinstance(event, LogText) else None):
        if trials is None:
            yield from some
        else:
            yield LogText(
                trials=trials, text="".join(each.text for each in some if isinstance(each, LogText))
            )


def flush_native_output() -> None:
    """Bring to descriptors 1 and 2 what Python's own streams and C's hold back."""
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):  # closed by the user's code
                stream.flush()
    ctypes.CDLL(None).fflush(None)


def one_line(error: BaseException) -> str:
    """Return what went wrong as one line: our own errors as they are, others with their type, cut where long."""
    if isinstance(error, GridsearchError):
        return " ".join(error.message.split())
    return cut(" ".join(f"{type(error).__name__}: {said(error)}".split()).removesuffix(":"))
