"""A store that is made where makers that were killed have left drafts, or where others make it too."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat

import pytest

from gridsearch import files
from gridsearch.errors import StoreError
from gridsearch.store import optuna_tables
from gridsearch.store.opening import open_store


def test_what_a_killed_maker_of_a_store_has_left_goes_when_it_is_made(tmp_path):
    left = [tmp_path / f".{files.DATABASE}.0a1b2c3d4e5f.tmp{end}" for end in ("", "-journal")]
    other = tmp_path / ".another.db.0a1b2c3d4e5f.tmp"
    for path in (*left, other):
        path.write_bytes(b"half")
    open_store(f"sqlite:///{tmp_path / files.DATABASE}", home=tmp_path, create=True).close()
    assert not any(path.exists() for path in left)
    assert other.exists()


def test_what_a_living_maker_of_a_store_works_on_stays(tmp_path):
    draft = tmp_path / f".{files.DATABASE}.0a1b2c3d4e5f.tmp"
    draft.write_bytes(b"half")
    maker = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(maker, fcntl.LOCK_SH)
    try:
        open_store(f"sqlite:///{tmp_path / files.DATABASE}", home=tmp_path, create=True).close()
    finally:
        os.close(maker)
    assert draft.exists()


@pytest.mark.parametrize(("mask", "mode"), [(0o002, 0o664), (0o077, 0o600)])
def test_a_store_can_be_written_by_whom_the_umask_lets(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        open_store(f"sqlite:///{tmp_path / files.DATABASE}", home=tmp_path, create=True).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / files.DATABASE).stat().st_mode) == mode


def test_a_store_that_cannot_be_made_is_told_by_its_own_name(tmp_path, monkeypatch):
    def fails(*_, **__):
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorname = "SQLITE_IOERR_WRITE"
        raise error

    monkeypatch.setattr(optuna_tables, "create", fails)
    with pytest.raises(StoreError) as refused:
        open_store(f"sqlite:///{tmp_path / files.DATABASE}", home=tmp_path, create=True)
    assert refused.value.message.startswith(f"store {tmp_path / files.DATABASE} cannot be read or written")
    assert not list(tmp_path.iterdir())
