"""A working directory that is gone is one line, whatever the command."""

from __future__ import annotations

import errno
import os
import tempfile

import pytest

import gridsearch as gs
from gridsearch.cli import commands
from gridsearch.store.runner_identity import RunnerIdentity
from gridsearch.store.spool import Spool, SpoolRecord


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--dataset", "digits", "--model", "mlp", "--grid", "lr=.1"),
        ("plan", "--grid", "lr=.1"),
        ("report", "--study", "x"),
        ("status",),
        ("best", "--study", "x"),
        ("predict", "model", "image.png"),
        ("data", "list"),
        ("doctor",),
    ],
)
def test_a_working_directory_that_is_gone_is_one_line(words, cli, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    result = cli(*words)
    assert result.code == 2
    assert result.error == "the working directory no longer exists"
    assert len(result.err.splitlines()) == 2


def test_python_refuses_a_working_directory_that_is_gone_with_an_error_of_its_own(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(gs.GridsearchError, match="the working directory no longer exists"):
        gs.run(grid={"a": [1]}, objective=lambda params, seed: {"value": 1}, home=tmp_path)
    with pytest.raises(gs.GridsearchError, match="the working directory no longer exists"):
        gs.load("s", home=tmp_path)


@pytest.fixture
def no_temporary_folder(monkeypatch):
    """As in a container whose file system is read-only: the library looks everywhere and finds nothing."""

    def refused() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", refused)


WORDS = ("run", "--metric", "value", "--grid", "a=1,2", "--study", "s", "--no-report", "--executor", "inline")


@pytest.mark.usefixtures("no_temporary_folder")
def test_a_run_and_what_cleans_after_it_need_no_folder_for_temporary_files(cli, tmp_path):
    (tmp_path / "f.py").write_text("def f(params, seed):\n    return {'value': params['a']}\n")
    done = cli(*WORDS, "--objective", f"{tmp_path}/f.py:f", "--json")
    assert done.code == 0, done.err
    assert done.json["counts"]["complete"] == 2
    assert cli("study", "clean", "s").code == 0


@pytest.mark.usefixtures("no_temporary_folder")
def test_what_needs_a_folder_for_temporary_files_says_so_in_one_line(cli, monkeypatch):
    monkeypatch.setattr(commands, "dispatch", lambda *_, **__: tempfile.mkdtemp())  # as torch's import does
    refused = cli("status")
    assert refused.code == 4
    assert refused.error == "no folder for temporary files can be written"
    assert "$TMPDIR" in refused.err


def test_a_run_whose_home_is_away_and_that_has_no_other_folder_loses_no_record_without_a_word(tmp_path):
    spool = Spool([tmp_path / "home" / ".spool"], RunnerIdentity.current(), away=lambda: True)
    with pytest.raises(OSError, match="No such file"):
        spool.append(SpoolRecord(call="release", study="uid", claims=[(0, 1)]))
