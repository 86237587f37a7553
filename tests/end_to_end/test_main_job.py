"""The main job as a user does it: one command, a ranked and drawn answer, everything to be found again."""

from __future__ import annotations

import csv
import io
import json

import optuna
import pytest

from tests.end_to_end.job_words import GRID

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """One run that several tests look at."""
    import os
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("ran")
    env = {**os.environ, "GRIDSEARCH_HOME": str(folder / "home"), "GRIDSEARCH_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "gridsearch", "run", *GRID, "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "home", done


@pytest.fixture
def there(ran, monkeypatch):
    monkeypatch.setenv("GRIDSEARCH_HOME", str(ran[0]))
    return ran[0]


def test_results_go_to_stdout_and_progress_to_stderr(ran):
    _, done = ran
    assert "is best" in done.stdout
    assert "report:" in done.stdout
    assert "[6/6] trial" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_the_files_are_where_the_interface_says(there):
    study = there / "digits"
    assert (there / "gridsearch.db").exists()
    report = {p.name for p in (study / "report").iterdir()}
    for name in ("index.html", "ranking.csv", "ranking.json", "trials.csv"):
        assert name in report
    for stem in ("heatmap", "confusion", "curves"):
        assert {f"{stem}.png", f"{stem}.svg"} <= report
    for number in range(6):
        assert {p.name for p in (study / "trials" / str(number)).iterdir()} >= {
            "predictions.safetensors",
            "weights.safetensors",
        }
        assert list((study / "tensorboard" / str(number)).glob("events*"))


def test_optuna_sees_each_trial_once_with_everything(there):
    study = optuna.load_study(study_name="digits", storage=f"sqlite:///{there / 'gridsearch.db'}")
    assert study.direction is optuna.study.StudyDirection.MAXIMIZE
    assert study.metric_names == ["val_accuracy"]
    points = set()
    for trial in study.trials:
        assert trial.state is optuna.trial.TrialState.COMPLETE
        assert isinstance(trial.params["lr"], float)
        assert isinstance(trial.params["batch"], int)
        points.add((trial.params["lr"], trial.params["batch"]))
        assert sorted(trial.intermediate_values) == [1, 2, 3]
        assert trial.value == trial.intermediate_values[3]
        assert {"key", "seed", "epochs", "seconds", "val_accuracy", "train_loss"} <= set(trial.user_attrs)
        assert trial.datetime_complete >= trial.datetime_start
    assert points == {(lr, batch) for lr in (0.01, 0.001) for batch in (25, 50, 100)}
    assert len(study.trials) == 6
    assert study.best_trial.value == max(t.value for t in study.trials)


@pytest.mark.usefixtures("undrawn")
def test_the_ranking_agrees_with_the_store_and_schema_1(there, cli):
    found = cli("report", "--study", "digits", "--json").json
    assert json.loads((there / "digits" / "report" / "ranking.json").read_text()) == found
    assert found["schema"] == 1
    assert set(found) >= {
        "study",
        "dataset",
        "metric",
        "direction",
        "counts",
        "points",
        "trials",
        "effects",
        "residual_share",
        "best",
        "test",
    }
    assert found["counts"] == {
        "complete": 6,
        "diverged": 0,
        "failed": 0,
        "pruned": 0,
        "running": 0,
        "waiting": 0,
    }
    means = [point["mean"] for point in found["points"]]
    assert means == sorted(means, reverse=True)
    assert found["points"][0]["rank"] == 1
    assert all(0.5 < mean <= 1 for mean in means)
    best = max(found["trials"], key=lambda t: t["value"])
    assert found["best"]["params"] == best["params"]
    for trial in found["trials"]:
        assert set(trial) >= {
            "number",
            "params",
            "seed",
            "state",
            "value",
            "metrics",
            "val_accuracy",
            "val_loss",
            "train_accuracy",
            "train_loss",
            "epochs",
            "seconds",
            "attempts",
            "error",
        }


def test_a_second_run_trains_nothing_and_a_larger_grid_only_what_is_new(there, cli):
    again = cli("run", *GRID, "--json", "--no-report").json
    assert (again["new"], again["reused"]) == (0, 6)
    reordered = ("--grid", "batch=100,25,50", "lr=.001,1e-2", *GRID[3:])
    planned = cli("plan", *reordered, "--json").json
    assert (planned["new"], planned["done"], planned["points"]) == (0, 6, 6)
    larger = ("--grid", "lr=.01,.001", "batch=25,50,100,200", *GRID[3:])
    planned = cli("plan", *larger, "--json").json
    assert (planned["new"], planned["done"], planned["trials"]) == (2, 6, 8)
    assert [(g["batch"], g["trials"], g["method"]) for g in planned["groups"]] == [(200, 2, "solo")]


def test_export_status_study_and_trial_tell_the_same_story(there, cli):
    rows = list(csv.DictReader(io.StringIO(cli("export", "--study", "digits").out)))
    assert len(rows) == 6
    exported = cli("export", "--study", "digits", "--format", "json").json
    assert len(exported["trials"]) == 6
    status = cli("status", "--json").json
    assert status["studies"][0]["counts"]["complete"] == 6
    listed = cli("study", "list", "--json").json["studies"][0]
    assert listed["study"] == "digits"
    assert listed["bytes"] > 10_000
    shown = cli("trial", "2", "--study", "digits", "--json").json
    assert [row["epoch"] for row in shown["curves"]] == [1, 2, 3]
    text = cli("trial", "2", "--study", "digits").out
    assert "batch=100" in text
    assert "val acc" in text


def test_the_report_can_be_made_on_another_machine(there, cli, tmp_path):
    import shutil

    shutil.copytree(there, tmp_path / "copy")
    result = cli("report", "--study", "digits", "--home", str(tmp_path / "copy"))
    assert result.code == 0, result.err
    assert str(tmp_path / "copy") in result.out
    assert (tmp_path / "copy" / "digits" / "report" / "confusion.png").stat().st_size > 5_000


@pytest.mark.usefixtures("undrawn")
def test_altered_predictions_are_named_and_the_report_is_made_all_the_same(there, cli, tmp_path):
    import shutil

    shutil.copytree(there, tmp_path / "copy")
    best = cli("report", "--study", "digits", "--json").json["best"]["trial"]
    file = tmp_path / "copy" / "digits" / "trials" / str(best) / "predictions.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    result = cli("report", "--study", "digits", "--home", str(tmp_path / "copy"))
    assert result.code == 0
    assert "predictions.safetensors" in result.err
    assert "is best" in result.out
