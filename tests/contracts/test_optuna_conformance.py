"""What the store writes into Optuna's tables is what Optuna itself would have written.

The store writes rows directly; so a study made by it is compared, through Optuna's public interface alone, with one
of the same content that Optuna made.  Runs against whatever supported version of Optuna is installed.
"""

from __future__ import annotations

import datetime as dt
import math
import tomllib
from pathlib import Path

import optuna
import pytest
from alembic.script import ScriptDirectory
from optuna.artifacts import FileSystemArtifactStore, download_artifact, get_all_artifact_meta
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages._rdb import models
from optuna.trial import TrialState as OptunaState
from packaging.specifiers import SpecifierSet

from gridsearch.records import (
    EpochEnded,
    ImageSettings,
    TrialDraft,
    TrialFailed,
    TrialFinished,
    TrialState,
    trial_key,
)
from gridsearch.store import RunnerIdentity, StudyDraft, open_store, optuna_tables
from tests.servers.postgresql import emptied
from tests.store.readers import reader

POINTS = [
    {"lr": lr, "batch": batch, "norm": norm, "nesterov": nesterov}
    for lr, batch, norm, nesterov in [
        (0.1, 10, "none", True),
        (0.01, 20, "standard", False),
        (0.001, 50, "none", False),
        (0.5, 10, "standard", True),
        (0.2, 30, "none", True),
    ]
]
EPOCHS = {0: [0.1, 0.7], 1: [0.2, math.nan], 3: [math.inf]}


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def ours(request, tmp_path_factory):
    """A study with a trial in every state, read back by Optuna."""
    home = tmp_path_factory.mktemp("conformance")
    drafts = []
    for point in POINTS:
        settings = ImageSettings(dataset="digits", **point)
        drafts.append(TrialDraft(key=trial_key(settings, 7), seed=7, settings=settings, axes=tuple(point)))
    url = f"sqlite:///{home}/gridsearch.db"
    if request.param == "postgresql":
        server, name = request.getfixturevalue("postgresql"), request.getfixturevalue("one_store")
        emptied(server, name)
        url = server.url(name)
    with open_store(url, home=home, create=True) as store:
        study = StudyDraft(name="digits", dataset="digits", metric="val_accuracy", axes=tuple(POINTS[0]))
        added = store.add(study, drafts)
        trials = store.claim(added.ids[:4], owner=RunnerIdentity.current(), pack="p", lease=60)
        store.record_epochs(
            [epoch(trials[n], step, v) for n, values in EPOCHS.items() for step, v in enumerate(values, 1)]
        )
        complete, diverged, failed, _ = trials
        metrics = {"val_accuracy": 0.7, "train_loss": 0.25}
        store.finish_many(
            [
                result(complete, TrialState.COMPLETE, metrics),
                result(diverged, TrialState.DIVERGED, {"val_accuracy": math.nan, "train_loss": math.inf}),
            ]
        )
        store.fail(TrialFailed(trial=failed.id, attempt=1, reason="error", message="boom", traceback=""))
        (home / "a.png").write_bytes(b"png")
        store.add_artifact(study="digits", number=3, path=home / "a.png")
        store.add_artifact(study="digits", path=home / "a.png", mimetype="image/x-ours")
        yield optuna.load_study(study_name="digits", storage=reader(store)), store


def epoch(trial, step, value):
    return EpochEnded(
        trial=trial.id,
        attempt=trial.attempt,
        epoch=step,
        train_loss=1.0,
        train_accuracy=0.5,
        val_loss=1.0,
        val_accuracy=value,
        lr=0.1,
        seconds=1.0,
        images_per_second=1.0,
    )


def result(trial, state, metrics):
    return TrialFinished(
        trial=trial.id, attempt=1, state=state, epochs=2, seconds=1.0, metrics=metrics, message=None
    )


@pytest.fixture(scope="module")
def theirs(ours):
    """The same study as Optuna makes it, from the values alone."""
    study = optuna.create_study(direction="maximize", study_name="digits")
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        study.set_metric_names(["val_accuracy"])
    states = [
        OptunaState.COMPLETE,
        OptunaState.FAIL,
        OptunaState.FAIL,
        OptunaState.RUNNING,
        OptunaState.WAITING,
    ]
    distributions = ours[0].trials[0].distributions
    for number, (point, state) in enumerate(zip(POINTS, states, strict=True)):
        study.add_trial(
            optuna.trial.create_trial(
                params=point,
                distributions=distributions,
                state=state,
                value=0.7 if state is OptunaState.COMPLETE else None,
                intermediate_values=dict(enumerate(EPOCHS.get(number, []), 1)),
            )
        )
    return study


def test_the_revision_that_we_write_is_the_one_of_the_installed_optuna():
    scripts = ScriptDirectory(str(Path(models.__file__).parent / "alembic"))
    assert optuna_tables.revisions() == tuple(script.revision for script in scripts.walk_revisions())
    assert optuna_tables.revisions()[0] == optuna_tables.REVISION


def test_the_versions_that_are_asked_for_are_those_that_the_errors_and_the_doctor_name():
    root = Path(__file__).parents[2]
    asked = tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"]
    assert f"optuna{optuna_tables.SUPPORTED}" in asked
    assert SpecifierSet(optuna_tables.SUPPORTED).contains(optuna.__version__)


def test_params_distributions_states_and_values_are_those_of_optuna(ours, theirs):
    for mine, other in zip(ours[0].trials, theirs.trials, strict=True):
        assert mine.number == other.number
        assert mine.state == other.state
        assert mine.values == other.values
        assert mine.params == other.params
        assert [type(v) for v in mine.params.values()] == [type(v) for v in other.params.values()]
        assert mine.distributions == other.distributions
        assert list(mine.params) == list(other.params), "in the grid's order"
        assert repr(mine.intermediate_values) == repr(other.intermediate_values)


def test_every_trial_passes_optunas_own_validation(ours):
    for trial in ours[0].trials:
        if trial.state is not OptunaState.WAITING:
            trial._validate()
        for name, distribution in trial.distributions.items():
            assert distribution._contains(distribution.to_internal_repr(trial.params[name]))


def test_kinds_are_typed_with_fixed_wide_bounds(ours):
    kinds = ours[0].trials[0].distributions
    assert isinstance(kinds["lr"], FloatDistribution)
    assert kinds["lr"].log
    assert isinstance(kinds["batch"], IntDistribution)
    assert kinds["norm"] == CategoricalDistribution(("none", "standard"))
    assert kinds["nesterov"].choices == (True, False)
    assert {repr(t.distributions) for t in ours[0].trials} == {repr(kinds)}, "the same for all"


def test_the_study_has_optunas_direction_metric_names_and_best_trial(ours, theirs):
    study = ours[0]
    assert study.direction == theirs.direction
    assert study.metric_names == theirs.metric_names
    assert study.best_trial.number == theirs.best_trial.number == 0
    assert study.trials_dataframe()["value_val_accuracy"].tolist()[0] == 0.7


def test_times_are_told_as_optuna_tells_them(ours):
    now = dt.datetime.now()
    complete, _, _, running, waiting = ours[0].trials
    assert abs(now - complete.datetime_start) < dt.timedelta(minutes=10), "local time, made from UTC"
    assert complete.datetime_complete >= complete.datetime_start
    assert (running.datetime_complete, waiting.datetime_start) == (None, None)


def test_user_attributes_tell_key_seed_and_outcome(ours):
    complete, diverged, failed, running, _ = ours[0].trials
    assert complete.user_attrs["seed"] == running.user_attrs["seed"] == 7
    assert len(complete.user_attrs["key"]) == 64
    outcomes = [t.user_attrs["outcome"] for t in (complete, diverged, failed)]
    assert outcomes == ["complete", "diverged", "failed"]
    assert (diverged.user_attrs["val_accuracy"], failed.user_attrs["error"]) == (None, "boom")


def test_artifacts_are_registered_where_optuna_looks_for_them(ours, tmp_path):
    study, store = ours
    files = FileSystemArtifactStore(store.home.artifact_dir)
    (of_trial,) = get_all_artifact_meta(study.trials[3], storage=study._storage)
    (of_study,) = get_all_artifact_meta(study)
    assert (of_trial.filename, of_trial.mimetype) == ("a.png", "image/png")
    assert (of_study.filename, of_study.mimetype) == ("a.png", "image/x-ours")
    download_artifact(
        artifact_store=files, file_path=str(tmp_path / "b.png"), artifact_id=of_trial.artifact_id
    )
    assert (tmp_path / "b.png").read_bytes() == b"png"


def test_optunas_own_analyses_run_on_the_study(ours):
    study = ours[0]
    assert set(optuna.search_space.intersection_search_space(study.trials)) == set(POINTS[0])
    copied = optuna.create_study(direction="maximize")
    copied.add_trials([t for t in study.trials if t.state.is_finished()])
    assert len(copied.trials) == 3


def test_optuna_deletes_the_study_with_all_that_hangs_on_it(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/a.db", home=tmp_path, create=True) as store:
        settings = ImageSettings(dataset="digits")
        draft = TrialDraft(key=trial_key(settings, 0), seed=0, settings=settings, axes=("lr",))
        store.add(StudyDraft(name="d", dataset="digits", metric="val_accuracy", axes=("lr",)), [draft])
        optuna.delete_study(study_name="d", storage=store.url)
        with store._database.read() as connection:
            for table in (
                "studies",
                "trials",
                "trial_params",
                "trial_user_attributes",
                "study_system_attributes",
            ):
                assert connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar() == 0
