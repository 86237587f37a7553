"""Several processes on one SQLite file: each point once, whoever dies."""

from __future__ import annotations

import collections
import json
import os
import signal

import pytest

from gridsearch.records import TrialState
from gridsearch.store import RunnerIdentity, open_store
from tests.store.readers import only_sqlite

PREAMBLE = """
import json, os, sys, time
from pathlib import Path
from gridsearch.records import EpochEnded, ImageSettings, TrialDraft, TrialFinished, TrialState, trial_key
from gridsearch.store import RunnerIdentity, StudyDraft, open_store
url, home = sys.argv[1], Path(sys.argv[2])
def draft(batch):
    settings = ImageSettings(dataset="digits", batch=batch)
    return TrialDraft(key=trial_key(settings, 0), seed=0, settings=settings, axes=("batch",))
study = StudyDraft(name="digits", dataset="digits", metric="val_accuracy", axes=("batch",))
drafts = [draft(n) for n in range(1, 201)]
"""

RACE = (
    PREAMBLE
    + """
def race(body, count):
    # One process imports everything and its children run: the race begins when all are there.
    RunnerIdentity, open_store
    gate, opened = os.pipe()
    outputs = []
    for _ in range(count):
        reader, writer = os.pipe()
        if os.fork() == 0:
            code = 1
            try:
                os.close(opened)
                os.read(gate, 1)
                os.write(writer, json.dumps(body()).encode())
                code = 0
            finally:
                os._exit(code)
        os.close(writer)
        outputs.append(reader)
    os.close(opened)
    print(json.dumps([json.load(os.fdopen(reader)) for reader in outputs]))
"""
)

CLAIMERS = (
    RACE
    + """
def epoch(t):
    return EpochEnded(trial=t.id, attempt=t.attempt, epoch=1, train_loss=1.0, train_accuracy=0.5, val_loss=1.0,
                      val_accuracy=0.5, lr=0.1, seconds=1.0, images_per_second=1.0)
def result(t):
    return TrialFinished(trial=t.id, attempt=t.attempt, state=TrialState.COMPLETE, epochs=1, seconds=1.0,
                         metrics={"val_accuracy": 0.5})
def claim_all():
    mine = []
    with open_store(url, home=home, create=True) as store:
        added = store.add(study, drafts)
        while waiting := [t.id for t in store.waiting(added.study_id)]:
            taken = store.claim(waiting[:7], owner=RunnerIdentity.current(), pack="p", lease=60)
            mine += [t.id for t in taken]
            assert store.record_epochs([epoch(t) for t in taken]) == len(taken)
            assert all(store.finish_many([result(t) for t in taken]))
    return mine
race(claim_all, 8)
"""
)

CREATORS = (
    RACE
    + """
def create():
    with open_store(url, home=home, create=True) as store:
        return store.add(study, drafts[:3]).new
race(create, 8)
"""
)

HOLDER = (
    PREAMBLE
    + """
store = open_store(url, home=home, create=True)
ids = store.add(study, drafts[:10]).ids
taken = store.claim(ids[:4], owner=RunnerIdentity.current(), pack="p", lease=3600)
print(json.dumps([t.id for t in taken]), flush=True)
time.sleep(600)
"""
)


def answers(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out)


@only_sqlite
@pytest.mark.parametrize("prepare", [False, True], ids=["no file", "an empty file"])
def test_processes_that_create_the_same_file_all_find_a_whole_store(url, home, python, prepare):
    if prepare:
        home.mkdir()
        (home / "gridsearch.db").touch()
    assert sorted(answers(python(CREATORS, url, home))) == [0] * 7 + [3]
    assert [p.name for p in home.iterdir()] == ["gridsearch.db"]
    with open_store(url, home=home, create=False) as store:
        assert store.problems() == ()
        assert len(store.study_data("digits").trials) == 3


@pytest.mark.postgresql
def test_processes_that_make_the_tables_of_one_database_all_find_a_whole_store(
    postgresql, new_database, home, python
):
    url = postgresql.url(new_database)
    assert sorted(answers(python(CREATORS, url, home))) == [0] * 7 + [3]
    with open_store(url, home=home, create=False) as store:
        assert store.problems() == ()
        assert len(store.study_data("digits").trials) == 3


def test_eight_processes_take_each_of_200_points_once_from_one_new_file(url, home, python):
    everybody = answers(python(CLAIMERS, url, home))
    claimed = collections.Counter(trial for mine in everybody for trial in mine)
    assert len(claimed) == 200
    assert set(claimed.values()) == {1}
    with open_store(url, home=home, create=False) as store:
        assert store.study_data("digits").counts()["complete"] == 200
        assert {t.attempts for t in store.study_data("digits").trials} == {1}
        assert store.problems() == ()


def test_the_trials_of_a_killed_process_are_taken_back_at_once(url, home, python):
    holder = python(HOLDER, url, home)
    taken = json.loads(holder.stdout.readline())
    with open_store(url, home=home, create=False) as store:
        study = store.study_id("digits")
        os.kill(holder.pid, signal.SIGSTOP)
        assert store.reclaim(study) == [], "one that sleeps is not dead"
        os.kill(holder.pid, signal.SIGKILL)
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # dead, but still in the table of processes
        assert sorted(r.trial for r in store.reclaim(study)) == sorted(taken)
        holder.communicate(timeout=60)
        assert store.reclaim(study) == []
        assert store.open_counts(study)[TrialState.WAITING] == 10
        again = store.claim(taken, owner=RunnerIdentity.current(), pack="q", lease=60)
        assert {t.attempt for t in again} == {2}
