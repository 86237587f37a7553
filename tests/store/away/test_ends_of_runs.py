"""What ends a run: a store away for too long, a study or a store that is gone, a request; and what becomes of its results."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from gridsearch.errors import StoreError, StoreUnreachable
from gridsearch.store import RunnerIdentity, open_store, spool, take_in, waiting
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


@pytest.fixture
def left(store, make):
    """A run that is gone, with a result that waits for the store."""
    run = Run(store, make, owner=dataclasses.replace(RunnerIdentity.current(), pid=2**22 + 1, started=1.0))
    with locked(Path(store.place)):
        run.store.finish_many([make.finished(run.trials[0], 0.7)])
    run.store._database.close()  # killed: nothing more of it happens
    store.close()
    spool._OWN.clear()
    return run


@pytest.mark.parametrize("where", ["elsewhere", "at its place"])
@pytest.mark.usefixtures("left")
def test_what_waits_for_a_store_is_kept_by_runs_that_use_another_one_with_the_same_home(
    url, home, new_file, where, request
):
    place = home / "gridsearch.db"
    if where == "at its place":
        place.rename(home / "away.db")
    other = place if where == "at its place" else home / "other.db"
    shutil.copy(new_file, other)
    with open_store(f"sqlite:///{other}", home=home, create=False) as opened:
        assert take_in(opened, warn=pytest.fail) == waiting(opened) == 0
    if where == "at its place":
        (home / "away.db").replace(place)
    with open_store(url, home=home, create=False) as again:
        assert waiting(again) == 1
        assert take_in(again, warn=pytest.fail) == 1
        assert again.study_data("digits").trials[0].value == 0.7
    assert not (home / ".spool").exists()


def test_what_waits_for_a_store_goes_along_when_that_moves_with_its_home(left, home, tmp_path):
    home.rename(tmp_path / "moved")
    with open_store(
        f"sqlite:///{tmp_path}/moved/gridsearch.db", home=tmp_path / "moved", create=False
    ) as moved:
        assert waiting(moved) == 1
        assert take_in(moved, warn=pytest.fail) == 1
        assert moved.study_data("digits").trials[0].value == 0.7


def test_what_waits_for_a_study_that_was_deleted_goes(left, url, home):
    with open_store(url, home=home, create=False) as store:
        store.delete_study("digits")
        assert take_in(store, warn=pytest.fail) == 0
    assert not (home / ".spool").exists()


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
