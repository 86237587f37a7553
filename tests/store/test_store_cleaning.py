"""A study that is cleaned while others claim its trials, or clean it too."""

from __future__ import annotations

import shutil

import pytest

from gridsearch.errors import StoreUnreachable
from gridsearch.store import Home, RunnerIdentity


@pytest.fixture
def waiting(store, make):
    """A trial that waits, with what an attempt at it has left."""
    added = store.add(make.study(axes=("lr",)), make.drafts({"lr": [0.1]}))
    (left := store.home.scratch("digits", 0, 1)).mkdir(parents=True)
    (left / "checkpoint").write_bytes(b"weights")
    return added


def test_a_trial_that_is_claimed_while_its_study_is_cleaned_keeps_its_files(store, waiting, monkeypatch):
    remove = Home.remove_unfinished

    def claimed_before(self, study, left):
        trial = store.claim(waiting.ids, owner=RunnerIdentity.current(), pack="p", lease=60)[0]
        (store.home.make_scratch(study, trial.number, trial.attempt) / "checkpoint").write_bytes(b"new")
        return remove(self, study, left)

    monkeypatch.setattr(Home, "remove_unfinished", claimed_before)
    assert store.clean("digits") == len(b"weights")
    assert [path.read_bytes() for path in store.home.root.rglob("checkpoint")] == [b"new"]


def test_nobody_claims_a_trial_between_the_look_at_what_runs_and_the_removal(store, waiting, monkeypatch):
    look, refused = Home.unfinished, []

    def another_writes(self, study, *, keep):
        other = store._database.beside()
        other.busy = 0.05
        try:
            with other.write_rows():
                pass
        except StoreUnreachable as error:
            refused.append(error.message)
        return look(self, study, keep=keep)

    monkeypatch.setattr(Home, "unfinished", another_writes)
    store.clean("digits")
    assert len(refused) == 1


def test_two_commands_that_clean_at_once_both_end_well(store, waiting, monkeypatch):
    rmtree = shutil.rmtree

    def other_was_faster(path, **options):
        rmtree(path)
        rmtree(path, **options)

    monkeypatch.setattr(shutil, "rmtree", other_was_faster)
    assert store.clean("digits") == len(b"weights")
    assert not list(store.home.root.rglob("checkpoint"))
