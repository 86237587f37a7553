"""Studies that others rename, copy or delete in Optuna's tables are followed, and nothing of them is lost."""

from __future__ import annotations

import io
import json

import optuna
import pytest

from gridsearch.errors import StoreError
from gridsearch.records import TrialState
from gridsearch.store import RunnerIdentity, open_store, optuna_studies, optuna_tables
from gridsearch.store.dashboard import application
from gridsearch.store.dashboard_changes import changing
from tests.store.readers import reader


def by_dashboard_itself(store):
    """Return the application as it is without our own way to rename and delete."""
    return application(store)


def by_ours(store):
    return changing(by_dashboard_itself(store), store)


def ask(app, method, path, **content):
    """Send a request to a WSGI application; return its status and what it answers."""
    body = json.dumps(content).encode()
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": "application/json",
        "QUERY_STRING": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
    }
    said = []
    answer = b"".join(app(environ, lambda status, headers, _=None: said.append(status)))
    return int(said[0].split()[0]), json.loads(answer) if answer else None


def optuna_id(store, name="digits"):
    with store._database.read() as connection:
        return optuna_studies.study_named(connection, name)


@pytest.fixture
def half_done(store, make):
    """A study of four trials: one complete, two that train, one that waits."""
    added = store.add(make.study(axes=("lr",)), make.drafts({"lr": [0.1, 0.2, 0.3, 0.4]}))
    claimed = store.claim(added.ids[:3], owner=RunnerIdentity.current(), pack="p", lease=60)
    store.finish(make.finished(claimed[0], 0.7))
    return added, claimed[1:]


def rename(app, store, name):
    return ask(app(store), "POST", f"/api/studies/{optuna_id(store)}/rename", study_name=name)


@pytest.mark.parametrize("app", [by_dashboard_itself, by_ours])
@pytest.mark.parametrize("name", ["renamed", "über: a/b <c>"])
def test_a_study_that_is_renamed_while_it_runs_keeps_all_and_goes_on(store, make, half_done, app, name):
    added, (one, two) = half_done
    status, answer = rename(app, store, name)
    assert (status, answer["study_name"]) == (201, name)
    assert store.heartbeat(RunnerIdentity.current(), lease=60) == set(), "no claim is lost"
    assert store.record_epochs([make.epoch(one, 1)]) == 1
    assert store.finish(make.finished(one, 0.8))
    assert store.finish(make.finished(two, 0.9))
    assert len(store.waiting(added.study_id)) == 1
    there = store.study_data("digits").trials
    assert [t.value for t in there] == [0.7, 0.8, 0.9, None]
    again = store.add(make.study(axes=("lr",)), make.drafts({"lr": [0.1, 0.2, 0.3, 0.4]}))
    assert (again.new, again.reused) == (0, 3), "nothing is trained again"
    storage = reader(store)
    seen = optuna.load_study(study_name=name, storage=storage)
    assert [t.value for t in seen.trials] == [0.7, 0.8, 0.9, None]
    assert seen.metric_names == ["val_accuracy"]


@pytest.mark.parametrize("app", [by_dashboard_itself, by_ours])
def test_a_renamed_study_is_found_by_the_name_of_its_files_and_its_title_is_told(
    store, url, home, half_done, app
):
    rename(app, store, "renamed")
    with open_store(url, home=home, create=False) as again:
        assert [(s.name, s.title) for s in again.studies()] == [("digits", "renamed")]
        assert again.study_data("digits").counts()["complete"] == 1
        with pytest.raises(
            StoreError, match="'renamed' is what the dashboard calls study 'digits'"
        ) as caught:
            again.study_data("renamed")
        assert caught.value.hint == "name it with --study digits"


def test_no_new_study_takes_the_title_of_a_renamed_one(store, make, half_done):
    rename(by_ours, store, "renamed")
    with pytest.raises(StoreError, match="is what the dashboard calls study 'digits'"):
        store.add(make.study("renamed", axes=("lr",)), make.drafts({"lr": [0.1]}))


def test_a_trial_that_ends_while_the_dashboard_copies_is_complete_in_the_copy(store, make, half_done):
    _, (one, _) = half_done
    storage = reader(store)
    old = optuna.load_study(study_name="digits", storage=storage)
    copy = optuna.create_study(study_name="copy", storage=storage, direction="maximize")
    copy.add_trials(old.get_trials())
    store.finish(make.finished(one, 0.8))
    for key, value in old.user_attrs.items():
        copy.set_user_attr(key, value)
    optuna.delete_study(study_name="digits", storage=storage)
    assert store.heartbeat(RunnerIdentity.current(), lease=60) == set(), "no claim is lost"
    assert [t.value for t in store.study_data("digits").trials][:2] == [0.7, 0.8]
    states = [t.state.name for t in optuna.load_study(study_name="copy", storage=storage).trials]
    assert states == ["COMPLETE", "COMPLETE", "RUNNING", "WAITING"]


@pytest.mark.parametrize(
    ("name", "status"), [("other", 400), ("", 400), ("x" * 513, 400), (None, 400), (["a"], 400)]
)
def test_a_name_that_cannot_be_given_is_refused_and_nothing_changes(store, make, half_done, name, status):
    store.add(make.study("other", axes=("lr",)), make.drafts({"lr": [0.1]}))
    got, answer = rename(by_ours, store, name)
    assert (got, set(answer)) == (status, {"reason"})
    assert {s.title for s in store.studies()} == {"digits", "other"}


def test_to_rename_or_delete_what_is_not_there_says_so(store):
    assert ask(by_ours(store), "POST", "/api/studies/99/rename", study_name="x")[0] == 404
    assert ask(by_ours(store), "DELETE", "/api/studies/99")[0] == 404


def test_a_study_deleted_in_the_dashboard_ends_its_run_and_begins_anew_with_the_same_words(
    store, make, half_done
):
    added, (one, _) = half_done
    assert ask(by_ours(store), "DELETE", f"/api/studies/{optuna_id(store)}") == (204, None)
    assert not store.finish(make.finished(one, 0.8))
    with pytest.raises(StoreError, match="study deleted"):
        store.waiting(added.study_id)
    again = store.add(make.study(axes=("lr",)), make.drafts({"lr": [0.1, 0.2, 0.3, 0.4]}))
    assert (again.new, again.reused) == (4, 0)
    assert store.remnants() == ()


LEFT = {
    "the study's attributes are gone": [
        "DELETE FROM study_user_attributes",
        "DELETE FROM gridsearch_studies",
    ],
    "the ledger's rows are gone": ["DELETE FROM gridsearch_trials", "DELETE FROM gridsearch_studies"],
    "some trials are gone": [
        *(
            f"DELETE FROM {table.name} WHERE trial_id IN (SELECT trial_id FROM trials WHERE number > 1)"
            for table in optuna_tables.OF_TRIAL
        ),
        "DELETE FROM trials WHERE number > 1",
        "DELETE FROM study_user_attributes",
        "DELETE FROM gridsearch_studies",
    ],
}


@pytest.mark.parametrize("statements", LEFT.values(), ids=LEFT)
def test_what_a_deletion_left_in_part_is_told_and_taken_away(store, make, half_done, statements):
    with store._database.write() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    assert store.remnants() == ("digits",)
    assert store.clear_remnant("digits")
    assert store.remnants() == ()
    assert not store.clear_remnant("digits")


@pytest.mark.parametrize("statements", LEFT.values(), ids=LEFT)
def test_what_a_deletion_left_in_part_does_not_stand_in_the_way_of_a_new_run(
    store, make, half_done, statements
):
    with store._database.write() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    again = store.add(make.study(axes=("lr",)), make.drafts({"lr": [0.1, 0.2]}))
    assert again.new == 2
    assert [t.state for t in store.study_data("digits").trials] == [TrialState.WAITING] * 2


def test_a_study_that_is_not_ours_is_never_taken_away(store, make):
    storage = reader(store)
    theirs = optuna.create_study(study_name="theirs", storage=storage)
    theirs.add_trial(optuna.trial.create_trial(value=1.0))
    optuna.create_study(study_name="empty", storage=storage)
    assert store.remnants() == ()
    assert not store.clear_remnant("theirs")
    with pytest.raises(StoreError, match="a study 'theirs' that gridsearch did not make"):
        store.add(make.study("theirs", axes=("lr",)), make.drafts({"lr": [0.1]}))
    with pytest.raises(StoreError, match="an empty study 'empty'") as caught:
        store.add(make.study("empty", axes=("lr",)), make.drafts({"lr": [0.1]}))
    assert "gridsearch study clean empty" in str(caught.value.hint)
    assert store.clear_remnant("empty")


def test_a_copy_that_another_program_made_is_no_remnant_and_not_overwritten(store, make):
    added = store.add(make.study(axes=("lr",)), make.drafts({"lr": [0.1, 0.2]}))
    for claimed in store.claim(added.ids, owner=RunnerIdentity.current(), pack="p", lease=60):
        store.finish(make.finished(claimed, 0.7))
    storage = reader(store)
    optuna.copy_study(
        from_study_name="digits", from_storage=storage, to_storage=storage, to_study_name="copied"
    )
    assert store.remnants() == ()
    assert not store.clear_remnant("copied")
    with pytest.raises(StoreError, match="a copy of a study under the name 'copied'"):
        store.add(make.study("copied", axes=("lr",)), make.drafts({"lr": [0.3]}))
    assert len(optuna.load_study(study_name="copied", storage=storage).trials) == 2
    assert store.study_data("digits").counts()[TrialState.COMPLETE] == 2
