"""Surroundings that people report: few open files, a strict Python, odd variables, a clock that steps."""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.end_to_end

WORDS = (
    *("run", "--dataset", "digits", "--model", "mlp", "--grid", "lr=.1,.01", "--epochs", "2"),
    *("--study", "s", "--no-report"),
)


def test_a_run_needs_few_open_files(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "gridsearch", *WORDS],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
    )
    assert done.returncode == 0, done.stderr


ODD = {
    "PYTHONWARNINGS": "error",
    "PYTHONOPTIMIZE": "2",
    "PYTHONSAFEPATH": "1",
    "PYTHONHASHSEED": "7",
    "PYTHONPYCACHEPREFIX": "compiled",
    "OMP_NUM_THREADS": "many",
    "CUDA_VISIBLE_DEVICES": "",
    "LC_ALL": "tr_TR.UTF-8",
    "TZ": "Nowhere/Land",
    "TERM": "unheard-of",
    "MPLBACKEND": "module://no_such_backend",
}


def test_no_variable_of_python_or_the_system_breaks_a_run(program):
    done = program(*WORDS[:-1], "--workers", "1", env=ODD)
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    assert "is best" in done.out


@pytest.mark.parametrize("step", [7200.0, -7200.0])
def test_a_clock_that_steps_by_hours_changes_no_result_and_no_duration_is_negative(cli, monkeypatch, step):
    real, calls = time.time, []

    def stepping() -> float:
        calls.append(None)
        return real() + (step if len(calls) % 2 else 0.0)

    unbroken = cli(*WORDS, "--executor", "inline", "--json", "--home", "steady").json
    monkeypatch.setattr(time, "time", stepping)
    done = cli(*WORDS, "--executor", "inline", "--json", "--home", "stepping")
    monkeypatch.setattr(time, "time", real)
    assert done.code == 0, done.err
    assert [t["value"] for t in done.json["trials"]] == [t["value"] for t in unbroken["trials"]]
    assert all(t["seconds"] >= 0 for t in done.json["trials"])
    assert done.json["seconds"] >= 0
