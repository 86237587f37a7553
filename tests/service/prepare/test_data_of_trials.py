"""Classes, counts and fingerprint belong to a trial's data: two folders of one name share no study by chance."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sqlite3
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.end_to_end, pytest.mark.usefixtures("no_graph", "undrawn")]

HOW = ("--model", "mlp", "--set", "model.hidden=4", "--epochs", "1", "--executor", "inline", "--lanes", "1")
BEST = ("--executor", "inline")


def fill(folder: Path, classes: str = "cat dog", first: int = 0, count: int = 12) -> None:
    """Images of which the n-th class is bright in the n-th quarter, 4x4."""
    for label, name in enumerate(classes.split()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(first, first + count):
            pixels = np.random.default_rng(1000 * label + i).integers(0, 90, (4, 4), dtype=np.uint8)
            pixels[label % 4] += 120
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


@pytest.fixture
def search(cli):
    """Run a grid of one point, or another one, on a folder."""

    def run(dataset: str, *words: str, grid: str = "lr=.01"):
        return cli("run", *HOW, "--dataset", dataset, "--grid", grid, "--no-report", *words)

    return run


def rows(cli, study: str) -> list[dict]:
    return list(csv.DictReader(io.StringIO(cli("export", "--study", study).out)))


def names_of(home: Path, study: str) -> list[str]:
    return json.loads((home / study / "best" / "model.json").read_text())["classes"]


def test_two_folders_of_one_name_share_no_study_by_chance(cli, search, tmp_path, home):
    fill(tmp_path / "a" / "pets", "cat dog")
    fill(tmp_path / "b" / "pets", "dog wolf", first=500)
    assert search("folder:a/pets").code == 0
    before = (home / "gridsearch.db").read_bytes()
    second = search("folder:b/pets")
    assert second.code == 2
    assert f"study 'pets' is of {tmp_path}/a/pets, and {tmp_path}/b/pets holds other images" in second.error
    assert "--study" in second.err
    assert (home / "gridsearch.db").read_bytes() == before
    assert search("folder:b/pets", "--study", "other").code == 0
    assert cli("best", "--study", "other", *BEST).code == 0
    assert names_of(home, "other") == ["dog", "wolf"]
    assert cli("best", "--study", "pets", *BEST).code == 0
    assert names_of(home, "pets") == ["cat", "dog"]
    assert "Classes: cat, dog." in (home / "pets" / "best" / "card.md").read_text()


def test_a_study_of_a_folder_refuses_digits_and_says_nothing_of_trials_beside_its_own(search, tmp_path):
    fill(tmp_path / "pets")
    search("folder:pets")
    refused = search("digits", "--study", "pets")
    assert (refused.code, refused.error) == (2, "study 'pets' is of folder:pets, not of digits")
    assert "new trials are added" not in refused.err


def test_a_plan_of_another_folder_of_one_name_is_refused_as_its_run(cli, search, tmp_path):
    fill(tmp_path / "a" / "pets", "cat dog")
    fill(tmp_path / "b" / "pets", "dog wolf", first=500)
    search("folder:a/pets")
    planned = cli("plan", *HOW, "--dataset", "folder:b/pets", "--grid", "lr=.01")
    assert planned.code == 2
    assert "holds other images" in planned.error


def test_two_dataset_files_of_one_name_share_no_study_by_chance(search, tmp_path):
    for place, classes in (("a", "cat dog"), ("b", "dog wolf")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "pets.py").write_text(
            "import numpy as np\n"
            "def pets():\n"
            f"    rng = np.random.default_rng({ord(place)})\n"
            "    return {'train_images': rng.integers(0, 255, (24, 4, 4), dtype='uint8'),\n"
            f"            'train_labels': np.arange(24) % 2, 'class_names': {classes.split()}}}\n"
        )
    assert search("a/pets.py:pets").code == 0
    assert "holds other images" in search("b/pets.py:pets").error


@pytest.mark.parametrize("how", ["the same", "its absolute path", "a link to it"])
def test_a_folder_by_another_path_is_the_same_folder(search, tmp_path, how):
    fill(tmp_path / "pets")
    search("folder:pets")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "pets").symlink_to(tmp_path / "pets")
    path = {"the same": "pets", "its absolute path": f"{tmp_path}/pets", "a link to it": "elsewhere/pets"}
    fill(tmp_path / "pets", first=100, count=2)
    found = search(f"folder:{path[how]}")
    assert found.code == 0, found.err
    assert "the images differ from those of the 1 trial that" in found.err


@pytest.mark.parametrize("name", ["pets", "animals"])
def test_a_folder_that_moved_or_was_renamed_is_taken_by_every_command(cli, search, tmp_path, home, name):
    fill(tmp_path / "pets")
    assert search("folder:pets").code == 0
    (tmp_path / "new").mkdir()
    (tmp_path / "pets").rename(tmp_path / "new" / name)
    for words in (("best",), ("run", "--more-seeds", "1", "--no-report"), ("plan",)):
        lost = cli(*words, "--study", "pets", *BEST)
        assert (lost.code, "--dataset folder:PATH" in lost.err) == (4, True), lost.err
    there = f"folder:new/{name}"
    again = search(there, "--study", "pets")
    assert again.code == 0, again.err
    assert "1 done before" in again.err
    assert cli("report", "--study", "pets").code == 0
    assert "No images are shown" not in (home / "pets" / "report" / "index.html").read_text()
    assert search(there, "--study", "pets", grid="lr=.02").code == 0  # no point in common
    more = cli("run", "--study", "pets", "--more-seeds", "1", "--no-report", *BEST)
    assert more.code == 0, more.err  # it knows the new place
    assert cli("best", "--study", "pets", "--dataset", there, *BEST).code == 0
    assert names_of(home, "pets") == ["cat", "dog"]


def test_a_renamed_folder_goes_on_with_run_and_best_alone(cli, search, tmp_path):
    fill(tmp_path / "pets")
    search("folder:pets")
    (tmp_path / "pets").rename(tmp_path / "animals")
    named = ("--study", "pets", "--dataset", "folder:animals", *BEST)
    assert cli("run", *named, "--more-seeds", "1", "--no-report").code == 0
    assert cli("best", *named).code == 0


def test_a_folder_of_other_images_is_not_taken_for_the_renamed_one(cli, search, tmp_path):
    fill(tmp_path / "pets")
    fill(tmp_path / "animals", first=500)
    search("folder:pets")
    for words in (("best",), ("run", "--more-seeds", "1"), ("run",)):
        refused = cli(*words, "--study", "pets", "--dataset", "folder:animals", *BEST)
        assert refused.code == 4
        assert "have changed since study 'pets' was made" in refused.error


def test_another_working_directory_finds_the_images(cli, search, tmp_path, monkeypatch):
    fill(tmp_path / "pets")
    search("folder:pets")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cli("run", "--study", "pets", "--more-seeds", "1", "--no-report", *BEST).code == 0
    assert cli("best", "--study", "pets", *BEST).code == 0


def test_after_images_came_best_and_more_seeds_go_on_with_those_that_are_there(cli, search, tmp_path, home):
    fill(tmp_path / "pets")
    search("folder:pets")
    fill(tmp_path / "pets", "cat dog emu", first=900, count=6)
    changed = cli("best", "--study", "pets", *BEST)
    assert changed.code == 4
    command = changed.err.partition("gridsearch run ")[2].split()
    assert cli("run", *command, "--executor", "inline", "--no-report").code == 0  # what it says to type works
    assert cli("best", "--study", "pets", *BEST).code == 0
    assert names_of(home, "pets") == ["cat", "dog", "emu"]
    more = cli("run", "--study", "pets", "--more-seeds", "1", "--top", "1", "--no-report", *BEST)
    assert more.code == 0
    assert "1 trial of study 'pets' was trained on other images" in more.err
    assert len(rows(cli, "pets")) == 3


def test_the_old_images_put_back_are_gone_on_with_as_well(cli, search, tmp_path, home):
    fill(tmp_path / "pets")
    search("folder:pets")
    fill(tmp_path / "pets", "cat dog emu", first=900, count=6)
    search("folder:pets")
    shutil.rmtree(tmp_path / "pets")
    fill(tmp_path / "pets")
    assert cli("run", "--study", "pets", "--more-seeds", "1", "--no-report", *BEST).code == 0
    assert len({row["data_version"] for row in rows(cli, "pets")}) == 2
    assert cli("best", "--study", "pets", *BEST).code == 0
    assert names_of(home, "pets") == ["cat", "dog"]


def test_each_trial_is_tabled_with_the_names_of_its_own_classes(cli, search, tmp_path, home):
    fill(tmp_path / "pets", "cat dog")
    search("folder:pets")
    (tmp_path / "pets" / "cat").rename(tmp_path / "pets" / "yak")  # dog is the first class now
    search("folder:pets")
    from gridsearch.service.prepare.options import Places
    from gridsearch.service.queries.studies import existing

    with existing(Places.find(home)) as store:
        data = store.study_data("pets")
    old, new = data.trials
    assert data.classes_of(old.settings) == ("cat", "dog")
    assert data.classes_of(new.settings) == ("dog", "yak")
    assert data.facts[new.settings.data_fingerprint].train == (12, 12)
    side = cli("report", "--study", "pets", "--trial", "0", "--trial", "1")
    assert "trial 1 predicts other classes than trial 0" in side.err + side.out
    import gridsearch as gs

    with pytest.raises(gs.GridsearchError, match="predicts other classes"):
        gs.load("pets", home=home).confusion(0, 1)
    for version, names in ((old, "cat"), (new, "yak")):
        where = f"data_version={version.params['data_version']}"
        assert cli("report", "--study", "pets", "--where", where).code == 0
        tables = [p.read_text() for p in (home / "pets").rglob("per_class.csv") if where[-8:] in str(p)]
        assert len(tables) == 1
        assert names in tables[0]


def as_before(home: Path) -> None:
    """Make of a store what the version before left: it knew the classes of the newest run alone."""
    with sqlite3.connect(home / "gridsearch.db") as store:
        store.execute("DROP TABLE gridsearch_data")


def test_a_store_of_before_goes_on_with_the_classes_that_it_has(cli, search, tmp_path, home):
    fill(tmp_path / "pets")
    search("folder:pets")
    as_before(home)
    assert cli("report", "--study", "pets").code == 0
    assert "cat" in (home / "pets" / "report" / "per_class.csv").read_text()
    assert cli("best", "--study", "pets", *BEST).code == 0


def test_a_store_of_before_with_several_images_tells_classes_by_number_and_says_so(
    cli, search, tmp_path, home
):
    fill(tmp_path / "pets", "cat dog")
    search("folder:pets")
    fill(tmp_path / "pets", "ant", first=0)
    search("folder:pets")
    as_before(home)
    assert cli("report", "--study", "pets").code == 0
    assert "Classes are shown by their numbers" in (home / "pets" / "report" / "index.html").read_text()
    assert cli("best", "--study", "pets", *BEST).code == 0
    assert names_of(home, "pets") == ["ant", "cat", "dog"]
    search("folder:pets")
    assert cli("report", "--study", "pets").code == 0
    assert "ant" in (home / "pets" / "report" / "per_class.csv").read_text()


def test_points_of_other_images_are_listed_apart_and_compared_with_none(cli, search, tmp_path, home):
    fill(tmp_path / "pets")
    search("folder:pets", grid="lr=.01,.3")
    fill(tmp_path / "pets", first=100, count=3)
    search("folder:pets", grid="lr=.01,.02")
    import gridsearch as gs

    loaded = gs.load("pets", home=home)
    ranking = loaded.ranking
    version = {p.params["data_version"] for p in ranking.points}
    others = {p.params["data_version"] for p in ranking.incomparable}
    assert (len(ranking.points), len(ranking.incomparable), len(version), len(others)) == (2, 2, 1, 1)
    assert version != others
    assert next(p.rank for p in ranking.incomparable) == 1
    assert not any(p.tied_with_best for p in ranking.incomparable)
    assert "data_version" not in ranking.varying  # no figure and no share of variance is over both
    assert len(loaded.points) == 4
    told = cli("report", "--study", "pets")
    assert "2 points were trained on other images" in told.out
    where = told.out.partition("--where ")[2].split("`")[0].split()[0]
    assert where == f"data_version={others.pop()}"
    part = cli("report", "--study", "pets", "--where", where, "--json").json
    assert next(p["rank"] for p in part["points"]) == 1
    assert not any("other_images" in p for p in part["points"])
    whole = cli("report", "--study", "pets", "--json").json
    assert [p.get("other_images", False) for p in whole["points"]] == [False, False, True, True]


def test_sizes_of_the_same_images_are_compared(cli, search, tmp_path, home):
    fill(tmp_path / "pets")
    search("folder:pets", grid="data.size=2,3,4")
    import gridsearch as gs

    ranking = gs.load("pets", home=home).ranking
    assert len(ranking.points) == 3
    assert ranking.incomparable == ()


def test_what_a_run_asks_for_is_ranked_first_also_when_it_was_trained_before(cli, search, tmp_path, home):
    fill(tmp_path / "pets")
    search("folder:pets")
    fill(tmp_path / "pets", first=100, count=3)
    search("folder:pets")
    for folder in ("cat", "dog"):
        for i in range(100, 103):
            (tmp_path / "pets" / folder / f"{i}.png").unlink()
    search("folder:pets")
    import gridsearch as gs

    ranking = gs.load("pets", home=home).ranking
    assert [p.trials[0].number for p in ranking.listed] == [0, 1]


def test_a_home_that_cannot_be_written_still_shows_its_ranking(cli, search, tmp_path, home, monkeypatch):
    fill(tmp_path / "pets")
    search("folder:pets")
    monkeypatch.setattr("gridsearch.folders.os.access", lambda *_: False)  # whoever is root may always
    shown = cli("report", "--study", "pets")
    assert shown.code == 0
    assert "lr" in shown.out
    assert "cannot be written, so there is no page" in shown.err
    assert cli("report", "--study", "pets", "--json").json["points"][0]["rank"] == 1
    assert not (home / "pets" / "report").exists()


NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, weights="w.pt"):
        super().__init__()
        self.out = nn.Linear(16, num_classes)
        self.out.load_state_dict(torch.load(weights))

    def forward(self, x):
        return self.out(x.flatten(1))

Net.file_options = ("weights",)
"""


def test_a_weights_file_that_is_not_there_is_named_and_not_called_another_model(
    cli, search, tmp_path, monkeypatch
):
    import torch

    fill(tmp_path / "pets")
    (tmp_path / "net.py").write_text(NET)
    torch.save(torch.nn.Linear(16, 2).state_dict(), tmp_path / "w.pt")
    words = ("--model", f"{tmp_path}/net.py:Net")
    made = cli("run", *words, *HOW[4:], "--dataset", "folder:pets", "--grid", "lr=.01", "--no-report")
    assert made.code == 0, made.err
    more = ("run", "--study", "pets", "--more-seeds", "1", "--no-report", *BEST, *words)
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    elsewhere = cli(*more)
    assert elsewhere.code == 2
    assert (
        "reads model.weights=w.pt, and there is no such file from this working directory" in elsewhere.error
    )
    monkeypatch.chdir(tmp_path)
    assert cli(*more).code == 0


def test_a_study_from_before_validation_images_were_used_goes_on_without_them(cli, search, tmp_path, home):
    fill(tmp_path / "pets" / "train")
    assert search("folder:pets").code == 0
    fill(tmp_path / "pets" / "val", first=500, count=3)  # which that version left out
    more = cli("run", "--study", "pets", "--more-seeds", "1", "--top", "1", *BEST, "--no-report")
    assert more.code == 0, more.err
    assert cli("best", "--study", "pets", *BEST).code == 0
    assert search("folder:pets").code == 0
    fingerprints = {row["data_version"] for row in rows(cli, "pets")}
    assert (len(rows(cli, "pets")), len(fingerprints)) == (3, 2)
