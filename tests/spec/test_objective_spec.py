"""A study of a plain function: its axes are its own, options of images are refused, and it is written as it is read."""

from __future__ import annotations

import pytest

from gridsearch.errors import SpecError
from gridsearch.spec import Grid, StudySpec, build, expand_study

FILE = """
objective = "fit.py:loss"
metric    = "loss"
direction = "minimize"
seeds     = 2
exclude   = ["x=1 mode=b"]
when      = ["mode: x=1,2"]
[grid]
x    = "0..2:1"
mode = ["a", "b"]
"lr,epochs" = ["-.1/3", "1e-3/none"]
[recipe]
model = "linear"
metric = 3
"""


@pytest.fixture(autouse=True)
def _functions_are_here(tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for name in ("f.py", "fit.py"):
        (here / name).touch()


class Functions:
    def objective(self, name):
        return name, "s" * 64


def problems(*args, **kwargs):
    with pytest.raises(SpecError) as caught:
        build(*args, **kwargs)
    return list(caught.value.problems)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text(FILE)
    return path


def test_any_name_is_an_axis_with_any_plain_value(file):
    spec = build(file=file)
    assert spec.grid.values == {"x": (0, 1, 2), "mode": ("a", "b"), "lr": (-0.1, 0.001), "epochs": (3, None)}
    assert spec.recipe.flat() == {"model": "linear", "metric": 3}
    assert (spec.name, spec.metric, spec.direction, spec.seed_list) == ("loss", "loss", "minimize", (0, 1))


def test_points_are_params_and_rules_hold_as_ever(file):
    found = expand_study(build(file=file), Functions())
    params = [draft.settings.params for draft in found.drafts[::2]]
    assert all(p["model"] == "linear" and p["metric"] == 3 for p in params)
    assert {(p["x"], p.get("mode")) for p in params} == {(0, None), (1, "a"), (2, "a"), (2, "b")}
    assert found.points == 8
    assert {d.seed for d in found.drafts} == {0, 1}
    assert len({d.key for d in found.drafts}) == 16


def test_an_axis_goes_before_what_is_set_for_all_and_where_it_is_taken_away_that_holds(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text(
        'objective = "f.py:g"\nwhen = ["y: x=1"]\n[grid]\nx = [1, 2]\ny = [3, 4]\n[recipe]\ny = 9\n'
    )
    found = expand_study(build(file=path), Functions())
    assert [dict(d.settings.params) for d in found.drafts] == [
        {"x": 1, "y": 3},
        {"x": 1, "y": 4},
        {"x": 2, "y": 9},
    ]
    assert [d.inactive for d in found.drafts] == [(), (), ("y",)]


def test_a_spec_survives_json_and_its_own_command_line(file):
    spec = build(file=file)
    assert StudySpec.from_json(spec.to_json()) == spec
    words = list(spec.arguments())
    options, grid, exclude, when, settings = {}, [], [], [], []
    while words:
        option, *rest = words
        taken = next((i for i, word in enumerate(rest) if word.startswith("--")), len(rest))
        values, words = rest[:taken], rest[taken:]
        match option:
            case "--grid":
                grid += values
            case "--exclude":
                exclude.append(" ".join(values))
            case "--when":
                when += values
            case "--set":
                settings += values
            case _:
                options[option.removeprefix("--")] = values[0]
    again = build(words=grid, exclude=exclude, when=when, options=options, settings=settings)
    assert again.model_copy(update={"study": None}) == spec


def test_the_command_line_names_a_function_for_a_grid_in_a_file(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text("[grid]\nx = [1, 2]\n")
    spec = build(file=path, options={"objective": "f.py:g"}, words=["y=3"], settings=["metric=word"])
    assert (spec.name, spec.grid.axes, spec.recipe.flat()) == ("g", ("x", "y"), {"metric": "word"})
    (line,) = problems(file=path)
    assert line.startswith(f"{path}: [grid] x: unknown axis 'x'"), "without a function it is a grid of images"


def test_a_function_beside_a_study_file_is_found(tmp_path):
    (tmp_path / "f.py").write_text("")
    (tmp_path / "s.toml").write_text('objective = "f.py:g"\n')
    assert build(file=tmp_path / "s.toml").objective == f"{tmp_path / 'f.py'}:g"


def test_python_gives_axes_as_a_mapping_or_as_a_grid_of_params():
    one = StudySpec(objective="f.py:g", grid={"x": [1, 2.5], "seed": [4]}, recipe={"lr": -1})
    two = StudySpec(objective="f.py:g", grid=Grid.of_params({"x": [1, 2.5], "seed": [4]}), recipe={"lr": -1})
    assert one == two
    assert (one.recipe.flat(), one.seed_list) == ({"lr": -1}, (4,))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"dataset": "fmnist"}, "--dataset fmnist: dataset says something of images, and f.py:g is a plain function"),
        ({"model": "mlp"}, "--model mlp: model says something of images, and f.py:g is a plain function"),
        ({"val": "0"}, "--val 0: val says something of images, and f.py:g is a plain function"),
        ({"subset": "9"}, "--subset 9: subset says something of images, and f.py:g is a plain function"),
        ({"epochs": "9"}, "--epochs 9: f.py:g is a plain function; its own params are set with --set epochs=..."),
        ({"direction": "up"}, "--direction up: direction must be maximize or minimize, not 'up'"),
        ({"metric": "-x"}, "--metric -x: metric '-x' is no name: a letter, then at most 63 letters, digits, spaces or . _ -"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_for_a_function_are_refused(options, line):
    assert problems(words=["x=1"], options={"objective": "f.py:g", **options}) == [line]


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("x-y=1", "--grid x-y=1: 'x-y' names no param: unaccented Latin letters, digits and '_' alone"),
        (
            "model.width=1",
            "--grid model.width=1: 'model.width' names no param: unaccented Latin letters, digits and '_' alone",
        ),
        (
            "objective=1",
            "--grid objective=1: 'objective' cannot be a param: the study itself is described by it",
        ),
        ("x=nan", "--grid x=nan: a number must be finite, not nan"),
    ],
)
def test_an_axis_of_a_function_is_a_name_with_finite_values(word, line):
    assert problems(words=[word], options={"objective": "f.py:g"}) == [line]


def test_a_direction_belongs_to_functions_and_a_metric_of_images_is_one_of_ours():
    (line,) = problems(words=["lr=1"], options={"direction": "minimize"})
    assert line.startswith("--direction minimize: direction belongs to a study of a plain function")
    (line,) = problems(words=["lr=1"], options={"metric": "los"})
    assert line.startswith("metric 'los' is not known; did you mean 'loss'?")
    spec = build(words=["lr=1"], options={"metric": "recall:T-shirt/top, 'x'=1"})
    assert spec.image_metric == "recall:T-shirt/top, 'x'=1"
    assert StudySpec.from_json(spec.to_json()) == spec
    assert "metric" not in build(words=["lr=1"]).to_json(), "as before there was any"
    (line,) = problems(words=["x=1"], options={"objective": "f.py:g", "metric": "recall:x"})
    assert "is no name" in line
    with pytest.raises(SpecError, match="there is no objective"):
        StudySpec(grid=Grid.of_params({"x": [1]}))
    with pytest.raises(SpecError, match=r"Grid\.of_params"):
        StudySpec(objective="f.py:g", grid=Grid(lr=[1]))


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ({"metric": "val_loss"}, True),
        ({"metric": "mse"}, True),
        ({"metric": "val_loss", "direction": "maximize"}, False),
        ({"metric": "val_loss", "direction": "minimize"}, False),
        ({"metric": "closeness"}, False),
    ],
)
def test_a_loss_that_is_maximized_without_a_word_is_warned_of(options, warned):
    spec = build(words=["x=1"], options={"objective": "f.py:g", **options})
    assert any("maximized" in line for line in expand_study(spec, Functions()).warnings) is warned
