"""A deletion that is cut off at any moment is ended by the same command, and leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from gridsearch import faults, files
from gridsearch.store.database import StoreFull

DELETE = ("study", "delete", "fit", "--yes")


@pytest.fixture
def made(cli, home, tmp_path):
    """A study of a function, with its report, and what a user keeps beside it."""
    (tmp_path / "fit.py").write_text("def fit(params, seed):\n    return {'loss': params['x']}\n")
    words = ("--metric", "loss", "--direction", "minimize", "--executor", "inline")
    assert cli("run", "--objective", "fit.py:fit", "--grid", "x=1,2", *words).code == 0
    (home / "own").mkdir()
    return home


def names(home):
    return sorted(path.name for path in home.iterdir())


@pytest.mark.parametrize("point", ["rename", "renamed", "commit", "committed"])
def test_the_same_command_ends_a_deletion_that_was_killed(cli, made, point):
    words = [sys.executable, "-m", "gridsearch", *DELETE]
    killed = subprocess.run(
        words, env={**os.environ, "GRIDSEARCH_FAULT": f"{point}:die:1"}, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    again = cli(*DELETE)
    assert again.code == 0, again.err
    assert "study 'fit' is deleted" in again.out
    assert names(made) == [
        *([files.DASHBOARD_COPIES] if (made / ".artifacts").exists() else []),
        "gridsearch.db",
        "own",
    ]
    assert not list(made.glob(".artifacts/*"))
    assert cli(*DELETE).code == 4
    assert "of a study 'fit'" not in cli("doctor", "--json").out


def test_what_a_deletion_has_left_is_named_by_the_doctor_and_removed_by_clean(cli, made, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        assert cli(*DELETE).code == 130
    assert len([name for name in names(made) if name.startswith(files.DELETED)]) == 1
    assert "files of trials of a study 'fit'" in cli("doctor").out
    assert cli("study", "clean", "fit").code == 0
    assert not [name for name in names(made) if name.startswith(files.DELETED)]


def test_a_deletion_that_the_store_refuses_leaves_the_files(cli, made, monkeypatch):
    before = sorted(path.relative_to(made) for path in (made / "fit").rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr("gridsearch.store.deletion.remove", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert cli(*DELETE).code == 130
    assert sorted(path.relative_to(made) for path in (made / "fit").rglob("*")) == before


def test_on_a_full_disk_the_files_of_a_study_make_room_for_its_deletion(cli, made):
    faults.plan("commit:ENOSPC:1")
    try:
        done = cli(*DELETE)
    finally:
        faults.plan("")
    assert done.code == 0, done.err
    assert cli("study", "list", "--json").json["studies"] == []
    assert not (made / "fit").exists()


def test_a_deletion_for_which_no_room_is_found_is_ended_by_the_same_command(cli, made, monkeypatch):
    def refuse(*_):
        raise StoreFull("store is full")

    with monkeypatch.context() as patch:
        patch.setattr("gridsearch.store.deletion.remove", refuse)
        assert cli(*DELETE).code == 4
    assert [study["study"] for study in cli("study", "list", "--json").json["studies"]] == ["fit"]
    assert cli(*DELETE).code == 0
    assert cli("study", "list", "--json").json["studies"] == []
