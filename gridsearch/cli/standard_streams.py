"""The standard streams while a command runs: control characters in output are escaped, and a reader may leave.

A stream may be closed from the start, or have a character set that lacks some of our characters.

The outermost layer of all that is shown.  What we style ourselves passes by the first of it (`display.console`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO

from gridsearch.errors import escaped
from gridsearch.users_code import answering

if TYPE_CHECKING:
    from collections.abc import Iterator

_READER_GONE = (errno.EPIPE, errno.ESHUTDOWN, errno.EIO)
"""A closed pipe (`| head -1`), a closed socket, a terminal that hung up."""


_PLAIN = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212\u2500\u2501\u2578\u257a·", "-")
    | {"…": "...", "\u00d7": "x", "±": "+/-", "≤": "<=", "≥": ">=", "│": "|", "\u2019": "'"}
)
"""What stands for our own signs in a character set that lacks one of a text's."""


class Lasting:
    """A text stream that goes nowhere once its reader has left, so that the work itself goes on.

    What its character set lacks is replaced: our own signs by plain ones, letters of others by their escapes.

    Args:
        raw: the stream; None (the descriptor was closed before the start) goes nowhere from the start.
    """

    def __init__(self, raw: TextIO | None) -> None:
        self.raw: IO[str] = Path(os.devnull).open("w", encoding="utf-8") if raw is None else raw  # noqa: SIM115 - the process's
        self.left = raw is None
        self.failed: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)

    def write(self, text: str) -> int:
        """Write, unless nobody reads."""
        with self._reader():
            self.raw.write(self._encodable(text))
        return len(text)

    def flush(self) -> None:
        """Flush, unless nobody reads."""
        with self._reader():
            self.raw.flush()

    def _encodable(self, text: str) -> str:
        """Return text with replacements for what the stream's character set lacks."""
        encoding = getattr(self.raw, "encoding", None) or "utf-8"
        try:
            text.encode(encoding)
        except UnicodeEncodeError:
            return text.translate(_PLAIN).encode(encoding, "backslashreplace").decode(encoding)
        except LookupError:  # a stream of somebody's own, who names no character set that Python knows
            return text
        else:
            return text

    def require_written(self) -> None:
        """Flush, and raise what an earlier write has raised: argparse passes over that.

        Raises:
            OSError: something could not be written.
        """
        self.flush()
        if self.failed is not None:
            raise self.failed

    @contextlib.contextmanager
    def _reader(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _READER_GONE:
                self.failed = error
                raise
            self.left = True
            let_go(self.raw)


class Harmless(Lasting):
    """A stream on which control characters are shown and do not act; for everything that we do not style."""

    def __init__(self, raw: TextIO | None) -> None:
        super().__init__(raw)
        self.styled = Lasting(raw)
        """The same stream for what has control characters of our own, and has escaped those of others."""

    def write(self, text: str) -> int:
        """Write with control characters escaped."""
        return super().write(escaped(text))


def open_closed_ones() -> None:
    """Open those of the three standard descriptors that are closed, to nowhere.

    The next file to be opened would else get the number, and whatever a library prints would land in it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if descriptor == 0 else os.O_WRONLY)  # the lowest that is free
            os.set_inheritable(descriptor, True)


def let_go(stream: IO[str]) -> None:
    """Drop what is left in a stream's buffer, which must not raise again at exit."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def reader_left() -> bool:
    """Whether nobody reads the standard output any more; a pipe is asked without writing to it."""
    stream = sys.stdout
    if isinstance(stream, Harmless) and (stream.left or stream.styled.left):
        return True
    try:
        asked = select.poll()
        asked.register(stream.fileno(), select.POLLERR)
        return any(event & select.POLLERR for _, event in asked.poll(0))
    except (OSError, ValueError, AttributeError):
        return False


@contextlib.contextmanager
def harmless() -> Iterator[Harmless]:
    """Let everything that the block prints pass through `Harmless` streams; give that of the standard output."""
    before = sys.stdout, sys.stderr
    output = Harmless(before[0])
    sys.stdout, sys.stderr = output, Harmless(before[1])
    try:
        with answering():
            yield output
    finally:
        sys.stdout, sys.stderr = before
