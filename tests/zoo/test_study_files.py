"""The study files of the repository: each is a valid study, and their table says what they are."""

from __future__ import annotations

import math
import re
import shlex
from pathlib import Path

import pytest

from gridsearch import plugins
from gridsearch.cli.parser import build_parser
from gridsearch.spec.study_builder import build

ROOT = Path(__file__).parents[2]
FILES = {path.stem: path for path in (ROOT / "studies").glob("*.toml")}
TABLE = (ROOT / "studies" / "README.md").read_text()


def study(name):
    return build(file=FILES[name])


@pytest.mark.parametrize(
    ("name", "axes", "points"),
    [
        ("fmnist", {"lr": (0.01, 0.001), "batch": (10, 20, 50)}, 6),
        (
            "mpalaourg-1",
            {
                "batch": (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000),
                "lr": (0.01, 0.001, 0.0001, 0.00001),
            },
            40,
        ),
        (
            "mpalaourg-2",
            {"batch": (10, 20, 50, 100), "lr": (0.01, 0.001), "norm": ("none", "standard")},
            16,
        ),
        ("maccarini", {"lr": (0.01, 0.001), "batch": (100, 500, 1000)}, 6),
        ("deepl-mlp", {"model.depth": (0, 1, 2, 3), "model.hidden": (128, 512)}, 7),
        (
            "deepl-intro-minimum",
            {"x": (-4, -2, 0, 2, 4), "y": (-4, -2, 0, 2, 4), "lr": (0.003, 0.01, 0.03)},
            75,
        ),
    ],
)
def test_a_study_file_has_the_grid_of_its_source(name, axes, points):
    spec = study(name)
    assert spec.name == name
    assert spec.grid.values == axes
    assert len(list(spec.grid.points())) == points


@pytest.mark.parametrize(
    ("name", "dataset", "model", "recipe"),
    [
        ("fmnist", "fmnist", "lenet", {"epochs": 10, "optimizer": "adam", "norm": "standard"}),
        ("mpalaourg-1", "fmnist", "lenet", {"epochs": 10, "optimizer": "adam", "norm": "none"}),
        ("mpalaourg-2", "fmnist", "lenet", {"epochs": 20, "optimizer": "adam"}),
        ("mpalaourg-final", "fmnist", "lenet", {"epochs": 20, "batch": 20, "lr": 0.001, "norm": "standard"}),
        ("maccarini", "fmnist", "lenet_bn", {"epochs": 25, "optimizer": "adam"}),
        (
            "nesterenko",
            "fmnist",
            "cnn3",
            {"epochs": 30, "batch": 32, "drop_last": True, "optimizer": "nadam", "lr": 0.001, "norm": "none"},
        ),
        ("vision-mlp", "mnist", "mlp", {"model": {"hidden": 10, "activation": None}}),
        ("vision-relu", "mnist", "mlp", {"model": {"hidden": 10, "activation": "relu"}}),
        ("vision-tinyvgg", "fmnist", "tinyvgg", {}),
        ("deepl-cnn", "mnist", "cnn", {}),
        ("deepl-fmlp", "fmnist", "mlp", {"model": {"hidden": 128, "dropout": 0.2}}),
        ("deepl-fcnn", "fmnist", "cnn_dropout", {}),
        ("deepl-vgg", "fmnist", "vgg16", {"model": {"weights": "imagenet"}}),
    ],
)
def test_a_study_file_has_the_recipe_of_its_source(name, dataset, model, recipe):
    spec = study(name)
    assert (spec.dataset, spec.model) == (dataset, model)
    assert {key: getattr(spec.recipe, key) for key in recipe} == recipe


@pytest.mark.parametrize("name", FILES)
def test_a_study_file_is_named_after_its_study_and_uses_what_is_there(name):
    spec = study(name)
    assert spec.name == name
    if spec.objective is None:
        assert spec.dataset in plugins.installed(plugins.DATASETS)
        assert spec.model in plugins.installed(plugins.MODELS)
    else:
        assert plugins.find_objective(spec.objective).name.startswith("deepl_intro.py:")
    assert not spec.warnings


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("deepl-intro-")])
def test_a_function_of_the_studies_takes_its_params_and_gives_its_metric_at_every_step(name):
    spec = study(name)
    function = plugins.find_objective(spec.objective).target
    point = next(iter(spec.grid.points())).values
    steps = list(function({**spec.fixed(), **point, "steps": 3}, 0))
    assert len(steps) == 3
    assert all(math.isfinite(step[spec.metric]) for step in steps)
    assert steps == list(function({**spec.fixed(), **point, "steps": 3}, 0)), (
        "the seed decides all that is drawn"
    )


def test_what_is_ranked_gets_better_in_every_study_of_a_function():
    for name in ("linear", "nonlinear", "logistic", "minimum"):
        spec = study(f"deepl-intro-{name}")
        function = plugins.find_objective(spec.objective).target
        point = {key: values[len(values) // 2] for key, values in spec.grid.values.items()}
        first, *_, last = (step[spec.metric] for step in function({**spec.fixed(), **point}, 0))
        assert last <= first if spec.direction == "minimize" else last >= first


def rows():
    """Yield name, points and command of each line of the table."""
    pattern = r"^\| \[`([^`]+)`\]\(([^)]+)\) \| .* \| (\d+) \| `([^`]+)` \|$"
    for name, link, points, command in re.findall(pattern, TABLE, flags=re.MULTILINE):
        assert link == f"{name}.toml"
        yield name, int(points), command


def test_the_table_has_every_study_with_its_points_and_no_other():
    counted = {name: len(list(study(name).grid.points())) for name in FILES}
    assert {name: points for name, points, _ in rows()} == counted


def test_every_command_in_the_table_is_one_that_the_program_takes():
    for name, _, command in rows():
        program, *words = shlex.split(command)
        assert program == "gridsearch"
        assert (ROOT / build_parser().parse_args(words).file) == FILES[name]
