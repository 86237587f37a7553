"""A study with folds from the first run to the winner: nothing twice, more seeds by whole partitions, one fold a trial."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

import gridsearch as gs
from gridsearch.errors import GridsearchError
from gridsearch.service.plan.planner import plan
from gridsearch.service.prepare.options import Places, RunOptions
from gridsearch.spec import build

pytestmark = pytest.mark.end_to_end

HOW = {"executor": "inline", "quiet": True, "report": False}
SEARCH = {"grid": {"lr": [0.01, 0.001]}, "dataset": "digits", "model": "mlp", "epochs": 1, "folds": 3}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("folds")
        patch.setenv("GRIDSEARCH_CACHE", str(place / "cache"))
        gs.run(**SEARCH, **HOW, home=place / "home")
        yield place / "home"


def test_folds_of_a_study_from_the_first_run_to_the_winner(home):
    places = Places.find(home)
    planned = plan(
        build(words=["lr=.01,.001,.1"], options={k: v for k, v in SEARCH.items() if k != "grid"}),
        RunOptions(places=places),
    )
    assert (planned.points, planned.trials, planned.new, planned.folds) == (3, 9, 3, 3)
    assert planned.to_json()["folds"] == 3

    again = gs.run(**SEARCH, **HOW, home=home)
    assert (again.new, again.reused) == (0, 6)
    assert list(again.trials["fold"]) == [1, 2, 3] * 2
    assert {p.n for p in again.ranking.points} == {3}

    more = gs.run(study="digits", more_seeds=1, top=1, **HOW, home=home)
    assert (more.new, more.ranking.points[0].n) == (3, 6)
    assert sorted(zip(more.trials["seed"], more.trials["fold"], strict=True))[-3:] == [(1, 1), (1, 2), (1, 3)]

    pooled = gs.load("digits", home=home).predictions()
    assert len(np.unique(pooled.indices)) == len(pooled.indices) == 1497, "all but the test images, once"
    tested = gs.best("digits", home=home, executor="inline", quiet=True)
    assert [seed["seed"] for seed in tested.test["seeds"]] == [0, 1], "one network a seed, on all images"


WRONG = [
    ({"folds": 1}, "folds must be at least 2"),
    ({"folds": 3, "val": 0.2}, "val has no place beside them"),
    ({"folds": 200}, "folds=200: class '8' has 145 images"),
    ({"folds": 3, "group": "patient"}, "dataset 'digits' has no groups of images"),
]


@pytest.mark.parametrize(("given", "words"), WRONG)
def test_folds_and_groups_that_cannot_be_are_refused_and_leave_nothing(given, words, tmp_path):
    with pytest.raises(GridsearchError) as refused:
        gs.run(**(SEARCH | given), **HOW, home=tmp_path / "home")
    assert words in str(refused.value)
    assert not (tmp_path / "home").exists()


def test_a_function_has_no_folds(tmp_path):
    with pytest.raises(GridsearchError, match="folds says something of images"):
        gs.run(
            grid={"x": [1]},
            objective=lambda params, seed: {"value": params["x"]},
            folds=3,
            home=tmp_path,
            **HOW,
        )


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Two classes of eight patients, as a folder and as a list."""
    monkeypatch.setenv("GRIDSEARCH_CACHE", str(tmp_path / "cache"))
    rng, rows = np.random.default_rng(0), []
    for label in ("ill", "well"):
        for patient in range(8):
            folder = tmp_path / "eyes" / label / f"{label}{patient}"
            folder.mkdir(parents=True)
            for i in range(3):
                shade = rng.integers(0, 100, (8, 8)) + 100 * (label == "ill")
                Image.fromarray(shade.astype(np.uint8)).save(folder / f"{i}.png")
                rows.append((f"{label}/{folder.name}/{i}.png", label, folder.name))
    with (tmp_path / "eyes" / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "eye_of"), *rows])
    return tmp_path / "eyes"


@pytest.mark.parametrize(("kind", "name"), [("folder:{}", "subfolder"), ("csv:{}/list.csv", "eye_of")])
def test_pictures_of_one_patient_are_on_one_side_in_folds_and_without(kind, name, pictures, tmp_path):
    how = {"dataset": kind.format(pictures), "model": "mlp", "epochs": 1, "group": name, "study": "eyes"}
    folded = gs.run(grid={"lr": [0.01]}, folds=3, **how, **HOW, home=tmp_path / "a")
    plain = gs.run(grid={"lr": [0.01]}, val=0.3, **how, **HOW, home=tmp_path / "b")
    apart = gs.run(grid={"lr": [0.01]}, **(how | {"group": None}), **HOW, home=tmp_path / "b")
    assert apart.new == 1, "other splits are other trials"
    owner = np.repeat(np.arange(16), 3)
    held_out = [folded.predictions(number).indices for number in range(3)]
    for indices in (*held_out, plain.predictions(0).indices):
        assert len(indices) == np.isin(owner, owner[indices]).sum() > 0, "whole patients"
    assert len(np.unique(np.concatenate(held_out))) == sum(map(len, held_out)), "each once"
    assert len(apart.predictions(1).indices) < np.isin(owner, owner[apart.predictions(1).indices]).sum()
