"""Both executors carry packs to a device and events back."""

from __future__ import annotations

import dataclasses
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from gridsearch.errors import GridsearchError
from gridsearch.executors.inline import InlineExecutor
from gridsearch.executors.local import LocalExecutor
from gridsearch.executors.logs import merged
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
from tests.executors.worker_events import kinds, local_executor, log_before_the_end, poll_until
from tests.executors.worker_nets import pack, setup

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.end_to_end


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
    return local_executor([setup(nets)], events.append)


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


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")
def test_what_a_model_its_children_and_c_write_to_the_descriptors_is_in_its_log(nets, tmp_path):
    events: list = []
    executor = local_executor([setup(nets)], events.append)
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
    executor = local_executor([setup(nets)], events.append)
    settings = dataclasses.replace(
        pack(nets, tmp_path, "Plain").lanes[0].trial.settings, model="nets.py:Dies"
    )
    executor.submit(ProbeRequest(key="k", settings=settings, lanes=(1,)))
    poll_until(executor, lambda: not executor.busy)
    executor.stop()
    assert next(e for e in events if isinstance(e, Probed)).seconds_per_image == {}
    assert next(e for e in events if isinstance(e, WorkerDied)).pack is None


def test_workers_that_cannot_start_are_an_error_and_no_endless_loop(nets, tmp_path, monkeypatch):
    told, task = setup(nets), pack(nets, tmp_path, "Plain")
    (tmp_path / "torch.py").write_text("raise ImportError('a broken torch')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    executor = local_executor([told], lambda _: None)
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
