"""Both entries take the same and refuse the same: every option of the command line has its argument in Python."""

from __future__ import annotations

import argparse
import datetime as dt
import inspect
import re
import warnings

import numpy as np
import pytest
import torch

import gridsearch as gs
from gridsearch.cli import commands
from gridsearch.cli.parser import build_parser
from gridsearch.errors import GridsearchError
from gridsearch.service.run import running
from gridsearch.service.winner import best as best_service

OF_THE_TERMINAL = {"help", "json", "verbose", "no_color", "dry_run", "probe"}
"""What says how a process shows its result, which Python returns; a plan is `gridsearch plan`."""
OTHER_NAMES = {"file": "grid", "set": "recipe"}

WORDS = (
    "", " ", "0", "1", "2", " 2", "-1", "1.5", ".5", "1e3", "9" * 30, "x", "a b", "a/b", "none", "auto", "true", "1h", "90s",
    "1h30m", "inline", "local", "median", "cpu", "cuda:0", "digits", "mlp", "maximize", "f.py:g", "é", "\x00", "momentum: optimizer=sgd", "partition=gpu", "spread", "GS101",
)  # fmt: skip


def actions(command):
    parser = build_parser()
    found = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return {a.dest: a for a in found.choices[command]._actions if a.dest not in OF_THE_TERMINAL}


class Reached(BaseException):
    """The words were taken: what they mean has come to the service."""


@pytest.fixture
def meaning(monkeypatch):
    """Call an entry point, and return what its words mean, or "refused"."""

    def reached(*args, **named):
        raise Reached(*args, named)

    monkeypatch.setattr(running, "run", reached)
    monkeypatch.setattr(running, "resume", reached)
    monkeypatch.setattr(best_service, "best", reached)

    def mean(entry):
        try:
            entry()
        except Reached as there:
            first, options, named = there.args
            how = {f: getattr(options, f) for f in options.__dataclass_fields__ if f != "command"}
            spec = first if isinstance(first, str) else first.to_json()
            kept = {k: v for k, v in named.items() if k != "observer" and v not in (None, (), [], {})}
            return spec, how, kept
        except GridsearchError:
            return "refused"
        raise AssertionError("nothing was called")

    return mean


def typed(*words):
    parsed = build_parser().parse_args(words)
    return commands.dispatch(parsed, list(words))


@pytest.mark.parametrize("command", ["run", "best"])
def test_every_option_has_its_argument_and_every_argument_its_option(command):
    function = getattr(gs, command)
    parameters = inspect.signature(function).parameters
    named = {n for n, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
    assert {OTHER_NAMES.get(dest, dest) for dest in actions(command)} == named
    text = inspect.getdoc(function)
    for name in named:
        assert re.search(rf"^    {name}: \S", text, re.MULTILINE), f"help says nothing of {name}"
    arguments = {"run": gs.RunArguments, "best": gs.BestArguments}[command]
    keys = {key for kind in arguments.__mro__ for key in getattr(kind, "__annotations__", {})} | set(
        arguments.__annotations__
    )
    assert keys == named - {"grid", "study"} | ({"study"} if command == "run" else set())


@pytest.mark.parametrize(
    "name", [d for d, a in actions("run").items() if a.nargs is None and a.option_strings]
)
def test_a_word_is_taken_by_both_doors_with_the_same_meaning_or_refused_by_both(meaning, name):
    (option,) = (s for s in actions("run")[name].option_strings if s.startswith("--"))
    stored = name in ("more_seeds", "top", "code")
    more = {"top": {"more_seeds": "1"}, "slurm": {"executor": "slurm"}}.get(name, {})
    of_function = {"objective": "f.py:g"} if name in ("metric", "direction") else {}
    taken = 0
    for word in WORDS:
        given = {**more, **of_function, name: word}
        here = ["--study", "s"] if stored else ["--grid", "lr=.1"]
        here += [w for k, v in given.items() for w in (f"--{k.replace('_', '-')}={v}",)]
        typed_in = meaning(lambda words=here: typed("run", *words))
        if stored:
            entries = [lambda given=given: gs.run(study="s", quiet=True, **given)]
        else:
            entries = [
                lambda given=given, grid=grid: gs.run(grid, quiet=True, **given)
                for grid in (["lr=.1"], {"lr": [0.1]})
            ]
        for entry in entries:
            assert meaning(entry) == typed_in, (option, word)
        taken += typed_in != "refused"
    assert taken, "one word at least is right"


@pytest.mark.parametrize("name", [d for d, a in actions("run").items() if a.nargs == 0])
def test_a_switch_is_true_or_false_in_python(meaning, name):
    switch = actions("run")[name]
    words = ("run", "--grid", "lr=.1", switch.option_strings[-1])
    assert meaning(lambda: gs.run({"lr": [0.1]}, **{name: switch.const})) == meaning(lambda: typed(*words))
    off = meaning(lambda: typed(*words[:3]))
    assert meaning(lambda: gs.run({"lr": [0.1]}, **{name: not switch.const})) == off
    for wrong in ("yes", 1, 0, "", []):
        assert meaning(lambda wrong=wrong: gs.run({"lr": [0.1]}, **{name: wrong})) == "refused"


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        (("--grid", "lr=.1,.2", "--exclude", "lr=.1"), {"grid": {"lr": [0.1, 0.2]}, "exclude": "lr=.1"}),
        (("--grid", "lr=.1", "--exclude", "lr=.3"), {"grid": {"lr": [0.1]}, "exclude": "lr=.3"}),
        (
            ("--grid", "momentum=.1,.2", "optimizer=sgd,adam", "--when", "momentum: optimizer=sgd"),
            {"grid": {"momentum": [0.1, 0.2], "optimizer": "sgd,adam"}, "when": ["momentum: optimizer=sgd"]},
        ),
        (("--set", "optimizer=sgd", "momentum=.9"), {"recipe": {"optimizer": "sgd", "momentum": 0.9}}),
        (("--grid", "optimizer=sgd", "batch_size=8"), {"optimizer": "sgd", "batch_size": 8}),
        (("--grid", "lr=.1,.2", "optimizer=sgd"), {"grid": ["lr=.1,.2"], "optimizer": "sgd"}),
        (("--grid", "lr=.1,.2", "optimizer=sgd"), {"grid": gs.Grid(lr=[0.1, 0.2]), "optimizer": "sgd"}),
        (("--grid", "lr=.1,.2", "optimizer=sgd,adam"), {"lr": [0.1, 0.2], "optimizer": ["sgd", "adam"]}),
        (("--grid", "lr=.1", "--set", "split_seed=3"), {"lr": 0.1, "split_seed": 3}),
        (("--grid", "model.width=2"), {"model.width": 2}),
        (("--grid", "optimizer=sdg"), {"optimizer": "sdg"}),
        (("--grid", "lr=.1", "lr=.2"), {"grid": ["lr=.1"], "lr": 0.2}),
        (("--grid", "lr=.1", "--set", "lr=.2"), {"grid": {"lr": [0.1]}, "lr": 0.2}),
        (("--grid", "epochs=1,2", "--epochs", "3"), {"grid": {"epochs": [1, 2]}, "epochs": 3}),
        (
            ("--grid", "model=mlp,lenet", "--model", "mlp"),
            {"grid": {"model": ["mlp", "lenet"]}, "model": "mlp"},
        ),
        (("--grid", "seed=1,2", "--seeds", "2"), {"grid": {"seed": [1, 2]}, "seeds": 2}),
        (("--study", "s", "--epochs", "3"), {"study": "s", "epochs": 3}),
        (("--dataset", "digits"), {"dataset": "digits"}),
        (("--study", "s", "--more-seeds", "2"), {"study": "s", "more_seeds": 2}),
        (("--study", "s", "--top", "2"), {"study": "s", "top": 2}),
        (("--study", "s"), {"study": "s"}),
    ],
)
def test_words_in_their_context_mean_the_same_or_are_refused_by_both(meaning, words, arguments):
    assert meaning(lambda: gs.run(**arguments)) == meaning(lambda: typed("run", *words))


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ({"epoch": 50}, "no argument 'epoch'; did you mean 'epochs'?", "help"),
        ({"sedes": 3}, "no argument 'sedes'; did you mean 'seeds'?", "help"),
        ({"optimiser": "sgd"}, "no argument 'optimiser'; did you mean 'optimizer'?", "help"),
        ({"nothing_like_it": 1}, "no argument 'nothing_like_it'", "help"),
        ({"objective": "f.py:g", "lr": 1}, "no argument 'lr'", "recipe={'lr': ...}"),
        (
            {"objective": "f.py:g", "seed": 1},
            "no argument 'seed'; did you mean 'seeds'?",
            "recipe={'seed': ...}",
        ),
        ({"recipe": {"lr": 0.1}, "learning_rate": 0.1}, "learning_rate is given twice", None),
        ({"epochs": 2, "recipe": {"epochs": 3}}, "epochs is given twice", None),
        ({"model": ["mlp", "lenet"]}, "model takes one value, not a list; several go into the grid", "grid="),
        (
            {"grid": None, "model": ["mlp"]},
            "model takes one value, not a list; several go into the grid",
            "grid=",
        ),
        ({"dataset": ["digits", "mnist"]}, "dataset takes one value, not a list", "call run for each"),
        ({"recipe": ["lr"]}, "recipe takes a mapping, not list", "recipe="),
        ({"split_seed": [1, 2]}, "split_seed takes one value; several go into the grid", None),
        ({"grid": [{"a": [1]}, {"a": [2]}]}, "grid takes a mapping of axes to values, not list", "grid="),
        ({"grid": np.array([1, 2])}, "grid takes a mapping of axes to values, not ndarray", "grid="),
        ({"grid": 3}, "grid takes a mapping of axes to values, not int", "grid="),
        ({"grid": b"lr=1"}, "grid takes a mapping of axes to values, not bytes", "grid="),
        ({"grid": {3: [1]}}, "an axis is named by a text, not 3", None),
        ({"exclude": 3}, "exclude takes one text or several, not 3", None),
        ({"model": torch.nn.Linear(1, 1)}, "model: an instance of Linear was given", "model=Linear"),
        (
            {"grid": {"model": [torch.nn.Linear(1, 1)]}},
            "model: an instance of Linear was given",
            "model=Linear",
        ),
        ({"device": 3.5}, "device: 3.5 is a float", None),
        ({"workers": 2.5}, "workers: 2.5 is a float", None),
        ({"workers": True}, "workers: True is a bool", None),
        ({"budget": "soon"}, "budget: 'soon' is not a time", None),
        ({"budget": -1}, "budget must be a time above 0, not -1", "1h30m"),
        (
            {"checkpoint": "often"},
            "checkpoint: 'often' is not a time such as 30s or 5m, every-epoch or off",
            None,
        ),
        ({"checkpoint": 0}, "checkpoint must be a time above 0, not 0", None),
        ({"budget": float("nan")}, "budget must be a time above 0, not nan", "1h30m"),
        ({"home": 3}, "home must be a path, not int", None),
        ({"store": 3}, "store must be a URL, not int", "sqlite"),
        ({"study": 3}, "study must be a name", None),
        ({"quiet": "no"}, "quiet must be True or False, not 'no'", None),
        ({"seeds": "many"}, "seeds must be a whole number of at least 1, not many", None),
        ({"seeds": 2.5}, "seeds must be a whole number of at least 1, not 2.5", None),
        ({"prune": "medain"}, "prune: unknown 'medain'; did you mean 'median'?", None),
        ({"dataset": 3}, "dataset must be a name", "train_images"),
        ({"dataset": [1, 2]}, "dataset: a list was given", "train_images"),
        ({"dataset": torch.zeros(2, 8, 8)}, "dataset: a Tensor was given", "train_images"),
    ],
)
def test_a_wrong_argument_is_one_line_with_the_right_form_and_nothing_is_written(
    home, arguments, message, hint
):
    with pytest.raises(GridsearchError) as caught:
        gs.run(**{"grid": {"lr": [0.1]}, "home": home, "quiet": True} | arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert hint is None or hint in caught.value.hint
    assert not home.exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"seeds": "10"}, ("--seeds", "10")),
        ({"seeds": np.int64(2)}, ("--seeds", "2")),
        ({"seeds": 2.0}, ("--seeds", "2")),
        ({"seeds": torch.tensor(2)}, ("--seeds", "2")),
        ({"seeds": np.array(2)}, ("--seeds", "2")),
        ({"seeds": range(3)}, ("--grid", "seed=0,1,2")),
        ({"seeds": np.arange(1, 3)}, ("--grid", "seed=1,2")),
        ({"budget": "1h"}, ("--budget", "1h")),
        ({"budget": 3600}, ("--budget", "1h")),
        ({"budget": np.float32(90)}, ("--budget", "90s")),
        ({"budget": dt.timedelta(minutes=5)}, ("--budget", "5m")),
        ({"checkpoint": dt.timedelta(minutes=5)}, ("--checkpoint", "5m")),
        ({"checkpoint": 30}, ("--checkpoint", "30s")),
        ({"checkpoint": "every-epoch"}, ("--checkpoint", "every-epoch")),
        ({"checkpoint": "off"}, ("--checkpoint", "off")),
        ({"workers": np.int32(2), "lanes": "auto"}, ("--workers", "2", "--lanes", "auto")),
        ({"device": torch.device("cpu")}, ("--device", "cpu")),
        ({"epochs": np.int64(3)}, ("--epochs", "3")),
        ({"val": np.float64(0.25)}, ("--val", ".25")),
        ({"lanes": None, "prune": None, "device": None}, ()),
        ({"report": None, "keep_going": None, "quiet": None}, ()),
    ],
)
def test_numbers_of_numpy_and_devices_of_torch_are_what_their_text_is(meaning, given, words):
    found, expected = (
        meaning(lambda: gs.run({"lr": [0.1]}, **given)),
        meaning(lambda: typed("run", "--grid", "lr=.1", *words)),
    )
    if "seed=" in "".join(words):  # which seeds is an axis there and a list here
        assert found[1:] == expected[1:]
        assert list(map(str, found[0]["seeds"])) == words[1].removeprefix("seed=").split(",")
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gs.load("s", hom="h"), "gridsearch.load takes no argument 'hom'; did you mean 'home'?"),
        (
            lambda: gs.best("s", agian=True),
            "gridsearch.best takes no argument 'agian'; did you mean 'again'?",
        ),
        (
            lambda: gs.compare("a", "b", were={}),
            "gridsearch.compare takes no argument 'were'; did you mean 'where'?",
        ),
        (
            lambda: gs.predict("f", image=[]),
            "gridsearch.predict takes no argument 'image'; did you mean 'images'?",
        ),
        (lambda: gs.Grid(lr=[1], batches=[1]), "unknown axis 'batches'"),
        (lambda: gs.StudySpec(epoch=3), "unknown key 'epoch'"),
        (gs.load, "gridsearch.load: missing a required argument: 'study'"),
        (lambda: gs.load("a", "b"), "gridsearch.load: too many positional arguments"),
        (lambda: gs.run({"lr": [0.1]}, "s"), "gridsearch.run: too many positional arguments"),
        (lambda: gs.run({"lr": [0.1]}, seeds=b"x"), "seeds must be a whole number of at least 1"),
        (lambda: gs.predict(3, "a.png"), "folder must be a path, not int"),
        (lambda: gs.Grid(3), "grid: takes a mapping of axes to values, not int"),
        (lambda: gs.Grid(lr=[0.1], exclude=3), "exclude takes one text or several, not int"),
        (lambda: gs.run(objective=len, grid={"x": [10**5000]}), "x is out of the range of a number"),
        (lambda: gs.load(3), "study must be a name, not int"),
        (lambda: gs.compare(["a", "b"]), "study must be a name, not list"),
        (lambda: gs.compare("a", "b", where="lr=1"), "where takes a mapping, not str"),
        (lambda: gs.best("s", where=[1]), "where takes a mapping, not list"),
        (lambda: gs.predict("f", [3]), "images must be paths of files, not int"),
        (lambda: gs.best("s", model=torch.nn.Linear(1, 1)), "model: an instance of Linear was given"),
    ],
)
def test_every_function_of_the_package_refuses_what_it_does_not_know(call, message):
    with pytest.raises(GridsearchError) as caught:
        call()
    assert message in str(caught.value)


def test_help_and_editors_see_every_argument():
    for name in ("run", "load", "compare", "best", "predict"):
        function = getattr(gs, name)
        assert "kwargs" not in inspect.signature(function).parameters
        assert inspect.getdoc(function)


def test_importing_the_package_leaves_warnings_alone():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        inspect.signature(gs.run)
    assert not caught
