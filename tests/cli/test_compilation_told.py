"""The first run on a machine waits some seconds for its C compiler, and says so: once, and never again."""

from __future__ import annotations

import pytest

from gridsearch.training.kernels import find_compiler

RUN = (
    "run",
    "--dataset",
    "digits",
    "--model",
    "mlp",
    "--epochs",
    "1",
    "--workers",
    "2",
    "--no-report",
    "--subset",
    "200",
)
LINE = "compiling operations for this processor"


@pytest.mark.skipif(find_compiler() is None, reason="no C compiler here")
def test_a_run_that_waits_for_the_compiler_says_so_once(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDSEARCH_KERNELS", str(tmp_path / "kernels"))
    first = cli(*RUN, "--grid", "lr=.1,.2")
    assert first.code == 0
    assert first.err.count(LINE) == 1
    assert LINE not in cli(*RUN, "--grid", "lr=.3,.4").err
    monkeypatch.setenv("GRIDSEARCH_KERNELS", str(tmp_path / "others"))
    assert LINE not in cli(*RUN, "--grid", "lr=.5,.6", "-q").err
