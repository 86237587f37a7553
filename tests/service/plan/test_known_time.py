"""Where a part of a plan was never measured, it sums what is known and counts the rest."""

from __future__ import annotations

import argparse
from dataclasses import replace

import pytest

from gridsearch.cli.commands import search
from gridsearch.records.study_kinds import IMAGES
from gridsearch.service.plan.plan_groups import Group
from gridsearch.service.plan.planner import Plan


@pytest.fixture
def plan() -> Plan:
    known = Group(model="mlp", batch=10, trials=6, lanes=3, method="stacked", reason="", seconds=8.2)
    unknown = replace(known, batch=20, trials=12, seconds=None)
    counts = dict.fromkeys(("done", "failed", "pruned", "open", "excluded"), 0)
    return Plan(
        study="digits", points=18, trials=18, new=18, **counts, groups=(known, unknown), seconds=None, memory=None,
        disk_mb=0.012, workers=2, kind=IMAGES,
    )  # fmt: skip


def test_a_plan_says_how_long_it_takes_at_least_and_how_many_trials_are_unmeasured(plan, capsys):
    search._show_plan(plan, argparse.Namespace(no_color=True))
    out = capsys.readouterr().out
    assert "time: at least 4 s with 2 workers, 12 trials unmeasured (--probe measures a few steps)" in out
    assert "disk: 12 kB" in out
    assert "mlp\t10\t6\t3\tstacked\t8 s" in out
    found = plan.to_json()
    assert (found["seconds"], found["least_seconds"], found["unmeasured_trials"]) == (None, 4.1, 12)


def test_a_plan_of_which_all_or_nothing_is_known_says_so(plan, capsys):
    search._show_plan(replace(plan, groups=plan.groups[:1], seconds=5.0), argparse.Namespace(no_color=True))
    assert "time: about 5 s with 2 workers, from start to end" in capsys.readouterr().out
    search._show_plan(replace(plan, groups=plan.groups[1:]), argparse.Namespace(no_color=True))
    assert "time: unknown with 2 workers: nothing similar" in capsys.readouterr().out
    assert replace(plan, groups=plan.groups[1:]).to_json()["least_seconds"] is None
