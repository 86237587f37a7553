"""A run that is interrupted and its sequel: where trials go on, what is on record of them, and what is said."""

from __future__ import annotations

import contextlib
import errno
import itertools
import signal
import sqlite3

import optuna
import pytest

from gridsearch import files
from gridsearch.checkpoints import checkpoints_in
from gridsearch.errors import StoreError
from gridsearch.records import TrialState
from gridsearch.service.prepare.options import Places, RunOptions
from gridsearch.service.queries import studies
from gridsearch.service.run import running
from gridsearch.service.run.progress import Silent
from gridsearch.service.run.recorder import Recorder
from gridsearch.spec import build
from gridsearch.store import open_store

EPOCHS = 8


class Lines(Silent):
    """Notes what is said, and how much work there was."""

    def __init__(self):
        self.lines, self.done = [], []

    def say(self, message):
        self.lines.append(message)

    warn = say

    def ended(self, progress):
        self.done.append((progress.done_units, progress.total_units))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a study of two lanes in this process; `epoch` says when it is interrupted."""
    monkeypatch.setenv("GRIDSEARCH_CACHE", str(tmp_path / "cache"))
    places = Places.find(tmp_path / "home")
    advance = Recorder.advance

    def one(epoch=None, *, trial=1, spec=None, objective=None, **changes):
        options = {"executor": "inline", "lanes": 2, "workers": 1, "report": False, "places": places}
        spec = spec or build(
            words=["lr=.05,.01", "model.hidden=8"],
            options={"dataset": "digits", "model": "mlp", "epochs": EPOCHS, "subset": 200},
        )
        observer = Lines()

        def interrupt(self, event):
            advance(self, event)
            if event.epoch == epoch and event.trial == trial:
                signal.raise_signal(signal.SIGINT)

        with monkeypatch.context() as patch:
            patch.setattr(Recorder, "advance", interrupt)
            how = {"observer": observer, "objective": objective}
            outcome = running.run(spec, RunOptions(**options | changes), **how)
        assert (outcome.signum == signal.SIGINT) == (epoch is not None)
        return observer

    one.places = places
    return one


def store_of(run):
    return open_store(run.places.store, home=run.places.home, create=False)


def steps_in_tensorboard(run, number):
    from tensorboard.backend.event_processing import event_accumulator

    folder = run.places.home / "digits" / "tensorboard" / str(number)
    reader = event_accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return [event.step for event in reader.Scalars("loss/train")]


def test_an_interrupted_trial_goes_on_and_each_epoch_is_on_record_once(run):
    first = run(epoch=3)
    with store_of(run) as store:
        data = store.study_data("digits")
    assert {trial.state for trial in data.trials} == {TrialState.WAITING}
    (epoch,) = {trial.epochs for trial in data.trials}
    assert 3 <= epoch < EPOCHS
    (status,) = studies.status(run.places, "digits")
    assert [(trial.number, at) for trial, at in status.resumable] == [(0, epoch), (1, epoch)]
    assert status.to_json()["resumable"] == [{"trial": n, "epoch": epoch} for n in (0, 1)]

    second = run()
    assert f"trials 0, 1: continues from epoch {epoch} of {EPOCHS}" not in first.lines
    assert f"trials 0, 1: continue from epoch {epoch} of {EPOCHS}" in second.lines
    with store_of(run) as store:
        data = store.study_data("digits")
    study = optuna.load_study(study_name="digits", storage=run.places.store)
    for trial in data.trials:
        assert trial.state is TrialState.COMPLETE
        assert [row.epoch for row in data.epochs[trial.number]] == list(range(1, EPOCHS + 1))
        assert sorted(study.trials[trial.number].intermediate_values) == list(range(1, EPOCHS + 1))
        assert steps_in_tensorboard(run, trial.number) == list(range(1, EPOCHS + 1))
        assert trial.seconds > sum(row.seconds for row in data.epochs[trial.number][epoch:])
    ((done, total),) = second.done
    assert done == pytest.approx(total)  # what was trained before is no work of this run
    assert list(run.places.home.rglob(".attempt*")) == []
    assert studies.status(run.places, "digits")[0].resumable == ()


def test_an_interrupted_and_an_unbroken_run_end_with_the_same_bytes(run, tmp_path):
    def results(places):
        with open_store(places.store, home=places.home, create=False) as store:
            return [
                (
                    dict(trial.metrics),
                    {n: a.sha256 for n, a in store.artifacts("digits", trial.number).items()},
                )
                for trial in store.study_data("digits").trials
            ]

    for epoch in (2, 5):
        run(epoch=epoch)
    run()
    unbroken = Places.find(tmp_path / "unbroken")
    run(places=unbroken)
    broken, whole = results(run.places), results(unbroken)
    assert [m for m, _ in broken] == [m for m, _ in whole]
    for (_, ours), (_, theirs) in zip(broken, whole, strict=True):
        weights = {n for n in theirs if n.endswith(".safetensors")}
        assert weights
        assert {n: ours[n] for n in weights} == {n: theirs[n] for n in weights}


def test_a_damaged_checkpoint_is_told_and_the_one_before_it_used(run):
    """And rows that the store lacks come from the checkpoint."""
    run(epoch=4, checkpoint=0.0)
    with store_of(run) as store:
        scratch = next((store.home.trial_dir("digits", 1)).glob(".attempt*"))
    newest, before = checkpoints_in(scratch)
    newest.path.write_bytes(newest.path.read_bytes()[:-1])
    with contextlib.closing(sqlite3.connect(run.places.home / "gridsearch.db")) as connection:
        connection.execute(
            "delete from gridsearch_epochs"
        )  # as if the runner had been killed before it wrote them
        connection.commit()
    lines = run(checkpoint=0.0).lines
    assert "trial 1: its last checkpoint is damaged; the one before it is used" in lines
    assert f"trials 0, 1: continue from epoch {before.epoch} of {EPOCHS}" in lines
    with store_of(run) as store:
        data = store.study_data("digits")
    assert all([row.epoch for row in rows] == list(range(1, EPOCHS + 1)) for rows in data.epochs.values())


def test_a_full_disk_ends_the_run_and_what_was_saved_before_is_gone_on_from(run, monkeypatch):
    writes, write = itertools.count(), files.write_whole

    def full(path, content):
        if path.name.startswith("checkpoint-") and next(writes) == 7:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_whole", full)
        with pytest.raises(StoreError, match="no space left"):
            run(checkpoint=0.0)
    assert f"trials 0, 1: continue from epoch 3 of {EPOCHS}" in run(checkpoint=0.0).lines
    with store_of(run) as store:
        trials = store.study_data("digits").trials
    assert {(trial.state, trial.attempts) for trial in trials} == {(TrialState.COMPLETE, 1)}


def test_a_function_that_takes_its_state_goes_on_likewise(run):
    def count(params, seed, state=None):
        state = 0 if state is None else state
        while state < 8:
            state += 1
            yield {"value": params["x"] * state}, state

    spec = build(words=["x=1,2"], options={"objective": "count", "study": "f"})
    how = {"spec": spec, "objective": count, "lanes": 1}
    run(epoch=3, trial=2, **how)
    assert [(t.number, at) for t, at in studies.status(run.places, "f")[0].resumable] == [(1, 3)]
    assert "trial 1: continues from step 3" in run(**how).lines
    with store_of(run) as store:
        data = store.study_data("f")
    assert [(t.state, t.value) for t in data.trials] == [(TrialState.COMPLETE, x * EPOCHS) for x in (1, 2)]
    assert [[row.step for row in data.steps[n]] for n in (0, 1)] == [list(range(1, EPOCHS + 1))] * 2


def test_without_checkpoints_trials_begin_again(run):
    run(epoch=4, checkpoint=None)
    assert list(run.places.home.rglob("checkpoint*")) == []
    with store_of(run) as store:
        assert {trial.epochs for trial in store.study_data("digits").trials} == {0}
    assert not any("from epoch" in line for line in run(checkpoint=None).lines)


def test_the_clean_command_takes_checkpoints_and_the_trials_begin_again(run):
    run(epoch=4)
    assert studies.clean(run.places, "digits") > 0
    assert not any("from epoch" in line for line in run().lines)
    with store_of(run) as store:
        data = store.study_data("digits")
    rows = list(itertools.chain.from_iterable(data.epochs.values()))
    assert len(rows) == 2 * EPOCHS
