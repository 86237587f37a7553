"""A run that was killed and begun again gives the bytes of one that was not, lanes and workers being fixed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time

import psutil
import pytest

from tests.end_to_end.held_workers import held, workers_of

pytestmark = pytest.mark.end_to_end

FIXED = ("--lanes", "3", "--workers", "2", "--no-report")
WORDS = (
    *("run", "--dataset", "digits", "--model", "lenet", "--set", "optimizer=sgd", "--seeds", "2"),
    *("--grid", "lr=.05,.01,.002,1e12", "epochs=3,9", "batch=40", "--subset", "700"),
    *FIXED,
)
"""Lanes of one pack that end at different epochs, that diverge, and that see other images than their neighbours."""

SAVED = ("--checkpoint", "every-epoch")

TRIALS = 16


def start(home, *words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "gridsearch", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "GRIDSEARCH_HOME": str(home)},
    )


def rows(home, query: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(f"file:{home}/gridsearch.db?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def count(home, what: str) -> int:
    """Rows that meet a condition; 0 before there is a store."""
    with contextlib.suppress(sqlite3.OperationalError):
        return rows(home, f"select count(*) from {what}")[0][0]
    return 0


def results(home) -> dict[str, object]:
    """All that a run has found, clocks aside: metrics to the last bit, every epoch, the hash of each file."""
    trials = rows(
        home, "select key, state, epochs, value, metrics, error from gridsearch_trials order by key"
    )
    epochs = rows(
        home,
        "select t.key, e.epoch, e.train_loss, e.train_accuracy, e.val_loss, e.val_accuracy, e.lr "
        "from gridsearch_epochs e join gridsearch_trials t on t.id = e.trial_id order by 1, 2",
    )
    files = rows(
        home,
        "select t.key, a.name, a.sha256 from gridsearch_artifacts a "
        "join gridsearch_trials t on t.number = a.number where a.name like '%.safetensors' order by 1, 2",
    )
    return {"trials": trials, "epochs": epochs, "files": files}


def packs(home) -> set[frozenset[str]]:
    found: dict[str, set[str]] = {}
    for key, pack in rows(home, "select key, pack from gridsearch_trials"):
        found.setdefault(pack, set()).add(key)
    return {frozenset(keys) for keys in found.values()}


def halves(home) -> set[str]:
    """Packs of which some lanes have their results and others do not."""
    found = set()
    with contextlib.suppress(sqlite3.OperationalError):
        for pack, ended, all_of_them in rows(
            home,
            "select pack, sum(state in ('complete', 'diverged')), count(*) from gridsearch_trials "
            "where pack is not null group by pack",
        ):
            if 0 < ended < all_of_them:
                found.add(pack)
    return found


@pytest.fixture(scope="module")
def watched(tmp_path_factory, kernels):
    """The home of a run that nothing disturbs, and the packs that were seen with some of their results."""
    folder, seen = tmp_path_factory.mktemp("unbroken"), set()
    home = folder / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRIDSEARCH_CACHE", str(folder / "cache"))
        patch.setenv("GRIDSEARCH_KERNELS", str(kernels))  # with the choices that were measured once
        process = start(home, *WORDS)
    while process.poll() is None:
        seen |= halves(home)
        time.sleep(0.02)
    assert process.returncode == 0, process.stderr.read()
    process.stderr.close()
    return home, seen


@pytest.fixture(scope="module")
def unbroken(watched):
    return watched[0]


def supervisors(process) -> list[psutil.Process]:
    """The processes that stand before the workers of a run."""
    return [each for each in psutil.Process(process.pid).children() if each.children()]


def saved(home) -> bool:
    """Whether there is a checkpoint in the middle of a trial of nine epochs.

    The store hears of epochs a second later, when such a pack may have ended.
    """
    return any((home / "digits" / "trials").glob("*/.attempt-1/checkpoint-*-[45]-*"))


def kill(process) -> None:
    """The runner and, since the kernel may take a moment for them, its workers."""
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    psutil.wait_procs(workers, timeout=60)


HALF, RUNNING = (
    "(select 1 from gridsearch_trials where state in ('complete', 'diverged') limit -1 offset 6)",
    "gridsearch_trials where state = 'running'",
)
"""When half of the results are there, while some are not."""


def test_a_run_killed_and_interrupted_and_finished_by_its_name_gives_the_bytes_of_an_unbroken_one(
    unbroken, home, cli
):
    expected = results(unbroken)
    assert {state for _, state, *_ in expected["trials"]} == {"complete", "diverged"}
    assert {number for _, _, number, *_ in expected["trials"]} == {0, 3, 9}
    assert len(expected["trials"]) == TRIALS

    process = start(home, *WORDS, *SAVED)
    with held(lambda: workers_of(process), lambda: saved(home)):
        kill(process)
    process = start(home, *WORDS, *SAVED)
    with held(lambda: workers_of(process), lambda: count(home, HALF) and count(home, RUNNING)):
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.search(r"trials? .*: continues? from epoch [1-9] of 9", err)
    done = cli("run", "--study", "digits", *FIXED)
    assert done.code == 0, done.err
    assert results(home) == expected
    assert packs(home) == packs(unbroken)
    assert list(home.rglob(".attempt*")) == []


def test_workers_killed_in_the_middle_of_their_packs_change_no_byte(unbroken, home):
    process = start(home, *WORDS, *SAVED)
    with held(lambda: workers_of(process), lambda: saved(home)):
        for victim in supervisors(process):
            victim.kill()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "killed by SIGKILL" in err
    assert re.search(r"trials? .*: continues? from epoch \d of 9 \(attempt 2 of 3\)", err)
    assert results(home) == results(unbroken)


def test_results_of_a_pack_are_written_together(watched):
    """Whenever one looks, a pack has all of its results or none, though its lanes end at different epochs."""
    assert watched[1] == set()


def test_the_plan_shows_the_packs_that_the_run_makes(unbroken, home, cli):
    words = ("plan", *WORDS[1:-1], "--json", "--home", str(home))
    planned = cli(*words).json
    sizes = sorted(map(len, packs(unbroken)))
    (group,) = planned["groups"]
    assert (group["trials"], group["lanes"], group["method"]) == (TRIALS, max(sizes), "stacked")
    assert sum(sizes) == TRIALS
    done = json.loads(cli("plan", *WORDS[1:-1], "--json", "--home", str(unbroken)).out)
    assert (done["new"], done["done"]) == (0, TRIALS)
