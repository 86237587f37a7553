import dataclasses
import pickle

import pytest

from gridsearch.errors import SpecError
from gridsearch.records import ImageSettings
from gridsearch.spec import AXES, Recipe


def problems(make):
    with pytest.raises(SpecError) as caught:
        make()
    return list(caught.value.problems)


def test_the_defaults_are_those_of_the_settings():
    of_settings = {field.name: field.default for field in dataclasses.fields(ImageSettings)}
    assert Recipe().flat() == {name: of_settings[name] for name in Recipe().flat()}
    assert Recipe().changes() == {}
    assert set(Recipe().flat()) == {a.name for a in AXES.values() if a.scope in ("grid", "recipe")} - {
        "seed",
        "model",
    }


def test_values_are_typed_and_aliases_understood():
    recipe = Recipe.of({"learning_rate": 1, "batch_size": 32.0, "dropout": "none", "nesterov": "true"})
    assert (recipe.lr, recipe.batch, recipe.dropout, recipe.nesterov) == (1.0, 32, None, True)
    assert type(recipe.lr) is float
    assert type(recipe.batch) is int
    assert recipe.changes() == {"lr": 1.0, "batch": 32, "nesterov": True}


def test_options_come_flat_or_as_tables():
    flat = Recipe.of({"model.width": 2, "data.size": 8})
    assert (
        flat
        == Recipe(model={"width": 2}, data={"size": 8})
        == Recipe.of({"model": {"width": 2.0}, "data.size": 8})
    )
    assert flat.changes() == {"model.width": 2, "data.size": 8}
    assert hash(flat) == hash(pickle.loads(pickle.dumps(flat)))


def test_all_problems_are_told_at_once():
    assert problems(lambda: Recipe(lr=-1, epochs=0, optimizer="adm", model={"a b": 1})) == [
        "recipe epochs: epochs must be at least 1, not 0",
        "recipe lr: lr must be above 0, not -1",
        "recipe optimizer: unknown optimizer 'adm'; did you mean 'adam'?",
        "recipe model.a b: 'model.a b' names no option: model.NAME, with a Python name",
    ]


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("epoch", 1, "unknown key 'epoch'; did you mean 'epochs'?"),
        ("split_sed", 1, "unknown key 'split_sed'; did you mean 'split_seed'?"),
        ("val", 0.1, "'val' is an option of its own, not a key of the recipe"),
        ("dataset", "mnist", "'dataset' is an option of its own, not a key of the recipe"),
        ("model", "mlp", "'model' is an option of its own, not a key of the recipe"),
        ("model_source", "x", "'model_source' is found out from the plug-ins, not a key of the recipe"),
        ("seed", 1, "seeds are replicates of every point, not part of the recipe (seeds)"),
        ("lr", [0.1, 0.2], "lr takes one value; several go into the grid"),
        ("lr", "1,2", "lr must be a number, not '1,2'"),
        ("lr", float("nan"), "lr must be finite, not nan"),
        ("batch", 2.5, "batch must be a whole number, not 2.5"),
        ("split_seed", -1, "split_seed must be at least 0, not -1"),
    ],
)
def test_a_wrong_key_or_value_is_told(key, value, problem):
    assert problems(lambda: Recipe.of({key: value})) == [f"recipe {key}: {problem}"]


def test_a_key_given_under_two_names_is_an_error():
    assert problems(lambda: Recipe.of({"lr": 0.1, "learning_rate": 0.2})) == [
        "recipe learning_rate: lr is given twice"
    ]
