"""The ways in which a store, or a home, is not there for a while."""

from __future__ import annotations

import contextlib
import sqlite3
from contextlib import closing


@contextlib.contextmanager
def locked(path):
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@contextlib.contextmanager
def moved(path):
    elsewhere = path.with_name(path.name + "-elsewhere")
    path.rename(elsewhere)
    yield
    elsewhere.rename(path)


@contextlib.contextmanager
def unreadable(path):
    """The bytes of the file give I/O errors: SQLite finds a folder where its journal should be."""
    journal = path.with_name(path.name + "-journal")
    journal.mkdir()
    yield
    journal.rmdir()


AWAY = {"locked": locked, "not at its place": moved, "an input/output error": unreadable}
