"""Inspects the file where a store should be, and changes nothing of it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gridsearch.errors import StoreError
from gridsearch.store import database, ledger_tables
from gridsearch.store.database import Waiting, translated
from gridsearch.store.site import Found, Kind, kind_of, missing
from gridsearch.store.sqlite_dialect import SqliteDialect, connect

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAGIC = b"SQLite format 3\0"
_ANOTHER = "name another file with --store, or another folder with --home"


def inspect_file(path: Path) -> Found:
    """Return what lies at a path without changing it.

    Raises:
        StoreError: it cannot be read, or is no database.
    """
    try:
        with path.open("rb") if path.is_file() else contextlib.nullcontext() as file:
            if file is None:
                return _inspect_absent(path)
            header = file.read(100)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise StoreError(
            f"store {path} cannot be read: {error.strerror}", hint="use a --home that you can read and write"
        ) from error
    if not header:
        return Found(Kind.EMPTY)
    if not header.startswith(_MAGIC) or len(header) < 100:
        raise StoreError(f"{path} is not a SQLite database", hint=_ANOTHER)
    expected = _size_by_header(header)
    if size < expected and not _has_journal(path):
        raise StoreError(
            f"store {path} is truncated: {size} bytes of {expected}",
            hint="restore a copy of the file, or start a new one",
        )
    dialect = SqliteDialect(path)
    waiting = Waiting(dialect.place, database.BUSY_SECONDS)
    with translated(dialect):
        while True:
            try:
                with _reading(path, busy=waiting.seconds) as connection:
                    return _inspect_tables(connection)
            except sqlite3.Error as error:
                if not (dialect.is_locked(error) and waiting.goes_on("is locked by another process")):
                    raise


def _inspect_absent(path: Path) -> Found:
    for parent in path.parents:
        if parent.exists() and not parent.is_dir():
            raise StoreError(f"store {path}: {parent} is not a folder", hint=_ANOTHER)
    if path.is_dir():
        raise StoreError(f"store {path} is a folder, not a file", hint="write sqlite:///PATH/gridsearch.db")
    if os.path.lexists(path):
        raise StoreError(f"store {path} is not a regular file", hint=_ANOTHER)
    return Found(Kind.NOTHING)


def _size_by_header(header: bytes) -> int:
    """Return the file's least size by its header, https://sqlite.org/fileformat2.html#the_database_header."""
    page = int.from_bytes(header[16:18], "big")
    pages = int.from_bytes(header[28:32], "big")
    valid = header[24:28] == header[92:96]  # else an old writer did not keep the number of pages
    return (65536 if page == 1 else page) * pages if valid else 0


def _has_journal(path: Path) -> bool:
    """Whether SQLite takes a write back, or completes it, before it reads: a kill or a power cut left it half done."""
    for journal in (Path(f"{path}-journal"), Path(f"{path}-wal")):
        with contextlib.suppress(OSError):
            if journal.stat().st_size > 0:
                return True
    return False


@contextmanager
def _reading(path: Path, *, busy: float) -> Iterator[sqlite3.Connection]:
    """Open a file for reading; if its writer was killed it must be rolled back, which needs to write."""
    connection = connect(path, mode="ro", busy=busy)
    try:
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            if not (error.sqlite_errorname or "").startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
                raise
            connection.close()
            connection = connect(path, mode="rw", busy=busy)
            connection.execute("PRAGMA query_only = ON")
        yield connection
    finally:
        connection.close()


def _inspect_tables(connection: sqlite3.Connection) -> Found:
    connection.execute("BEGIN")
    names = {
        row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
    }
    names = {name for name in names if not name.startswith("sqlite_")}
    kind = kind_of(names)
    if kind is not Kind.OURS:
        return Found(kind)
    revision = connection.execute("SELECT max(revision) FROM gridsearch_schema").fetchone()[0]
    optuna_revision = connection.execute("SELECT max(version_num) FROM alembic_version").fetchone()[0]
    columns = {
        name: {row[1] for row in connection.execute("SELECT * FROM pragma_table_info(?)", (name,))}
        for name in names
    }
    return Found(
        kind,
        revision or 0,
        optuna_revision,
        complete=names >= set(ledger_tables.metadata.tables),
        missing=missing(columns),
    )
