"""A store that is copied to another kind of database and back is the same, and a grid goes on in the copy."""

from __future__ import annotations

import dataclasses
import math

import optuna
import pytest
from sqlalchemy import insert, select, update

from gridsearch import files
from gridsearch.errors import StoreError, UsageError
from gridsearch.records import FileRef
from gridsearch.store import RunnerIdentity, copy_store, copying, ledger_tables, open_store
from gridsearch.store.optuna_tables import counted
from gridsearch.zoo.datasets.cache import exclusive
from tests.store.readers import reader, stored

pytestmark = pytest.mark.postgresql
ME = RunnerIdentity.current()
GONE = dataclasses.replace(ME, started=ME.started - 1)
AXES = {"lr": [0.1, 0.01, 0.001], "norm": ["none", "standard"]}


@pytest.fixture
def filled(url, home, make, new_file):
    """A store with trials in all states, attributes, curves, files, and ids that were given and are gone."""
    home.mkdir()
    with open_store(url, home=home, create=True) as store:
        passing = store.add(make.study("passing", axes=("lr",)), make.drafts({"lr": [0.5, 0.6]}))
        store.claim(passing.ids, owner=GONE, pack="p", lease=-1)
        store.delete_study("passing")
        added = store.add(make.study(axes=tuple(AXES)), make.drafts(AXES, seeds=(0, 2**40)))
        trials = store.claim(added.ids[:5], owner=GONE, pack="p", lease=-1)
        store.record_epochs(
            [make.epoch(trials[0], 1, 0.1 + 0.2), make.epoch(trials[1], 1, val_loss=math.nan)]
        )
        store.record_epochs([make.epoch(trials[0], 2, 1 / 3, train_loss=math.inf)])
        folder = store.home.make_scratch("digits", trials[0].number, 1)
        (folder / "a.txt").write_bytes(b"ab")
        sha = "fb8e20fc2e4c3f248c60c39bd652f3c1347298bb977b8b4d5903b85055620603"
        files = (FileRef(name="a.txt", sha256=sha, size=2),)
        store.finish_many(
            [make.finished(trials[0], 1 / 3, files=files), make.finished(trials[1], math.nan)],
            shown={trials[0].id: {"a.png": b"png"}},
        )
        store.fail(make.failed(trials[2], message="RuntimeError: 'ünï \N{SNOWMAN}'\n\x1b[31m"))
        store.request_stop("digits", at_once=True)
    return added


def sums(url, home):
    with open_store(url, home=home, create=False) as store, store._database.read() as connection:
        tables = {table.name: copying._sum(copying._rows(connection, table)) for table in copying._tables()}
        ours = {name for name, _ in counted() if name.startswith("gridsearch_")}
        counters = store._database.dialect.counters(connection)
        return tables, {name: counters[name] for name in ours}


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_store_is_the_same_after_a_copy_there_and_back_and_goes_on_in_each(
    filled, url, home, make, postgresql, new_database, tmp_path
):
    there, back = postgresql.url(new_database), f"sqlite:///{tmp_path}/back/gridsearch.db"
    before = sums(url, home)
    assert before[0]["gridsearch_epochs"].rows == 3
    assert copy_store(url, there, home=home, lease=60) == before[0]
    assert sums(there, home) == before
    assert copy_store(there, back, home=home, lease=60) == before[0]
    assert sums(back, home) == before
    for place in (url, there, back):
        with open_store(place, home=home, create=False) as store:
            assert stored(store, "digits", 0, "a.txt") == b"ab"
            assert {r.trial for r in store.reclaim(filled.study_id)} == set(filled.ids[3:5])
            again = store.add(
                make.study(axes=("lr",)), make.drafts({**AXES, "lr": [0.1, 0.7]}, seeds=(0, 2**40))
            )
            assert (again.new, again.reused, again.offered_again, again.in_flight) == (4, 2, 1, 1)
            assert max(again.ids) == filled.ids[-1] + 4, "ids of trials that are gone are not given again"
            (trial,) = store.claim(again.ids[-1:], owner=GONE, pack="q", lease=60)
            assert store.finish(make.finished(trial, 0.9), epochs=[make.epoch(trial, 1)])
            assert store.add(make.study("new"), make.drafts({"lr": [0.1]})).study_id == filled.study_id + 1
            study = optuna.load_study(study_name="digits", storage=reader(store))
            assert study.best_trial.number == trial.number
            assert store.problems() == ()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_target_that_holds_something_and_a_store_at_work_are_refused_and_left_as_they_are(
    filled, url, home, make, postgresql, new_database, tmp_path
):
    there = postgresql.url(new_database)
    file = tmp_path / "other.db"
    with open_store(url, home=home, create=False) as store:
        store.claim(filled.ids[-1:], owner=ME, pack="q", lease=60)
        with pytest.raises(StoreError, match=f"process {ME.pid} on .* is at work in it") as caught:
            copy_store(url, there, home=home, lease=60)
        assert "gridsearch stop --study digits" in caught.value.hint
        store.depart(ME)
    before = sums(url, home)
    postgresql.execute("CREATE TABLE recipes (id integer)", database=new_database)
    with pytest.raises(StoreError, match="holds something already: nothing was copied"):
        copy_store(url, there, home=home, lease=60)
    with pytest.raises(StoreError, match="holds something already"):
        copy_store(url, url, home=home, lease=60)
    with pytest.raises(StoreError, match="no store at"):
        copy_store(f"sqlite:///{file}", there, home=home, lease=60)
    with pytest.raises(UsageError, match="names no database"):
        copy_store(url, "postgresql://host", home=home, lease=60)
    assert not file.exists()
    assert sums(url, home) == before


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_no_test_is_missing_in_a_copy_since_best_was_about_to_record_it(filled, url, home, tmp_path):
    there = f"sqlite:///{tmp_path}/copy.db"
    with exclusive(home / "digits" / files.BEST_WORK), pytest.raises(StoreError, match="trains the winner"):
        copy_store(url, there, home=home, lease=60)
    assert not (tmp_path / "copy.db").exists()
    assert copy_store(url, there, home=home, lease=60)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_a_copy_that_differs_from_what_was_read_is_not_kept(
    filled, url, home, postgresql, new_database, tmp_path, monkeypatch, kind
):
    there = postgresql.url(new_database) if kind == "postgresql" else f"sqlite:///{tmp_path}/new/copy.db"
    fill = copying._fill

    def fill_wrongly(store, site, reading, writing, sums):
        wrong = dict(sums)
        wrong["trial_params"] = dataclasses.replace(
            wrong["trial_params"], rows=wrong["trial_params"].rows + 1
        )
        fill(store, site, reading, writing, wrong)

    monkeypatch.setattr(copying, "_fill", fill_wrongly)
    with pytest.raises(StoreError, match="table trial_params is not what was read"):
        copy_store(url, there, home=home, lease=60)
    assert not (tmp_path / "new").exists()
    monkeypatch.undo()
    assert copy_store(url, there, home=home, lease=60), "nothing was left in the way"


def test_the_sum_of_a_table_tells_rows_that_differ_in_any_column(store, make):
    added = store.add(make.study(), make.drafts({"lr": [0.1, 0.2]}))
    t = ledger_tables.trials

    def now(connection):
        return copying._sum(copying._rows(connection, t))

    with store._database.write() as connection:
        seen = {now(connection)}
        for column, value in (("reason", ""), ("value", 1e-300), ("tries", 1), ("state", "failed")):
            connection.execute(update(t).where(t.c.id == added.ids[0]).values({column: value}))
            seen.add(now(connection))
        row = connection.execute(select(t).where(t.c.id == added.ids[1])).mappings().one()
        connection.execute(insert(t), {**row, "id": 10**6, "key": "k"})
        seen.add(now(connection))
    assert len(seen) == 6


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_the_command_says_what_was_copied_and_where_the_files_are(
    filled, url, home, store_database, tmp_path, cli
):
    there = f"sqlite:///{tmp_path}/there.db"
    done = cli("store", "copy", url, there, "--home", str(home), "--json")
    assert done.code == 0, done.err
    assert done.json["tables"]["gridsearch_trials"]["rows"] == 12
    assert str(home) in done.err
    refused = cli("store", "copy", url, store_database, "--home", str(home))
    assert (refused.code, "holds something already" in refused.error) == (4, True)
    assert "name as TO another file" in refused.err
    assert cli("store", "copy", url, "nowhere").code == 2
