"""A run is foretold by playing its own queue: costs, overheads, refilled lanes and the packs near the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsearch.planning import OverheadLog, Overheads, WorkQueue, simulate
from gridsearch.records import ImageSettings, Trial
from tests.planning.waiting_trials import trial

NONE = Overheads(start=0, load=0, pack=0, probe=0, report=0)


def queue_of(trials, *, lanes, workers, share=lambda t, n: 1.0) -> WorkQueue[Trial]:
    queue = WorkQueue[Trial](
        workers=workers, lanes=lambda t, n: lanes, cost=lambda t: float(t.settings.epochs), share=share
    )
    queue.fill(trials)
    return queue


def seconds(t: Trial, lanes: int) -> float:
    return float(t.settings.epochs)


@given(st.lists(st.integers(1, 9), max_size=20), st.integers(1, 4), st.integers(1, 5))
def test_every_trial_is_played_once_and_the_work_is_neither_lost_nor_made(epochs, workers, lanes):
    trials = [trial(i, epochs=n) for i, n in enumerate(epochs)]
    told = simulate(
        queue_of(trials, lanes=lanes, workers=workers), workers=workers, cost=seconds, overheads=NONE
    )
    assert sorted(t.id for p in told.programs for t in p.trials) == list(range(len(trials)))
    assert sum(p.seconds for p in told.programs) == pytest.approx(sum(epochs))
    assert sum(epochs) / workers - 1e-9 <= told.seconds <= sum(epochs) + 1e-9


def test_overheads_are_added_where_they_arise():
    trials = [trial(0, epochs=2, batch=10), trial(1, epochs=2, batch=20)]
    overheads = Overheads(start=100, load=3, pack=0.5, probe=7, report=100)
    told = simulate(queue_of(trials, lanes=1, workers=1), workers=1, cost=seconds, overheads=overheads)
    assert told.seconds == pytest.approx(3 + 2 * 0.5 + 4)


def test_a_group_that_the_run_would_measure_costs_the_time_of_that():
    sizes: list[int | None] = [None, 2]
    queue = WorkQueue[Trial](workers=1, lanes=lambda t, n: sizes.pop(0), cost=lambda t: 1.0)
    queue.fill([trial(0, epochs=2), trial(1, epochs=2)])
    overheads = Overheads(start=0, load=5, pack=0, probe=7, report=0)
    told = simulate(queue, workers=1, cost=seconds, overheads=overheads)
    assert told.seconds == 7 + 4, "a worker that has measured has loaded its data"
    assert [p.lanes for p in told.programs] == [2]


def test_a_free_lane_takes_the_next_trial_of_its_group():
    trials = [trial(0, epochs=4), trial(1, epochs=1), trial(2, epochs=1)]
    told = simulate(queue_of(trials, lanes=2, workers=1), workers=1, cost=seconds, overheads=NONE)
    assert [(len(p.trials), p.lanes) for p in told.programs] == [(3, 2)]


def test_near_the_end_a_pack_is_not_split_for_a_worker_that_is_busy_for_long():
    """Two trials are left and the other worker is busy: together they take less than one after the other."""
    half = lambda t, n: 0.5 + 0.5 / n  # noqa: E731
    trials = [trial(0, epochs=10), trial(1, epochs=10)]
    idle = queue_of(trials, lanes=2, workers=2, share=half)
    assert len(idle.next(list)) == 1
    busy = queue_of(trials, lanes=2, workers=2, share=half)
    assert len(busy.next(lambda: [30.0])) == 2
    soon = queue_of(trials, lanes=2, workers=2, share=half)
    assert len(soon.next(lambda: [1.0])) == 1


def test_a_refill_leaves_the_others_their_share():
    queue = queue_of([trial(i) for i in range(4)], lanes=4, workers=2)
    assert len(queue.refill(ImageSettings(dataset="digits"), 4)) == 2


def test_overheads_are_medians_of_what_runs_have_measured_and_defaults_before(tmp_path):
    log = OverheadLog(tmp_path / "deep" / "overheads.json")
    assert log.load("cpu x") == Overheads()
    log.add("cpu x", {"start": [1.0, 9.0], "pack": []})
    log.add("cpu x", {"start": [2.0], "unheard of": [1.0]})
    assert log.load("cpu x") == Overheads(start=2.0)
    assert log.load("cpu y") == Overheads()
    for _ in range(20):
        log.add("cpu x", {"start": [4.0]})
    assert log.load("cpu x").start == 4.0
    (tmp_path / "deep" / "overheads.json").write_text('{"cpu x": {"start": "soon"}}')
    assert log.load("cpu x") == Overheads()
    log.add("cpu x", {"start": [3.0]})
    assert log.load("cpu x").start == 3.0
