"""A run whose first trials all fail with the same error stops, says so, and leaves the rest waiting."""

from __future__ import annotations

import pytest

import gridsearch as gs

NETS = """
from torch import nn

class Broken(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.out = nn.Linear(5, num_classes)
    def forward(self, x):
        return self.out(x.flatten(1))

class Good(Broken):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.out = nn.Linear(64, num_classes)
"""

FUNCTIONS = """
def same(params, seed):
    raise KeyError("nothing here")

def other(params, seed):
    raise KeyError(params["x"])

def late(params, seed):
    if params["x"] > 0:
        raise KeyError("nothing here")
    return {"y": params["x"]}
"""

RUN = ("run", "--executor", "inline", "--workers", "1", "--no-report", "--json")
TRAIN = (*RUN, "--dataset", "digits", "--epochs", "1", "--set", "batch=256", "--grid", "lr=.1,.2,.3,.4,.5,.6")


@pytest.fixture(autouse=True)
def files(tmp_path):
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "f.py").write_text(FUNCTIONS)


def counts(found):
    told = found.json["counts"]
    return told["failed"], told["waiting"], told["complete"]


@pytest.mark.parametrize("lanes", ["1", "2"])
def test_a_grid_whose_first_trials_fail_alike_stops_and_what_was_not_begun_waits(cli, lanes):
    found = cli(*TRAIN, "--model", "nets.py:Broken", "--lanes", lanes)
    assert found.code == 3
    failed, waiting, _ = counts(found)
    assert failed in (3, 4)
    assert failed + waiting == 6
    assert f"first {3} trials all failed with the same error: RuntimeError: mat1 and mat2" in found.err
    assert "--keep-going" in found.err
    going = cli(*TRAIN, "--model", "nets.py:Broken", "--lanes", lanes, "--keep-going")
    assert counts(going) == (6, 0, 0)


def test_another_model_that_waits_is_tried(cli):
    found = cli(*TRAIN, "--grid", "model=nets.py:Broken,nets.py:Good", "--lanes", "1")
    assert counts(found) == (6, 0, 6)


FIXED = ("--grid", "x=1..6:1", "--metric", "y")


def test_a_function_that_fails_alike_stops_and_others_go_on(cli):
    assert counts(cli(*RUN, "--objective", "f.py:same", *FIXED)) == (3, 3, 0)
    assert counts(cli(*RUN, "--objective", "f.py:other", *FIXED, "--study", "b")) == (6, 0, 0)
    late = ("--objective", "f.py:late", "--grid", "x=0..5:1", "--metric", "y", "--study", "c")
    assert counts(cli(*RUN, *late)) == (5, 0, 1)


def test_from_python_likewise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = {"objective": "f.py:same", "metric": "y", "workers": 1, "executor": "inline", "report": False}
    with pytest.warns(gs.GridsearchWarning) as told:
        stopped = gs.run({"x": [1, 2, 3, 4]}, **words, quiet=True, home="h")
    assert sorted(stopped.trials["state"]) == ["failed"] * 3 + ["waiting"]
    assert any("the first 3 trials all failed with the same error" in str(w.message) for w in told)
    assert any("1 trial is left waiting" in str(w.message) for w in told)
    with pytest.warns(gs.GridsearchWarning, match="4 trials of study"):
        going = gs.run({"x": [1, 2, 3, 4]}, **words, quiet=True, home="h", keep_going=True)
    assert sorted(going.trials["state"]) == ["failed"] * 4
