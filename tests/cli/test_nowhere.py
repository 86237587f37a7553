"""A working directory that is gone is one line, whatever the command."""

from __future__ import annotations

import os

import pytest


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
