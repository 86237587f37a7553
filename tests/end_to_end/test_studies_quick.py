"""Every study file runs to its end when it is only looked at: a few images, one epoch, one seed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import gridsearch as gs
from gridsearch.spec.study_builder import build
from gridsearch.zoo import datasets

STUDIES = Path(__file__).parents[2] / "studies"
FILES = {
    path.stem: path
    for path in sorted(STUDIES.glob("*.toml"))
    if "study" in tomllib.loads(path.read_text())  # other tables may lie beside them
}
TABLE = {
    name: int(points)
    for name, points in re.findall(
        r"^\| \[`([^`]+)`\]\(\1\.toml\) \| .* \| (\d+) \| `",
        (STUDIES / "README.md").read_text(),
        re.MULTILINE,
    )
}
CACHES = {"fmnist": "fashion_cache", "mnist": "mnist_cache"}
MARKS = {"fmnist": pytest.mark.fashion, "mnist": pytest.mark.mnist}

FEW_IMAGES = ("--subset", "200", "--epochs", "1", "--val", ".005")
FEWER_IMAGES = ("--subset", "20", "--val", ".001")
"""For VGG16, of which a step takes seconds."""

pytestmark = pytest.mark.end_to_end


def dataset_of(name):
    """The dataset that a study file names; None for a study of a plain function."""
    content = tomllib.loads(FILES[name].read_text())
    return None if "objective" in content else content.get("dataset", "fmnist")


def marked(name):
    mark = MARKS.get(dataset_of(name))
    return pytest.param(name, marks=[mark] if mark else [])


@pytest.fixture
def look(request, tmp_path):
    """Put a study's data where the program finds it, or skip; return the spec and the words of a quick run."""

    def prepare(name):
        spec = build(file=FILES[name])
        words = ["run", str(FILES[name]), "--seeds", "1"]
        if spec.objective is not None:
            return spec, [*words, *(("--set", "steps=5") if "steps" in spec.recipe.flat() else ())]
        root = tmp_path / "cache" / "data"
        if spec.dataset in CACHES:
            root.mkdir(parents=True)
            there = Path(request.getfixturevalue(CACHES[spec.dataset])) / "data" / spec.dataset
            (root / spec.dataset).symlink_to(there, target_is_directory=True)
        elif not datasets.available(datasets.open_dataset(spec.dataset), root):
            pytest.skip(f"{spec.dataset} is not here")
        pretrained = spec.recipe.model.get("weights") is not None
        words += FEW_IMAGES
        return spec, [*words, *FEWER_IMAGES, "--set", "model.weights=none"] if pretrained else words

    return prepare


def check(spec, report, home):
    """Every point of the file has a result, of the model and the data that the file names."""
    sizes = spec.grid.values
    points = TABLE[spec.name] // len(sizes.get("epochs", [1]))
    about = spec.dataset if spec.objective is None else Path(spec.objective).name
    assert (report["study"], report["dataset"]) == (spec.name, about)
    assert (len(report["points"]), report["new"], len(report["trials"])) == (points, points, points)
    assert {trial["state"] for trial in report["trials"]} <= {"complete", "diverged"}
    assert report["counts"]["complete"] >= 0.5 * points
    assert report["points"][0]["mean"] is not None
    for axis, values in sizes.items():
        if axis != "epochs":
            assert {trial["params"][axis] for trial in report["trials"] if axis in trial["params"]} == set(
                values
            )
    if spec.objective is None:
        settings = [
            t.settings for t in gs.load(spec.name, store=f"sqlite:///{home / 'gridsearch.db'}").data.trials
        ]
        assert {s.model for s in settings} == set(sizes.get("model", [spec.model]))
        assert {s.epochs for s in settings} == {1}


@pytest.mark.parametrize("name", [marked(name) for name in FILES])
def test_a_study_file_runs_to_its_end_with_every_point_of_its_grid(cli, look, home, name):
    spec, words = look(name)
    done = cli(*words, "--executor", "inline", "--no-report", "--json")
    assert done.code == 0, done.err
    check(spec, done.json, home)


@pytest.mark.fashion
def test_a_study_file_runs_in_a_process_with_workers_up_to_its_report(program, look, home):
    spec, words = look("fmnist")
    done = program(*words, "--workers", "1", "--json")
    assert done.code == 0, done.err
    check(spec, done.json, home)
    folder = home / "fmnist" / "report"
    assert {path.name for path in folder.iterdir()} >= {
        "index.html",
        "ranking.json",
        "heatmap.png",
        "confusion.png",
    }
    assert "Ankle boot" in (folder / "index.html").read_text()


def test_every_study_of_the_table_is_run_here():
    assert set(FILES) == set(TABLE)


@pytest.mark.fashion
def test_pretrained_weights_that_are_not_to_be_had_end_the_run_with_the_option_that_takes_a_file(
    cli, look, home, tmp_path, monkeypatch
):
    _, words = look("deepl-vgg")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    done = cli(*words[: words.index("--set")], "--executor", "inline", "--no-report")
    assert done.code in (2, 4)
    assert "imagenet cannot be fetched" in done.error
    assert "model.weights" in done.err
    assert len(done.err.strip().splitlines()) <= 3
    assert not home.exists()
