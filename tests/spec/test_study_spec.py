import json
import pickle
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsearch.errors import SpecError, UsageError
from gridsearch.spec import Grid, Recipe, StudySpec, build, expand_study


def problems(make, *args, **kwargs):
    with pytest.raises(SpecError) as caught:
        make(*args, **kwargs)
    return list(caught.value.problems)


def from_arguments(arguments):
    """Read a command line as the program does, as far as the spec goes."""
    given = {"words": [], "exclude": [], "when": [], "settings": [], "options": {}}
    lists = {"--grid": "words", "--exclude": "exclude", "--when": "when", "--set": "settings"}
    option = ""
    for word in arguments:
        if word.startswith("--"):
            option = word
        elif option in lists:
            given[lists[option]].append(word)
        else:
            given["options"][option.removeprefix("--")] = word
    return build(**given)


def test_the_defaults_are_one_point_of_lenet_on_fashion_mnist():
    spec = StudySpec()
    assert (spec.name, spec.model, spec.seed_list, spec.val, spec.subset) == (
        "fmnist",
        "lenet",
        (0,),
        1 / 6,
        None,
    )
    assert spec.grid.size == 1
    assert spec == build()


def test_python_takes_grids_recipes_and_mappings():
    spec = StudySpec(
        dataset="digits", grid={"lr": [0.1]}, recipe={"epochs": 2, "model.width": 3}, seeds=[5, 7]
    )
    assert spec.grid == Grid(lr=[0.1])
    assert spec.recipe == Recipe(epochs=2, model={"width": 3})
    assert spec.seed_list == (5, 7)
    assert spec.name == "digits"
    assert StudySpec(study="mine").name == "mine"


def test_a_seed_axis_gives_the_seeds():
    assert StudySpec(grid=Grid(seed=[1, 4])).seed_list == (1, 4)
    assert StudySpec(seeds=3).seed_list == (0, 1, 2)
    assert StudySpec(grid=Grid(seed="0,1,2")).seed_list == StudySpec(seeds=3).seed_list
    assert problems(StudySpec, seeds=2, grid=Grid(seed=[1])) == ["seeds: the grid has a seed axis as well"]


def test_a_spec_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        StudySpec().model = "mlp"


def test_all_problems_of_a_spec_are_told_at_once():
    assert problems(
        StudySpec,
        study="../x",
        val=2,
        seeds=0,
        subset=0,
        modle="mlp",
        grid={"lr": "abc", "lrr": 1},
        recipe={"epoch": 1},
        direction="minimize",
        lr=0.1,
    ) == [
        "study: the study's name '../x' starts with '.'",
        "seeds: seeds must be a whole number of at least 1, not 0",
        "val: val must be below 1, not 2",
        "subset: subset must be at least 1, not 0",
        "lr='abc': lr must be a number, not 'abc'",
        "lrr=1: unknown axis 'lrr'; did you mean 'lr'?",
        "recipe epoch: unknown key 'epoch'; did you mean 'epochs'?",
        "unknown key 'modle'; did you mean 'model'?",
        "'lr' is a key of the recipe and stands there ([recipe])",
        "direction belongs to a study of a plain function (objective); a metric of images has its own",
    ]


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("seeds", 2.5, "seeds must be a whole number of at least 1, not 2.5"),
        ("seeds", True, "seeds must be a whole number of at least 1, not True"),
        ("seeds", "x", "seeds must be a whole number of at least 1, not x"),
        ("seeds", 10**12, "1,000,000,000,000 seeds, and at most 10,000 are taken"),
        ("seeds", [], "seeds is an empty list"),
        ("seeds", [1, 1], "seeds names a seed twice"),
        ("seeds", [-1], "seed must be at least 0, not -1"),
        ("seeds", {"a": 1}, "seeds must be a number or a list"),
        ("seeds", range(20_000), "20,000 seeds, and at most 10,000 are taken"),
        ("study", 3, "study must be a name, not 3"),
        ("val", -0.1, "val must be at least 0, not -0.1"),
        ("val", 1, "val must be below 1, not 1"),
        ("val", "nan", "val must be finite, not nan"),
        ("val", [0.1], "val takes one value"),
        ("subset", 1.5, "subset must be a whole number, not 1.5"),
        ("dataset", None, "dataset must be a name, not none"),
        ("dataset", "", "no value"),
        ("model", 3, "model must be a name, not 3"),
        ("grid", [1], "must be a Grid or a mapping, not list"),
        ("recipe", 3, "must be a Recipe or a mapping, not int"),
    ],
)
def test_a_wrong_option_is_told_with_its_name(name, value, problem):
    assert problems(StudySpec, **{name: value}) == [f"{name}: {problem}"]


specs = st.builds(
    StudySpec,
    study=st.none()
    | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,9}", fullmatch=True).filter(
        lambda n: "gridsearch" not in n
    ),
    dataset=st.sampled_from(["fmnist", "digits", "folder:my flowers", "data.py:Load"]),
    model=st.sampled_from(["lenet", "mlp", "my net.py:Net"]),
    seeds=st.integers(1, 5) | st.lists(st.integers(0, 9), min_size=1, unique=True).map(tuple),
    val=st.floats(0, 0.9),
    subset=st.none() | st.integers(1, 1000),
    grid=st.sampled_from(
        [
            Grid(),
            Grid(lr=[0.1, 0.2], batch="10..50:10", exclude="lr=.1 batch=20"),
            Grid(
                {"model": ["lenet", "a b.py:N"], "model.width": [1, "x y"]},
                when='model.width: model="a b.py:N"',
            ),
            Grid(momentum=[0, 0.9], when="momentum: optimizer=sgd"),
        ]
    ),
    recipe=st.fixed_dictionaries(
        {},
        optional={
            "epochs": st.integers(1, 9),
            "optimizer": st.sampled_from(["sgd", "adam"]),
            "dropout": st.floats(0, 0.9),
            "nesterov": st.booleans(),
            "model.width": st.integers(1, 4) | st.booleans() | st.sampled_from(["wide", "a,b c"]),
        },
    ),
)


@given(specs)
def test_a_spec_reads_back_from_json(spec):
    assert StudySpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_a_spec_with_a_seed_axis_reads_back_from_json():
    spec = StudySpec(grid=Grid(lr=[0.1], seed=[3, 4]))
    assert StudySpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


class PlainResolver:
    def model(self, name, options):
        return name, dict(options), None

    def data(self, options):
        return "made-up", dict(options), "f" * 64


@given(specs)
def test_the_command_of_a_spec_gives_the_same_trials(spec):
    program, verb, *arguments = shlex.split(spec.command())
    assert (program, verb) == ("gridsearch", "run")
    again = from_arguments(arguments)
    assert (again.name, again.dataset, again.seed_list) == (spec.name, spec.dataset, spec.seed_list)
    assert expand_study(again, PlainResolver()).drafts == expand_study(spec, PlainResolver()).drafts


def test_an_option_goes_before_the_study_file_and_that_before_the_default(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text('study = "a"\nmodel = "mlp"\nseeds = 3\n[recipe]\nepochs = 20\nbatch = 32\n')
    spec = build(file=file, options={"study": "b", "epochs": 5, "seeds": None, "val": "0"})
    assert (spec.name, spec.model, spec.seed_list, spec.val) == ("b", "mlp", (0, 1, 2), 0.0)
    assert (spec.recipe.epochs, spec.recipe.batch, spec.recipe.lr) == (5, 32, 0.001)
    assert build(file=file, settings=["batch=8", "model.width=2"]).recipe == Recipe.of(
        {"epochs": 20, "batch": 8, "model.width": 2}
    )


def test_a_grid_on_the_command_line_replaces_that_axis_of_the_file(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text('exclude = ["batch=10"]\n[grid]\nlr = [0.1, 0.2]\nbatch = [10, 20]\nseed = [0, 1]\n')
    spec = build(file=file, words=["lr=.5", "norm=none", "seed=7"], exclude=["lr=.5 batch=20"])
    assert spec.grid.values == {"lr": (0.5,), "batch": (10, 20), "norm": ("none",)}
    assert spec.grid.to_json()["exclude"] == ["batch=10", "lr=0.5 batch=20"]
    assert spec.seed_list == (7,)


def test_an_option_stands_in_place_of_the_files_axis_too(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text(
        'model = "mlp"\n[grid]\nlr = [0.1, 0.2]\nepochs = [1, 2]\nmodel = ["lenet", "mlp"]\nseed = [0, 1]\n'
    )
    spec = build(file=file, options={"epochs": 3, "model": "cnn", "seeds": 1}, settings=["lr=.3"])
    assert spec.grid.values == {"lr": (0.3,), "epochs": (3,), "model": ("cnn",)}
    assert spec.seed_list == (0,)


def test_a_grid_of_the_command_line_wins_over_the_files_recipe(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text("seeds = 2\n[recipe]\nlr = 0.5\n")
    spec = build(file=file, words=["lr=.1,.2", "seed=4"])
    assert {draft.settings.lr for draft in expand_study(spec, PlainResolver()).drafts} == {0.1, 0.2}
    assert spec.seed_list == (4,)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"words": ["lr=.1"], "settings": ["lr=.2"]},
            "--set lr=.2: lr is given with --grid as well; give only one of them",
        ),
        (
            {"words": ["lr=.1"], "settings": ["learning_rate=.2"]},
            "--set learning_rate=.2: lr is given with --grid as well; give only one of them",
        ),
        (
            {"words": ["lr,epochs=.1/2"], "options": {"epochs": 3}},
            "--epochs 3: epochs is given with --grid as well; give only one of them",
        ),
        (
            {"words": ["model=lenet,mlp"], "options": {"model": "mlp"}},
            "--model mlp: model is given with --grid as well; give only one of them",
        ),
        (
            {"words": ["seed=1"], "options": {"seeds": 3}},
            "--seeds 3: seeds is given with --grid as well; give only one of them",
        ),
        (
            {"options": {"epochs": 3}, "settings": ["epochs=4"]},
            "--set epochs=4: epochs is given with --epochs 3 as well; give only one of them",
        ),
        (
            {"settings": ["batch=3", "batch_size=4"]},
            "--set batch_size=4: batch is given with --set batch=3 as well; give only one of them",
        ),
        ({"settings": ["batch"]}, "--set batch: is not KEY=VALUE"),
        ({"settings": ["batch="]}, "--set batch=: no value"),
        ({"settings": ["batch=1,2"]}, "--set batch=1,2: batch must be a whole number, not '1,2'"),
        ({"settings": ["batch=1..3:1"]}, "--set batch=1..3:1: a range (1..3:1) cannot stand here"),
        ({"settings": ["bach=3"]}, "--set bach=3: unknown key 'bach'; did you mean 'batch'?"),
        ({"settings": ["val=.1"]}, "--set val=.1: val is an option of its own: --val .1"),
        ({"options": {"epochs": 0}}, "--epochs 0: epochs must be at least 1, not 0"),
        (
            {"options": {"study": "a/b"}},
            "--study a/b: the study's name 'a/b' may hold letters, digits, '.', '_' and '-' only",
        ),
    ],
)
def test_a_wrong_command_line_is_told(given, expected):
    assert problems(build, **given) == [expected]


def test_the_recipe_may_fix_an_axis_where_a_condition_takes_it_away():
    spec = build(words=["optimizer=sgd,adam", "lr=.1,.2"], when=["lr: optimizer=sgd"], settings=["lr=.5"])
    assert [d.settings.lr for d in expand_study(spec, PlainResolver()).drafts] == [0.1, 0.2, 0.5]


def test_problems_of_file_and_command_line_are_told_together(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text('[grid]\nlr = ["abc"]\n[recipe]\nepochs = 0\n')
    assert problems(
        build, file=file, words=["batch=0"], exclude=["norm=none"], options={"val": 3}, settings=["x=1"]
    )[:3] == [
        f"{file}: [recipe] epochs: epochs must be at least 1, not 0",
        f"{file}: [grid] lr: lr must be a number, not 'abc'",
        "--val 3: val must be below 1, not 3",
    ]


def test_a_study_file_that_is_not_there_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        build(file=tmp_path / "none.toml")
