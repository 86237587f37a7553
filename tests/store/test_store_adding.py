"""How points come into the ledger and into Optuna's tables, and how a study grows."""

from __future__ import annotations

import optuna
import pytest

from gridsearch.errors import StoreError, UsageError
from gridsearch.records import TrialState
from gridsearch.store import RunnerIdentity, open_store
from tests.store.adding import add, run, trials
from tests.store.readers import only_sqlite, reader


def test_every_point_waits_in_optuna_right_after_it_was_added(store, make):
    added = add(store, make, {"lr": [0.1, 0.01], "batch": [10, 20]}, seeds=(0, 1))
    assert (added.new, added.reused, added.offered_again, added.in_flight) == (8, 0, 0, 0)
    assert [t.state.name for t in trials(store)] == ["WAITING"] * 8
    assert [t.number for t in trials(store)] == list(range(8))


def test_the_same_grid_again_adds_nothing_and_gives_the_same_ids(store, make):
    first = add(store, make, {"lr": [0.1, 0.01], "batch": [10, 20]})
    again = add(store, make, {"batch": [20, 10], "lr": [0.01, 0.1]})
    assert (again.new, again.in_flight) == (0, 4)
    assert sorted(again.ids) == sorted(first.ids)
    assert len(trials(store)) == 4


def test_a_larger_grid_adds_only_what_is_new(store, make):
    first = add(store, make, {"lr": [0.1]})
    run(store, first.ids, lambda t: store.finish(make.finished(t)))
    larger = add(store, make, {"lr": [0.01, 0.1, 1.0]})
    assert (larger.new, larger.reused) == (2, 1)
    assert larger.ids[1] == first.ids[0]
    assert larger.varied == ()


def test_a_draft_that_comes_twice_is_one_trial(store, make):
    drafts = make.drafts({"lr": [0.1]})
    added = store.add(make.study(), [*drafts, *drafts])
    assert added.new == 1
    assert len(added.ids) == 2
    assert len(set(added.ids)) == 1


def test_a_failed_point_is_offered_again_as_a_new_optuna_trial(store, make):
    first = add(store, make, {"lr": [0.1, 0.01]})
    run(store, first.ids[:1], lambda t: store.fail(make.failed(t)))
    again = add(store, make, {"lr": [0.1, 0.01]})
    assert (again.new, again.offered_again, again.in_flight) == (0, 1, 1)
    assert again.ids == first.ids
    there = trials(store)
    assert [t.state.name for t in there] == ["FAIL", "WAITING", "WAITING"]
    assert there[0].user_attrs["key"] == there[2].user_attrs["key"]
    assert there[2].params == there[0].params
    retry = store.waiting(again.study_id, again.ids[:1])
    assert [t.number for t in retry] == [2]
    taken = run(store, again.ids[:1], lambda t: store.finish(make.finished(t)))
    assert taken[0].attempt == 2, "the token goes on growing"
    assert [t.number for t in store.study_data("digits").trials] == [1, 2]
    with pytest.raises(StoreError, match="trial 0 of study 'digits' failed and was offered again as trial 2"):
        store.trial_record("digits", 0)


def test_a_diverged_point_is_a_result_and_not_offered_again(store, make):
    first = add(store, make, {"lr": [0.1]})
    run(store, first.ids, lambda t: store.finish(make.finished(t, state=TrialState.DIVERGED, message="NaN")))
    again = add(store, make, {"lr": [0.1]})
    assert (again.reused, again.offered_again) == (1, 0)


def test_a_pruned_point_is_done_while_pruning_is_on_and_offered_again_without(store, make):
    first = add(store, make, {"lr": [0.1]}, prune=True)
    run(store, first.ids, lambda t: store.finish(make.finished(t, state=TrialState.PRUNED)))
    assert trials(store)[0].state.name == "PRUNED"
    assert add(store, make, {"lr": [0.1]}, prune=True).reused == 1
    assert add(store, make, {"lr": [0.1]}, prune=False).offered_again == 1


def test_another_dataset_or_another_metric_is_refused_and_changes_nothing(store, make):
    add(store, make, {"lr": [0.1]})
    with pytest.raises(UsageError, match="is of digits, not of fmnist"):
        add(store, make, {"lr": [0.2]}, study={"dataset": "fmnist"})
    with pytest.raises(UsageError, match="is ranked by val_accuracy"):
        add(store, make, {"lr": [0.2]}, study={"metric": "train_accuracy"})
    assert len(trials(store)) == 1


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        ".hidden",
        "-x",
        "a" * 65,
        "a b",
        "ü",
        "gridsearch.db",
        "gridsearch.db-wal",
        "a\n",
    ],
)
def test_a_name_that_could_be_a_path_or_the_store_is_refused(store, make, name):
    with pytest.raises(UsageError, match="not allowed"):
        store.add(make.study(name), [])
    assert store.studies() == []


def test_a_study_that_somebody_made_with_optuna_is_left_alone(store, make):
    optuna.create_study(storage=reader(store), study_name="digits")
    with pytest.raises(StoreError, match="that gridsearch did not make"):
        add(store, make, {"lr": [0.1]})
    assert trials(store) == []


def test_the_study_bears_direction_metric_command_and_note(store, make):
    from optuna_dashboard import get_note, save_note

    add(store, make, {"lr": [0.1]}, study={"spec": {"dataset": "digits", "grid": {"axes": ["lr=0.1,0.2"]}}})
    study = optuna.load_study(study_name="digits", storage=reader(store))
    assert study.direction.name == "MAXIMIZE"
    assert study.metric_names == ["val_accuracy"]
    assert study.user_attrs["command"] == "gridsearch run"
    assert "| lr | 0.1, 0.2 |" in get_note(study)
    assert "`gridsearch report --study digits" in get_note(study)
    assert "PED-ANOVA" in get_note(study), "why the importance there is not the report's effects"
    assert "{" not in get_note(study), "a page to read, no JSON"
    long = {"spec": {"text": "x" * 5000}}
    add(store, make, {"lr": [0.1]}, study=long)
    assert "x" * 5000 in get_note(study)
    add(store, make, {"lr": [0.1]}, study={"spec": {"text": "short again"}})
    assert "x" * 50 not in get_note(study)
    save_note(study, "my own words")
    add(store, make, {"lr": [0.1]}, study=long)
    assert get_note(study) == "my own words", "what a user wrote stays"


def test_a_command_whose_file_asks_for_another_recipe_is_kept_twice(store, make):
    for epochs in (2, 2, 10):
        add(store, make, {"lr": [0.1]}, epochs=epochs, study={"command": "run study.toml"})
    assert store.study_data("digits").commands == ("run study.toml",) * 2


def test_commands_are_kept_in_order_and_the_newest_environment_and_spec_count(store, make):
    for command, version in (("run 1", "1"), ("run 1", "2"), ("run 2", "3")):
        study = {
            "command": command,
            "environment": {"torch": version},
            "class_names": ("0", "1"),
            "spec": {"n": version},
        }
        add(store, make, {"lr": [0.1]}, study=study)
    data = store.study_data("digits")
    assert data.commands == ("run 1", "run 2")
    assert data.environment == {"torch": "3"}
    assert data.class_names == ("0", "1")
    assert store.spec("digits") == {"n": "3"}


def test_a_trial_deleted_through_optuna_is_added_anew(store, make):
    first = add(store, make, {"lr": [0.1, 0.01]})
    run(store, first.ids, lambda t: store.finish(make.finished(t)))
    delete_trial(store, 1)
    assert [trial.state for trial in store.ledger("digits")] == [TrialState.COMPLETE]
    assert [t.number for t in store.study_data("digits").trials] == [0]
    again = add(store, make, {"lr": [0.1, 0.01]})
    assert (again.new, again.reused) == (1, 1)
    assert [t.number for t in trials(store)] == [0, 2], "a number, and so a folder, is never used twice"


@only_sqlite
def test_an_id_that_sqlite_gave_to_another_trial_is_not_taken_for_the_old_one(store, make):
    first = add(store, make, {"lr": [0.1, 0.01]})
    run(store, first.ids[:1], lambda t: store.finish(make.finished(t)))
    late = store.claim(first.ids[1:], owner=RunnerIdentity.current(), pack="p", lease=60)[0]
    gone = trials(store)[1]
    delete_trial(store, 1)
    study = optuna.load_study(study_name="digits", storage=reader(store))
    study.add_trial(optuna.trial.create_trial(value=0.99, user_attrs={"key": "f" * 64}))
    theirs = trials(store)[1]
    assert theirs._trial_id == gone._trial_id, "SQLite reuses the id"
    assert [trial.state for trial in store.ledger("digits")] == [TrialState.COMPLETE]
    assert store.finish(make.finished(late, 0.1)) is False
    assert add(store, make, {"lr": [0.1, 0.01]}).new == 1
    assert [(t.number, t.value) for t in trials(store)] == [(0, 0.5), (1, 0.99), (2, None)]


def test_a_study_deleted_through_optuna_is_begun_anew(store, make):
    first = add(store, make, {"lr": [0.1]})
    optuna.delete_study(study_name="digits", storage=reader(store))
    assert store.ledger("digits") == []
    assert store.studies() == []
    again = add(store, make, {"lr": [0.1]})
    assert again.new == 1
    assert again.study_id != first.study_id
    assert store.problems() == ()


def test_a_store_holds_many_studies(store, make):
    for name in ("b", "a"):
        add(store, make, {"lr": [0.1, 0.2]}, study={"name": name})
    assert [s.name for s in store.studies()] == ["b", "a"]
    assert store.studies()[0].counts["waiting"] == 2
    assert store.studies()[0].created.tzinfo is not None


def test_two_stores_on_one_file_see_each_others_trials(store, url, home, make):
    with open_store(url, home=home, create=False) as other:
        first = add(store, make, {"lr": [0.1]})
        assert add(other, make, {"lr": [0.1, 0.2]}).in_flight == 1
        assert len(store.waiting(first.study_id)) == 2


def delete_trial(store, number):
    """Delete a trial as another program does: with no regard to our tables."""
    storage = reader(store)
    with storage.scoped_session() as session:
        models = optuna.storages._rdb.models
        session.delete(
            session.query(models.TrialModel)
            .filter_by(number=number)
            .join(models.StudyModel)
            .filter_by(study_name="digits")
            .one()
        )
        session.commit()
    storage.engine.dispose()
