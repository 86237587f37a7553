"""Workers that were started before the run knew what for."""

from __future__ import annotations

import os
import signal

import pytest

from gridsearch.cli import parser
from gridsearch.cli.commands import early_start
from gridsearch.executors.early import early_workers
from gridsearch.executors.local import LocalExecutor, WorkerProcess, worker_environment
from gridsearch.records import WorkerSetup


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_run_takes_the_workers_that_wait_and_the_others_end():
    with early_workers(3):
        pids = [process.pid for process in WorkerProcess.waiting]
        assert len(set(pids)) == 3
        executor = LocalExecutor(
            [WorkerSetup(name=f"w{i}", device="cpu", threads=1) for i in range(2)], print
        )
        assert [alive(pid) for pid in pids] == [True, True, False], "two are enough for two"
        environment = worker_environment(threads=1)
        taken = WorkerProcess.take(None, environment, end=signal.SIGTERM)
        assert taken.pid == pids[0]
        taken.discard()
        other = WorkerProcess.take(None, {**environment, "OMP_NUM_THREADS": "2"}, end=signal.SIGTERM)
        assert other.pid not in pids, "one that was started otherwise will not do"
        other.discard()
        executor.stop()
    assert not alive(pids[1])
    assert WorkerProcess.waiting == []


@pytest.mark.parametrize(
    ("words", "early"),
    [
        (["run", "--grid", "lr=.1,.2"], True),
        (["run", "networks.toml"], True),
        (["run", "function.toml"], False),
        (["run", "missing.toml"], False),
        (["run", "--study", "stored"], False),
        (["run", "--grid", "x=1,2", "--objective", "f.py:f"], False),
        (["run", "--grid", "lr=.1,.2", "--executor", "inline"], False),
    ],
)
def test_only_a_run_that_trains_networks_here_starts_any(words, early, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "networks.toml").write_text("[grid]\nlr = [0.1]\n")
    (tmp_path / "function.toml").write_text('objective = "f.py:f"\n[grid]\nx = [1]\n')
    began = []
    monkeypatch.setattr("gridsearch.executors.early.early_workers", began.append)
    early_start.workers_early(parser.build_parser().parse_args(words))
    assert bool(began) is early
