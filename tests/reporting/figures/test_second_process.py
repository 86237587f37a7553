"""Tasks that this process and a fork of it share: the same results, whoever does them and whatever is lost."""

import os
import select
import signal
import subprocess
import sys
from contextlib import closing

import pytest

from gridsearch.reporting.figures import second_process
from gridsearch.reporting.figures.gallery import pictures_of
from gridsearch.reporting.figures.second_process import SharedTasks
from gridsearch.reporting.ranking.ranking import rank


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    """Fork wherever the tests run; their other threads hold no lock that such tasks wait for."""
    monkeypatch.setattr(second_process, "_may_fork", lambda: True)


def wait_for_the_other(tasks):
    assert select.select([tasks._answer], [], [], 60)[0]


def test_a_second_process_begins_at_once_and_its_results_come_in_order():
    with closing(SharedTasks([lambda i=i: (i, os.getpid()) for i in range(5)])) as tasks:
        wait_for_the_other(tasks)
        results = tasks.results()
    assert [i for i, _ in results] == list(range(5))
    assert {pid for _, pid in results}.isdisjoint({os.getpid()})


def test_both_processes_do_tasks_and_each_is_done_once(tmp_path):
    def task(number):
        with (tmp_path / "done").open("a") as file:
            file.write(f"{number}\n")
        if number == 0:  # until the others are done: only another process can do them
            while len((tmp_path / "done").read_text().split()) < 4:
                pass
        return number

    with closing(SharedTasks([lambda i=i: task(i) for i in range(4)])) as tasks:
        assert tasks.results() == [0, 1, 2, 3]
    assert sorted((tmp_path / "done").read_text().split()) == ["0", "1", "2", "3"]


def test_what_a_killed_process_has_taken_is_done_here():
    here = os.getpid()

    def task():
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()

    with closing(SharedTasks([task] * 3)) as tasks:
        wait_for_the_other(tasks)
        assert tasks.results() == [here] * 3


def test_an_error_of_a_task_is_raised_here_whoever_did_it():
    def task():
        raise ValueError("no such colour")

    with closing(SharedTasks([task, task])) as tasks:
        wait_for_the_other(tasks)
        with pytest.raises(ValueError, match="no such colour"):
            tasks.results()


def test_closing_ends_a_process_that_still_works():
    here = os.getpid()
    with closing(SharedTasks([lambda: None if os.getpid() == here else signal.pause()] * 2)) as tasks:
        child = tasks._child
        assert child is not None
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_report_drawn_by_two_processes_has_the_same_files(study, monkeypatch):
    data = study({"lr": [0.1, 0.2]}).data()

    def drawn(*, alone):
        monkeypatch.setattr(second_process, "_may_fork", lambda: not alone)
        pictures = pictures_of(data, rank(data), predictions=lambda _: None)
        pictures.draw()
        return pictures.by_stem

    alone, together = drawn(alone=True), drawn(alone=False)
    assert list(together) == list(alone) != []
    assert together == alone


ORPHANS = {
    "shared tasks": (
        "from gridsearch.reporting.figures.second_process import SharedTasks\n"
        "shared = SharedTasks([lambda: print(os.getpid(), flush=True) or bytes(2**20)] * 2)\n"
    ),
    "a call": (
        "from gridsearch.executors.forked_call import called_in_fork\n"
        "threading.Timer(0.5, os.kill, (os.getpid(), 9)).start()\n"
        "called_in_fork(lambda: print(os.getpid(), flush=True) or time.sleep(1) or 'x' * 2**20, patience=60)\n"
    ),
}


@pytest.mark.parametrize("kind", ORPHANS)
def test_a_fork_ends_when_the_process_that_it_answers_was_killed(kind):
    """It would wait for its answer to be read, and hold the output of the process that is gone."""
    code = "import os, threading, time\n" + ORPHANS[kind] + "time.sleep(1)\nos.kill(os.getpid(), 9)\n"
    killed = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    out, _ = killed.communicate(timeout=60)  # which ends when nobody holds the output any more
    assert killed.returncode == -9
    assert out.split()
