"""A working directory that is gone is one line, whatever the command."""

from __future__ import annotations

import os

import pytest

import gridsearch as gs


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
