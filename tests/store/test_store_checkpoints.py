"""Checkpoints in the store: handed from one attempt to the next, gone when the trial ends, and rows that fit them."""

from __future__ import annotations

import dataclasses

import optuna
import pytest

from gridsearch.checkpoints import checkpoints_in, write_checkpoint
from gridsearch.records import TrialResumed, TrialState
from gridsearch.store import RunnerIdentity, open_store
from tests.store.readers import reader

ME = RunnerIdentity.current()
DEAD = dataclasses.replace(ME, started=ME.started - 1)


@pytest.fixture
def running(store, make):
    """Claim a trial, with epochs 1 to 5 recorded and checkpoints of epochs 2 and 4."""

    def claimed(owner=ME):
        added = store.add(make.study(axes=("lr",)), make.drafts({"lr": [0.1]}))
        (trial,) = store.claim(added.ids, owner=owner, pack="p", lease=60)
        scratch = store.home.make_scratch("digits", 0, trial.attempt)
        store.record_epochs([make.epoch(trial, n, n / 10) for n in range(1, 6)])
        for epoch in (2, 4):
            write_checkpoint(scratch, b"weights", epoch=epoch)
        return trial

    return claimed


def again(store, trial):
    (successor,) = store.claim([trial.id], owner=ME, pack="q", lease=60)
    return successor, store.home.make_scratch("digits", 0, successor.attempt)


def rows(store):
    """Epochs of the ledger with their values, and the same of Optuna's tables."""
    data = store.study_data("digits")
    ours = {row.epoch: row.val_accuracy for row in data.epochs.get(0, ())}
    storage = reader(store)
    theirs = optuna.load_study(study_name="digits", storage=storage).trials[0].intermediate_values
    assert ours == theirs
    assert data.trials[0].epochs == max(ours, default=0)
    return ours


UP_TO_4 = {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}


@pytest.mark.parametrize("how", ["release", "requeue", "reclaim"])
def test_a_trial_that_waits_again_keeps_the_rows_up_to_its_checkpoint(store, running, how):
    trial = running(DEAD if how == "reclaim" else ME)
    match how:
        case "release":
            assert store.release([(trial.id, trial.attempt)]) == 1
        case "requeue":
            (back,) = store.requeue([(trial.id, trial.attempt)], retries=2)
            assert (back.requeued, back.epoch) == (True, 4)
        case _:
            (back,) = store.reclaim(store.study_id("digits"))
            assert (back.requeued, back.epoch) == (True, 4)
    assert rows(store) == UP_TO_4
    assert store.open_counts(store.study_id("digits"))[TrialState.WAITING] == 1


def test_without_a_checkpoint_no_row_stays(store, running):
    trial = running()
    store.home.drop_scratch("digits", 0)
    (back,) = store.requeue([(trial.id, trial.attempt)], retries=2)
    assert back.epoch == 0
    assert rows(store) == {}


def test_the_next_attempt_has_the_checkpoints_of_the_one_before_and_nothing_else(store, running):
    trial = running()
    old = store.home.scratch("digits", 0, trial.attempt)
    (old / ".partial-123.safetensors").write_bytes(b"half")
    store.home.leave_scratch("digits", 0, trial.attempt)
    store.release([(trial.id, trial.attempt)])
    _, scratch = again(store, trial)
    assert [file.epoch for file in checkpoints_in(scratch)] == [4, 2]
    assert len(list(scratch.iterdir())) == 2
    assert not old.exists()
    assert write_checkpoint(old, b"late", epoch=5) is None, "who was paused finds no folder"
    assert not old.exists()


def test_what_a_late_attempt_makes_anew_is_not_used(store, running):
    trial = running()
    store.release([(trial.id, trial.attempt)])
    successor, scratch = again(store, trial)
    late = store.home.scratch("digits", 0, trial.attempt)
    late.mkdir()
    write_checkpoint(late, b"late", epoch=9)
    store.release([(successor.id, successor.attempt)])
    assert store.home.checkpoint_epoch("digits", 0) == 4
    _, scratch = again(store, trial)
    assert [file.epoch for file in checkpoints_in(scratch)] == [4, 2]
    assert [p.name for p in scratch.parent.iterdir()] == [scratch.name]


def test_rows_are_those_of_the_checkpoint_that_is_used_once_each(store, running, make):
    """Whether the store is behind the checkpoint, ahead of it, or another runner's rows lie there."""
    trial = running()
    store.release([(trial.id, trial.attempt)])
    successor, _ = again(store, trial)
    two = tuple(make.epoch(successor, n, n / 5) for n in (1, 2))
    event = TrialResumed(trial=trial.id, attempt=successor.attempt, epoch=2, epochs=two, damaged=1)
    assert store.resume([event]) == 1
    assert rows(store) == {1: 0.2, 2: 0.4}
    seven = tuple(make.epoch(successor, n, n / 10) for n in range(1, 8))
    store.resume([dataclasses.replace(event, epoch=7, epochs=seven)])
    assert rows(store) == {n: n / 10 for n in range(1, 8)}
    store.resume([dataclasses.replace(event, epoch=0, epochs=())])
    assert rows(store) == {}


def test_an_attempt_that_lost_its_claim_resumes_nothing(store, running, make):
    trial = running()
    store.release([(trial.id, trial.attempt)])
    again(store, trial)
    late = TrialResumed(trial=trial.id, attempt=trial.attempt, epoch=0)
    assert store.resume([late]) == 0
    assert rows(store) == UP_TO_4


@pytest.mark.parametrize("how", ["complete", "diverged", "pruned", "failed", "died"])
def test_nothing_is_left_when_the_trial_ends(store, running, make, how):
    trial = running()
    match how:
        case "failed":
            assert store.fail(make.failed(trial))
        case "died":
            (back,) = store.requeue([(trial.id, trial.attempt)], retries=0)
            assert not back.requeued
        case _:
            assert store.finish(make.finished(trial, state=TrialState(how)))
    assert list(store.home.trial_dir("digits", 0).glob(".*")) == []


def test_clean_and_delete_remove_the_checkpoints_of_trials_that_wait(store, running, url, home):
    trial = running()
    store.release([(trial.id, trial.attempt)])
    assert store.home.clean("digits", keep=()) == 2 * len(b"weights")
    assert store.home.checkpoint_epoch("digits", 0) == 0
    with open_store(url, home=home, create=False) as other:
        assert other.home.checkpoint_epoch("digits", 0) == 0
