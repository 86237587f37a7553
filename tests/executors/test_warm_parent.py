"""Workers that are forked from a process which has imported torch already."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gridsearch.cli import main, parser
from gridsearch.cli.commands import early_start
from gridsearch.executors.local import LocalExecutor, worker_environment
from gridsearch.executors.warm_parent import WarmParent
from gridsearch.records import WorkerSetup
from gridsearch.records.study_kinds import FUNCTION
from gridsearch.training import devices

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="forks workers on Linux alone")


@pytest.fixture(autouse=True)
def _ends():
    WarmParent.end()
    yield
    WarmParent.end()


def executor(count=1, kind=FUNCTION):
    return LocalExecutor(
        [WorkerSetup(name=f"w{i}", device="cpu", threads=1, kind=kind.name) for i in range(count)], print
    )


def started(pool):
    """Have the pool start a worker of each setup; return their process ids."""
    for setup in list(pool._pipes.startable):
        pool._start(setup)
    return list(pool.pids().values())


def alive(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def open_descriptors():
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def parent(kind=FUNCTION):
    return WarmParent._kept.by_kind[kind.name]


def kept():
    return parent().pid


def test_workers_are_children_of_the_runner_and_outlive_the_process_that_forked_them():
    pool = executor(2)
    pids = started(pool)
    try:
        assert kept() not in pids
        assert [parent_of(pid) for pid in pids] == [os.getpid()] * 2
        os.kill(kept(), signal.SIGKILL)
        time.sleep(0.1)
        assert [parent_of(pid) for pid in pids] == [os.getpid()] * 2
    finally:
        pool.stop()
    for pid in pids:
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, 0)


def test_one_process_serves_runs_one_after_another_and_is_replaced_once_it_has_gone():
    found = []
    for _ in range(2):
        pool = executor()
        started(pool)
        pool.stop()
        found.append(kept())
    assert found[0] == found[1]
    os.kill(kept(), signal.SIGKILL)
    parent()._process.wait()
    pool = executor()
    assert started(pool)
    pool.stop()
    assert kept() != found[0]


def test_workers_of_one_thread_do_not_end_with_another_thread():
    def start_and_stop():
        started(pool := executor())
        pool.stop()

    thread = threading.Thread(target=start_and_stop)
    thread.start()
    thread.join()
    pool = executor()
    (pid,) = started(pool)
    assert alive(pid)
    thread = threading.Thread(target=start_and_stop)
    thread.start()
    thread.join()
    time.sleep(0.1)
    assert alive(pid)
    pool.stop()


@pytest.mark.parametrize("change", ["variable", "limit", "umask"])
def test_a_worker_has_what_the_runner_has_now(change, monkeypatch):
    started(pool := executor())
    pool.stop()
    before = kept()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    mask = os.umask(0o077)
    os.umask(mask)
    try:
        if change == "variable":
            monkeypatch.setenv("GRIDSEARCH_TEST_VARIABLE", "1")
        elif change == "limit":
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
        elif change == "umask":
            os.umask(0o027)
        WarmParent.start(FUNCTION.name, worker_environment(threads=1))
        assert kept() != before
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.umask(mask)


def test_a_worker_is_in_the_folder_that_the_runner_is_in_now(tmp_path, monkeypatch):
    started(pool := executor())
    pool.stop()
    before = kept()
    gone = tmp_path / "gone"
    gone.mkdir()
    for folder, name in ((tmp_path, str(tmp_path)), (gone, f"{gone} (deleted)")):
        environment = worker_environment(threads=1)
        monkeypatch.chdir(folder)
        if folder is gone:
            gone.rmdir()
        read, write = os.pipe()
        output = os.open(os.devnull, os.O_WRONLY)
        ends = (os.dup(read), os.dup(read), output)
        pid = WarmParent.fork(FUNCTION.name, environment, signal.SIGTERM, ends)
        assert pid
        deadline = time.monotonic() + 60
        while (place := str(Path(f"/proc/{pid}/cwd").readlink())) != name and time.monotonic() < deadline:
            time.sleep(0.01)
        assert place == name
        for descriptor in (*ends, read, write):
            os.close(descriptor)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert kept() == before


def test_variables_of_ours_are_those_that_the_runner_has_now(tmp_path, monkeypatch):
    started(pool := executor())
    pool.stop()
    before = kept()
    monkeypatch.setenv("GRIDSEARCH_CACHE", str(tmp_path / "elsewhere"))
    monkeypatch.delenv("GRIDSEARCH_HOME")
    module = tmp_path / "shows.py"
    module.write_text(
        "import os\n"
        "def names(params, seed):\n"
        "    print(os.environ.get('GRIDSEARCH_CACHE'), os.environ.get('GRIDSEARCH_HOME'))\n"
        "    return {'x': 1}\n"
    )
    words = (
        f"run --objective {module}:names --metric x --grid a=1 --workers 1 --home {tmp_path} -q --no-report"
    )
    assert main(words.split()) == 0
    assert kept() == before
    (log,) = tmp_path.glob("*/trials/0/log*")
    assert log.read_text().split() == [str(tmp_path / "elsewhere"), "None"]


def test_a_worker_that_cannot_be_started_leaves_no_pipe_open(monkeypatch):
    def fork(*_):
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(WarmParent, "fork", fork)
    pool = executor()
    before = open_descriptors()
    with pytest.raises(BlockingIOError):
        started(pool)
    assert open_descriptors() == before
    pool.stop()


def test_where_something_that_was_imported_has_a_thread_the_runner_starts_workers_itself(
    tmp_path, monkeypatch
):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, threading\n"
        "if 'gridsearch.executors.warm_parent' in sys.orig_argv:\n"
        "    threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    pool = executor()
    (pid,) = started(pool)
    try:
        assert not WarmParent._kept.by_kind
        deadline = time.monotonic() + 60
        while not (words := Path(f"/proc/{pid}/cmdline").read_text()) and time.monotonic() < deadline:
            time.sleep(0.01)  # a program that is being loaded has none yet
        assert "gridsearch.executors.worker_process" in words
    finally:
        pool.stop()


def test_a_run_needs_no_torch_in_its_own_process(tmp_path):
    program = (
        "import sys; from gridsearch.cli import main\n"
        "code = main('run --dataset digits --model mlp --grid lr=.1 --epochs 1 --workers 1 --no-report -q'.split())\n"
        "from gridsearch.executors.warm_parent import WarmParent\n"
        "import json; print(code, 'torch' in sys.modules, json.dumps(dict(WarmParent._kept.by_kind['images']._facts[1].described)))"
    )
    environment = {**os.environ, "GRIDSEARCH_HOME": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    code, torch, facts = ran.stdout.splitlines()[-1].split(maxsplit=2)
    assert (code, torch) == ("0", "False")
    theirs, ours = json.loads(facts), devices.device_facts().described
    assert {name: text for name, text in theirs.items() if name != "threads"} == {
        name: text for name, text in ours.items() if name != "threads"
    }


@pytest.mark.parametrize(
    ("words", "early"),
    [
        (["run", "--grid", "lr=.1,.2"], ["images"]),
        (["run", "networks.toml"], ["images"]),
        (["run", "function.toml"], ["function"]),
        (["run", "missing.toml"], []),
        (["run", "--study", "stored"], []),
        (["run", "--grid", "x=1,2", "--objective", "f.py:f"], ["function"]),
        (["run", "--grid", "lr=.1,.2", "--executor", "inline"], []),
    ],
)
def test_only_a_run_that_trains_here_loads_early_what_its_workers_need(words, early, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "networks.toml").write_text("[grid]\nlr = [0.1]\n")
    (tmp_path / "function.toml").write_text('objective = "f.py:f"\n[grid]\nx = [1]\n')
    began = []
    monkeypatch.setattr(WarmParent, "start", lambda kind, _environment: began.append(kind))
    early_start.load_early(parser.build_parser().parse_args(words))
    assert began == early
