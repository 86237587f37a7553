"""The winner is the one by the study's metric, and its test and its card say so."""

from __future__ import annotations

import json

import numpy as np
import pytest

import gridsearch as gs
from gridsearch.cli import main


@pytest.fixture
def uneven(tmp_path, monkeypatch):
    """Images of which nine in ten are of one class, and classes that overlap: weights trade accuracy for macro F1."""
    monkeypatch.setenv("GRIDSEARCH_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [540, 60])
    images = np.clip(0.4 + 0.04 * labels[:, None, None] + rng.normal(0, 0.15, (600, 4, 4)), 0, 1)
    np.savez(tmp_path / "uneven.npz", x=images.astype(np.float32), y=labels)
    return tmp_path / "uneven.npz"


@pytest.mark.usefixtures("no_graph")
def test_best_takes_the_winner_by_the_study_s_metric_and_says_how_good_it_is_by_that(
    uneven, tmp_path, capsys
):
    how = {"home": tmp_path / "home", "executor": "inline", "quiet": True, "report": False}
    grid = {"class_weight": ["none", "balanced"], "model.hidden": [8]}
    what = {"dataset": f"npz:{uneven}", "model": "mlp", "epochs": 8, "seeds": 2}
    with pytest.warns(gs.GridsearchWarning, match="always answering '0'"):
        by_accuracy = gs.run(grid, study="a", **what, **how)
        by_f1 = gs.run(grid, study="f", metric="macro_f1", **what, **how)
    assert by_accuracy.best["class_weight"] == "none"
    assert by_f1.best["class_weight"] == "balanced"

    words = ["best", "--study", "f", "--home", str(tmp_path / "home"), "--executor", "inline", "-q"]
    assert main([*words, "--json"]) == 0
    test = json.loads(capsys.readouterr().out)["test"]
    assert test["params"]["class_weight"] == "balanced"
    chosen = test["chosen_by"]
    assert (chosen["metric"], chosen["value"]) == ("macro_f1", pytest.approx(test["macro_f1"]))
    assert 0 <= chosen["ci_low"] < chosen["value"] < chosen["ci_high"] <= 1
    sentence = f"Its macro F1, by which it was chosen, is {100 * chosen['value']:.2f}"[:-1]
    card = (tmp_path / "home" / "f" / "best" / "card.md").read_text()
    assert sentence in card
    assert "macro F1 (mean of 2 seeds" in card, "what the search was ranked by"
    assert main(words) == 0
    assert sentence in " ".join(capsys.readouterr().out.split())
    assert (
        json.loads((tmp_path / "home" / "f" / "best" / "model.json").read_text())["test"]["chosen_by"]
        == chosen
    )
