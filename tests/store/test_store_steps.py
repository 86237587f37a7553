"""Studies of plain functions in the store: steps beside epochs, params of any name, and stores from before them."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import optuna
import pytest

from gridsearch.errors import UsageError
from gridsearch.records import (
    FunctionSettings,
    StepEnded,
    StepRow,
    TrialDraft,
    TrialFinished,
    TrialState,
    trial_key,
)
from gridsearch.store import RunnerIdentity, StudyDraft, open_store
from tests.store.readers import only_sqlite, reader

OWNER = RunnerIdentity.current()


def drafts(*points, source="a" * 64, axes=None):
    made = []
    for params in points:
        settings = FunctionSettings(objective="f.py:f", objective_source=source, params=params)
        names = tuple(axes or params)
        made.append(TrialDraft(key=trial_key(settings, 0), seed=0, settings=settings, axes=names))
    return made


def study(**values):
    given = {"name": "f", "dataset": "f.py:f", "metric": "loss", "direction": "minimize", "axes": ("x",)}
    return StudyDraft(**given | values)


def claimed(store, points, **values):
    added = store.add(study(**values), drafts(*points))
    return store.claim(added.ids, owner=OWNER, pack="p", lease=60)


def step(trial, number, **metrics):
    return StepEnded(trial=trial.id, attempt=trial.attempt, step=number, metrics=metrics, seconds=0.5)


def finished(trial, **metrics):
    return TrialFinished(
        trial=trial.id,
        attempt=trial.attempt,
        state=TrialState.COMPLETE,
        epochs=2,
        seconds=1.0,
        metrics=metrics,
    )


def optuna_study(store):
    return optuna.load_study(study_name="f", storage=reader(store))


def test_steps_come_back_as_they_were_and_the_ranking_metric_is_optunas_curve(store):
    (trial,) = claimed(store, [{"x": 1}])
    steps = [
        step(trial, 1, loss=2.0, other=math.nan),
        step(trial, 2, loss=1.0),
        step(trial, 3, other=math.inf),
    ]
    assert store.record_epochs(steps) == 3
    assert store.record_epochs(steps[:1]) == 1
    rows = store.study_data("f").steps[trial.number]
    assert [row.step for row in rows] == [1, 2, 3]
    assert math.isnan(rows[0].metrics["other"])
    assert rows[2] == StepRow(step=3, metrics={"other": math.inf}, seconds=0.5)
    assert optuna_study(store).trials[0].intermediate_values == {1: 2.0, 2: 1.0}
    assert store.trial_record("f", trial.number)[0].epochs == 3


def test_the_steps_of_an_attempt_that_ended_without_a_result_are_gone(store):
    (trial,) = claimed(store, [{"x": 1}])
    store.record_epochs([step(trial, 1, loss=2.0)])
    store.requeue([(trial.id, trial.attempt)], retries=2)
    assert store.study_data("f").steps == {}
    assert optuna_study(store).trials[0].intermediate_values == {}
    assert store.record_epochs([step(trial, 2, loss=1.0)]) == 0, "its attempt has lost the claim"


def test_the_best_of_a_study_that_minimizes_is_the_lowest(store):
    trials = claimed(store, [{"x": x} for x in (1, 2, 3)])
    store.finish_many([finished(t, loss=abs(t.settings.params["x"] - 2.2)) for t in trials])
    found = optuna_study(store)
    assert found.direction is optuna.study.StudyDirection.MINIMIZE
    assert found.best_params == {"x": 2}
    assert found.metric_names == ["loss"]


def test_metrics_named_as_what_is_told_of_every_trial_do_not_take_its_place(store):
    (trial,) = claimed(store, [{"x": 1}])
    store.finish(finished(trial, loss=1.0, seconds=9.0, epochs=8.0, key=7.0))
    attributes = optuna_study(store).trials[0].user_attrs
    assert (attributes["seconds"], attributes["epochs"], attributes["key"]) == (1.0, 2, trial.key)
    assert (attributes["metrics.seconds"], attributes["metrics.epochs"], attributes["metrics.key"]) == (
        9.0,
        8.0,
        7.0,
    )
    assert store.study_data("f").trials[0].metrics == {"loss": 1.0, "seconds": 9.0, "epochs": 8.0, "key": 7.0}


def test_a_param_of_an_axis_name_has_none_of_its_bounds_and_may_widen(store):
    axes = ("lr", "batch", "model")
    store.add(study(axes=axes), drafts({"lr": -5, "batch": 0.5, "model": 3}))
    store.add(study(axes=axes), drafts({"lr": 1e9, "batch": "large", "model": None}))
    first, second = optuna_study(store).trials
    assert first.params == {"lr": -5, "batch": 0.5, "model": 3}
    assert second.params == {"lr": 1e9, "batch": "large"}
    assert [t.params for t in store.study_data("f").trials][1] == {"lr": 1e9, "batch": "large", "model": None}


def test_what_tells_trials_apart_is_shown_also_where_only_some_have_it(store):
    store.add(study(), drafts({"x": 1, "a": 5}, axes=["x"]))
    added = store.add(study(), drafts({"x": 1, "a": 5, "b": 2}, axes=["x"]))
    assert added.varied == ("b",)
    assert [t.params for t in store.study_data("f").trials] == [{"x": 1}, {"x": 1, "b": 2}]


def test_a_changed_function_makes_new_trials_beside_the_old_and_is_shown(store):
    store.add(study(), drafts({"x": 1}))
    added = store.add(study(), drafts({"x": 1}, source="b" * 64))
    assert (added.new, added.varied) == (1, ("objective_version",))
    versions = [t.params["objective_version"] for t in store.study_data("f").trials]
    assert versions == ["aaaaaaaa", "bbbbbbbb"]


@pytest.mark.parametrize("change", [{"dataset": "g.py:f"}, {"metric": "value"}, {"direction": "maximize"}])
def test_a_study_is_of_one_function_and_ranked_by_one_metric(store, change):
    store.add(study(), drafts({"x": 1}))
    with pytest.raises(UsageError):
        store.add(study(**change), drafts({"x": 2}))


def test_a_store_from_before_there_were_steps_gets_their_table_and_keeps_its_own(store, url, home, make):
    store.add(make.study(axes=("lr",)), make.drafts({"lr": [0.1]}))
    with store._database.write() as connection:
        connection.exec_driver_sql("DROP TABLE gridsearch_steps")
    with open_store(url, home=home, create=False) as opened:
        assert [t.params for t in opened.study_data("digits").trials] == [{"lr": 0.1}]
        (trial,) = claimed(opened, [{"x": 1}])
        assert opened.finish(finished(trial, loss=1.0), epochs=[step(trial, 1, loss=1.0)])
        assert opened.study_data("f").steps[trial.number][0].metrics == {"loss": 1.0}


@only_sqlite
def test_a_read_only_store_from_before_there_were_steps_can_still_be_read(
    store, url, home, make, monkeypatch
):
    store.add(make.study(axes=("lr",)), make.drafts({"lr": [0.1]}))
    path = Path(store.place)
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE gridsearch_steps")
    connection.close()
    monkeypatch.setattr(
        "gridsearch.store.sqlite_site.os.access", lambda *_: False
    )  # the tests may run as root
    with open_store(url, home=home, create=False) as opened:
        assert len(opened.study_data("digits").trials) == 1
