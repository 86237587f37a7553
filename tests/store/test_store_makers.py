"""A store that is made where makers that were killed have left drafts, or where others make it too."""

from __future__ import annotations

import fcntl
import os

from gridsearch import files
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
