"""The commands that findings print run as they stand, and do what the finding says."""

from __future__ import annotations

import json
import shlex

import pytest

import gridsearch as gs
from gridsearch.cli import main

pytestmark = pytest.mark.end_to_end

FIT = """
import random

def fit(params, seed):
    if params["kind"] == "it's odd":
        raise ValueError(f"odd {seed}")
    chance = random.Random(repr((sorted(params.items()), seed))).gauss(0, 0.02)
    return {"score": params["a"] + params["bias"] + chance, "other": 0.0}
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    place = tmp_path / "a home"
    monkeypatch.setenv("GRIDSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my fit.py").write_text(FIT)
    return place


def test_printed_commands_run_as_they_stand_and_train_what_they_say(home, capsys):
    how = {"home": home, "executor": "inline", "workers": 1, "quiet": True, "report": False}
    grid = {"a": list(range(1, 11)), "b": [1, 2], "kind": ["plain", "it's odd"]}
    with pytest.warns(gs.GridsearchWarning, match="failed"):
        result = gs.run(
            grid=grid,
            objective="my fit.py:fit",
            metric="score",
            seeds=3,
            study="s",
            recipe={"bias": 0.5},
            **how,
        )
    findings = result.findings.set_index("code")
    assert {"GS101", "GS102", "GS105"} <= set(findings.index)
    edge = findings.loc["GS101"]
    assert edge["axis"] == "a"
    words = shlex.split(edge["command"])
    assert main([*words[1:], "--executor", "inline", "-q", "--no-report", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["new"] == 6  # two values, three seeds
    assert {t["params"]["a"] for t in content["trials"]} == set(range(1, 13))
    assert len(content["points"]) == 40 + 2

    lost = findings.loc["GS105"]
    assert lost["sentence"].startswith("60 of 60 trials with ")
    assert "failed in the same way (ValueError: odd" in lost["sentence"]
    assert (
        main([*shlex.split(lost["command"])[1:], "--executor", "inline", "-q", "--no-report", "--json"]) == 0
    )
    content = json.loads(capsys.readouterr().out)
    assert (content["new"], content["reused"]) == (0, 60)  # what failed is not tried again

    idle = findings.loc[["GS102"]].iloc[0]
    assert (
        main([*shlex.split(idle["command"])[1:], "--executor", "inline", "-q", "--no-report", "--json"]) == 0
    )
    content = json.loads(capsys.readouterr().out)
    assert (
        content["new"] == 10 * 2
    )  # a, two more seeds: the axis `b` has one value, and what failed is left out


@pytest.mark.usefixtures("undrawn")
def test_a_report_leaves_out_what_it_is_asked_to_and_a_study_keeps_what_it_ignores(home, capsys):
    how = {"home": home, "executor": "inline", "workers": 1, "quiet": True, "report": False, "study": "s"}
    gs.run(
        grid={"a": [1, 2, 3]},
        objective="my fit.py:fit",
        metric="score",
        seeds=3,
        recipe={"bias": 0, "kind": "x"},
        **how,
    )
    report = ["report", "--study", "s", "--home", str(home)]
    assert main([*report, "--json"]) == 0
    assert "GS101" in {f["code"] for f in json.loads(capsys.readouterr().out)["findings"]}
    assert main([*report, "--json", "--ignore", "edge-of-axis"]) == 0
    assert "GS101" not in {f["code"] for f in json.loads(capsys.readouterr().out)["findings"]}
    assert main([*report, "--ignore", "GS999"]) == 2
    assert "unknown finding 'GS999'" in capsys.readouterr().err
    gs.run(objective="my fit.py:fit", ignore="GS101", **how)
    assert "GS101" not in set(gs.load("s", home=home).findings["code"])
