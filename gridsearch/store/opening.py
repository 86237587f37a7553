"""Opens a store, after an inspection of the file that changes nothing; makes a new one whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import insert, inspect

from gridsearch import files
from gridsearch.advice import Advice, place
from gridsearch.errors import StoreError
from gridsearch.store import ledger_tables, optuna_tables, reconcile, upgrading
from gridsearch.store.database import Database, connect, journal_mode, short_lived, translated
from gridsearch.store.file_inspection import ANOTHER, FileKind, StoreFile, inspect_file
from gridsearch.store.store import Store
from gridsearch.store.url import sqlite_path, sqlite_url

if TYPE_CHECKING:
    from collections.abc import Iterator

_LONGEST_PATH = 512


def open_store(url: str, *, home: Path, create: bool) -> Store:
    """Open the store that a URL names; inspect first, write only to what is ours.

    Args:
        url: `sqlite:///PATH`.
        home: folder of the artifacts; made when the first file is written.
        create: make the file, and the folder it lies in, if they are not there.

    Raises:
        UsageError: the URL is wrong.
        StoreError: no store there, not a database, not ours, of another schema, damaged or not writable.
    """
    path = sqlite_path(url)
    file = inspect_file(path)
    if file.kind in (FileKind.NOTHING, FileKind.EMPTY):
        if not create:
            what = "no store at" if file.kind is FileKind.NOTHING else "nothing in the store"
            makes = Advice(where=place(home, url)).first_run()
            raise StoreError(
                f"{what} {path}", hint=f"`{makes}` makes one; --home or --store says where another is"
            )
        _create(path, there=file.kind is FileKind.EMPTY)
        file = inspect_file(path)
    _require_short(path)
    _require_usable(path, file)
    database = Database(path)
    with translated(path):
        database.settle_journal()
        if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
            _bring_up_to_date(database, file)
    return Store(database, url=sqlite_url(path), home=home)


def _bring_up_to_date(database: Database, file: StoreFile) -> None:
    """Add what an older version did not write, and follow studies that others copied under another name."""
    current = file.complete and file.revision == ledger_tables.REVISION
    if current:
        with database.read() as connection:
            if not reconcile.moved(connection):
                return
    with database.write() as connection:
        ledger_tables.metadata.create_all(connection)
        upgrading.upgrade(connection)
        reconcile.relink(connection)


def store_exists(url: str) -> bool:
    """Return whether there is anything at the place that a URL names.

    Raises:
        UsageError: the URL is wrong.
    """
    return os.path.lexists(sqlite_path(url))


def _require_usable(path: Path, file: StoreFile) -> None:
    """Refuse what is not ours, or not of the revisions that this version reads."""
    if file.kind is FileKind.OPTUNA:
        raise StoreError(f"{path} is an Optuna database that gridsearch did not make", hint=ANOTHER)
    if file.kind is not FileKind.OURS:
        raise StoreError(f"{path} is a database that belongs to another program", hint=ANOTHER)
    versions = f"(schema {file.revision}, this one reads {ledger_tables.REVISION})"
    if file.revision > ledger_tables.REVISION:
        raise StoreError(
            f"store {path} was made by a newer gridsearch {versions}",
            hint="pip install --upgrade gridsearch",
        )
    if file.revision < upgrading.OLDEST:
        raise StoreError(
            f"store {path} was made by an older gridsearch {versions}",
            hint="read it with the gridsearch that made it, and begin a new store with --store",
        )
    if file.optuna_revision != optuna_tables.REVISION:
        known = file.optuna_revision in optuna_tables.revisions()
        age, fix = (
            ("an older", f"optuna storage upgrade --storage {shlex.quote(sqlite_url(path))}")
            if known
            else ("a newer", "pip install --upgrade gridsearch")
        )
        raise StoreError(
            f"store {path} holds tables of {age} Optuna (revision {file.optuna_revision}, "
            f"this gridsearch writes {optuna_tables.REVISION}, of Optuna {optuna_tables.SUPPORTED})",
            hint=fix,
        )
    if file.missing is not None:
        raise StoreError(
            f"store {path} is damaged: it has no {file.missing}",
            hint="bring back a copy of the file, or begin a new store with --store",
        )


def _create(path: Path, *, there: bool) -> None:
    """Make a new store; several processes may do so at once, and a failure leaves nothing behind.

    The database is made under another name and linked to its place when it is complete: whoever comes second
    finds a whole one.
    """
    newest = optuna_tables.revisions()[0]
    if newest != optuna_tables.REVISION:
        raise StoreError(
            f"Optuna {optuna_tables.version()} has tables that this gridsearch does not know ({newest})",
            hint=f"pip install 'optuna{optuna_tables.SUPPORTED}', or a newer gridsearch",
        )
    if there:
        _require_short(path)
        _fill(path)
        return
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    _require_short(path, longest=draft)
    with _folders(path.parent):
        try:
            with translated(path):
                connect(draft, mode="rwc").close()
            _fill(draft, shown=path)
            _publish(draft, path)
        finally:
            for left in (draft, Path(f"{draft}-journal"), Path(f"{draft}-wal"), Path(f"{draft}-shm")):
                left.unlink(missing_ok=True)


def _require_short(path: Path, *, longest: Path | None = None) -> None:
    """Refuse a path that SQLite does not take, https://sqlite.org/c3ref/vfs.html: it has 512 bytes for the journal's.

    Args:
        path: the store's.
        longest: the one that is needed, where that is a longer one.
    """
    taken = len(os.fsencode(longest or path)) + len("-journal")
    if taken > _LONGEST_PATH:
        most = len(os.fsencode(path)) - (taken - _LONGEST_PATH)
        raise StoreError(
            f"store {path}: SQLite takes no path as long as this one; it may have {most} bytes",
            hint="name a place with a shorter path with --home or --store",
        )


def _publish(draft: Path, path: Path) -> None:
    try:
        os.link(draft, path)
    except FileExistsError:
        return  # another process was first; its store is as good
    except OSError:  # a file system without links: the first to lock the file fills it
        with translated(path):
            connect(path, mode="rwc").close()
        _fill(path)
    files.sync(path.parent)


def _fill(path: Path, *, shown: Path | None = None) -> None:
    """Create all tables in one transaction, unless another process did so while we waited for the lock."""
    with translated(shown or path):
        connection = connect(path)
        try:
            connection.execute(f"PRAGMA journal_mode = {journal_mode()}")
        finally:
            connection.close()
    database = short_lived(path)
    with translated(shown or path), database.write() as transaction:
        if inspect(transaction).get_table_names():
            return
        optuna_tables.create(transaction)
        ledger_tables.metadata.create_all(transaction)
        transaction.execute(insert(ledger_tables.schema), {"revision": ledger_tables.REVISION})


@contextmanager
def _folders(folder: Path) -> Iterator[None]:
    """Make a folder and its parents; take away again those that were made if what follows fails."""
    made = []
    try:
        for parent in (*reversed(folder.parents), folder):
            if not parent.exists():
                with contextlib.suppress(FileExistsError):
                    parent.mkdir()
                    made.append(parent)
        yield
    except BaseException as error:
        for parent in reversed(made):
            with contextlib.suppress(OSError):  # another process put something there
                parent.rmdir()
        if isinstance(error, OSError):
            raise StoreError(
                f"store folder {folder} cannot be made or written: {error.strerror}",
                hint="use a --home that you may write",
            ) from error
        raise
