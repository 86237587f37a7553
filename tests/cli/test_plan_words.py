"""What `plan` prints can be read without knowing the program's words, and says nothing that is not so."""

from __future__ import annotations

import argparse

import pytest

from gridsearch.cli.commands.search import _show_plan
from gridsearch.service.plan.plan_groups import Group
from gridsearch.service.plan.planner import Plan


def plan(*, failed=0, pruned=0, lanes=1):
    group = Group(model="mlp", batch=64, trials=4, lanes=lanes, method="stacked", reason="", seconds=8.0)
    return Plan(
        study="s", points=4, trials=4, new=4 - failed - pruned, done=0, failed=failed, pruned=pruned, open=0, excluded=0,
        groups=(group,), seconds=8.0, memory=None, disk_mb=1.0, workers=1,
    )  # fmt: skip


@pytest.fixture
def shown(capsys):
    def show(**facts):
        _show_plan(plan(**facts), argparse.Namespace(no_color=True))
        return capsys.readouterr().out

    return show


def test_only_trials_that_there_are_will_be_tried_again(shown):
    assert "failed 0 · waiting or running 0" in shown()
    assert "failed 2 (will be tried again) · waiting" in shown(failed=2)
    assert "failed 0 · pruned 1 (will be tried again) · waiting" in shown(pruned=1)


def test_lanes_are_explained_where_a_table_has_several(shown):
    told = "lanes: how many of the trials train side by side, as one program"
    assert told in shown(lanes=4).splitlines()
    assert told not in shown(lanes=1)


def test_groups_of_one_model_are_told_apart_by_what_their_trials_have_in_common(cli):
    words = (
        "plan",
        "--dataset",
        "digits",
        "--model",
        "mlp",
        "--grid",
        "lr=.1,.01",
        "batch=10,20",
        "optimizer=adam,sgd",
    )
    found = cli(*words, "--json").json["groups"]
    assert {(g["batch"], g["params"]["optimizer"]) for g in found} == {
        (batch, optimizer) for batch in (10, 20) for optimizer in ("adam", "sgd")
    }
    assert all(list(g["params"]) == ["optimizer"] and g["trials"] == 2 for g in found)
    assert "optimizer=sgd" in cli(*words).out
    same = cli(*words[:-1], "--json").json["groups"]
    assert [g["params"] for g in same] == [{}, {}]
    assert "params" not in cli(*words[:-1]).out
