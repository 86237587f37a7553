"""What ends a run: a store away for too long, a study or a store that is gone, a request; and what becomes of its results."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gridsearch.errors import StoreError, StoreUnreachable
from gridsearch.store import (
    open_store,
    take_in,
)
from tests.store.away.ways_away import locked
from tests.store.runs import Run


def test_past_the_patience_the_run_ends_and_its_results_wait_for_the_next(store, url, home, make):
    run = Run(store, make, patience=0.0)
    with locked(Path(store.place)):
        run.store.finish_many([make.finished(run.trials[0], 0.7)])
        with pytest.raises(StoreUnreachable, match="unavailable for more than 0 s") as caught:
            run.store.tend()
        assert caught.value.exit_code == 75
        assert str(home / ".spool") in caught.value.hint
        run.store.close()
    with open_store(url, home=home, create=False) as again:  # by the same process: a notebook
        assert take_in(again, warn=pytest.fail) == 1
        assert again.study_data("digits").trials[0].value == 0.7


def test_a_run_that_is_asked_to_end_while_the_store_is_away_leaves_its_results_to_the_next(store, run, make):
    run.store.require()
    with locked(Path(store.place)):
        run.store.finish_many([make.finished(run.trials[0], 0.7)])
        with pytest.raises(StoreUnreachable, match="is still away") as caught:
            run.store.require()
    assert "the same command takes it in" in caught.value.hint


def test_a_study_deleted_while_the_store_was_away_ends_the_run(store, run, make):
    with locked(Path(store.place)):
        run.store.finish_many([make.finished(run.trials[0], 0.7)])
    store.delete_study("digits")
    with pytest.raises(StoreError, match="study deleted"):
        run.store.tend()


def test_results_are_not_written_to_another_store_that_lies_at_its_place(
    store, run, make, home, url, new_file
):
    with locked(Path(store.place)):
        run.store.finish_many([make.finished(run.trials[0], 0.7)])
    store.close()
    Path(store.place).unlink()
    shutil.copy(new_file, Path(store.place))
    with open_store(url, home=home, create=False) as other:
        added = other.add(make.study(axes=("lr",)), make.drafts({"lr": [0.5, 0.6, 0.7]}))
        other.claim(added.ids, owner=run.owner, pack="p", lease=60.0)
        with pytest.raises(StoreError, match="study deleted"):
            run.store.tend()
        assert other.study_data("digits").counts()["complete"] == 0


def test_a_study_deleted_between_packs_ends_the_run_at_the_next_turn(store, run):
    run.store.release([(t.id, t.attempt) for t in run.trials])
    store.delete_study("digits")
    with pytest.raises(StoreError, match="study deleted") as caught:
        run.store.tend()
    assert "the same command begins it anew" in caught.value.hint


def test_runs_are_stopped_by_requests_after_their_beginning_alone(store, make, run):
    assert run.store.stop_request() is None
    [at_work] = store.request_stop("digits", at_once=False)
    assert at_work.trials == (0, 1, 2)
    run.store.tend()
    assert run.store.stop_request() == "epoch"
    store.request_stop("digits", at_once=True)
    run.store.tend()
    assert run.store.stop_request() == "now"
    later = Run(store, make, points=4)
    later.store.tend()
    assert later.store.stop_request() is None
    later.store.close()
