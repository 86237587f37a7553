"""Others delete a study or a trial while it runs: the run ends with 4, and the same command begins it anew."""

from __future__ import annotations

import sqlite3

import pytest

from gridsearch.service.prepare.options import Places
from gridsearch.service.queries import doctor
from gridsearch.store import open_store, run_store

FUNCTION = """
import os, sqlite3
import optuna

def delete(what):
    if what == "the study":
        storage = optuna.storages.RDBStorage("sqlite:///home/gridsearch.db")
        optuna.delete_study(study_name="f", storage=storage)
        storage.engine.dispose()
    elif what:
        connection = sqlite3.connect("home/gridsearch.db")
        for table in ("trial_user_attributes", "trial_params", "trials"):
            of_trial = "trial_id = (SELECT trial_id FROM trials WHERE number = ?)"
            connection.execute(f"DELETE FROM {table} WHERE {of_trial}", (int(what),))
        connection.commit()
        connection.close()

def f(params, seed):
    print("trained with x =", params["x"])
    for step in range(1, 5):
        if params["x"] == 2 and step == 2:
            delete(os.environ.get("DELETED"))
        yield {"value": params["x"] + step / 10}
"""


@pytest.fixture
def run(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(run_store, "_CHECK_SECONDS", 0.0)
    (tmp_path / "fit.py").write_text(FUNCTION)
    words = (
        "run",
        "--objective",
        "fit.py:f",
        "--grid",
        "x=1,2,3",
        "--executor",
        "inline",
        "--no-report",
        "--json",
    )
    return lambda *more: cli(*words, *more)


@pytest.mark.parametrize(
    ("deleted", "said"),
    [
        ("the study", "study deleted"),
        ("0", "trial 0 deleted"),  # it has its result
        ("1", "trial 1 deleted"),  # it trains
        ("2", "trial 2 deleted"),  # it waits
    ],
)
def test_the_run_ends_with_4_and_the_same_command_begins_it_anew(run, cli, home, monkeypatch, deleted, said):
    monkeypatch.setenv("DELETED", deleted)
    done = run()
    assert done.code == 4
    assert said in done.error
    assert "begins it anew" in done.err
    monkeypatch.delenv("DELETED")
    again = run()
    assert again.code == 0, again.err
    assert again.json["counts"]["complete"] == 3
    assert again.json["new"] == (3 if deleted == "the study" else 1)
    with sqlite3.connect(home / "gridsearch.db") as connection:
        assert connection.execute(
            "SELECT count(*), count(DISTINCT key) FROM gridsearch_trials"
        ).fetchone() == (3, 3)
    with open_store(f"sqlite:///{home / 'gridsearch.db'}", home=home, create=False) as store:
        assert (store.remnants(), store.problems()) == ((), ())


def test_a_study_that_is_begun_anew_does_not_go_on_in_the_files_of_the_one_that_was_deleted(
    run, cli, home, monkeypatch
):
    monkeypatch.setenv("DELETED", "the study")
    run()
    monkeypatch.delenv("DELETED")
    for name in ("report", "report-lr-1", "best"):
        (home / "f" / name).mkdir()
    run()
    assert not [each.name for each in (home / "f").iterdir() if each.name.startswith(("report", "best"))]
    log = home / "f" / "trials" / "0" / "log"
    assert log.read_text().count("trained with") == 1
    assert list((home / "f").glob(".earlier-*"))
    assert cli("study", "clean", "f", "--json").json["freed_bytes"] > 0
    assert not list((home / "f").glob(".earlier-*"))
    assert log.exists()


def test_the_files_of_a_study_that_others_deleted_are_named_by_the_doctor_and_removed_by_clean(
    run, cli, home
):
    run()
    url = f"sqlite:///{home / 'gridsearch.db'}"
    with open_store(url, home=home, create=False) as store:
        with store._database.read() as connection:
            optuna_id = connection.exec_driver_sql("SELECT study_id FROM studies").scalar()
        assert store.delete_optuna_study(optuna_id)
    [found] = [f for f in doctor._store(Places.find(home)) if "does not hold" in f.detail]
    assert found.mend.startswith("gridsearch study clean f")
    (home / "f" / "report").mkdir()
    (home / "f" / "report" / "index.html").write_text("a report stays")
    assert cli("study", "clean", "f", "--json").json["freed_bytes"] > 0
    assert [path.name for path in (home / "f").iterdir()] == ["report"]
    assert cli("study", "clean", "f").code == 4, "there is nothing left of it"


def test_status_of_all_studies_passes_over_one_that_is_deleted_at_that_moment(run, cli, monkeypatch, home):
    from gridsearch.service.queries import studies

    run()
    run("--study", "other")
    seen = studies.status_of

    def deleted_first(store, name):
        if name == "f":
            store.delete_study("f")
        return seen(store, name)

    monkeypatch.setattr(studies, "status_of", deleted_first)
    assert [each["study"] for each in cli("status", "--json").json["studies"]] == ["other"]
