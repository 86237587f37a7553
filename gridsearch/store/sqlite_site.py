"""A SQLite file as the place of a store: inspected without a change, and made whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gridsearch import files
from gridsearch.errors import StoreError
from gridsearch.store.database import Database, short_lived, translated
from gridsearch.store.file_inspection import inspect_file
from gridsearch.store.site import Found, Kind, Site, fill
from gridsearch.store.sqlite_dialect import SqliteDialect, connect, journal_mode, settle_journal
from gridsearch.store.url import sqlite_path, sqlite_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gridsearch.store.site import Filler

_LONGEST_PATH = 512


class SqliteSite(Site):
    """A file that is a store, or may become one.

    Args:
        url: `sqlite:///PATH`.

    Raises:
        UsageError: the URL is wrong.
    """

    another = "name another file with --store, or another folder with --home"
    copy = "restore a copy of the file, or start a new store with --store"

    def __init__(self, url: str) -> None:
        self.path = sqlite_path(url)
        self.place = str(self.path)
        self.dialect = SqliteDialect(self.path)
        self.url = self.optuna_url = sqlite_url(self.path)

    def exists(self) -> bool:
        """Return whether there is anything at the path, or something that keeps this user from looking."""
        try:
            self.path.lstat()
        except OSError as error:
            return error.errno not in (errno.ENOENT, errno.ENOTDIR)
        return True

    def inspect(self) -> Found:
        """Return what lies at the path, which is not changed."""
        return inspect_file(self.path)

    def create(self, found: Found, *, then: Filler | None = None) -> bool:
        """Make a new store; several processes may do so at once, and a failure leaves nothing behind."""
        return _create(self.path, there=found.kind is Kind.EMPTY, then=then)

    def database(self) -> Database:
        """Return the database on the file."""
        _require_short(self.path)
        return Database(self.dialect)

    def server(self, database: Database) -> str:  # noqa: ARG002 - the library says it
        """Return the version of the library."""
        return f"SQLite {sqlite3.sqlite_version}"

    def settle(self, database: Database) -> bool:
        """Choose the journal that is safe with this library; return whether the file can be written."""
        settle_journal(database.engine)
        return os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK)


def _create(path: Path, *, there: bool, then: Filler | None) -> bool:
    """Make a new store; several processes may do so at once, and a failure leaves nothing behind.

    The database is made under another name and linked to its place when it is complete: whoever comes second
    finds a whole one.
    """
    if there:
        _require_short(path)
        return _fill(path, then)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    _require_short(path, longest=draft)
    with _folders(path.parent), _among_makers(path):
        try:
            draft.touch()  # for whom the umask says: SQLite would let nobody else write
            _fill(draft, then, shown=path)
            return _publish(draft, path, then)
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


def _publish(draft: Path, path: Path, then: Filler | None) -> bool:
    made = True
    try:
        os.link(draft, path)
    except FileExistsError:
        return False  # another process was first; its store is as good
    except OSError:  # a file system without links: the first to lock the file fills it
        path.touch()
        made = _fill(path, then)
    files.sync(path.parent)
    return made


def _fill(path: Path, then: Filler | None, *, shown: Path | None = None) -> bool:
    """Create all tables in one transaction, unless another process did so while we waited for the lock."""
    dialect = SqliteDialect(path, shown=shown)
    with translated(dialect):
        connection = connect(path)
        try:
            connection.execute(f"PRAGMA journal_mode = {journal_mode()}")
        finally:
            connection.close()
        return fill(short_lived(dialect), then)


@contextmanager
def _among_makers(path: Path) -> Iterator[None]:
    """Remove the drafts of killed processes that were to make this file, unless another process is making it now.

    Those who make one share a lock of the folder, which leaves no file behind; without such locks nothing is removed.
    """
    descriptor = None
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        descriptor = os.open(path.parent, os.O_RDONLY)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp*"):
                left.unlink(missing_ok=True)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


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
                hint="use a --home that you can write to",
            ) from error
        raise
