"""The tree of exceptions that a user can cause; the lowest layer, imported by all others.

    GridsearchError            1   anything below; raised itself only for a bug here
    |-- UsageError             2   what is wrong on the command line or in a study file
    |   |-- SpecError          2   all problems of a grid, a recipe or a study file at once
    |   |-- PluginError        2   a model, dataset or objective that cannot be found or imported
    |   `-- DeviceError        2   a device that is not there
    |-- TrainingFailed         3   nothing came out of a training
    |-- UnusableError          4   what is wrong with what is there
    |   |-- DataError          4   a dataset that is missing, truncated or altered
    |   |-- StoreError         4   a store that is not ours, damaged, read-only or full, or a file beside it
    |   |   |-- StudyNotFound  4   a study that the store does not hold
    |   |   `-- StudyDeleted   4   a study, or a trial of it, that was deleted while it was run
    |   `-- ArtifactError      4   a file under home that is missing or altered
    |-- StoreUnreachable      75   a store that does not answer
    `-- EngineUnreachable     75   a cluster that does not answer, or gives no workers

The number is the exit code.  A message is one line: what is wrong and where; `hint` says how to fix it.
"""

from __future__ import annotations

import difflib
import errno
import re
from traceback import format_exception, format_tb
from typing import TYPE_CHECKING, Any, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType


class Whole(BaseException):
    """An exception that travels whole between processes, whatever arguments it was made of."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how it is made again: with what it holds, without its constructor."""
        return _remade, (type(self), self.args, dict(self.__dict__))


class GridsearchError(Whole, Exception):
    """An expected error: one line that says what is wrong and where.

    Args:
        message: what is wrong and where, in one line without a full stop at its end.
        hint: how to fix it, in one line, or None.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Return the message as a traceback shows it: names from users do not act on the terminal."""
        return escaped(super().__str__())


class GridsearchWarning(UserWarning):
    """What a run has to say from Python that may not be as the user thinks; `warnings` filters reach it."""

    def __str__(self) -> str:
        """Return the warning as `warnings` prints it: what it quotes of users does not act on the terminal."""
        return escaped(super().__str__())


class UsageError(GridsearchError):
    """Something on the command line, in an argument or in a study file is wrong."""

    exit_code = 2


class SpecError(UsageError):
    """One or more problems of a grid, a recipe or a study file.

    Args:
        problems: each problem in one line, with its place ("--grid lr=abc: ...").
    """

    def __init__(self, problems: Sequence[str], *, hint: str | None = None) -> None:
        super().__init__("; ".join(problems), hint=hint)
        self.problems = tuple(problems)


class PluginError(UsageError):
    """A model, dataset or objective that cannot be found, imported or called."""


class DeviceError(UsageError):
    """A device was asked for that this machine does not have."""


class TrainingFailed(GridsearchError):
    """What was to be trained failed or diverged, so that there is no result."""

    exit_code = 3


class UnusableError(GridsearchError):
    """What is there cannot be used: a store, data, a file."""

    exit_code = 4


class DataError(UnusableError):
    """A dataset is missing, truncated, altered or not usable for classification."""


class StoreError(UnusableError):
    """The store is not a database, not ours, of another schema, read-only or full; or a file cannot be written."""


class StudyNotFound(StoreError):
    """The store holds no study of this name.

    Args:
        name: the name that was asked for.
        known: the names that the store holds.
    """

    def __init__(self, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        there = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "") if names else "none yet"
        super().__init__(f"no study named {name!r}; studies here: {there}")
        self.name = name


class StudyDeleted(StoreError):
    """A study that is being run, or a trial of it, is in the store no more."""


class FolderTaken(StoreError):
    """Files of another store's study are where those of a study of this one should be."""


class ArtifactError(UnusableError):
    """A file under home is missing, or its bytes are not those that were recorded."""


class StoreUnreachable(GridsearchError):
    """The store does not answer."""

    exit_code = 75


class EngineUnreachable(GridsearchError):
    """A cluster that was to run the workers does not answer, or has given none for too long."""

    exit_code = 75


class Ended(Whole, KeyboardInterrupt):
    """A signal ends a command, as Ctrl-C does.

    Args:
        signum: its number.
    """

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


RAISED: Final = (Exception, SystemExit)
"""What a user's code may raise that ends what it was called for and nothing else: a call of `sys.exit` too."""


_ACTING = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]|\r(?!\n)"
)
"""Control characters but for tabs and line ends, marks that turn the direction of text, halves of characters."""


_LONGEST_MESSAGE = 300


def escaped(text: str) -> str:
    r"""Return text whose control characters are shown and do not act: an escape sequence as ``\x1b[31m``.

    Names, exceptions and logs come from users and their code, and a terminal obeys what stands in them.
    """
    if _ACTING.search(text) is None:
        return text
    return _ACTING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _remade(kind: type[Whole], args: tuple[Any, ...], state: dict[str, Any]) -> Whole:
    """Return an error as it was, without calling its constructor again."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


def said(error: BaseException) -> str:
    """Return what an error says, as text that any file can hold.

    Its own `__str__` is the user's code and may fail, or give what is no text.
    """
    try:
        text = str(error)
    except RAISED as failed:  # whatever it raises, what failed is the error itself
        return f"(its __str__ raised {type(failed).__name__})"
    return valid_text(text)


def traced(error: BaseException, traceback: TracebackType | None = None) -> str:
    """Return an error with its traceback, as text that any file can hold.

    What Python asks of an error for that (its notes, its cause) may be the user's code too, and fail.

    Args:
        error: what was raised.
        traceback: a part of its traceback, None for all of it.
    """
    shown = traceback or error.__traceback__
    try:
        text = "".join(format_exception(type(error), error, shown))
    except RAISED as failed:
        frames = "".join(format_tb(shown))
        text = (
            f"Traceback (most recent call last):\n{frames}{type(error).__name__}: {said(error)}\n"
            f"(its traceback cannot be shown in full: {type(failed).__name__})\n"
        )
    return valid_text(text)


def cut(text: str) -> str:
    """Return a message that is short enough to be one of many lines; the whole of it belongs in a log."""
    return text if len(text) <= _LONGEST_MESSAGE else text[: _LONGEST_MESSAGE - 3] + "..."


def valid_text(text: str) -> str:
    """Return text without lone surrogates and NUL, which neither a file nor every database takes."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


def is_full_disk(error: OSError) -> bool:
    """Whether there is no space left, or none that this user may take."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


_IN_THE_WAY = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
"""A file is where a folder should be, or the reverse; no right to write would help."""


def unwritable(
    path: object, error: OSError, *, hint: str = "use a --home that you can write to"
) -> StoreError:
    """Return what to raise where a file cannot be written; `hint` says how to name another place than this."""
    if is_full_disk(error):
        return StoreError(f"no space left for {path}", hint="free some space and run the same command again")
    if error.errno == errno.EFBIG:
        hint = "allow larger files (ulimit -f), or use another disk with --home"
    if error.errno in _IN_THE_WAY:
        hint = "something else is in its place: move that away, then run the same command again"
    return StoreError(f"{path} cannot be written: {error.strerror}", hint=hint)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known name, else the list of all known names.

    Args:
        name: what the user wrote.
        known: the names that would have been right.
    """
    names = sorted(known)
    close = [n for n in names if n.casefold() == name.casefold()]
    close = close or _begun(name, names) or difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(names)}" if names else ""


def _begun(part: str, names: Sequence[str]) -> list[str]:
    """Return the only name that begins with a word, or ends with one of its parts; none of several."""
    if len(part) < 2:
        return []
    begun = [n for n in names if n.startswith(part)]
    begun = begun or [n for n in names if n.endswith(f"_{part}")]
    return begun if len(begun) == 1 else []
