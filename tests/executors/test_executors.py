"""Both executors carry packs to a device and events back; worker processes never outlive who started them."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from gridsearch.errors import GridsearchError
from gridsearch.executors.inline import InlineExecutor
from gridsearch.executors.local import LocalExecutor
from gridsearch.executors.logs import merged
from gridsearch.executors.worker_exit import MemoryKills
from gridsearch.records import (
    EpochEnded,
    LanesTraining,
    LanesWanted,
    LogText,
    Pack,
    PackEnded,
    PackStarted,
    Probed,
    ProbeRequest,
    TrialFailed,
    TrialFinished,
    TrialState,
    Unwritable,
    WorkerDied,
    WorkerReady,
)
from tests.executors.worker_nets import NETS, pack, setup

pytestmark = pytest.mark.end_to_end


@pytest.fixture
def nets(tmp_path) -> Path:
    path = tmp_path / "nets.py"
    path.write_text(textwrap.dedent(NETS))
    return path


@pytest.fixture(scope="module")
def kept():
    """A worker process that several tests give packs to: its start takes most of their time.

    The first of them starts it, so that its environment is that of a test.
    """
    found = SimpleNamespace(executor=None, events=[])
    yield found
    if found.executor is not None:
        found.executor.stop()


def executor_of(kind: str, nets: Path, events: list):
    if kind == "inline":
        return InlineExecutor(setup(nets), events.append, interrupted=lambda: False)
    return LocalExecutor([setup(nets)], events.append)


@pytest.fixture(params=["inline", "local"])
def run(request, nets, kept):
    """Run packs to their end and return all events."""
    events: list = kept.events if request.param == "local" else []
    events.clear()
    made = kept.executor if request.param == "local" else None
    if made is None:
        made = executor_of(request.param, nets, events)

    def run_packs(*packs: Pack) -> list:
        for each in packs:
            while not made.free:
                made.poll(0.5)
            made.submit(each)
        while made.busy:
            made.poll(0.5)
        return events

    yield run_packs
    if request.param == "local":
        kept.executor = made
    else:
        made.stop()


def kinds(events) -> list[type]:
    return [type(event) for event in events if not isinstance(event, WorkerReady)]


def test_a_pack_comes_back_as_events_with_its_files(run, nets, tmp_path):
    events = run(pack(nets, tmp_path, "Plain"))
    assert kinds(events) == [PackStarted, LanesTraining, EpochEnded, TrialFinished, PackEnded]
    finished = next(e for e in events if isinstance(e, TrialFinished))
    assert finished.state is TrialState.COMPLETE
    assert (finished.trial, finished.attempt) == (10, 1)
    assert {f.name for f in finished.files} == {"predictions.safetensors", "weights.safetensors"}
    for file in finished.files:
        assert (tmp_path / "scratch-p-0" / file.name).stat().st_size == file.size


def test_a_model_that_raises_fails_alone_with_its_own_traceback(run, nets, tmp_path):
    events = run(pack(nets, tmp_path, "Raises", "Plain"))
    failed = next(e for e in events if isinstance(e, TrialFailed))
    assert (failed.trial, failed.reason) == (10, "error")
    assert "no such luck" in failed.message
    assert "\n" not in failed.message
    assert "nets.py" in failed.traceback
    assert [e.trial for e in events if isinstance(e, TrialFinished)] == [11]


def test_an_error_of_many_megabytes_is_one_short_line_and_whole_in_its_traceback(run, nets, tmp_path):
    events = run(pack(nets, tmp_path, "Shouts", "Plain"))
    failed = next(e for e in events if isinstance(e, TrialFailed))
    assert len(failed.message) < 500
    assert failed.traceback.count("no no") == 1_500_000
    assert [e.trial for e in events if isinstance(e, TrialFinished)] == [11]


def test_files_that_cannot_be_written_are_told_as_such_and_fail_no_trial(run, nets, tmp_path):
    (tmp_path / "scratch-p-1").write_text("a file where the folder should be")
    events = run(pack(nets, tmp_path, "Plain", "Plain"))
    after = [EpochEnded, EpochEnded, TrialFinished, Unwritable, PackEnded]
    assert kinds(events) == [PackStarted, LanesTraining, *after]
    told = next(e for e in events if isinstance(e, Unwritable))
    assert "scratch-p-1" in told.message
    assert told.hint is not None


def test_what_a_model_prints_goes_to_its_trials_log(run, nets, tmp_path, capsys):
    events = run(pack(nets, tmp_path, "Talks"))
    text = "".join(e.text for e in events if isinstance(e, LogText))
    assert "built with 10" in text
    assert "beware" in text
    assert "built with" not in capsys.readouterr().out


def test_a_line_that_a_model_has_not_ended_is_in_its_log(nets, tmp_path):
    events: list = []
    executor = InlineExecutor(setup(nets), events.append, interrupted=lambda: False)
    executor.submit(pack(nets, tmp_path, "Murmurs"))
    executor.poll(0)
    text = log_before_the_end(events)
    assert text.startswith("no newline")
    assert text.endswith("\n")


def log_before_the_end(events) -> str:
    """What was logged while the log was open: after its end a trial has none."""
    end = next(i for i, e in enumerate(events) if isinstance(e, TrialFinished | TrialFailed | WorkerDied))
    return "".join(e.text for e in events[:end] if isinstance(e, LogText))


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")
def test_what_a_model_its_children_and_c_write_to_the_descriptors_is_in_its_log(nets, tmp_path):
    events: list = []
    executor = LocalExecutor([setup(nets)], events.append)
    executor.submit(pack(nets, tmp_path, "Writes"))
    poll_until(executor, lambda: not executor.busy)
    executor.stop()
    text = log_before_the_end(events)
    for said in ("raw \u00e9\\xff\n", "from a child\n", "from C\n", "to the first stdout\n", "no newline"):
        assert said in text


def test_texts_in_a_row_for_the_same_logs_are_one():
    def log(trials: tuple[int, ...], text: str) -> LogText:
        return LogText(trials=trials, text=text)

    ready = WorkerReady(worker="w", device="cpu")
    events = [log((1,), "a"), log((1,), "b"), ready, ready, log((1,), "c"), log((1, 2), "d"), log((1,), "e")]
    assert list(merged(events)) == [
        log((1,), "ab"),
        ready,
        ready,
        log((1,), "c"),
        log((1, 2), "d"),
        log((1,), "e"),
    ]


def test_both_executors_give_the_same_bytes(nets, tmp_path):
    files = []
    for name in ("inline", "local"):
        events: list = []
        made = executor_of(name, nets, events)
        made.submit(pack(nets, tmp_path, "Plain", name=name))
        while made.busy:
            made.poll(0.5)
        made.stop()
        files.append(next(e.files for e in events if isinstance(e, TrialFinished)))
    assert files[0] == files[1]


@pytest.mark.parametrize("kind", ["inline", "local"])
def test_a_pack_with_free_lanes_asks_for_more_and_trains_what_it_is_given(nets, tmp_path, kind):
    events: list = []
    waiting = list(pack(nets, tmp_path, "Plain", "Plain", "Plain", name="more").lanes)
    for i, lane in enumerate(waiting):
        waiting[i] = dataclasses.replace(lane, trial=dataclasses.replace(lane.trial, id=50 + i))

    def take(event) -> None:
        events.append(event)
        if isinstance(event, LanesWanted):
            given = [waiting.pop() for _ in range(min(event.count, len(waiting)))]
            executor.send_lanes(event.pack, given)

    executor = (
        InlineExecutor(setup(nets), take, interrupted=lambda: False)
        if kind == "inline"
        else LocalExecutor([setup(nets)], take)
    )
    executor.submit(pack(nets, tmp_path, "Plain", "Plain"))
    poll_until(executor, lambda: not executor.busy)
    executor.stop()
    assert sorted(e.trial for e in events if isinstance(e, TrialFinished)) == [10, 11, 50, 51, 52]
    assert waiting == []
    assert isinstance(events[-1], PackEnded)


@pytest.mark.parametrize("kind", ["inline", "local"])
def test_a_probe_measures_sizes_one_after_the_other(nets, tmp_path, kind):
    events: list = []
    executor = executor_of(kind, nets, events)
    settings = pack(nets, tmp_path, "Plain").lanes[0].trial.settings
    executor.submit(ProbeRequest(key="k", settings=settings, lanes=(1, 2)))
    poll_until(executor, lambda: not executor.busy)
    bad = dataclasses.replace(settings, model="nets.py:Raises")
    executor.submit(ProbeRequest(key="bad", settings=bad, lanes=(1, 2)))
    poll_until(executor, lambda: not executor.busy)
    executor.stop()
    found, none = [e for e in events if isinstance(e, Probed)]
    assert found.key == "k"
    assert list(found.seconds_per_image) == [1, 2]
    assert all(seconds > 0 for seconds in found.seconds_per_image.values())
    assert (none.key, none.seconds_per_image) == ("bad", {})


def test_a_probe_that_kills_its_worker_is_answered_all_the_same(nets, tmp_path):
    events: list = []
    executor = LocalExecutor([setup(nets)], events.append)
    settings = dataclasses.replace(
        pack(nets, tmp_path, "Plain").lanes[0].trial.settings, model="nets.py:Dies"
    )
    executor.submit(ProbeRequest(key="k", settings=settings, lanes=(1,)))
    poll_until(executor, lambda: not executor.busy)
    executor.stop()
    assert next(e for e in events if isinstance(e, Probed)).seconds_per_image == {}
    assert next(e for e in events if isinstance(e, WorkerDied)).pack is None


def poll_until(executor, found, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        executor.poll(0.2)
        assert time.monotonic() < deadline


@pytest.mark.parametrize(("model", "words"), [("Dies", "SIGKILL"), ("Exits", "exit code 7: last words")])
def test_a_worker_that_dies_is_told_with_its_pack_and_replaced(nets, tmp_path, model, words):
    events: list = []
    executor = LocalExecutor([setup(nets)], events.append)
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
    executor = LocalExecutor([setup(nets)], events.append)
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
    executor = LocalExecutor([setup(nets)], events.append)
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
    executor = LocalExecutor([setup(nets)], events.append)
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


def wait_for(found, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid) if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE else None
    except (ProcessLookupError, psutil.Error):
        return None


@pytest.mark.parametrize("kills", [True, False])
def test_a_worker_that_the_kernel_kills_for_memory_is_told_with_the_limit(nets, tmp_path, monkeypatch, kills):
    monkeypatch.setattr(MemoryKills, "another", lambda _: kills)
    events: list = []
    executor = LocalExecutor([setup(nets)], events.append)
    executor.submit(pack(nets, tmp_path, "Dies", name="bad"))
    poll_until(executor, lambda: any(isinstance(e, WorkerDied) for e in events))
    executor.stop()
    died = next(e for e in events if isinstance(e, WorkerDied))
    assert died.memory is kills
    assert ("out of memory? The limit is " in died.message and "GiB" in died.message) is kills


def test_a_worker_goes_before_its_runner_when_memory_runs_out(nets, tmp_path):
    executor = LocalExecutor([setup(nets)], lambda _: None)
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
    executor = LocalExecutor([setup(nets, "w0"), setup(nets, "w1")], events.append)
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
    executor = LocalExecutor([setup(nets)], events.append)
    settings = pack(nets, tmp_path, "Sleeps").lanes[0].trial.settings
    executor.submit(ProbeRequest(key="k", settings=settings, lanes=(1,)))
    poll_until(executor, lambda: any(isinstance(e, WorkerReady) for e in events))
    os.killpg(*executor.pids().values(), signal.SIGSTOP)
    executor.end_worker("k")
    poll_until(executor, lambda: not executor.busy)
    executor.stop()
    assert next(e for e in events if isinstance(e, Probed)).seconds_per_image == {}


def test_an_executor_may_use_fewer_workers_and_always_keeps_one(nets, tmp_path):
    executor = LocalExecutor([setup(nets, "w0"), setup(nets, "w1")], lambda _: None)
    assert executor.free == 2
    assert executor.use_fewer()
    executor.submit(pack(nets, tmp_path, "Sleeps"))
    assert executor.free == 0
    assert not executor.use_fewer()
    executor.stop()


def test_stop_leaves_no_process(nets, tmp_path):
    events: list = []
    executor = LocalExecutor([setup(nets, "w0"), setup(nets, "w1")], events.append)
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


def test_workers_that_cannot_start_are_an_error_and_no_endless_loop(nets, tmp_path, monkeypatch):
    told, task = setup(nets), pack(nets, tmp_path, "Plain")
    (tmp_path / "torch.py").write_text("raise ImportError('a broken torch')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    executor = LocalExecutor([told], lambda _: None)
    executor.submit(task)

    def run_on() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            executor.poll(0.5)
            if not executor.busy:
                executor.submit(task)

    with pytest.raises(GridsearchError, match="a broken torch"):
        run_on()
    executor.stop()


@pytest.mark.parametrize("kind", ["inline", "local"])
def test_a_model_file_that_changed_meanwhile_fails_its_trial(nets, tmp_path, kind):
    events: list = []
    executor, before = executor_of(kind, nets, events), pack(nets, tmp_path, "Plain")
    nets.write_text(nets.read_text() + "\n# another thought\n")
    executor.submit(before)
    poll_until(executor, lambda: not executor.busy)
    executor.stop()
    failed = next(e for e in events if isinstance(e, TrialFailed))
    assert "changed" in failed.message


def test_a_worker_asks_for_huge_pages_unless_the_user_has_settled_them(monkeypatch):
    from gridsearch.executors.local import worker_environment

    expected = {
        "": "glibc.malloc.hugetlb=1",
        "glibc.malloc.check=1": "glibc.malloc.check=1:glibc.malloc.hugetlb=1",
        "glibc.malloc.hugetlb=0": "glibc.malloc.hugetlb=0",
    }
    for given, found in expected.items():
        monkeypatch.setenv("GLIBC_TUNABLES", given)
        assert worker_environment(threads=2)["GLIBC_TUNABLES"] == found
