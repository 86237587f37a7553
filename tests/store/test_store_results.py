"""What workers report, in the ledger and in Optuna's tables."""

from __future__ import annotations

import datetime as dt
import hashlib
import math

import optuna
import pytest
import sqlalchemy

from gridsearch.errors import ArtifactError, StoreError, StudyNotFound
from gridsearch.records import FileRef, TrialState
from gridsearch.store import RunnerIdentity
from tests.store.readers import reader, stored


@pytest.fixture
def running(store, make):
    added = store.add(make.study(axes=("lr",)), make.drafts({"lr": [0.1, 0.2, 0.3]}))
    return store.claim(added.ids, owner=RunnerIdentity.current(), pack="p", lease=60)


def optuna_trials(store):
    return optuna.load_study(study_name="digits", storage=reader(store)).trials


def test_epochs_of_several_trials_are_written_together_and_read_back(store, make, running):
    a, b, _ = running
    assert store.record_epochs([make.epoch(a, 1, 0.25), make.epoch(b, 1, 0.5), make.epoch(a, 2, 0.75)]) == 3
    data = store.study_data("digits")
    assert [(r.epoch, r.val_accuracy, r.train_loss, r.images_per_second) for r in data.epochs[0]] == [
        (1, 0.25, 1.0, 100.0),
        (2, 0.75, 1.0, 100.0),
    ]
    assert [t.epochs for t in data.trials] == [2, 1, 0]
    assert [t.intermediate_values for t in optuna_trials(store)] == [{1: 0.25, 2: 0.75}, {1: 0.5}, {}]


def test_an_epoch_that_is_told_twice_is_one_epoch(store, make, running):
    trial = running[0]
    store.record_epochs([make.epoch(trial, 1, 0.1)])
    store.record_epochs([make.epoch(trial, 1, 0.2), make.epoch(trial, 1, 0.3)])
    assert [r.val_accuracy for r in store.study_data("digits").epochs[0]] == [0.3]
    assert optuna_trials(store)[0].intermediate_values == {1: 0.3}


def test_nan_and_infinity_come_back_as_they_went_in(store, make, running):
    trial = running[0]
    store.record_epochs(
        [
            make.epoch(trial, 1, math.nan, train_loss=math.nan),
            make.epoch(trial, 2, 0.5, val_loss=math.inf, train_loss=math.inf),
            make.epoch(trial, 3, 0.5, val_loss=math.nan),
        ]
    )
    first, second, third = store.study_data("digits").epochs[0]
    assert math.isnan(first.train_loss)
    assert (second.val_loss, second.train_loss) == (math.inf, math.inf)
    assert math.isnan(third.val_loss)
    assert math.isnan(optuna_trials(store)[0].intermediate_values[1])


def test_without_a_validation_split_its_columns_are_none(store, make):
    added = store.add(make.study("t", metric="train_accuracy"), make.drafts({"lr": [0.1]}, val=0.0))
    trial = store.claim(added.ids, owner=RunnerIdentity.current(), pack="p", lease=60)[0]
    store.record_epochs([make.epoch(trial, 1, None, val_loss=None, train_accuracy=0.7)])
    assert store.finish(make.finished(trial, metrics={"train_accuracy": 0.7, "train_loss": 1.0}))
    data = store.study_data("t")
    assert (data.epochs[0][0].val_loss, data.epochs[0][0].val_accuracy) == (None, None)
    assert (data.metric, data.trials[0].value) == ("train_accuracy", 0.7)


def test_a_complete_trial_has_its_value_and_the_same_short_attributes_everywhere(store, make, running):
    for trial, accuracy in zip(running, (0.5, 0.9, 0.7), strict=True):
        assert store.finish(make.finished(trial, accuracy))
    study = optuna.load_study(study_name="digits", storage=reader(store))
    assert (study.best_trial.number, study.best_value) == (1, 0.9)
    keys = {
        "key",
        "seed",
        "epochs",
        "seconds",
        "outcome",
        "val_accuracy",
        "val_loss",
        "train_accuracy",
        "train_loss",
    }
    assert {frozenset(t.user_attrs) for t in study.trials} == {frozenset(keys)}
    assert all(t.datetime_complete >= t.datetime_start for t in study.trials)
    record = store.study_data("digits").trials[1]
    assert (record.state, record.value, record.metrics["val_loss"]) == (TrialState.COMPLETE, 0.9, 1.5)
    assert (record.epochs, record.seconds, record.attempts, record.error) == (3, 6.0, 1, None)


def test_a_result_counts_once(store, make, running):
    trial = running[0]
    assert store.finish_many([make.finished(trial, 0.5), make.finished(trial, 0.9)]) == [True, False]
    assert store.study_data("digits").trials[0].value == 0.5


def test_a_diverged_trial_is_a_fail_with_its_outcome_and_never_the_best(store, make, running):
    a, b, _ = running
    bad = {"val_accuracy": math.nan, "train_loss": math.inf}
    store.finish(make.finished(a, state=TrialState.DIVERGED, metrics=bad, message="loss is NaN at step 7"))
    store.finish(make.finished(b, 0.1))
    study = optuna.load_study(study_name="digits", storage=reader(store))
    assert study.best_trial.number == 1
    diverged = study.trials[0]
    assert (diverged.state.name, diverged.user_attrs["outcome"]) == ("FAIL", "diverged")
    assert diverged.user_attrs["train_loss"] is None, "JSON has no infinity"
    assert diverged.values is None
    record = store.study_data("digits").trials[0]
    assert (record.state, record.value, record.error) == (TrialState.DIVERGED, None, "loss is NaN at step 7")
    assert record.metrics["train_loss"] == math.inf


def test_a_complete_trial_without_a_finite_value_is_diverged(store, make, running):
    assert store.finish(make.finished(running[0], math.nan))
    record = store.study_data("digits").trials[0]
    assert (record.state, record.error) == (TrialState.DIVERGED, "val_accuracy is nan")


def test_a_failed_trial_keeps_its_reason(store, make, running):
    assert store.fail(make.failed(running[0], "RuntimeError: " + "x" * 500))
    trial = optuna_trials(store)[0]
    assert (trial.state.name, trial.user_attrs["outcome"]) == ("FAIL", "failed")
    assert len(trial.user_attrs["error"]) <= 200
    record = store.study_data("digits").trials[0]
    assert (record.state, len(record.error)) == (TrialState.FAILED, 514)


def leave(store, trial, name, content, study="digits"):
    scratch = store.home.make_scratch(study, trial.number, trial.attempt)
    (scratch / name).write_bytes(content)
    return FileRef(name=name, sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def test_files_come_to_the_trials_folder_with_the_result(store, make, running):
    trial = running[0]
    ref = leave(store, trial, "predictions.safetensors", b"logits")
    assert store.finish(make.finished(trial, files=(ref,)))
    folder = store.home.root / "digits" / "trials" / "0"
    assert [p.name for p in folder.iterdir()] == ["predictions.safetensors"], "scratch is gone"
    assert stored(store, "digits", 0, "predictions.safetensors") == b"logits"
    assert store.artifacts("digits", 0)["predictions.safetensors"].size == 6
    assert list(store.artifacts("digits", 0)) == ["predictions.safetensors"]


def test_a_file_that_is_not_the_announced_one_is_refused_and_the_trial_stays_running(store, make, running):
    trial = running[0]
    ref = leave(store, trial, "predictions.safetensors", b"logits")
    (store.home.scratch("digits", 0, 1) / ref.name).write_bytes(b"logitz")
    with pytest.raises(ArtifactError, match="not the file that the worker announced"):
        store.finish(make.finished(trial, files=(ref,)))
    assert store.study_data("digits").trials[0].state is TrialState.RUNNING
    assert not (store.home.root / "digits/trials/0/predictions.safetensors").exists()


def test_late_files_do_not_replace_those_of_the_successor(store, make, running):
    late = running[0]
    old = leave(store, late, "predictions.safetensors", b"old")
    store.requeue([(late.id, late.attempt)], retries=2)
    successor = store.claim([late.id], owner=RunnerIdentity.current(), pack="q", lease=60)[0]
    new = leave(store, successor, "predictions.safetensors", b"new")
    assert store.finish(make.finished(successor, files=(new,)))
    assert store.finish(make.finished(late, files=(old,))) is False
    assert stored(store, "digits", 0, "predictions.safetensors") == b"new"


def test_a_result_whose_files_had_been_moved_before_a_kill_is_written(store, make, running):
    trial = running[0]
    ref = leave(store, trial, "predictions.safetensors", b"logits")
    place = store.home.trial_file("digits", 0, ref.name)
    store.home.move_verified([(store.home.scratch("digits", 0, 1) / ref.name, place)])
    assert store.finish(make.finished(trial, files=(ref,)))
    assert stored(store, "digits", 0, ref.name) == b"logits"


def test_weights_stay_for_the_best_only(store, make):
    added = store.add(make.study("w"), make.drafts({"batch": list(range(1, 16))}))
    for trial in store.claim(added.ids, owner=RunnerIdentity.current(), pack="p", lease=60):
        ref = leave(store, trial, "weights.safetensors", str(trial.number).encode(), study="w")
        store.finish(make.finished(trial, accuracy=trial.number / 20, files=(ref,)))
    assert store.prune_weights("w") == 5
    kept = [n for n in range(15) if (store.home.root / f"w/trials/{n}/weights.safetensors").exists()]
    assert kept == list(range(5, 15))
    assert store.artifacts("w", 0) == {}
    assert stored(store, "w", 14, "weights.safetensors") == b"14"
    assert store.prune_weights("w") == 0


def test_a_deleted_study_leaves_neither_rows_nor_files(store, make, running, tmp_path):
    ref = leave(store, running[0], "predictions.safetensors", b"logits")
    store.finish(make.finished(running[0], files=(ref,)))
    store.record_epochs([make.epoch(running[1], 1)])
    (tmp_path / "a.png").write_bytes(b"png")
    store.add_artifact(study="digits", number=0, path=tmp_path / "a.png")
    store.add_artifact(study="digits", path=tmp_path / "a.png")
    other = store.add(make.study("other"), make.drafts({"lr": [0.1]}))
    assert store.delete_study("digits") == 6
    assert [s.name for s in store.studies()] == ["other"]
    assert optuna.get_all_study_names(reader(store)) == ["other"]
    with store._database.read() as connection:
        tables = sqlalchemy.inspect(connection).get_table_names()
        left = {
            name: connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar()
            for name in tables
            if name not in ("alembic_version", "version_info", "gridsearch_runners")
        }
    for name in (
        "gridsearch_epochs",
        "gridsearch_artifacts",
        "trial_system_attributes",
        "trial_intermediate_values",
    ):
        assert left[name] == 0
    assert left["gridsearch_trials"] == left["trials"] == 1
    assert not (store.home.root / "digits").exists()
    assert list((store.home.root / ".artifacts").iterdir()) == []
    assert len(store.waiting(other.study_id)) == 1


def test_a_study_or_trial_that_is_not_there_is_named_with_what_is(store, make, running):
    with pytest.raises(StudyNotFound, match="no study named 'mnist'; studies here: digits"):
        store.study_data("mnist")
    with pytest.raises(StudyNotFound, match="mnist"):
        store.delete_study("mnist")
    with pytest.raises(StoreError, match="study 'digits' has no trial 9") as caught:
        store.trial_record("digits", 9)
    assert caught.value.hint == "its trials are numbered up to 2"


def test_a_large_study_is_read_in_a_few_statements(store, make):
    from sqlalchemy import event

    def count(n):
        added = store.add(make.study(f"n{n}"), make.drafts({"batch": list(range(1, n + 1))}))
        trials = store.claim(added.ids, owner=RunnerIdentity.current(), pack="p", lease=60)
        store.record_epochs([make.epoch(t, e) for t in trials for e in (1, 2)])
        store.finish_many([make.finished(t) for t in trials])
        statements = []
        event.listen(store._database.engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
        assert len(store.study_data(f"n{n}").trials) == n
        return len(statements)

    assert count(2) == count(600) <= 6


def test_epochs_and_a_result_can_share_a_transaction(store, running, make):
    trial = running[0]
    assert store.finish(
        make.finished(trial, accuracy=0.9), epochs=[make.epoch(trial, 1), make.epoch(trial, 2)]
    )
    record, rows = store.trial_record("digits", trial.number)
    assert record.state is TrialState.COMPLETE
    assert [row.epoch for row in rows] == [1, 2]


def test_a_trial_does_not_end_before_it_began_where_the_clock_was_set_back(store, make, running, monkeypatch):
    from gridsearch.store import optuna_trials as written

    class SetBack(dt.datetime):
        @classmethod
        def now(cls, tz=None):
            return dt.datetime.now(tz) - dt.timedelta(hours=2)

    monkeypatch.setattr(written, "datetime", SetBack)
    store.finish_many([make.finished(running[0]), make.finished(running[1], state=TrialState.DIVERGED)])
    store.fail(make.failed(running[2]))
    for trial in optuna_trials(store):
        assert trial.datetime_complete == trial.datetime_start
