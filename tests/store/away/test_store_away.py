"""A run goes on while its store is away; what it could not write is written once, in order, by it or by the next."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given

from gridsearch import faults
from gridsearch.errors import StoreUnreachable
from gridsearch.records import FileRef, TrialState
from gridsearch.store import (
    RunnerIdentity,
    Store,
    claims,
    open_store,
    run_store,
    spool,
    take_in,
)
from tests.store.away.ways_away import AWAY, locked
from tests.store.readers import stored
from tests.store.runs import Run


@pytest.mark.parametrize("away", AWAY.values(), ids=AWAY)
def test_what_happens_while_the_store_is_away_is_written_once_and_in_order_when_it_is_back(
    store, run, make, away
):
    one, two, three = run.trials
    run.store.record_epochs([make.epoch(one, 1, 0.3)])
    with away(Path(store.place)):
        assert run.store.record_epochs([make.epoch(one, 2, 0.4), make.epoch(two, 1, 0.2)]) == 2
        assert run.store.away
        assert run.store.finish_many([make.finished(one, 0.7)], epochs=[make.epoch(one, 3, 0.7)]) == [True]
        assert run.store.fail(make.failed(two))
        assert run.store.release([(three.id, three.attempt)]) == 1
        assert run.store.claim(run.ids, owner=run.owner, pack="q", lease=60.0) == []
        assert run.store.waiting(run.study_id) == []
        run.store.tend()
        assert run.store.away
    run.store.tend()
    assert not run.store.away
    assert [t.state for t in store.study_data("digits").trials] == ["complete", "failed", "waiting"]
    assert [row.epoch for row in store.study_data("digits").epochs[0]] == [1, 2, 3]
    assert len(run.warned) == len(run.said) == 1
    assert "training continues" in run.warned[0]
    run.store.close()
    assert not list(store.home.root.glob(".spool/*")), "nothing is left to be written"


def test_a_result_keeps_its_files_and_its_pictures_while_the_store_is_away(store, run, make, home):
    trial = run.trials[0]
    folder = store.home.make_scratch("digits", trial.number, trial.attempt)
    (folder / "weights.safetensors").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    files = (FileRef(name="weights.safetensors", sha256=digest, size=7),)
    with locked(Path(store.place)):
        run.store.finish_many(
            [make.finished(trial, 0.7, files=files)], shown={trial.id: {"confusion.png": b"png"}}
        )
    run.store.tend()
    assert stored(store, "digits", 0, "weights.safetensors") == b"weights"
    assert store.artifacts("digits", 0)["confusion.png"].size == 3


def test_a_runner_that_dies_before_it_could_write_leaves_its_results_to_the_next(store, url, home, make):
    ghost = dataclasses.replace(RunnerIdentity.current(), pid=2**22 + 1, started=1.0)
    run = Run(store, make, owner=ghost)
    one, two, _ = run.trials
    with locked(Path(store.place)):
        run.store.finish_many([make.finished(one, 0.7)])
        run.store.record_epochs([make.epoch(two, 1)])
    run.store._database.close()  # killed: nothing more of it happens
    spool._OWN.clear()
    with open_store(url, home=home, create=False) as again:
        assert again.study_data("digits").counts()["complete"] == 0
        assert take_in(again, warn=pytest.fail) == 1
        assert take_in(again, warn=pytest.fail) == 0, "once"
        assert [r.number for r in again.reclaim(run.study_id)] == [1, 2]
        assert (
            again.study_data("digits").counts() | {"complete": 1, "waiting": 2}
            == again.study_data("digits").counts()
        )
    assert not (home / ".spool").exists()


def test_another_live_runner_s_results_are_left_to_it(store, make, run, monkeypatch):
    with locked(Path(store.place)):
        run.store.finish_many([make.finished(run.trials[0], 0.7)])
    monkeypatch.setattr(
        RunnerIdentity, "current", classmethod(lambda cls: dataclasses.replace(run.owner, pid=1))
    )
    spool._OWN.clear()  # as seen by another process
    assert take_in(store, warn=pytest.fail) == 0
    assert run.store._spool


def test_a_result_whose_lease_was_lost_meanwhile_does_not_count_and_that_is_said(store, run, make):
    one, two, _ = run.trials
    with locked(Path(store.place)):
        run.store.finish_many([make.finished(one, 0.7)])
        run.store.record_epochs([make.epoch(two, 1)])
    with closing(sqlite3.connect(store.place)) as other, other:  # another runner took both, and finished one
        other.execute("UPDATE gridsearch_trials SET attempt = attempt + 1 WHERE number < 2")
    run.store.tend()
    assert run.store.heartbeat(run.owner, lease=60.0) == {one.id, two.id}
    assert any("trial 0" in text and "does not count" in text for text in run.warned)
    data = store.study_data("digits")
    assert data.trials[0].value is None
    assert not data.epochs[1]


def test_a_write_that_was_done_before_it_seemed_to_fail_is_done_once_and_not_called_late(store, run, make):
    one, *_ = run.trials
    store.finish(make.finished(one, 0.7))
    with locked(Path(store.place)):
        run.store.finish_many([make.finished(one, 0.7)])
    run.store.tend()
    assert store.study_data("digits").trials[0].value == 0.7
    assert not any("does not count" in text for text in run.warned)


@pytest.mark.parametrize("nth", range(1, 6))
def test_an_error_of_the_disk_at_any_commit_of_a_run_loses_and_doubles_nothing(store, run, make, nth):
    one, two, three = run.trials
    faults.plan(f"commit:EIO:{nth}")
    try:
        run.store.record_epochs([make.epoch(one, 1)])
        assert run.store.finish_many([make.finished(one, 0.7)], epochs=[make.epoch(one, 2)]) == [True]
        run.store.heartbeat(run.owner, lease=60.0)
        run.store.release([(two.id, two.attempt)])
        assert run.store.fail(make.failed(three))
        run.store.tend()
    finally:
        faults.plan("")
    run.store.tend()
    data = store.study_data("digits")
    assert [t.state for t in data.trials] == ["complete", "waiting", "failed"]
    assert [row.epoch for row in data.epochs[0]] == [1, 2]
    assert len(run.warned) == 1, "it was away once"
    assert not run.store._spool


def test_a_claim_that_was_made_though_it_seemed_to_fail_is_given_back(store, run, make, monkeypatch):
    one, two, three = run.trials
    run.store.release([(t.id, t.attempt) for t in (two, three)])
    claim = Store.claim_packs

    def made_and_failed(self, packs, **how):
        claim(store, packs, **how)
        raise StoreUnreachable("disk I/O error")

    monkeypatch.setattr(Store, "claim_packs", made_and_failed)
    wanted = {"p": [one.id], "q": [two.id]}
    assert run.store.claim_packs(wanted, owner=run.owner, lease=60.0) == {"p": [], "q": []}
    run.store.record_epochs([make.epoch(one, 1)])
    run.store.tend()
    assert not run.store.away
    assert run.store.finish_many([make.finished(one, 0.7)]) == [True], "what trains is not given back"
    assert [t.state for t in store.study_data("digits").trials] == ["complete", "waiting", "waiting"]


@pytest.mark.parametrize(("step", "taken"), [(7200.0, False), (1.0, True), (-7200.0, True)])
def test_after_the_clock_was_set_forward_others_renew_their_leases_before_any_is_taken(
    store, run, make, monkeypatch, step, taken
):
    monkeypatch.setattr(run_store, "_OTHERS_FIRST", 1.0)
    other = dataclasses.replace(run.owner, host="elsewhere")
    run.store.release([(t.id, t.attempt) for t in run.trials])
    store.claim(run.ids, owner=other, pack="q", lease=60.0)
    with closing(sqlite3.connect(store.place)) as connection, connection:  # as its leases look after the step
        connection.execute("UPDATE gridsearch_trials SET lease_until = 1")
    true = claims.store_time
    monkeypatch.setattr(claims, "store_time", lambda connection: true(connection) + step)
    assert len(run.store.reclaim(run.study_id)) == (3 if taken else 0)
    assert len(run.store.reclaim(run.study_id)) == 0, "a step is no news the second time"
    monkeypatch.setattr(run_store, "_OTHERS_FIRST", 0.0)
    assert len(run.store.reclaim(run.study_id)) == (0 if taken else 3), "who is gone does not renew them"


EVENTS = ("record 0", "record 1", "finish 0", "record 1", "fail 1", "release 2")


@given(away=st.lists(st.sampled_from([None, *AWAY]), min_size=len(EVENTS), max_size=len(EVENTS)))
@hypothesis.settings(max_examples=20, suppress_health_check=list(HealthCheck))
def test_whenever_the_store_is_away_the_ledger_is_the_same_in_the_end(new_file, make, away):
    """With each event the store may be there, locked, gone or unreadable, and be back before the next."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        shutil.copy(new_file, home)
        with open_store(f"sqlite:///{home}/gridsearch.db", home=home, create=False) as store:
            run = Run(store, make)
            epochs = dict.fromkeys(range(3), 0)
            for event, how in zip(EVENTS, away, strict=True):
                what, number = event.split()
                trial = run.trials[int(number)]
                with AWAY[how](Path(store.place)) if how else contextlib.nullcontext():
                    if what == "record":
                        epochs[int(number)] += 1
                        assert run.store.record_epochs([make.epoch(trial, epochs[int(number)])]) == 1
                    elif what == "finish":
                        assert run.store.finish_many([make.finished(trial, 0.7)]) == [True]
                    elif what == "fail":
                        assert run.store.fail(make.failed(trial))
                    else:
                        run.store.release([(trial.id, trial.attempt)])
                if number == "1":  # sometimes it comes back at once, sometimes only later
                    run.store.tend()
            run.store.tend()
            data = store.study_data("digits")
            assert [(t.state, t.value) for t in data.trials] == [
                ("complete", 0.7),
                ("failed", None),
                ("waiting", None),
            ]
            assert [len(data.epochs[n]) for n in range(3)] == [1, 2, 0]
            run.store.close()
            assert not (home / ".spool").exists()


def test_a_damaged_record_is_set_aside_and_said_and_the_others_are_written(store, run, make):
    one, two, _ = run.trials
    with locked(Path(store.place)):
        run.store.finish_many([make.finished(one, 0.7)])
        run.store.finish_many([make.finished(two, 0.8)])
    first = next(run.store._spool.paths())
    first.write_bytes(first.read_bytes()[:-20])
    run.store.tend()
    assert [t.value for t in store.study_data("digits").trials] == [None, 0.8, None]
    assert any("is damaged" in text for text in run.warned)
    assert first.with_suffix(".damaged").exists()


def test_nothing_of_a_run_waits_in_the_spool_while_the_store_answers(store, run, make):
    for trial in run.trials:
        run.store.record_epochs([make.epoch(trial, 1)])
        run.store.finish_many([make.finished(trial, 0.7)])
        run.store.tend()
    assert not (store.home.root / ".spool").exists()
    assert store.study_data("digits").counts()[TrialState.COMPLETE] == 3
    assert run.warned == run.said == []
