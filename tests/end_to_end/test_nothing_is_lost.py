"""Kill it anywhere: the next run ends with every point complete exactly once, and no process is left."""

from __future__ import annotations

import fcntl
import os
import pty
import random
import signal
import sqlite3
import subprocess
import sys
import termios
import time
from contextlib import closing, suppress

import optuna
import psutil
import pytest

from gridsearch import files
from gridsearch.store import open_store
from tests.end_to_end.held_workers import held

pytestmark = pytest.mark.end_to_end

EPOCHS = 30  # long enough that a run does not end while a test looks for its worker
"""Enough that a kill mostly hits a trial in the middle."""

WORDS = (
    *("run", "--dataset", "digits", "--model", "mlp", "--grid", "lr=.1,.03,.01,.003", "batch=16,32,64"),
    *("--epochs", str(EPOCHS), "--no-report"),
)
POINTS = 12


def start(*words: str, **streams) -> subprocess.Popen:
    streams = streams or {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-m", "gridsearch", *words], text=True, **streams)


def start_in_a_terminal(*words: str) -> tuple[subprocess.Popen, int]:
    """Start the program in a terminal of its own; return what closes it, too."""
    ours, theirs = pty.openpty()
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    take_it = {"start_new_session": True, "preexec_fn": lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)}
    runner = start(*words, **streams, **take_it)
    os.close(theirs)
    return runner, ours


def our_workers(home) -> list[psutil.Process]:
    """Workers of this test alone, and what forks them: they carry its home in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if "gridsearch.executors.w" in " ".join(process.cmdline()) and process.environ().get(
                "GRIDSEARCH_HOME"
            ) == str(home):
                found.append(process)
        except psutil.Error:
            continue
    return [p for p in found if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def parents_of_workers(home) -> list[psutil.Process]:
    """The process that stands before each worker, and ends with it."""
    return [each for each in our_workers(home) if each.is_running() and each.children()]


def stopped_with_a_trial(home):
    """Wait until a worker has a trial, and keep it stopped meanwhile."""
    return held(lambda: our_workers(home), lambda: runs_a_trial(home) and parents_of_workers(home))


def runs_a_trial(home) -> bool:
    with (
        suppress(sqlite3.OperationalError),
        closing(sqlite3.connect(f"file:{home}/gridsearch.db?mode=ro", uri=True)) as connection,
    ):
        return bool(
            connection.execute("select 1 from gridsearch_trials where state = 'running' limit 1").fetchone()
        )
    return False


def gone(home, seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while our_workers(home):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def states(home) -> dict[str, int]:
    if not (home / "gridsearch.db").exists():
        return {}
    with open_store(f"sqlite:///{home / 'gridsearch.db'}", home=home, create=False) as store:
        return store.study_data("digits").counts() if store.studies() else {}


def check_all_complete_once(home) -> None:
    study = optuna.load_study(study_name="digits", storage=f"sqlite:///{home / 'gridsearch.db'}")
    assert len(study.trials) == POINTS
    assert {t.state for t in study.trials} == {optuna.trial.TrialState.COMPLETE}
    assert len({(t.params["lr"], t.params["batch"]) for t in study.trials}) == POINTS
    assert all(sorted(t.intermediate_values) == list(range(1, EPOCHS + 1)) for t in study.trials)
    with sqlite3.connect(home / "gridsearch.db") as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        assert connection.execute("pragma foreign_key_check").fetchall() == []
    connection.close()
    leftovers = [p for p in (home / "digits").rglob("*") if p.name.startswith(".")]
    assert leftovers == [home / "digits" / files.MARK]


def test_kills_of_the_runner_at_random_moments_lose_nothing(home):
    rng = random.Random(20)
    complete = 0
    for _ in range(3):  # settled packs and their bytes: test_chaos
        runner = start(*WORDS)
        time.sleep(rng.uniform(0.5, 6.0))
        runner.kill()
        runner.communicate()
        assert gone(home), "a worker outlived its runner"
        now = states(home).get("complete", 0)
        assert now >= complete, "a finished trial was lost"
        complete = now
    last = start(*WORDS)
    _, err = last.communicate(timeout=300)
    assert last.returncode == 0, err
    check_all_complete_once(home)


def test_interrupted_runs_and_one_whose_terminal_closes_release_their_trials_and_go_on(home, cli):
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        runner = start(*WORDS, "--workers", "1")
        with stopped_with_a_trial(home):
            runner.send_signal(number)
        _, err = runner.communicate(timeout=60)
        assert runner.returncode == code, err
        assert "gridsearch run --study digits" in err
        assert gone(home)
        assert states(home)["running"] == 0
    runner, terminal = start_in_a_terminal(*WORDS, "--workers", "1")
    with stopped_with_a_trial(home):
        os.close(terminal)
    assert runner.wait(timeout=60) == 128 + signal.SIGHUP
    assert gone(home)
    assert states(home)["running"] == 0
    done = cli("run", "--study", "digits", "--no-report", "--executor", "inline")
    assert done.code == 0, done.err
    check_all_complete_once(home)


def test_a_killed_worker_is_replaced_and_its_trial_starts_again(home):
    runner = start(*WORDS, "--workers", "1")
    with stopped_with_a_trial(home):
        parents_of_workers(home)[0].kill()
    _, err = runner.communicate(timeout=300)
    assert runner.returncode == 0, err
    assert "killed by SIGKILL" in err
    check_all_complete_once(home)


def test_a_trial_whose_worker_dies_every_time_fails_and_the_others_go_on(cli, tmp_path):
    (tmp_path / "net.py").write_text(
        "import os\n"
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, num_classes, deadly=False):\n"
        "        super().__init__()\n"
        "        self.deadly, self.net = deadly, nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))\n"
        "    def forward(self, x):\n"
        "        if self.deadly: os.kill(os.getpid(), 9)\n"
        "        return self.net(x)\n"
    )
    result = cli(
        "run",
        "--dataset",
        "digits",
        "--model",
        "net.py:Net",
        "--grid",
        "model.deadly=true,false",
        "--epochs",
        "1",
        "--retries",
        "1",
        "--workers",
        "1",
        "--no-report",
        "--json",
    )
    assert result.code == 3
    by_state = {t["state"]: t for t in result.json["trials"]}
    assert set(by_state) == {"complete", "failed"}
    assert by_state["failed"]["attempts"] == 2
    assert "SIGKILL" in by_state["failed"]["error"]


def test_several_runners_started_at_once_on_no_file_share_the_work(home):
    runners = [start(*WORDS, "--workers", "1") for _ in range(3)]
    new = []
    for runner in runners:
        _, err = runner.communicate(timeout=300)
        assert runner.returncode == 0, err
        new.append(err)
    check_all_complete_once(home)
    finished = [line for err in new for line in err.splitlines() if line.startswith("[")]
    numbers = [line.split("trial ")[1].split()[0] for line in finished]
    assert sorted(numbers, key=int) == [str(i) for i in range(POINTS)], (
        "each point trained by one runner alone"
    )


def test_a_study_deleted_while_it_runs_ends_the_run_cleanly(home):
    runner = start(*WORDS, "--workers", "1")
    with stopped_with_a_trial(home):
        optuna.delete_study(study_name="digits", storage=f"sqlite:///{home / 'gridsearch.db'}")
    _, err = runner.communicate(timeout=120)
    assert runner.returncode == 4, err
    assert "deleted" in err
    assert gone(home)
