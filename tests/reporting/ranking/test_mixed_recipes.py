"""Points of several recipes in one study are marked as such, and drawn in panels of their own."""

import shlex

import pytest

from gridsearch.reporting import filter_data, heatmap_figures, print_ranking, rank, report_json
from gridsearch.reporting.figures.panels import plan_layout
from gridsearch.reporting.output.cautions import mixed_words
from gridsearch.reporting.output.page import render_page
from gridsearch.reporting.ranking.recipes import mixed_settings

TWO = (
    "gridsearch run --grid lr=.1,.2 batch=1,2 --epochs 2",
    "gridsearch run --grid lr=.1,.2 batch=1,2 --epochs 10",
)


@pytest.fixture
def mixed(study):
    return study({"lr": [0.1, 0.2], "batch": [1, 2], "epochs": [2, 10]}).data(commands=TWO)


def test_two_recipes_are_named_on_the_terminal_the_page_and_in_json(mixed):
    from rich.console import Console

    ranking = rank(mixed)
    words = mixed_words(mixed, ranking)
    assert words.startswith(
        "This ranking mixes points with different settings: epochs is 2 (4 points) and 10 (4 points). To compare like with like: "
        "gridsearch report --study fmnist --where epochs="
    )
    console = Console(width=1000, no_color=True)
    with console.capture() as seen:
        print_ranking(mixed, console=console, ranking=ranking)
    assert words in seen.get()
    assert words in render_page(mixed, ranking)
    assert report_json(mixed)["recipes"] == {"epochs": [2, 10]}
    assert "--where epochs=" in shlex.join(shlex.split(words)[-5:])


def test_each_recipe_has_panels_of_its_own_however_much_it_explains(study):
    builder = study({"lr": [0.1, 0.2], "weight_decay": [0.0, 0.1], "epochs": [2, 10]})
    for record in list(builder.records):
        builder.score(record.number, 0.5 + 0.04 * record.params["epochs"] + 0.01 * record.params["lr"])
    commands = tuple(c.replace("batch=1,2", "weight_decay=0,.1") for c in TWO)
    layout = plan_layout(rank(builder.data(commands=commands)))
    assert ({layout.x, layout.y}, layout.facets) == ({"lr", "weight_decay"}, ("epochs",))
    titles = [
        a.get_title(loc="left") for a in heatmap_figures(builder.data(commands=commands))["heatmap"].axes
    ]
    assert titles[:2] == ["epochs 2", "epochs 10"]


def test_one_recipe_by_itself_is_not_marked(mixed):
    part = filter_data(mixed, {"epochs": 10})
    assert mixed_words(part, rank(part)) == ""
    assert "recipes" not in report_json(part)


@pytest.mark.parametrize(
    ("commands", "found"),
    [
        (TWO, ("epochs",)),
        (("gridsearch run --grid lr=1 epochs=2,10 --epochs 3",), ()),
        (("gridsearch run --grid lr,epochs=.1/2,.2/10",), ()),
        (
            ("gridsearch run --grid lr=1 --set momentum=.9 epochs=3", "gridsearch run --grid lr=1"),
            ("epochs", "momentum"),
        ),
        (("gridsearch run --grid=lr=1 --set=momentum=.9", "gridsearch run --grid lr=1"), ("momentum",)),
        (("gridsearch run --grid lr=1 --val .2", "gridsearch run --grid lr=2"), ()),
        (("gridsearch.run(...) from Python",), ()),  # then its own grid asked for it
        (("gridsearch.run(...) from Python",) * 2, ("epochs",)),
        (("gridsearch run study.toml",), ()),
        (("gridsearch run study.toml",) * 2, ("epochs",)),
        (("gridsearch run 'unclosed",) * 2, ("epochs",)),
    ],
)
def test_a_setting_that_no_grid_asked_for_is_of_the_recipe(commands, found):
    varying = ("lr", "epochs", "momentum", "val")
    assert mixed_settings(varying, commands) == (*found, "val")  # without which the images are others
