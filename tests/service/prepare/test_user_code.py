"""A trial belongs to the code that made it: edited code makes new trials, and a study goes on with its own alone."""

from __future__ import annotations

import sys
import textwrap

import pytest

import gridsearch as gs
from gridsearch.cli import main
from gridsearch.errors import UsageError

pytestmark = pytest.mark.end_to_end

NET = """
from torch import nn
from parts import UNITS
class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, UNITS), nn.ReLU(), nn.Linear(UNITS, num_classes))
    def forward(self, x):
        return self.layers(x)
class Other:
    pass
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRIDSEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path


def write(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(textwrap.dedent(text))


def call(objective, grid=None, **given):
    kinds = {"study": "s", "home": "h", "quiet": True, "report": False, "executor": "inline", "metric": "y"}
    return gs.run(grid={"x": [1, 2]} if grid is None else grid, objective=objective, **kinds | given)


def train(**given):
    kinds = {"study": "n", "home": "h", "quiet": True, "report": False, "executor": "inline", "epochs": 1}
    return gs.run(**kinds | {"dataset": "digits", **given})


def test_models_of_one_name_in_two_folders_are_two_with_their_own_helpers_and_the_study_goes_on_with_both(
    folder,
):
    for place, units in (("one", 3), ("two", 9)):
        write(folder / place / "net.py", NET)
        write(folder / place / "parts.py", f"UNITS = {units}")
    models = ["one/net.py:Net", "two/net.py:Net"]
    first = train(grid={"model": models})
    found = {t.settings.model: t.metrics["parameters"] for t in first.data.trials}
    assert found == {"net.py:Net": 65 * 3 + 40, "two/net.py:Net": 65 * 9 + 100}
    again = train(grid={"model": models})
    assert (again.new, again.reused) == (0, 2)

    def more(model):
        return gs.run(
            study="n", home="h", quiet=True, report=False, executor="inline", more_seeds=1, model=model
        )

    assert more(models[::-1]).new == 2
    write(folder / "two" / "parts.py", "UNITS = 5")
    with pytest.raises(UsageError, match=r"^model 'two/net\.py:Net' has changed .*: parts\.py is edited \("):
        more(models)
    with pytest.raises(UsageError, match=r"uses your own model 'two/net\.py:Net'"):
        more(models[0])
    write(folder / "two" / "parts.py", "UNITS = 9")
    write(folder / "two" / "net.py", NET.replace("pass", "edited = 1"))
    with pytest.raises(UsageError, match=r"has changed .*: net\.py is edited \(") as caught:
        gs.best(
            "n", home="h", quiet=True, executor="inline", model=models[1], where={"model": "two/net.py:Net"}
        )
    assert caught.value.hint.endswith("(a file counts as a whole)")


def test_an_edited_helper_of_a_function_makes_new_trials_and_what_goes_on_says_what_changed(folder):
    write(
        folder / "fit.py",
        "import parts\ndef f(params, seed):\n    import late\n    return {'y': parts.A * late.A}",
    )
    write(folder / "parts.py", "A = 2")
    write(folder / "late.py", "A = 3")
    assert call("fit.py:f").points["mean"].tolist() == [6, 6]
    assert call("fit.py:f").new == 0
    write(folder / "late.py", "A = 4")
    with pytest.raises(UsageError, match=r"has changed since study 's' was made: late\.py is edited \("):
        gs.run(study="s", home="h", quiet=True, report=False, executor="inline", objective="fit.py:f")
    edited = call("fit.py:f")
    assert edited.new == 2
    assert {8, 6} == set(edited.trials["value"])
    assert "objective_version" in edited.points, "the two are told apart"
    write(folder / "late.py", "A = 2")
    call("fit.py:f")
    how = {"home": "h", "quiet": True, "report": False, "executor": "inline"}
    more = gs.run(study="s", objective="fit.py:f", more_seeds=1, top=1, **how)
    assert (more.new, more.data.trials[-1].value) == (1, 4), "not the best of all code, which is not here"


@pytest.mark.usefixtures("no_graph")
def test_a_study_goes_on_with_its_models_of_today_once_the_grid_was_given_again(folder, capsys):
    write(folder / "net.py", NET)
    for units, lr in ((90, 0.02), (2, 0.0001)):  # the better one is of the code that is gone
        write(folder / "parts.py", f"UNITS = {units}")
        train(grid={"lr": [lr]}, model="net.py:Net", subset=200)
    where = ["--study", "n", "--home", "h", "--model", "net.py:Net", "--executor", "inline"]
    assert main(["run", *where, "--more-seeds", "1", "--top", "2", "--no-report"]) == 0
    told = "1 trial of study 'n' was made with other code of net.py:Net than there is now; it continues with"
    assert told in capsys.readouterr().err
    result = gs.load("n", home="h")
    assert [t.metrics["parameters"] for t in result.data.trials] == [65 * 90 + 910, 65 * 2 + 30, 65 * 2 + 30]
    assert result.best["lr"] == 0.02
    assert main(["best", *where]) == 0
    assert "lr=0.0001 model_version=" in capsys.readouterr().out


def test_what_has_no_address_is_told_and_computed_again_until_a_version_stands_for_it(folder):
    def reading(path):
        log = path.open()

        def f(params, seed):
            return {"y": len(log.name)}

        return f, log

    (folder / "a.txt").write_text("x")
    f, log = reading(folder / "a.txt")
    with log:
        told = r"f uses log \(a _io\.TextIOWrapper\), which cannot be identified: its trials are computed"
        with pytest.warns(gs.GridsearchWarning, match=told) as caught:
            one = call(f)
        assert len(caught) == 1
        with pytest.warns(gs.GridsearchWarning, match=told):
            two = call(f)
        assert (one.new, two.new) == (2, 2)
        three, four, five = (call(f, version=version) for version in ("1", "1", "2"))
        assert (three.new, four.new, five.new) == (2, 0, 2)
        assert {"code_version", "objective_version"} <= set(five.points.columns)
        assert set(five.points["code_version"].dropna()) == {"1", "2"}


def test_a_version_is_asked_for_on_the_command_line_too_and_says_so_where_it_has_no_effect(folder, capsys):
    from gridsearch.cli import main

    write(
        folder / "fit.py",
        "import pathlib\ndef f(params, seed): return {'y': float(pathlib.Path('data.txt').read_text())}",
    )
    grid = "--objective fit.py:f --grid x=1 --metric y"
    words = ["run", *grid.split(), *["--home", "h", "--no-report", "--executor", "inline"]]
    (folder / "data.txt").write_text("1")
    assert main([*words, "--version", "1"]) == 0
    (folder / "data.txt").write_text("2")
    assert main([*words, "--version", "2"]) == 0
    assert main([*words, "--version", "2"]) == 0
    assert sorted(gs.load("f", home="h").trials["value"]) == [1, 2]
    assert main(["run", "--study", "f", "--objective", "fit.py:f", "--version", "3", "--home", "h"]) == 2
    write(
        folder / "study.toml",
        "study = 'f'\nobjective = 'fit.py:f'\nversion = 3\nmetric = 'y'\n[grid]\nx = [1]\n",
    )
    assert main(["plan", "study.toml", "--home", "h", "--json"]) == 0
    capsys.readouterr()
    with pytest.warns(gs.GridsearchWarning, match="version has no effect: it is for your own code"):
        train(grid={"lr": [0.1]}, model="mlp", version="1")


def test_functions_of_one_name_on_an_axis_are_several_models(folder):
    import functools

    from torch import nn

    def build(num_classes, width):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, num_classes))

    models = [functools.partial(build, width=width) for width in (3, 4)]
    found = train(grid={"model": models})
    assert sorted(t.metrics["parameters"] for t in found.data.trials) == [65 * 3 + 40, 65 * 4 + 50]
    assert train(grid={"model": models}).new == 0


def test_a_function_that_changes_what_it_reaches_is_told(folder):
    calls = []

    def f(params, seed):
        calls.append(params)
        return {"y": 1}

    with pytest.warns(
        gs.GridsearchWarning, match=r"f changes what it uses while it runs \(calls is edited\)"
    ):
        call(f)


def test_a_module_edited_and_not_reloaded_keeps_the_results_of_what_is_loaded(folder, monkeypatch):
    import importlib

    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    write(folder / "my_model.py", "def fit(params, seed):\n    return {'y': 1.0}")
    module = importlib.import_module("my_model")
    call(module.fit)
    write(folder / "my_model.py", "def fit(params, seed):\n    return {'y': 10.0}")
    with pytest.warns(gs.GridsearchWarning, match=r"my_model\.py has changed since this session"):
        stale = call(module.fit)
    assert stale.trials["value"].tolist()[-1] == 1.0
    importlib.reload(module)
    fresh = call(module.fit)
    assert (fresh.new, fresh.trials["value"].tolist()[-1]) == (2, 10.0)
    assert call("my_model:fit").new == 0, "it is the same as by its name"
    del sys.modules["my_model"]


def test_a_warning_names_the_file_that_was_edited_and_not_the_one_that_imports_it(folder, monkeypatch):
    import importlib

    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    write(folder / "my_parts.py", "def value():\n    return 1.0")
    write(
        folder / "my_whole.py",
        "from my_parts import value\ndef fit(params, seed):\n    return {'y': value()}",
    )
    module = importlib.import_module("my_whole")
    write(folder / "my_parts.py", "def value():\n    return 2.0")
    with pytest.warns(gs.GridsearchWarning, match=r"my_parts\.py has changed since this session imported it"):
        call(module.fit)
    importlib.reload(sys.modules["my_parts"])
    with pytest.warns(gs.GridsearchWarning, match=r"my_whole\.py has changed since"):
        assert call(module.fit).new == 0
    for name in ("my_parts", "my_whole"):
        del sys.modules[name]


def test_what_a_call_describes_ranks_first_and_earlier_versions_stay_apart_and_named(folder):
    def scaled(by):
        def f(params, seed):
            return {"y": by * params["x"]}

        return f

    call(scaled(10))
    lower = call(scaled(1))
    assert [p.mean for p in lower.ranking.points] == [2, 1]
    assert lower.best["x"] == 2
    assert [p.mean for p in lower.ranking.incomparable] == [20, 10]
    assert lower.points["mean"].tolist() == [2, 1, 20, 10]
    assert lower.points["objective_version"].nunique() == 2
    again = call(scaled(10), grid={"x": [3]})
    assert (again.new, [p.mean for p in again.ranking.points]) == (1, [30, 20, 10]), (
        "a grid of the same function joins"
    )
    assert len(again.ranking.incomparable) == 2
    short = train(grid={"lr": [0.1]}, model="mlp")
    longer = train(grid={"lr": [0.1]}, model="mlp", epochs=2)
    assert (
        [p.settings.epochs for p in longer.ranking.points],
        [p.settings.epochs for p in longer.ranking.incomparable],
    ) == ([2], [1])
    assert short.ranking.incomparable == ()
