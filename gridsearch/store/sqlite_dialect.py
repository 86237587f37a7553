"""What SQLite does in a way of its own: files and their journals, `BEGIN IMMEDIATE`, its errors, its clock."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sqlalchemy import func, select
from sqlalchemy.ext.compiler import compiles

from gridsearch.errors import StoreError, StoreUnreachable
from gridsearch.store import database, ledger_tables
from gridsearch.store.database import Access, Dialect, StoreAway, StoreFull
from gridsearch.store.ledger_tables import StoreNow
from gridsearch.store.optuna_tables import counted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from gridsearch.errors import GridsearchError

_FREE_BYTES = 1 << 20
"""With less free space than this an I/O error is taken for a full disk, which does not pass by itself."""

WAL_SINCE = (3, 51, 3)
"""Older libraries can corrupt a file in WAL mode when the log is reset, https://sqlite.org/wal.html#walresetbug."""

_BUSY = "gridsearch_busy"

_BEGIN = {
    Access.READ: "BEGIN",
    # The lock is taken before the first read: two readers that both turn writers would deadlock.
    Access.ROWS: "BEGIN IMMEDIATE",
    Access.ALL: "BEGIN IMMEDIATE",
}


def journal_mode() -> str:
    """Return the journal mode that is safe with this SQLite library."""
    return "wal" if sqlite3.sqlite_version_info >= WAL_SINCE else "delete"


def connect(path: Path, *, mode: str = "rw", busy: float | None = None) -> sqlite3.Connection:
    """Open a file as SQLite does, without transactions of its own.

    Args:
        path: the file.
        mode: "ro" or "rw"; the file must exist.
        busy: seconds for which others' locks are waited for; None for a minute.

    Raises:
        sqlite3.Error: it does not open.
    """
    connection = sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?mode={mode}",
        uri=True,
        timeout=database.BUSY_SECONDS if busy is None else busy,
        isolation_level=None,  # we say BEGIN ourselves: the module's own comes late and is not IMMEDIATE
        check_same_thread=False,
    )
    try:
        connection.execute("PRAGMA foreign_keys = ON")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


class SqliteDialect(Dialect):
    """One file, in which one process at a time writes.

    Args:
        path: the file, which exists.
        shown: its name in messages, where that is not the path.
    """

    sqlalchemy_url = "sqlite:///"

    def __init__(self, path: Path, *, shown: Path | None = None) -> None:
        self.path = path
        self.place = str(shown or path)

    def connect(self) -> sqlite3.Connection:
        """Open the file."""
        return connect(self.path)

    def find(self) -> tuple[int, int]:
        """Return device and inode of the file.

        Raises:
            StoreUnreachable: there is none.
        """
        try:
            facts = self.path.stat()
        except OSError as error:
            raise StoreUnreachable(
                f"store {self.place} is not there: {error.strerror}", hint="bring it back, then run it again"
            ) from error
        return facts.st_dev, facts.st_ino

    def begin(self, connection: Connection, access: Access, *, busy: float, now: float) -> None:
        """Begin a transaction; a writer is the only one from the start, and a reader locks out who would write all."""
        _wait(connection, now)
        connection.exec_driver_sql(_BEGIN[access])
        if access is Access.READ and now != busy:
            _execute(connection, "SELECT 1 FROM sqlite_master LIMIT 1")
        _wait(connection, busy)

    def is_locked(self, error: BaseException | None) -> bool:
        """Return whether another connection has the file locked."""
        return isinstance(error, sqlite3.Error) and _name_of(error).startswith(_LOCKED)

    def explain(self, error: Exception, *, busy: float) -> GridsearchError | None:
        """Return what an error of SQLite means for the user, None for a mistake of ours."""
        if not isinstance(error, sqlite3.Error):
            return None
        name = _name_of(error)
        if name.startswith(_LOCKED):
            return StoreUnreachable(
                f"store {self.place} was locked by another process for more than {busy:.0f} s",
                hint="end the process that holds it (fuser shows which), then run the same command again",
            )
        kind: type[StoreError] = StoreAway if name.startswith(_PASSING) else StoreError
        if str(error).startswith(("no such table", "no such column")):
            name = "SQLITE_CORRUPT"  # the revision says that it should be there
        if name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN")) and self.path.exists():
            # SQLite says "full" of a page that it cannot write, not of a file that it cannot make.
            name = "SQLITE_FULL" if _free(self.path) < _FREE_BYTES else name
        for prefix, what, hint in _WORDS:
            if name.startswith(prefix):
                if prefix == "SQLITE_FULL":
                    free = f"({_free(self.path):,} bytes free)"
                    return StoreFull(f"store {self.place} {what}: {error} {free}", hint=hint)
                return kind(f"store {self.place} {what}: {error}", hint=hint)
        return None

    def refusal(self, number: int) -> sqlite3.OperationalError:
        """Return what SQLite raises where the system refuses it the disk with that errno."""
        full = number == errno.ENOSPC
        error = sqlite3.OperationalError("database or disk is full" if full else "disk I/O error")
        error.sqlite_errorname = "SQLITE_FULL" if full else "SQLITE_IOERR"
        return error

    def counters(self, connection: Connection) -> dict[str, int]:
        """Return what SQLite notes of tables that never give an id twice, and the highest id of all others."""
        noted = {
            row.name: row.seq for row in connection.exec_driver_sql("SELECT name, seq FROM sqlite_sequence")
        }
        return {
            name: max(noted.get(name, 0), connection.scalar(select(func.max(column))) or 0)
            for name, column in counted()
        }

    def set_counters(self, connection: Connection, counters: Mapping[str, int]) -> None:
        """Note the highest id of the tables that never give one twice; the others go by their rows."""
        for table in ledger_tables.metadata.tables.values():
            if table.dialect_kwargs.get("sqlite_autoincrement") and table.name in counters:
                connection.exec_driver_sql("DELETE FROM sqlite_sequence WHERE name = ?", (table.name,))
                connection.exec_driver_sql(
                    "INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)",
                    (table.name, counters[table.name]),
                )

    def problems(self, connection: Connection) -> tuple[str, ...]:
        """Return what SQLite's integrity check finds, nothing if all is well."""
        rows = [row[0] for row in connection.exec_driver_sql("PRAGMA integrity_check")]
        return () if rows == ["ok"] else tuple(rows)


def _wait(connection: Connection, seconds: float) -> None:
    """Let the statements of a connection wait for so many seconds for others' locks."""
    if connection.info.get(_BUSY, database.BUSY_SECONDS) != seconds:
        _execute(connection, f"PRAGMA busy_timeout = {int(seconds * 1000)}")
        connection.info[_BUSY] = seconds


def _execute(connection: Connection, statement: str) -> None:
    """Run a statement that belongs to each transaction, without SQLAlchemy's events: they take ten times as long."""
    raw: Any = connection.connection
    raw.execute(statement).close()


def _name_of(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", None) or ""


def settle_journal(engine: Engine) -> None:
    """Set the journal mode that is safe with this library, unless others use the file just now."""
    with engine.connect() as connection:
        raw: Any = connection.connection
        try:
            raw.execute("PRAGMA busy_timeout = 0")
            if raw.execute("PRAGMA journal_mode").fetchone()[0] != journal_mode():
                raw.execute(f"PRAGMA journal_mode = {journal_mode()}")
        except sqlite3.OperationalError:
            pass  # locked or read-only: it stays as it is
        finally:
            raw.execute(f"PRAGMA busy_timeout = {int(database.BUSY_SECONDS * 1000)}")


_LOCKED = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")

_PASSING = ("SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY_DBMOVED")
"""What may pass by itself: a disk, or a folder, that is away."""

_WORDS = (
    ("SQLITE_FULL", "has no space left", "free some space and run the same command again; nothing was lost"),
    ("SQLITE_READONLY", "cannot be written", "use a --home that you can write to"),
    ("SQLITE_PERM", "cannot be written", "use a --home that you can write to"),
    ("SQLITE_CANTOPEN", "cannot be opened", "use a --home that you can read and write"),
    ("SQLITE_NOTADB", "is not a SQLite database", "name another file with --store"),
    ("SQLITE_CORRUPT", "is damaged", "restore a copy of the file, or start a new store with --store"),
    ("SQLITE_IOERR", "cannot be read or written", "look at the disk it lies on"),
    ("SQLITE_NOMEM", "cannot be read", "free some memory"),
)


@compiles(StoreNow, "sqlite")
def _now(_element: StoreNow, _compiler: Any, **_options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


def _free(path: Path) -> int:
    try:
        return shutil.disk_usage(path.parent).free
    except OSError:
        return 0
