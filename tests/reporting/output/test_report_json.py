"""The JSON that scripts parse: schema 1, key by key."""

import json

import pytest

from gridsearch.records import TrialState
from gridsearch.reporting import export_json, report_json

TOP = {
    "schema", "study", "dataset", "objective", "metric", "direction", "counts", "points", "trials", "effects",
    "residual_share", "best", "test", "ensembles", "findings",
}  # fmt: skip
POINT = {
    "rank", "params", "n", "mean", "spread", "ci_low", "ci_high", "tied_with_best", "seconds", "diverged", "pruned", "metrics",
}  # fmt: skip
TRIAL = {
    "number", "params", "seed", "state", "value", "metrics", "val_accuracy", "val_loss", "train_accuracy",
    "train_loss", "epochs", "seconds", "attempts", "error", "pruned_by", "stopped_early",
}  # fmt: skip


def test_the_report_has_exactly_the_keys_of_schema_1(study):
    report = report_json(study({"lr": [0.01, 0.001], "batch": [10, 20]}, seeds=2).data())
    assert set(report) == TOP
    assert report["schema"] == 1
    assert all(set(p) == POINT for p in report["points"])
    assert all(set(t) == TRIAL for t in report["trials"])
    assert set(report["counts"]) == {"complete", "diverged", "failed", "pruned", "running", "waiting"}
    assert all(set(e) == {"axis", "share"} for e in report["effects"])
    assert set(report["best"]) == {"params", "trial"}


def test_accuracies_are_fractions_and_params_hold_the_axes_without_the_seed(study):
    report = report_json(study({"lr": [0.01, 0.001]}, seeds=2).data())
    assert 0 < report["points"][0]["mean"] < 1
    assert [p["params"] for p in report["points"]] == [{"lr": 0.001}, {"lr": 0.01}]
    assert [t["seed"] for t in report["trials"]] == [0, 1, 0, 1]


def test_best_names_the_first_seed_of_the_first_point(study):
    report = report_json(study({"lr": [0.01, 0.001]}, seeds=2).data())
    assert report["best"] == {"params": {"lr": 0.001}, "trial": 2}


def test_nan_never_reaches_the_json(study):
    data = study({"lr": [0.1, 0.2]}).lose(0, TrialState.DIVERGED, "loss is nan at step 3").data()
    report = json.loads(export_json(data), parse_constant=pytest.fail)
    lost = report["trials"][0]
    assert (lost["state"], lost["value"], lost["train_loss"], lost["metrics"]) == (
        "diverged", None, None, {"train_loss": None},
    )  # fmt: skip
    assert lost["error"] == "loss is nan at step 3"


def test_the_text_is_the_mapping_with_an_item_a_line(study):
    data = study({"lr": [0.1, 0.2], "batch": [1, 2]}).data()
    text = export_json(data)
    assert json.loads(text) == report_json(data)
    assert sum(line.startswith('  {"number"') for line in text.splitlines()) == 4


def test_an_empty_study_has_no_best_and_valid_json(study):
    report = json.loads(export_json(study({"lr": [0.1]}).without(0).data()))
    assert (report["best"], report["points"], report["trials"], report["effects"]) == (None, [], [], [])
    assert report["residual_share"] is None
