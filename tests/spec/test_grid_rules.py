import pytest

from gridsearch.errors import SpecError
from gridsearch.spec import Grid

BASE = ["lr=.01,.001", "batch=10,20", "optimizer=sgd,adam", "momentum=0,.9"]


def problems(exclude=(), when=(), words=BASE):
    with pytest.raises(SpecError) as caught:
        Grid.parse(words, exclude=exclude, when=when)
    return list(caught.value.problems)


def points(grid, fixed=None):
    return [dict(point.values) for point in grid.points(fixed)]


def test_an_exclusion_leaves_out_the_points_where_all_of_it_holds():
    grid = Grid.parse(["lr=.01,.001", "batch=10,20"], exclude=["lr=1e-2 batch=10"])
    assert points(grid) == [{"lr": 0.01, "batch": 20}, {"lr": 0.001, "batch": 10}, {"lr": 0.001, "batch": 20}]
    assert grid.excluded() == 1
    assert grid.size == 4


def test_an_exclusion_takes_several_values_and_ranges():
    grid = Grid.parse(["batch=10..60:10", "lr=.1,.2"], exclude=["batch=10..30:10,60 lr=.1"])
    assert [p["batch"] for p in points(grid) if p["lr"] == 0.1] == [40, 50]
    assert grid.excluded() == 4


def test_exclusions_add_up_and_a_point_is_counted_once():
    grid = Grid.parse(["lr=.01,.001", "batch=10,20"], exclude=["lr=.01", "batch=10"])
    assert points(grid) == [{"lr": 0.001, "batch": 20}]
    assert grid.excluded() == 3
    assert grid.survey() == (list(grid.points()), 3)


def test_an_exclusion_speaks_of_paired_axes_too():
    grid = Grid.parse(["lr,batch=.01/100,.001/20"], exclude=["batch=100"])
    assert points(grid) == [{"lr": 0.001, "batch": 20}]


def test_an_exclusion_of_a_model_with_a_blank_in_its_path_is_quoted():
    grid = Grid.parse(
        ["model=my nets/a.py:Net,lenet", "lr=.1,.2"], exclude=['model="my nets/a.py:Net" lr=.1']
    )
    assert grid.excluded() == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("lr=.02", "0.02 is not a value of lr in this grid; known: 0.01, 0.001"),
        ("optimizer=adamw", "adamw is not a value of optimizer in this grid; did you mean 'adam'?"),
        ("norm=none", "'norm' is not an axis of this grid; known: batch, lr, momentum, optimizer"),
        ("epochs=3", "'epochs' is not an axis of this grid; known: batch, lr, momentum, optimizer"),
        ("optimiser=sgd", "unknown axis 'optimiser'; did you mean 'optimizer'?"),
        ("optimizer=sdg", "unknown optimizer 'sdg'; did you mean 'sgd'?"),
        ("lr=abc", "lr must be a number, not 'abc'"),
        ("lr=", "no value"),
        ("lr", "'lr' is not axis=value"),
        ("lr=.01 batch", "'batch' is not axis=value"),
        ("", "names no axis=value"),
        ("lr=.01 lr=.001", "lr is named twice; give its values as a list"),
        ("seed=1", "seeds are replicates of every point, not an axis that rules may name"),
        ("batch=1..1000000000000:1", "more than 100,000 values of batch"),
        ("model.width=2", "'model.width' is not an axis of this grid; known: batch, lr, momentum, optimizer"),
    ],
)
def test_a_wrong_exclusion_is_told(text, problem):
    assert problems(exclude=[text]) == [f"--exclude {text!r}: {problem}"]


def test_an_exclusion_of_an_axis_with_problems_tells_those_alone():
    assert problems(exclude=["lr=.5"], words=["lr=abc"]) == ["--grid lr=abc: lr must be a number, not 'abc'"]
    assert len(problems(exclude=["batch=5"], words=["batch=1..10000000:1"])) == 1


def test_a_conditional_axis_exists_only_where_its_condition_holds():
    grid = Grid.parse(["optimizer=sgd,adam", "momentum=0,.9"], when=["momentum: optimizer=sgd"])
    assert points(grid) == [
        {"optimizer": "sgd", "momentum": 0.0},
        {"optimizer": "sgd", "momentum": 0.9},
        {"optimizer": "adam"},
    ]
    assert [point.inactive for point in grid.points()] == [(), (), ("momentum",)]
    assert grid.size == 4


def test_all_terms_of_a_condition_must_hold_and_any_of_a_terms_values():
    grid = Grid.parse(BASE, when=["momentum: optimizer=sgd batch=10,20 lr=.01"])
    assert {(p["optimizer"], p["lr"]) for p in points(grid) if "momentum" in p} == {("sgd", 0.01)}


def test_two_conditions_on_an_axis_must_both_hold():
    one = Grid.parse(BASE, when=["momentum: optimizer=sgd", "momentum: lr=.01"])
    both = Grid.parse(BASE, when=["momentum: optimizer=sgd lr=.01"])
    assert points(one) == points(both)


def test_an_axis_that_depends_on_an_absent_axis_is_absent():
    words = ["optimizer=sgd,adam", "momentum=0,.9", "nesterov=true,false"]
    when = ["nesterov: momentum=.9", "momentum: optimizer=sgd"]
    grid = Grid.parse(words, when=when)
    assert points(grid) == [
        {"optimizer": "sgd", "momentum": 0.0},
        {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
        {"optimizer": "sgd", "momentum": 0.9, "nesterov": False},
        {"optimizer": "adam"},
    ]
    assert points(Grid.parse(words, when=when[::-1])) == points(grid)


def test_a_condition_on_an_axis_outside_the_grid_asks_the_recipe():
    grid = Grid.parse(["momentum=0,.9"], when=["momentum: optimizer=sgd"])
    assert points(grid, {"optimizer": "sgd"}) == [{"momentum": 0.0}, {"momentum": 0.9}]
    assert points(grid, {"optimizer": "adam"}) == [{}]
    assert points(grid) == [{}]  # adam is the default


def test_a_condition_on_an_option_that_nobody_gave_does_not_hold():
    grid = Grid.parse(["lr=.1,.2"], when=["lr: model.width=2"])
    assert points(grid) == [{}]
    assert len(points(grid, {"model.width": 2})) == 2


def test_exclusions_see_only_axes_that_exist():
    grid = Grid.parse(
        ["optimizer=sgd,adam", "momentum=0,.9"], exclude=["momentum=.9"], when=["momentum: optimizer=sgd"]
    )
    assert points(grid) == [{"optimizer": "sgd", "momentum": 0.0}, {"optimizer": "adam"}]
    assert grid.excluded() == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("momentum optimizer=sgd", "write it as 'AXIS: OTHER=VALUE'"),
        ("momentum=.9: optimizer=sgd", "write it as 'AXIS: OTHER=VALUE'"),
        ("momentum:", "names no axis=value"),
        ("momentun: optimizer=sgd", "unknown axis 'momentun'; did you mean 'momentum'?"),
        ("momentum: optimizr=sgd", "unknown axis 'optimizr'; did you mean 'optimizer'?"),
        ("momentum: optimizer=sdg", "unknown optimizer 'sdg'; did you mean 'sgd'?"),
        ("momentum: momentum=.9", "momentum depends on itself"),
        ("val: lr=.1", "val cannot be an axis of a grid"),
        ("seed: lr=.1", "seeds are replicates of every point, not an axis that rules may name"),
        ("lr: seed=1", "seeds are replicates of every point, not an axis that rules may name"),
    ],
)
def test_a_wrong_condition_is_told(text, problem):
    assert problems(when=[text]) == [f"--when {text!r}: {problem}"]


def test_conditions_in_a_circle_are_told():
    (problem,) = problems(when=["lr: batch=10", "batch: momentum=0", "momentum: lr=.01"])
    assert problem.endswith("axes depend on each other in a circle: lr -> batch -> momentum -> lr")


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("norm: optimizer=sgd", "'norm' is not an axis of this grid, so this changes nothing"),
        ("lr: batch=30", "30 is not a value of batch in this grid; known: 10, 20"),
        ("lr: optimizer=adamw", "adamw is not a value of optimizer in this grid; did you mean 'adam'?"),
    ],
)
def test_a_condition_that_the_grid_does_not_need_is_a_warning(text, warning):
    assert Grid.parse(BASE, when=[text]).warnings == (f"--when {text!r}: {warning}",)


def test_the_same_rule_twice_is_one_rule():
    grid = Grid.parse(BASE, exclude=["lr=.01", "lr=1e-2"], when=["momentum: optimizer=sgd"] * 2)
    assert grid.to_json()["exclude"] == ["lr=0.01"]
    assert grid.to_json()["when"] == ["momentum: optimizer=sgd"]
