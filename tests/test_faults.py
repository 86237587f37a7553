"""Fault points strike where they are told to, once, and are nothing where no fault is planned."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys

import psutil
import pytest

from gridsearch import faults, files
from gridsearch.errors import StoreError
from gridsearch.store.database import Database
from gridsearch.store.sqlite_dialect import SqliteDialect

LOOP = """
import sys
from pathlib import Path
from gridsearch import files
for i in range(5):
    files.write_whole(Path(sys.argv[1]) / str(i), b"x")
    print(i, flush=True)
"""


@pytest.fixture
def planned():
    yield faults.plan
    faults.plan("")


def written(folder, **environment):
    """Start a process that writes five files one after another."""
    return subprocess.Popen(
        [sys.executable, "-c", LOOP, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    ("fault", "left"),
    [("write:die:3", 2), ("rename:die:3", 2), ("renamed:die:3", 3)],
)
def test_a_process_dies_at_the_point_and_leaves_whole_files_alone(fault, left, tmp_path):
    process = written(tmp_path, GRIDSEARCH_FAULT=fault)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert out.split() == ["0", "1"]
    whole = [p for p in tmp_path.iterdir() if not p.name.startswith(files.PARTIAL)]
    assert len(whole) == left
    assert all(p.read_bytes() == b"x" for p in whole)


def test_of_several_processes_one_is_struck(tmp_path):
    how = {"GRIDSEARCH_FAULT": "rename:stop:2", "GRIDSEARCH_FAULT_MARK": str(tmp_path / "mark")}
    for name in "ab":
        (tmp_path / name).mkdir()
    first = written(tmp_path / "a", **how)
    while psutil.Process(first.pid).status() != psutil.STATUS_STOPPED:
        assert first.poll() is None
    second = written(tmp_path / "b", **how)
    assert second.communicate(timeout=60)[0].split() == list("01234")
    assert len(list((tmp_path / "a").glob("[0-9]"))) == 1
    first.send_signal(signal.SIGCONT)
    assert first.communicate(timeout=60)[0].split() == list("01234")


@pytest.mark.parametrize(("action", "number"), [("ENOSPC", 28), ("EIO", 5)])
def test_a_refused_step_is_an_error_once_and_leaves_what_was_there(action, number, tmp_path, planned):
    path = tmp_path / "x"
    files.write_whole(path, b"old")
    for point in ("write", "sync", "rename"):
        planned(f"{point}:{action}:1")
        with pytest.raises(OSError) as refused:
            files.write_whole(path, b"new")
        assert refused.value.errno == number
        assert [p.name for p in tmp_path.iterdir()] == ["x"]
        assert path.read_bytes() == b"old"
    files.write_whole(path, b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize(
    ("action", "words"), [("ENOSPC", "has no space left"), ("EIO", "cannot be read or written")]
)
def test_a_refused_commit_is_told_as_sqlite_tells_it_and_changes_nothing(action, words, tmp_path, planned):
    path = tmp_path / "x.db"
    path.touch()
    database = Database(SqliteDialect(path))

    def add():
        with database.write() as connection:
            connection.exec_driver_sql("create table if not exists t (x)")
            connection.exec_driver_sql("insert into t values (1)")

    add()
    planned(f"commit:{action}:1")
    with pytest.raises(StoreError, match=words):
        add()
    add()
    database.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("select count(*) from t").fetchone() == (2,)
    connection.close()


@pytest.mark.parametrize(
    "text",
    ["rename", "rename:die", "rename:die:x", "nowhere:die:1", "rename:explode:1", "renamed:EIO:1", "a:b:c:d"],
)
def test_what_names_no_fault_is_refused(text, planned):
    with pytest.raises(ValueError, match="must be POINT:ACTION:N"):
        planned(text)
