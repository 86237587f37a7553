"""`gridsearch add` puts grids into a store, and `gridsearch worker` trains what waits there, of any study.

The functions are users' own files, whose code runs only where a worker's command line names it.
"""

from __future__ import annotations

import os
import shutil

import pytest

from gridsearch.errors import StoreUnreachable
from gridsearch.service.prepare.options import Places
from gridsearch.service.queries import studies
from gridsearch.service.run import store_worker
from gridsearch.store import RunnerIdentity, Store, open_store

FIT = """
import os, signal, sys
from pathlib import Path

def line(params, seed):
    with open("called", "a") as file:
        file.write(f"{params['x']} ")
    return {"value": params["x"]}

def other(params, seed):
    return {"value": -params["x"]}

def fails(params, seed):
    raise ValueError("no such luck")

def stops(params, seed):
    from gridsearch.service.prepare.options import Places
    from gridsearch.service.queries import studies
    for step in range(100):
        if step == 1 and params["x"] == 0:
            studies.stop(Places.find(), "stops", now=False)
        yield {"value": step}
        import time; time.sleep(0.1)

def signals(params, seed):
    os.kill(os.getpid(), signal.SIGTERM)
    for step in range(100):
        yield {"value": step}
        import time; time.sleep(0.1)
"""
ELSEWHERE = RunnerIdentity(host="elsewhere", boot="", pid=1, started=0.0)


@pytest.fixture
def fit(tmp_path):
    path = tmp_path / "fit.py"
    path.write_text(FIT)
    return path


@pytest.fixture
def add(cli, fit):
    def of(function: str, *words: str):
        added = cli("add", "--objective", f"fit.py:{function}", "--study", function, *words)
        assert added.code == 0, added.err
        return added

    return of


@pytest.fixture
def work(cli):
    def until_empty(*words: str):
        return cli("worker", "--until-empty", "--executor", "inline", *words)

    return until_empty


def idle(store) -> list[int]:
    return [runner.pid for runner in store.idle_runners(within=60.0)]


def counts(study: str, state: str) -> int:
    (found,) = studies.status(Places.find(), study)
    return found.counts[state]


def test_add_trains_nothing_and_says_what_became_of_the_grid(cli, add, tmp_path):
    assert add("line", "--grid", "x=1,2,3", "--json").json == {
        "schema": 1,
        "study": "line",
        "trials": 3,
        "new": 3,
        "reused": 0,
        "offered_again": 0,
        "in_flight": 0,
    }
    again = add("line", "--grid", "x=1,2,3,4").err
    assert "1 new, 3 open" in again
    assert "`gridsearch worker --objective fit.py:line` trains them" in again
    assert not (tmp_path / "called").exists()
    assert counts("line", "waiting") == 4


def test_a_worker_trains_every_study_and_each_trial_once(add, work, tmp_path):
    add("line", "--grid", "x=1,2,3")
    add("other", "--grid", "x=4,5")
    done = work("--objective", "fit.py:line", "--objective", "fit.py:other", "--json")
    assert done.code == 0, done.err
    assert {each["study"]: each["counts"]["complete"] for each in done.json["studies"]} == {
        "line": 3,
        "other": 2,
    }
    assert sorted((tmp_path / "called").read_text().split()) == ["1", "2", "3"]
    assert work("--objective", "fit.py:line").code == 0
    assert len((tmp_path / "called").read_text().split()) == 3


def test_only_the_studies_that_are_named_are_served(add, work):
    add("line", "--grid", "x=1")
    add("other", "--grid", "x=1")
    code = ("--objective", "fit.py:line", "--objective", "fit.py:other")
    assert work("--study", "other", *code).code == 0
    assert (counts("line", "waiting"), counts("other", "complete")) == (1, 1)
    assert "no study named 'nosuch'" in (missing := work("--study", "nosuch", *code)).error
    assert missing.code == 4


def test_code_that_was_not_named_does_not_run_and_its_trials_stay(add, work, tmp_path):
    add("line", "--grid", "x=1,2")
    add("other", "--grid", "x=1")
    done = work("--objective", "fit.py:other", "--json")
    assert done.code == 2
    assert done.err.count("whose code runs only when it is named") == 1
    assert "study 'line' is skipped" in done.err
    assert [each["study"] for each in done.json["left"]] == ["line"]
    assert not (tmp_path / "called").exists()
    assert (counts("line", "waiting"), counts("other", "complete")) == (2, 1)


def test_code_that_has_changed_since_does_not_run(add, work, fit, tmp_path):
    add("line", "--grid", "x=1,2")
    fit.write_text(FIT.replace('return {"value": params["x"]}', 'return {"value": 7}'))
    done = work("--objective", "fit.py:line")
    assert done.code == 2
    assert "has changed since study 'line' was made" in done.err
    assert not (tmp_path / "called").exists()


def test_failed_trials_are_exit_3_and_are_not_offered_again_by_a_worker(cli, add, work):
    add("fails", "--grid", "x=1..5:1")
    done = work("--objective", "fit.py:fails")
    assert done.code == 3
    assert "all failed with the same error" in done.err
    assert (counts("fails", "failed"), counts("fails", "waiting")) == (3, 2)
    assert cli("add", "--study", "fails", "--objective", "fit.py:fails").code == 0
    assert counts("fails", "waiting") == 5


def test_a_worker_that_is_asked_to_stop_ends_and_what_it_held_waits(cli, add):
    add("stops", "--grid", "x=0,1")
    done = cli("worker", "--executor", "inline", "--objective", "fit.py:stops")
    assert done.code == 0, done.err
    assert "asked to stop" in done.err
    assert counts("stops", "waiting") == 2


def test_a_signal_ends_a_worker_in_order(cli, add):
    add("signals", "--grid", "x=0,1")
    done = cli("worker", "--executor", "inline", "--objective", "fit.py:signals")
    assert done.code == 143
    assert counts("signals", "waiting") == 2


def test_trials_of_a_runner_that_died_elsewhere_are_waited_for_and_taken_over(add, work, home, monkeypatch):
    add("line", "--grid", "x=1,2")
    places = Places.find()
    with open_store(places.store, home=home, create=False) as store:
        ids = [trial.id for trial in store.open_trials("line")]
        store.claim(ids[:1], owner=ELSEWHERE, pack="theirs", lease=600.0)
        # what they hold ends once they are waited for
        ends = lambda *_: store.heartbeat(ELSEWHERE, lease=0.0)  # noqa: E731
        monkeypatch.setattr(store_worker.StoreWorker, "_wait", ends)
        done = work("--objective", "fit.py:line", "--lease", "3s")
    assert done.code == 0, done.err
    assert "1 trial of other runners may come back" in done.err
    assert "its runner is gone; it is trained again" in done.err
    assert counts("line", "complete") == 2


def test_until_empty_lasts_until_others_have_ended_what_they_hold(add, work, home, monkeypatch):
    add("line", "--grid", "x=1,2")
    places = Places.find()
    store = open_store(places.store, home=home, create=False)
    theirs = store.open_trials("line")[0].id
    store.claim([theirs], owner=ELSEWHERE, pack="theirs", lease=600.0)
    waits = []

    def wait(self, pause):
        """Pass the time: at the third look the others give their trial back."""
        waits.append(pause)
        assert os.getpid() in idle(self.store)
        if len(waits) == 3:
            store.release([(theirs, 1)])

    monkeypatch.setattr(store_worker.StoreWorker, "_wait", wait)
    assert work("--objective", "fit.py:line").code == 0
    assert counts("line", "complete") == 2
    assert waits[:3] == sorted(waits[:3])
    assert os.getpid() not in idle(store), "it has ended"
    store.close()


@pytest.fixture
def away(monkeypatch):
    """Let the store be away at so many looks of a worker, which waits for nothing then."""

    def at_looks(times: int) -> list[float]:
        looks, look = [], Store.open_studies

        def open_studies(self):
            looks.append(1.0)
            if len(looks) <= times:
                raise StoreUnreachable("the store does not answer")
            return look(self)

        monkeypatch.setattr(Store, "open_studies", open_studies)
        monkeypatch.setattr(store_worker.StoreWorker, "_wait", lambda self, pause: None)
        return looks

    return at_looks


def test_a_worker_waits_for_a_store_that_is_away_and_goes_on(add, work, away):
    add("line", "--grid", "x=1,2")
    away(3)
    done = work("--objective", "fit.py:line")
    assert done.code == 0, done.err
    assert done.err.count("the store does not answer; waits") == 1
    assert "the store is back" in done.err
    assert counts("line", "complete") == 2


def test_a_store_that_is_away_for_too_long_is_exit_75(add, work, away):
    add("line", "--grid", "x=1,2")
    away(10**9)
    done = work("--objective", "fit.py:line", "--store-patience", "1s")
    assert done.code == 75
    assert done.error == "the store does not answer"


def test_an_idle_worker_is_shown_by_status(cli, add, home):
    add("line", "--grid", "x=1")
    with open_store(Places.find().store, home=home, create=False) as store:
        store.announce(RunnerIdentity.current())
    line = f"process {os.getpid()} on "
    assert line in (shown := cli("status").out)
    assert "waits for trials" in shown
    assert cli("status", "--json").json["idle"][0]["pid"] == os.getpid()


# Images


@pytest.fixture
def folder(tmp_path):
    """A folder of twelve tiny images of two classes."""
    from PIL import Image

    for label, grey in (("dark", 20), ("light", 230)):
        place = tmp_path / "photos" / label
        place.mkdir(parents=True)
        for i in range(12):
            Image.new("L", (8, 8), grey + i).save(place / f"{i}.png")
    return tmp_path / "photos"


def test_data_that_is_not_here_or_is_another_leaves_the_study_to_others(cli, work, folder, tmp_path):
    words = ("--model", "mlp", "--epochs", "1", "--grid", "lr=.1")
    assert cli("add", "--dataset", f"folder:{folder}", *words).code == 0
    moved = tmp_path / "elsewhere" / "photos"
    moved.parent.mkdir()
    shutil.move(folder, moved)
    done = work()
    assert (done.code, counts("photos", "waiting")) == (4, 1)
    assert "which is no folder now" in done.err
    (extra := moved / "dark" / "13.png").write_bytes((moved / "dark" / "1.png").read_bytes())
    done = work("--dataset", f"folder:{moved}")
    assert (done.code, counts("photos", "waiting")) == (4, 1)
    assert "have changed since study 'photos' was made" in done.err
    extra.unlink()
    done = work("--dataset", f"folder:{moved}")
    assert done.code == 0, done.err
    assert counts("photos", "complete") == 1


def test_arithmetic_that_the_device_lacks_leaves_the_study_to_others(cli, work):
    words = ("--dataset", "digits", "--model", "mlp", "--epochs", "1", "--grid", "lr=.1")
    assert cli("add", *words, "--set", "dtype=tf32").code == 0
    done = work("--device", "cpu")
    assert (done.code, counts("digits", "waiting")) == (2, 1)
    assert "dtype=tf32: not on cpu" in done.err
