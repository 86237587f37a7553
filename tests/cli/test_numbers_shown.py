"""What the views of studies and trials show adds up, and shows what differs."""

from __future__ import annotations

import re

import pytest

import gridsearch as gs

pytestmark = pytest.mark.end_to_end

CODE = """
def f(params, seed):
    if params["x"] == 3:
        return {"rmse": float("nan")}
    if params["x"] == 4:
        raise ValueError("no")
    return {"rmse": 12345 + params["x"] / 100, "images": 10**11 + params["x"]}
"""
RUN = ("run", "--executor", "inline", "--no-report", "--objective", "f.py:f", "--metric", "rmse")


@pytest.fixture
def lost(cli, tmp_path):
    (tmp_path / "f.py").write_text(CODE)
    return cli(*RUN, "--direction", "minimize", "--grid", "x=1,2,3,4", "--study", "s")


def test_the_states_in_the_list_of_studies_add_up_to_its_trials(lost, cli):
    heads, row = (line.split("\t") for line in cli("study", "list").out.splitlines())
    shown = dict(zip(heads, row, strict=True))
    states = ("complete", "diverged", "failed", "unfinished")
    assert [shown[state] for state in states] == ["2", "1", "1", "0"]
    assert sum(int(shown[state]) for state in states) == int(shown["trials"]) == 4
    assert "pruned" not in shown


def test_values_that_differ_in_late_digits_are_told_apart_in_a_log_and_in_a_trial(lost, cli):
    assert re.findall(r"rmse (\S+)", lost.err)[:2] == ["12345.01", "12345.02"]
    shown = cli("trial", "0", "--study", "s").out
    assert re.search(r"rmse +12345\.01\n", shown) and re.search(r"images +1\.00000000001e\+11\n", shown)


def test_a_run_of_which_nothing_came_says_so_though_it_is_quiet(cli, tmp_path):
    (tmp_path / "f.py").write_text(CODE)
    quiet = (*RUN, "-q", "--grid")
    alone = cli(*quiet, "x=3", "--study", "one")
    assert (alone.code, alone.out) == (0, "")
    assert (
        "no trial has a result to rank: the only one diverged; the first: `gridsearch trial 0 --study one`"
        in alone.err
    )
    (tmp_path / "f.py").write_text(CODE.replace("== 3", "<= 3"))
    several = cli(*quiet, "x=1,2,3", "--study", "all")
    assert (
        "no trial has a result to rank: all 3 diverged; the first: `gridsearch trial 0 --study all`"
        in several.err
    )
    mixed = cli(*quiet, "x=3,4", "--study", "mixed")
    assert "no trial has a result to rank: 1 trial diverged; the first:" in mixed.err
    assert "<p>No point has a result: 3 diverged.</p>" in gs.load("all")._repr_html_()
    assert "<p>No point has a result yet.</p>" in gs.load("mixed")._repr_html_()


def test_trials_of_a_function_have_no_classes_to_be_drawn(lost, cli):
    found = cli("report", "--study", "s", "--trial", "0", "--trial", "1")
    assert (found.code, found.out) == (2, "")
    assert "study 's' is of a plain function, whose trials have no classes to draw" in found.err
    assert "`gridsearch trial 0 --study s` shows one" in found.err
