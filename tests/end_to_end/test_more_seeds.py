"""`run --more-seeds N --top K`: replicates for the best points of a stored study, and only those."""

from __future__ import annotations

from collections import defaultdict

import pytest

import gridsearch as gs
from gridsearch.errors import UsageError

pytestmark = pytest.mark.end_to_end

GRID = ("--grid", "lr=.1,.01,.0001", "--dataset", "digits", "--model", "mlp", "--epochs", "2")
HERE = ("--executor", "inline", "--no-report")


def seeds_by_lr(report):
    found = defaultdict(list)
    for trial in report["trials"]:
        found[trial["params"]["lr"]].append(trial["seed"])
    return {lr: sorted(seeds) for lr, seeds in found.items()}


@pytest.fixture
def study(cli):
    """Three points of one seed, and the learning rates of the best two of them."""
    report = cli("run", *GRID, *HERE, "--json").json
    assert report["counts"]["complete"] == 3
    return [point["params"]["lr"] for point in report["points"]][:2]


def test_the_best_points_get_the_next_seeds_and_the_others_none(cli, study):
    more = ("run", "--study", "digits", "--more-seeds", "2", "--top", "2")
    plan = cli("plan", *more[1:], "--json").json
    assert (plan["points"], plan["trials"], plan["new"]) == (2, 4, 4)
    report = cli(*more, *HERE, "--json").json
    assert (report["new"], report["reused"]) == (4, 0)
    third = ({0.1, 0.01, 0.0001} - set(study)).pop()
    assert seeds_by_lr(report) == {study[0]: [0, 1, 2], study[1]: [0, 1, 2], third: [0]}
    intervals = {p["params"]["lr"]: p["ci_low"] for p in report["points"]}
    assert intervals[third] is None
    assert all(intervals[lr] is not None for lr in study)
    # asked again, it is two more; a point that is ahead already gets its own next ones
    again = cli("run", "--study", "digits", "--more-seeds", "1", "--top", "1", *HERE, "--json").json
    first = again["new"] and max(seeds_by_lr(again).items(), key=lambda item: len(item[1]))
    assert (again["new"], first[1]) == (1, [0, 1, 2, 3])


def test_a_grid_that_asks_for_the_same_seeds_finds_them(cli, study):
    cli("run", "--study", "digits", "--more-seeds", "1", "--top", "3", *HERE)
    report = cli("run", *GRID, "--seeds", "2", *HERE, "--json").json
    assert (report["new"], report["reused"]) == (0, 6)


def test_from_python_it_is_the_same(cli, study):
    result = gs.run(study="digits", more_seeds=1, top=2, executor="inline", quiet=True, report=False)
    assert result.new == 2
    assert list(result.points["n"]) in ([2, 2, 1], [2, 1, 2])
    with pytest.raises(UsageError, match="more_seeds extends a study that exists"):
        gs.run(grid={"lr": [0.1]}, study="digits", more_seeds=1)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--more-seeds", "2", "--grid", "lr=.1"), "--more-seeds extends a study that exists"),
        (
            ("--more-seeds", "2", "--study", "x", "--grid", "lr=.1"),
            "--more-seeds extends a study that exists",
        ),
        (("--top", "2", "--study", "x"), "--top has no effect without --more-seeds"),
        (("--study", "x", "--more-seeds", "0"), "not a whole number of at least 1"),
        (("--study", "x", "--more-seeds", "2", "--seeds", "3"), "--seeds changes what is searched"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_happens(cli, home, words, says):
    result = cli("run", *words)
    assert result.code == 2
    assert says in result.error
    assert not home.exists()
