"""What Optuna's own evaluators of importance say of a grid: the same as of a study that Optuna made."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances
from sqlalchemy import update

from gridsearch.store import RunnerIdentity, open_store, optuna_tables
from tests.store.readers import only_sqlite, reader


@pytest.fixture
def filled(store, make):
    """Return a function that adds a grid and finishes its trials; lr decides nearly all, batch nothing."""

    def fill(axes, **options):
        drafts = make.drafts(axes, **options)
        added = store.add(make.study(axes=tuple(axes)), drafts, prune=False)
        for trial in store.claim(added.ids, owner=RunnerIdentity.current(), pack="p", lease=60):
            near = math.exp(-((math.log10(trial.settings.lr) + 2) ** 2))
            store.finish(make.finished(trial, near + 1e-4 * trial.settings.batch / 128))
        return loaded(store)

    return fill


def loaded(store):
    storage = reader(store)
    return optuna.load_study(study_name="digits", storage=storage)


def of_optuna(study):
    """Return a study that holds the same trials, with the ranges of their values."""
    values = {k: sorted({t.params[k] for t in study.trials}) for k in study.trials[0].params}

    def range_of(v):
        if isinstance(v[0], str):
            return CategoricalDistribution(v)
        return (IntDistribution if isinstance(v[0], int) else FloatDistribution)(v[0], v[-1], log=True)

    fresh = optuna.create_study(direction="maximize")
    ranges = {k: range_of(v) for k, v in values.items()}
    for t in study.trials:
        fresh.add_trial(optuna.trial.create_trial(params=t.params, value=t.value, distributions=ranges))
    return fresh


def evaluators():
    return PedAnovaImportanceEvaluator(), FanovaImportanceEvaluator(n_trees=16, seed=0)


@only_sqlite
@pytest.mark.parametrize(
    "axes",
    [
        {"lr": [3e-4, 1e-3, 3e-3, 1e-2, 3e-2], "batch": [16, 32, 64, 128], "norm": ["none", "standard"]},
        {"lr": [0.01], "batch": [32, 64, 128]},
        {"lr": [0.001, 0.0011, 0.0012], "batch": [50, 51]},
    ],
    ids=["grid", "constant lr", "near values"],
)
def test_importances_equal_those_of_the_same_trials_in_a_study_of_optuna(filled, axes):
    study = filled(axes, seeds=(0, 1))
    for evaluator in evaluators():
        ours = get_param_importances(study, evaluator=evaluator)
        assert ours == pytest.approx(get_param_importances(of_optuna(study), evaluator=evaluator))


@only_sqlite
def test_an_axis_that_never_varies_has_no_importance(filled):
    study = filled({"lr": [0.01], "batch": [32, 64, 128]})
    assert all(get_param_importances(study, evaluator=e).get("lr", 0) == 0 for e in evaluators())


@only_sqlite
def test_a_grid_that_grows_brings_the_range_of_all_trials_along(filled):
    filled({"lr": [0.01, 0.1], "batch": [32]})
    study = filled({"lr": [0.001, 0.01, 0.3], "batch": [32, 128]})
    assert {t.distributions["lr"] for t in study.trials} == {FloatDistribution(0.001, 0.3, log=True)}
    assert {t.distributions["batch"] for t in study.trials} == {IntDistribution(32, 128, log=True)}


@only_sqlite
def test_an_axis_is_logarithmic_where_its_values_span_decades(filled):
    study = filled({"weight_decay": [1e-5, 1e-3], "momentum": [0.5, 0.9], "lr": [0.1]})
    assert study.trials[0].distributions["weight_decay"] == FloatDistribution(1e-5, 1e-3, log=True)
    assert study.trials[0].distributions["momentum"] == FloatDistribution(0.5, 0.9)
    study = filled({"weight_decay": [0, 1e-5, 1e-3], "momentum": [0.5, 0.9], "lr": [0.1]})
    assert {t.distributions["weight_decay"] for t in study.trials} == {FloatDistribution(0, 1e-3)}


def as_of_revision_1(store):
    """Make the store what the first revision wrote: wide bounds that the grid does not decide."""
    wide = {
        "lr": '{"name": "FloatDistribution", "attributes": {"step": null, "low": 1e-12, "high": 1000000.0, "log": true}}',
        "batch": '{"name": "IntDistribution", "attributes": {"log": true, "step": 1, "low": 1, "high": 16777216}}',
    }
    params = optuna_tables.trial_params
    with store._database.write() as connection:
        for name, text in wide.items():
            of_name = update(params).where(params.c.param_name == name)
            connection.execute(of_name.values(distribution_json=text))
        connection.exec_driver_sql("UPDATE gridsearch_schema SET revision = 1")


def test_an_older_store_gets_the_ranges_of_its_values_when_it_is_opened(filled, store, url, home):
    filled({"lr": [0.01, 0.1], "batch": [32, 64]})
    as_of_revision_1(store)
    with open_store(url, home=home, create=False) as again:
        distributions = [t.distributions for t in loaded(again).trials]
        assert (
            distributions
            == [{"lr": FloatDistribution(0.01, 0.1, log=True), "batch": IntDistribution(32, 64, log=True)}]
            * 4
        )
    with store._database.read() as connection:
        assert connection.exec_driver_sql("SELECT revision FROM gridsearch_schema").all() == [(2,)]


@only_sqlite
def test_an_older_store_that_may_not_be_written_is_read_as_it_is(filled, store, url, home, monkeypatch):
    filled({"lr": [0.01, 0.1], "batch": [32]})
    as_of_revision_1(store)
    monkeypatch.setattr("os.access", lambda *_: False)
    before = Path(store.place).read_bytes()
    with open_store(url, home=home, create=False) as again:
        assert [t.params for t in again.study_data("digits").trials] == [
            {"lr": 0.01, "batch": 32},
            {"lr": 0.1, "batch": 32},
        ]
    assert Path(store.place).read_bytes() == before
