"""Worker processes that die, are ended or lose their runner: that is told, and nothing of them stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from gridsearch.executors.worker_exit import MemoryKills
from gridsearch.records import (
    LanesTraining,
    PackEnded,
    PackStarted,
    Probed,
    ProbeRequest,
    TrialFinished,
    WorkerDied,
    WorkerReady,
)
from tests.executors.worker_events import local_executor, log_before_the_end, poll_until, wait_for
from tests.executors.worker_nets import pack, setup

pytestmark = pytest.mark.end_to_end


@pytest.mark.parametrize(("model", "words"), [("Dies", "SIGKILL"), ("Exits", "exit code 7: last words")])
def test_a_worker_that_dies_is_told_with_its_pack_and_replaced(nets, tmp_path, model, words):
    events: list = []
    executor = local_executor([setup(nets)], events.append)
    executor.submit(pack(nets, tmp_path, model, name="bad"))
    poll_until(executor, lambda: any(isinstance(e, WorkerDied) for e in events))
    died = next(e for e in events if isinstance(e, WorkerDied))
    assert died.pack == "bad"
    assert words in died.message
    assert words.partition("7: ")[2] in log_before_the_end(events)
    assert executor.free == 1
    executor.submit(pack(nets, tmp_path, "Plain", name="good"))
    poll_until(executor, lambda: any(isinstance(e, TrialFinished) for e in events))
    executor.stop()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs a descriptor of a process (Linux)")
def test_a_dead_worker_is_seen_although_its_child_holds_its_pipes_and_the_child_goes_too(nets, tmp_path):
    events: list = []
    executor = local_executor([setup(nets)], events.append)
    executor.submit(pack(nets, tmp_path, "Forks", name="bad"))
    (pid,) = executor.pids().values()
    poll_until(executor, lambda: any(isinstance(e, WorkerDied) for e in events), seconds=40)
    executor.stop()
    assert [e.pack for e in events if isinstance(e, WorkerDied)] == ["bad"]
    deadline = time.monotonic() + 30
    while [p for p in psutil.process_iter() if p.pid != pid and group_of(p.pid) == pid]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a subreaper")
@pytest.mark.parametrize("dies", [True, False])
def test_what_a_model_leaves_in_a_session_of_its_own_ends_with_its_worker(nets, tmp_path, dies):
    written = tmp_path / "pid"
    if dies:
        (tmp_path / "dies").touch()
    events: list = []
    executor = local_executor([setup(nets)], events.append)
    executor.submit(pack(nets, tmp_path, "Leaves"))
    poll_until(executor, written.exists)
    if dies:
        poll_until(executor, lambda: any(isinstance(e, WorkerDied) for e in events))
        assert "SIGKILL" in next(e for e in events if isinstance(e, WorkerDied)).message
        assert not alive(int(written.read_text()))
    executor.stop()
    assert not alive(int(written.read_text()))


@pytest.mark.skipif(sys.platform != "linux", reason="needs a subreaper")
def test_an_orphan_of_a_model_ends_with_its_trial_and_a_child_of_the_worker_with_the_worker(nets, tmp_path):
    events: list = []
    executor = local_executor([setup(nets)], events.append)
    executor.submit(pack(nets, tmp_path, "Daemons"))
    poll_until(executor, lambda: any(isinstance(e, PackEnded) for e in events))
    orphan, child = (int((tmp_path / name).read_text()) for name in ("orphan", "child"))
    wait_for(lambda: not alive(orphan))
    assert alive(child)
    executor.submit(pack(nets, tmp_path, "Plain", name="next"))
    poll_until(executor, lambda: sum(isinstance(e, PackEnded) for e in events) == 2)
    assert not any(isinstance(e, WorkerDied) for e in events)
    executor.stop()
    assert not alive(child)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid) if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE else None
    except (ProcessLookupError, psutil.Error):
        return None


@pytest.mark.parametrize("kills", [True, False])
def test_a_worker_that_the_kernel_kills_for_memory_is_told_with_the_limit(nets, tmp_path, monkeypatch, kills):
    monkeypatch.setattr(MemoryKills, "another", lambda _: kills)
    events: list = []
    executor = local_executor([setup(nets)], events.append)
    executor.submit(pack(nets, tmp_path, "Dies", name="bad"))
    poll_until(executor, lambda: any(isinstance(e, WorkerDied) for e in events))
    executor.stop()
    died = next(e for e in events if isinstance(e, WorkerDied))
    assert died.memory is kills
    assert ("out of memory? The limit is " in died.message and " GB (" in died.message) is kills


def test_a_worker_goes_before_its_runner_when_memory_runs_out(nets, tmp_path):
    executor = local_executor([setup(nets)], lambda _: None)
    executor.submit(pack(nets, tmp_path, "Sleeps"))
    if sys.platform != "linux":
        pytest.skip("needs Linux")
    (pid,) = executor.pids().values()
    poll_until(executor, lambda: psutil.Process(pid).children())
    (worker,) = psutil.Process(pid).children()
    score = Path(f"/proc/{worker.pid}/oom_score_adj")
    poll_until(executor, lambda: score.read_text().strip() == "500")
    executor.stop()
    assert Path("/proc/self/oom_score_adj").read_text().strip() != "500"


def test_the_worker_of_a_pack_can_be_ended_while_a_step_hangs_and_the_others_go_on(nets, tmp_path):
    events: list = []
    executor = local_executor([setup(nets, "w0"), setup(nets, "w1")], events.append)
    executor.submit(pack(nets, tmp_path, "Sleeps", name="hangs"))
    executor.submit(pack(nets, tmp_path, "Plain", name="good"))
    poll_until(executor, lambda: any(isinstance(e, LanesTraining) and e.pack == "hangs" for e in events))
    executor.end_worker("hangs")
    poll_until(executor, lambda: not executor.busy)
    executor.stop()
    assert [e.pack for e in events if isinstance(e, WorkerDied)] == ["hangs"]
    assert any(isinstance(e, TrialFinished) for e in events)


def test_a_measurement_that_hangs_can_be_ended_also_where_its_processes_are_stopped(nets, tmp_path):
    events: list = []
    executor = local_executor([setup(nets)], events.append)
    settings = pack(nets, tmp_path, "Sleeps").lanes[0].trial.settings
    executor.submit(ProbeRequest(key="k", settings=settings, lanes=(1,)))
    poll_until(executor, lambda: any(isinstance(e, WorkerReady) for e in events))
    os.killpg(*executor.pids().values(), signal.SIGSTOP)
    executor.end_worker("k")
    poll_until(executor, lambda: not executor.busy)
    executor.stop()
    assert next(e for e in events if isinstance(e, Probed)).seconds_per_image == {}


def test_an_executor_may_use_fewer_workers_and_always_keeps_one(nets, tmp_path):
    executor = local_executor([setup(nets, "w0"), setup(nets, "w1")], lambda _: None)
    assert executor.free == 2
    assert executor.use_fewer()
    executor.submit(pack(nets, tmp_path, "Sleeps"))
    assert executor.free == 0
    assert not executor.use_fewer()
    executor.stop()


def test_stop_leaves_no_process(nets, tmp_path):
    events: list = []
    executor = local_executor([setup(nets, "w0"), setup(nets, "w1")], events.append)
    executor.submit(pack(nets, tmp_path, "Sleeps", name="a"))
    executor.submit(pack(nets, tmp_path, "Sleeps", name="b"))
    poll_until(executor, lambda: sum(isinstance(e, PackStarted) for e in events) == 2)
    pids = executor.pids()
    assert len(pids) == 2
    executor.stop()
    executor.stop()
    assert not any(psutil.pid_exists(pid) for pid in pids.values())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_does_not_outlive_its_parent_whatever_kills_that(nets, tmp_path, number):
    linux = sys.platform == "linux"
    parent = runner_of(nets, tmp_path, "Leaves" if linux else "Sleeps")
    processes = [int(parent.stdout.readline())]
    if linux:  # what its model leaves in a session of its own ends, too
        wait_for((tmp_path / "pid").exists)
        processes.append(int((tmp_path / "pid").read_text()))
    assert all(map(alive, processes))
    os.kill(parent.pid, number)
    parent.wait()
    wait_for(lambda: not any(map(alive, processes)), seconds=10)
    parent.stdout.close()


def runner_of(nets: Path, tmp_path: Path, model: str) -> subprocess.Popen[str]:
    """Start a runner that trains a model, and prints its worker's process id once that has begun."""
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import worker_nets as t
        from pathlib import Path
        from gridsearch.executors.local import LocalExecutor
        from gridsearch.records import PackStarted
        def told(event):
            if isinstance(event, PackStarted):
                print(*executor.pids().values(), flush=True)
        executor = LocalExecutor([t.setup(Path({str(nets)!r}))], told)
        executor.submit(t.pack(Path({str(nets)!r}), Path({str(tmp_path)!r}), {model!r}))
        while True:
            executor.poll(0.2)
        """)
    )
    return subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
