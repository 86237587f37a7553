"""Connections and transactions: the one place where the store begins, commits and translates errors."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, Pool, QueuePool

from gridsearch import faults
from gridsearch.errors import StoreError, StoreUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUSY_SECONDS = 60.0
"""How long a connection waits for another one's lock."""

_ROOM_BYTES = 1 << 20
"""With less free space than this an I/O error is taken for a full disk, which does not pass by itself."""

WAL_SINCE = (3, 51, 3)
"""Older libraries can corrupt a file in WAL mode when the log is reset, https://sqlite.org/wal.html#walresetbug."""

_BEGIN = "gridsearch_begin"
_BUSY = "gridsearch_busy"


def journal_mode() -> str:
    """Return the journal mode that is safe with this SQLite library."""
    return "wal" if sqlite3.sqlite_version_info >= WAL_SINCE else "delete"


def connect(path: Path, *, mode: str = "rw") -> sqlite3.Connection:
    """Open a file as SQLite does, without transactions of its own.

    Args:
        path: the file.
        mode: "ro", "rw" (the file must exist) or "rwc".

    Raises:
        sqlite3.Error: it does not open.
    """
    connection = sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?mode={mode}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,  # we say BEGIN ourselves: the module's own comes late and is not IMMEDIATE
        check_same_thread=False,
    )
    try:
        connection.execute("PRAGMA foreign_keys = ON")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


class Database:
    """One SQLite file and its transactions.

    Args:
        path: the file, which exists.
        pool: how connections are kept; threads share what a QueuePool holds.
        busy: how long to wait for another's lock, in seconds; None for a minute.

    Attributes:
        busy: may be changed; it holds from the next transaction on.
    """

    def __init__(self, path: Path, *, pool: type[Pool] = QueuePool, busy: float | None = None) -> None:
        self.path = path
        self.busy = BUSY_SECONDS if busy is None else busy
        self._file: tuple[int, int] | None = None
        self.engine = self._engine(pool)

    def _engine(self, pool: type[Pool]) -> Engine:
        engine = create_engine("sqlite:///", creator=lambda: connect(self.path), poolclass=pool)

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            if connection.info.get(_BUSY, BUSY_SECONDS) != self.busy:
                connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(self.busy * 1000)}")
                connection.info[_BUSY] = self.busy
            connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))

        return engine

    def _find_file(self) -> None:
        """Close the connections to a file that is no longer the one at its path: what they write would be lost.

        Raises:
            StoreUnreachable: there is no file.
        """
        try:
            facts = self.path.stat()
        except OSError as error:
            raise StoreUnreachable(
                f"store {self.path} is not there: {error.strerror}", hint="bring it back, then run it again"
            ) from error
        file = facts.st_dev, facts.st_ino
        if self._file not in (None, file):
            self.engine.dispose()
        self._file = file

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection that sees one state of the store throughout."""
        self._find_file()
        with translated(self.path, self.busy), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give a connection that is the only writer; all it does is committed at the end, or nothing is.

        Raises:
            StoreError: the store is damaged, read-only or full.
            StoreUnreachable: another process held its lock for too long.
        """
        self._find_file()
        with translated(self.path, self.busy), self.engine.connect() as connection:
            # The lock is taken before the first read: two readers that both turn writers would deadlock.
            connection.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})
            with connection.begin():
                yield connection
                faults.at("commit", failing=_refusal)
        faults.at("committed")

    def settle_journal(self) -> None:
        """Set the journal mode that is safe with this library, unless others use the file just now."""
        with self.engine.connect() as connection:
            raw: Any = connection.connection
            try:
                if raw.execute("PRAGMA journal_mode").fetchone()[0] != journal_mode():
                    raw.execute("PRAGMA busy_timeout = 0")
                    raw.execute(f"PRAGMA journal_mode = {journal_mode()}")
            except sqlite3.OperationalError:
                pass  # locked or read-only: it stays as it is
            finally:
                raw.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")

    def problems(self) -> tuple[str, ...]:
        """Return what SQLite's integrity check finds, nothing if all is well."""
        with self.read() as connection:
            rows = [row[0] for row in connection.exec_driver_sql("PRAGMA integrity_check")]
        return () if rows == ["ok"] else tuple(rows)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def short_lived(path: Path) -> Database:
    """Return a database that keeps no connection open."""
    return Database(path, pool=NullPool)


@contextmanager
def translated(path: Path, busy: float | None = None) -> Iterator[None]:
    """Turn SQLite's errors about a file into ours; an error of our own SQL passes through.

    Args:
        path: the file.
        busy: how long a lock was waited for, in seconds; None for a minute.
    """
    busy = BUSY_SECONDS if busy is None else busy
    try:
        yield
    except DBAPIError as error:
        known = isinstance(error.orig, sqlite3.Error) and explain(path, error.orig, busy)
        if not known:
            raise
        raise known from error
    except sqlite3.Error as error:
        known = explain(path, error, busy)
        if not known:
            raise
        raise known from error


def explain(path: Path, error: sqlite3.Error, busy: float) -> StoreError | StoreUnreachable | None:
    """Return what an error of SQLite means for the user, None for a mistake of ours."""
    name = getattr(error, "sqlite_errorname", None) or ""
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")):
        return StoreUnreachable(
            f"store {path} was locked by another process for more than {busy:.0f} s",
            hint="end the process that holds it (fuser shows which), then run the same command again",
        )
    if str(error).startswith(("no such table", "no such column")):
        name = "SQLITE_CORRUPT"  # the revision says that it should be there
    if name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN")) and path.exists() and _free(path) < _ROOM_BYTES:
        name = (
            "SQLITE_FULL"  # SQLite says so of a page that it cannot write, not of a file that it cannot make
        )
    for prefix, what, hint in _WORDS:
        if name.startswith(prefix):
            room = f" ({_free(path):,} bytes free)" if prefix == "SQLITE_FULL" else ""
            return StoreError(f"store {path} {what}: {error}{room}", hint=hint)
    return None


def may_return(error: Exception) -> bool:
    """Whether the store that raised an error may soon answer again: it is locked, cannot be read, or is not there."""
    if isinstance(error, StoreUnreachable):
        return True
    if not isinstance(error, StoreError):
        return False
    cause = getattr(error.__cause__, "orig", error.__cause__)
    name = getattr(cause, "sqlite_errorname", None) or ""
    return name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY_DBMOVED"))


_WORDS = (
    ("SQLITE_FULL", "has no space left", "make room and run the same command again; nothing was lost"),
    ("SQLITE_READONLY", "cannot be written", "use a --home that you may write"),
    ("SQLITE_PERM", "cannot be written", "use a --home that you may write"),
    ("SQLITE_CANTOPEN", "cannot be opened", "use a --home that you may read and write"),
    ("SQLITE_NOTADB", "is not a SQLite database", "name another file with --store"),
    ("SQLITE_CORRUPT", "is damaged", "bring back a copy of the file, or begin a new store with --store"),
    ("SQLITE_IOERR", "cannot be read or written", "look at the disk it lies on"),
    ("SQLITE_NOMEM", "cannot be read", "free some memory"),
)


def _refusal(number: int) -> sqlite3.OperationalError:
    """Return what SQLite raises where the system refuses it the disk."""
    full = number == errno.ENOSPC
    error = sqlite3.OperationalError("database or disk is full" if full else "disk I/O error")
    error.sqlite_errorname = "SQLITE_FULL" if full else "SQLITE_IOERR"
    return error


def _free(path: Path) -> int:
    try:
        return shutil.disk_usage(path.parent).free
    except OSError:
        return 0
