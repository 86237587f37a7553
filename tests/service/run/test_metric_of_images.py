"""`--metric` of a study on images: recorded with the study, ranks, prunes and selects; refused where it cannot be had."""

from __future__ import annotations

import json

import pytest
from sklearn import metrics as sk

import gridsearch as gs
from gridsearch.cli import main

pytestmark = pytest.mark.end_to_end

NAMES = {"macro_f1": "macro_f1", "loss": "val_loss", "auc": "auc", "recall:8": "recall:8"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Return a home with a study for each of several metrics, of two points each."""
    place = tmp_path_factory.mktemp("metrics")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRIDSEARCH_CACHE", str(place / "cache"))
        for number, metric in enumerate(NAMES):
            run(place / "home", metric=metric, study=f"s{number}")
        yield place / "home"


def run(home, *, lr=(0.01, 1e-6), epochs=2, **more):
    how = {"home": home, "executor": "inline", "quiet": True, "report": False}
    return gs.run({"lr": list(lr)}, dataset="digits", model="mlp", epochs=epochs, subset=200, **how, **more)


def call(capsys, home, *words) -> tuple[int, str, str]:
    code = main([*words, "--home", str(home)])
    found = capsys.readouterr()
    return code, found.out, found.err


@pytest.mark.parametrize(("number", "metric"), list(enumerate(NAMES)))
def test_the_study_goes_by_its_metric_in_the_store_the_ranking_and_optuna(home, number, metric):
    name, direction = NAMES[metric], "minimize" if metric == "loss" else "maximize"
    result = gs.load(f"s{number}", home=home)
    content = result.to_json()
    assert (content["metric"], content["direction"]) == (name, direction)
    assert "study_metric" not in content
    values = {t["number"]: t["value"] for t in content["trials"]}
    assert result.ranking.best_trial.number == 0, "lr=1e-6 learns nothing"
    stored = result.predictions(0)
    expected = {
        "macro_f1": lambda: sk.f1_score(stored.labels, stored.guesses, average="macro"),
        "loss": lambda: content["trials"][0]["val_loss"],
        "auc": lambda: result.by("auc").ranking.best.mean,
        "recall:8": lambda: sk.recall_score(stored.labels, stored.guesses, labels=[8], average=None)[0],
    }[metric]()
    assert values[0] == pytest.approx(expected, rel=1e-6)
    import optuna

    study = optuna.load_study(study_name=f"s{number}", storage=f"sqlite:///{home}/gridsearch.db")
    assert study.direction.name == direction.upper()
    assert study.best_trial.number == 0 and study.best_value == values[0]
    assert study.metric_names == [name]
    last = study.trials[0].intermediate_values
    if metric in ("macro_f1", "loss"):
        assert set(last) == {1, 2} and last[2] == pytest.approx(values[0])
    else:
        assert last == {}, "these are known when a trial has ended"


def test_status_plan_and_lists_say_the_metric(home, capsys):
    studies = {s["study"]: s for s in json.loads(call(capsys, home, "status", "--json")[1])["studies"]}
    assert (studies["s1"]["metric"], studies["s1"]["direction"]) == ("val_loss", "minimize")
    _, out, _ = call(capsys, home, "status", "--study", "s0")
    assert "macro F1" in out
    words = ("--grid", "lr=.01", "--dataset", "digits", "--model", "mlp", "--study", "new", "--metric", "ece")
    plan = json.loads(call(capsys, home, "plan", *words, "--json")[1])
    assert (plan["metric"], plan["direction"]) == ("ece", "minimize")
    assert (
        "ranked by expected calibration error, the lower the better" in call(capsys, home, "plan", *words)[1]
    )


def test_a_finished_study_has_nothing_to_do_and_keeps_its_metric_when_resumed(home):
    again = run(home, metric="loss", study="s1")
    assert (again.new, again.reused) == (0, 2)
    resumed = gs.run(study="s1", home=home, executor="inline", quiet=True, report=False)
    assert resumed.ranking.metric == "val_loss"


def test_another_metric_for_a_study_is_refused_with_the_way_to_see_it(home, capsys):
    words = (
        "--grid",
        "lr=.01",
        "--dataset",
        "digits",
        "--model",
        "mlp",
        "--study",
        "s1",
        "--executor",
        "inline",
    )
    code, out, err = call(capsys, home, "run", *words, "--metric", "auc")
    assert (code, out) == (2, "")
    assert "study 's1' is ranked by loss, not by auc" in err
    assert "give --metric loss as before, and see `report --by auc`" in err
    code, out, err = call(capsys, home, "plan", *words)
    assert (code, out) == (2, "")
    assert "study 's1' is ranked by loss, not by accuracy" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metric", "macro_f2"], "did you mean 'macro_f1'?"),
        (["--metric", "recall:nine"], "dataset 'digits' has no class 'nine'"),
        (
            ["--metric", "auc", "--prune", "median"],
            "auc is computed when a trial has ended, not after each epoch",
        ),
        (["--metric", "auc", "--set", "select=best"], "select=best needs a metric that each epoch has"),
        (["--metric", "loss", "--val", "0"], "nothing is held out (val=0)"),
        (["--direction", "minimize"], "a metric of images has its own"),
    ],
)
@pytest.mark.parametrize("command", ["run", "plan"])
def test_what_cannot_be_had_is_one_line_and_nothing_is_written(
    home, tmp_path, capsys, monkeypatch, command, words, message
):
    monkeypatch.setenv("GRIDSEARCH_CACHE", str(home.parent / "cache"))
    about = ("--grid", "lr=.01", "--dataset", "digits", "--model", "mlp")
    code, out, err = call(capsys, tmp_path / "none", command, *about, *words)
    assert (code, out) == (2, "")
    assert message in err
    assert "None" not in err
    assert len(err.splitlines()) <= 2
    assert not (tmp_path / "none").exists()


def test_poor_trials_end_early_by_the_metric_of_the_study(tmp_path, home, monkeypatch):
    """Eight points of which the last ones have the largest losses: the median rule ends them after two epochs."""
    monkeypatch.setenv("GRIDSEARCH_CACHE", str(home.parent / "cache"))
    rates = [0.01, 0.008, 0.006, 0.005, 0.004, 0.003, 1e-6, 1e-7]
    for metric in ("loss", "macro_f1"):
        result = run(
            tmp_path / metric, lr=rates, epochs=5, metric=metric, prune="median", lanes=1, study="pruned"
        )
        pruned = result.trials[result.trials.state == "pruned"]
        assert set(pruned.lr) >= {1e-6, 1e-7}
        assert 0.01 not in set(pruned.lr)
        shown = {"loss": "validation loss", "macro_f1": "macro F1"}[metric]
        assert f"pruned by median after epoch 2 of 5, {shown}" in pruned.error.iloc[-1]


def test_the_best_epoch_is_that_of_the_study_s_metric_and_another_point_than_by_accuracy(
    tmp_path, home, monkeypatch
):
    monkeypatch.setenv("GRIDSEARCH_CACHE", str(home.parent / "cache"))
    how = {"lr": [0.03], "epochs": 6, "recipe": {"select": "best"}, "lanes": 1}
    by_accuracy = run(tmp_path / "h", study="a", **how)
    for metric, name in (("loss", "val_loss"), ("balanced_accuracy", "balanced_accuracy")):
        found = run(tmp_path / "h", study=metric, metric=metric, **how)
        trial = found.data.trials[0]
        assert trial.settings.select_metric == name
        assert trial.key != by_accuracy.data.trials[0].key
        if metric == "loss":
            losses = [row.val_loss for row in found.data.epochs[0]]
            assert trial.metrics["selected_epoch"] == losses.index(min(losses)) + 1
            assert trial.value == min(losses)
    assert by_accuracy.data.trials[0].settings.select_metric == "val_accuracy"
