"""Between the user's code and its trial's log: what is printed, a line at a time, and errors in one line."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from gridsearch.errors import GridsearchError, said, valid_text

if TYPE_CHECKING:
    from collections.abc import Callable


class LogStream(io.TextIOBase):
    """Passes on what is printed, a line at a time."""

    def __init__(self, write_line: Callable[[str], None]) -> None:
        self._write_line = write_line
        self._rest = ""

    def writable(self) -> bool:
        """Say yes."""
        return True

    def write(self, text: str) -> int:
        """Pass on the lines that are whole."""
        *lines, self._rest = (self._rest + valid_text(text)).split("\n")
        if lines:
            self._write_line("\n".join(lines) + "\n")
        return len(text)

    def flush(self) -> None:
        """Pass on the line that has begun."""
        if self._rest:
            rest, self._rest = self._rest, ""
            self._write_line(rest + "\n")


def one_line(error: BaseException) -> str:
    """Return what went wrong as one line: our own errors as they are, others with their type."""
    if isinstance(error, GridsearchError):
        return " ".join(error.message.split())
    return " ".join(f"{type(error).__name__}: {said(error)}".split()).removesuffix(":")
