"""Inspects the file where a store should be, and changes nothing of it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from gridsearch.errors import StoreError
from gridsearch.store import ledger_tables, optuna_tables
from gridsearch.store.database import connect, translated

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_MAGIC = b"SQLite format 3\0"
ANOTHER = "name another file with --store, or another folder with --home"


class FileKind(StrEnum):
    """What lies at the place where the store should be."""

    NOTHING = "nothing"
    EMPTY = "empty"  # no bytes, or a database without tables
    OURS = "ours"
    OPTUNA = "optuna"  # Optuna's tables alone
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class StoreFile:
    """The file as it is.

    Attributes:
        kind: whose it is.
        revision: of our tables, 0 where it does not say.
        optuna_revision: of Optuna's.
        complete: it has the tables too that an older version did not make.
        missing: a table or a column that every version made and that is not there, None if all are.
    """

    kind: FileKind
    revision: int = 0
    optuna_revision: str | None = None
    complete: bool = True
    missing: str | None = None


def inspect_file(path: Path) -> StoreFile:
    """StoreFile at a file without changing it.

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
            f"store {path} cannot be read: {error.strerror}", hint="use a --home that you may read and write"
        ) from error
    if not header:
        return StoreFile(FileKind.EMPTY)
    if not header.startswith(_MAGIC) or len(header) < 100:
        raise StoreError(f"{path} is not a SQLite database", hint=ANOTHER)
    expected = _size_by_header(header)
    if size < expected and not _has_journal(path):
        raise StoreError(
            f"store {path} is truncated: {size} bytes of {expected}",
            hint="bring back a copy of the file, or begin a new one",
        )
    with translated(path), _reading(path) as connection:
        return _inspect_tables(connection)


def _inspect_absent(path: Path) -> StoreFile:
    for parent in path.parents:
        if parent.exists() and not parent.is_dir():
            raise StoreError(f"store {path}: {parent} is not a folder", hint=ANOTHER)
    if path.is_dir():
        raise StoreError(f"store {path} is a folder, not a file", hint="write sqlite:///PATH/gridsearch.db")
    if os.path.lexists(path):
        raise StoreError(f"store {path} is not a regular file", hint=ANOTHER)
    return StoreFile(FileKind.NOTHING)


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
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a file for reading; if its writer was killed it must be rolled back, which needs to write."""
    connection = connect(path, mode="ro")
    try:
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            if not (error.sqlite_errorname or "").startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
                raise
            connection.close()
            connection = connect(path, mode="rw")
            connection.execute("PRAGMA query_only = ON")
        yield connection
    finally:
        connection.close()


def _inspect_tables(connection: sqlite3.Connection) -> StoreFile:
    connection.execute("BEGIN")
    names = {
        row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
    }
    names = {name for name in names if not name.startswith("sqlite_")}
    if not names:
        return StoreFile(FileKind.EMPTY)
    if ledger_tables.schema.name not in names:
        return StoreFile(
            FileKind.OPTUNA if {"studies", "trials", "version_info"} <= names else FileKind.FOREIGN
        )
    # Also the tables of a damaged or unknown schema are ours: their revision says so, or is missing.
    revision = connection.execute("SELECT max(revision) FROM gridsearch_schema").fetchone()[0]
    optuna_revision = connection.execute("SELECT max(version_num) FROM alembic_version").fetchone()[0]
    return StoreFile(
        FileKind.OURS,
        revision or 0,
        optuna_revision,
        complete=names >= set(ledger_tables.metadata.tables),
        missing=_missing(connection, names),
    )


def _missing(connection: sqlite3.Connection, names: Collection[str]) -> str | None:
    for table in (*ledger_tables.metadata.tables.values(), *optuna_tables.MODELS):
        if table.name not in names:
            if table not in ledger_tables.LATER:
                return f"table {table.name}"
            continue
        there = {row[1] for row in connection.execute(f"PRAGMA table_info({table.name})")}
        for column in table.columns:
            if column.name not in there:
                return f"column {table.name}.{column.name}"
    return None
