"""`--sample` and `--order` from the words to the store: planned, run, gone on with, reported."""

from __future__ import annotations

import json

import pytest

import gridsearch as gs
from gridsearch.cli import main
from gridsearch.spec.spread import spread

GRID = {"a": [0, 1, 2, 3], "b": [0, 1, 2]}
NOTE = """
def note(params, seed):
    with open("calls.txt", "a") as calls:
        print(params["a"], params["b"], file=calls)
    return {"value": params["a"] - params["b"]}
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDSEARCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GRIDSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "note.py").write_text(NOTE)
    return tmp_path


def run(**how):
    how = {"objective": "note.py:note", "executor": "inline", "workers": 1, "study": "s", **how}
    return gs.run(report=False, quiet=True, **how)


def calls(home):
    """The points in the order in which they were computed."""
    lines = (home / "calls.txt").read_text().splitlines()
    return [{"a": int(line.split()[0]), "b": int(line.split()[1])} for line in lines]


def in_order():
    points = [{"a": a, "b": b} for a in GRID["a"] for b in GRID["b"]]
    return [points[i] for i in spread(points)]


def test_a_run_computes_its_points_in_the_order_asked_for_and_goes_on_in_it(home):
    first = run(grid=GRID, order="spread", sample=5)
    assert len(calls(home)) == len(first.points) == 5
    assert first.to_json()["sample"] == {"points": 5, "of": 12}
    assert first.to_json()["order"] == "spread"
    whole = run(grid=GRID, order="spread")
    done = calls(home)
    assert [point for point in in_order() if point not in done[:5]] == done[5:]
    assert (whole.new, whole.reused) == (7, 5)
    assert "sample" not in whole.to_json()


def test_a_larger_sample_adds_to_a_smaller_one(home):
    run(grid=GRID, sample=4)
    more = run(grid=GRID, sample=9)
    assert (more.new, more.reused) == (5, 4)


@pytest.mark.parametrize(("order", "kept"), [(None, "spread"), ("given", "given")])
def test_a_stored_study_keeps_its_order_and_takes_another(home, order, kept):
    assert (
        main(
            [
                "add",
                "--objective",
                "note.py:note",
                "--study",
                "s",
                "--order",
                "spread",
                "--grid",
                "a=0..3:1",
                "b=0,1,2",
            ]
        )
        == 0
    )
    run(order=order)
    assert gs.load("s").to_json()["order"] == kept
    assert (calls(home) == in_order()) == (kept == "spread")
    assert len(calls(home)) == 12


def test_plan_shows_the_sample_and_what_goes_first(home, capsys):
    words = [
        "--dataset",
        "digits",
        "--model",
        "mlp",
        "--grid",
        "lr=.1,.01,.001",
        "batch=16,32,64",
        "--lanes",
        "2",
    ]
    assert main(["plan", *words, "--sample", "6", "--order", "spread", "--workers", "1"]) == 0
    shown = capsys.readouterr().out
    assert "6 points x 1 seed = 6 trials (a sample of the grid's 9 points)" in shown
    assert "order: spread, first lr=" in shown
    assert main(["plan", *words, "--sample", "6", "--order", "spread", "--workers", "1", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["points"], content["sampled_from"], content["order"]) == (6, 9, "spread")
    assert [set(each["params"]) for each in content["first"]] == [{"lr", "batch"}] * len(content["first"])
    assert len({each["params"]["batch"] for each in content["first"][:3]}) == 3


def test_a_study_file_names_both_and_the_command_line_goes_before_it(home, capsys):
    (home / "s.toml").write_text(
        'dataset = "digits"\nmodel = "mlp"\nsample = 4\norder = "cheap-first"\nignore = ["GS101"]\n'
        "[grid]\nlr = [0.1, 0.01, 0.001]\nepochs = [1, 2, 4]\n"
    )
    assert main(["plan", "s.toml", "--json", "--workers", "1", "--lanes", "1"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["points"], content["sampled_from"], content["order"]) == (4, 9, "cheap-first")
    epochs = [each["params"]["epochs"] for each in content["first"]]
    assert epochs == sorted(epochs)
    assert main(["plan", "s.toml", "--sample", "7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["points"] == 7


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--sample", "0"], "--sample 0: sample must be a whole number of at least 1, not 0"),
        (["--sample", "4"], "sample 4: the grid has 3 points, and no more can be sampled"),
        (["--order", "cheapest"], "--order cheapest: unknown order 'cheapest'; did you mean 'cheap-first'?"),
        (["--ignore", "GS1"], "--ignore GS1: unknown finding 'GS1'"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_writes_nothing(home, capsys, words, line):
    assert main(["plan", "--dataset", "digits", "--grid", "lr=.1,.01,.001", *words]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert len(error.strip().splitlines()) == 1
    assert not (home / "home").exists()


def test_a_sample_has_no_place_beside_a_stored_study(home, capsys):
    assert main(["run", "--study", "s", "--sample", "3"]) == 2
    assert "--sample changes what is searched, but no grid is given" in capsys.readouterr().err
