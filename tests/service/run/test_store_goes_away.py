"""A run whose store is locked by somebody else trains on, and loses and doubles nothing."""

from __future__ import annotations

import sqlite3

import pytest

from gridsearch.errors import StoreUnreachable
from gridsearch.service.prepare.options import Places
from gridsearch.service.queries import doctor
from gridsearch.service.run import patience, recorder
from gridsearch.store import Store, run_store

FUNCTION = """
import os, sqlite3

def f(params, seed):
    for step in range(1, 7):
        if params["x"] == 2 and os.environ.get("LOCKED_AT") == str(step):  # somebody else takes the store
            sqlite3.of_others = sqlite3.connect("home/gridsearch.db", isolation_level=None)
            sqlite3.of_others.execute("BEGIN EXCLUSIVE")
        if params["x"] == 2 and os.environ.get("FREE_AT") == str(step):
            sqlite3.of_others.close()
        yield {"value": params["x"] + step / 10}
"""


WORDS = (
    *("run", "--objective", "fit.py:f", "--grid", "x=1,2,3"),
    *("--executor", "inline", "--no-report", "--json"),
)


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(run_store, "BUSY_SECONDS", 0.05)
    monkeypatch.setattr(run_store, "_TRY_SECONDS", 0.05)
    monkeypatch.setattr(run_store, "_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(patience, "_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(recorder, "_FLUSH_SECONDS", -1.0)


@pytest.fixture
def run(cli, tmp_path):
    """Run three trials, in this process: the second locks the store."""
    (tmp_path / "fit.py").write_text(FUNCTION)
    return lambda *more: cli(*WORDS, *more)


def test_a_run_goes_on_while_its_store_is_locked_and_all_of_it_is_there_at_the_end(
    run, cli, home, monkeypatch
):
    monkeypatch.setenv("LOCKED_AT", "2")
    monkeypatch.setenv("FREE_AT", "5")
    done = run()
    assert done.code == 0, done.err
    assert "training continues" in done.err
    assert "is back after" in done.err
    assert done.json["counts"]["complete"] == 3
    assert not (home / ".spool").exists()
    with sqlite3.connect(home / "gridsearch.db") as connection:
        steps = connection.execute("SELECT trial_id, step FROM gridsearch_steps ORDER BY 1, 2").fetchall()
    assert steps == [(trial, step) for trial in (1, 2, 3) for step in range(1, 7)]


@pytest.mark.parametrize(
    "how",
    [WORDS, ("run", "--study", "f", "--objective", "fit.py:f", "--no-report", "--json")],
    ids=["the same command", "its name"],
)
def test_a_run_whose_store_stays_locked_ends_with_75_and_the_next_takes_its_results_in(
    run, cli, home, monkeypatch, how
):
    monkeypatch.setenv("LOCKED_AT", "2")
    done = run("--store-patience", "1s")
    assert done.code == 75
    assert "has been unavailable for more than 1 s" in done.error
    assert list((home / ".spool").glob("*/*.json"))
    sqlite3.of_others.close()
    monkeypatch.delenv("LOCKED_AT")
    assert any("the next run takes them in" in finding.detail for finding in doctor._store(Places.find(home)))
    again = cli(*how)
    assert again.code == 0, again.err
    assert "1 result of an earlier run, whose store was unavailable, came in" in again.err
    assert (again.json["new"], again.json["counts"]["complete"]) == (0, 3)
    assert not (home / ".spool").exists()


@pytest.mark.parametrize("call", ["depart", "study_data", "open_counts"])
def test_a_store_that_goes_away_when_all_is_trained_is_waited_for(run, monkeypatch, call):
    departed, trained = Store.depart, []

    def gone_once(was):
        def method(self, *args):
            if trained and trained.pop():
                raise StoreUnreachable("store db does not answer: gone")
            return was(self, *args)

        return method

    def depart(self, owner):
        departed(self, owner)
        trained.append(True)  # and the next call finds it away

    if call == "depart":
        trained.append(True)
        monkeypatch.setattr(Store, "depart", gone_once(departed))
    else:
        monkeypatch.setattr(Store, "depart", depart)
        monkeypatch.setattr(Store, call, gone_once(getattr(Store, call)))
    done = run()
    assert done.code == 0, done.err
    assert not trained
    assert "store db does not answer: gone; waiting for up to 600 s" in done.err
    assert "the store is back after" in done.err


def test_a_store_that_stays_away_at_the_end_is_75_in_one_line(run, monkeypatch):
    def gone(self, owner):
        raise StoreUnreachable("store db does not answer: gone")

    monkeypatch.setattr(Store, "depart", gone)
    monkeypatch.setattr(patience, "_AGAIN_SECONDS", 1.0)
    done = run("--store-patience", "1s")
    assert done.code == 75
    assert "store db does not answer: gone (waited for 1 s)" in done.error
