"""What Python users read names arguments, never options of the command line, and says how to fix what is wrong."""

from __future__ import annotations

import inspect

import pytest

import gridsearch as gs
from gridsearch.api import python_words
from gridsearch.api.python_words import in_python_words
from gridsearch.api.result import StudyResult
from gridsearch.errors import GridsearchError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("--lanes 1", "lanes=1"),
        ("took longer than --trial-limit 5s", 'took longer than trial_limit="5s"'),
        ("--group patient keeps them together", 'group="patient" keeps them together'),
        ("leave --group out, or give --folds K", "leave `group` out, or give folds=K"),
        ("use float32, or --device cpu", 'use float32, or device="cpu"'),
        ("--metric names what ranks", "`metric` names what ranks"),
        ("name another study with --study", "name another study with `study`"),
        ("--home or --store says where", "`home` or `store` says where"),
        ("name a store: --store postgresql://HOST/NAME", 'name a store: store="postgresql://HOST/NAME"'),
        ("name it: --set data.label=COLUMN", 'name it: recipe={"data.label": COLUMN}'),
        ("do without: --set data.split=none", 'do without: recipe={"data.split": "none"}'),
        ("(--keep-going continues anyway)", "(keep_going=True continues anyway)"),
        ("--executor ray: no Ray", 'executor="ray": no Ray'),
        ("--where lr=9: no trial has it", "`where` lr=9: no trial has it"),
        ("`gridsearch run --study x --lanes 1`", "`gridsearch run --study x --lanes 1`"),
        ("pip install --upgrade gridsearch", "pip install --upgrade gridsearch"),
        ("a well-known word --- and a dash--board", "a well-known word --- and a dash--board"),
    ],
)
def test_options_become_arguments_and_commands_stay_as_they_are(text, wanted):
    assert in_python_words(text) == wanted


def test_only_what_some_function_takes_is_named_as_an_argument():
    functions = (gs.run, gs.load, gs.best, gs.compare, StudyResult.report, StudyResult.export)
    taken = {name for function in functions for name in inspect.signature(function).parameters}
    renamed = {"set": "recipe", "no-report": "report"}
    named = {renamed.get(name, name).replace("-", "_") for name in python_words._NAMES}
    assert named <= taken


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ({}, 'no study file (try gridsearch.run(grid={"lr": [.01, .001]}))'),
        ({"grid": {"lr": [1]}, "dataset": ([1], [2])}, 'a tuple was given (give {"train_images": ...'),
        ({"grid": {"lr": [1]}, "set": {"lr": 1}}, "did you mean 'recipe'?"),
        ({"grid": {"lr": [1]}, "no_report": True}, "did you mean 'report'?"),
        (
            {
                "grid": {"x": [1]},
                "objective": lambda params, seed: {"value": params["x"] + seed},
                "device": "cuda",
            },
            'device="cuda": ',
        ),
    ],
)
def test_the_text_of_an_error_says_the_remedy_and_names_no_option(home, arguments, wanted):
    with pytest.raises(GridsearchError) as caught:
        gs.run(**{"home": home, "quiet": True} | arguments)
    assert wanted in str(caught.value)
    assert "--" not in str(caught.value)
    assert caught.value.hint is None or str(caught.value).count(caught.value.hint) == 1


def test_a_warning_names_arguments_too(home):
    with pytest.warns(gs.GridsearchWarning, match=r"no 'value', but 'y'; `metric` names what ranks"):
        gs.run(
            {"x": [1]}, objective=lambda params, seed: {"y": 1.0 + seed + params["x"]}, home=home, quiet=True, report=False, executor="inline"
        )  # fmt: skip


def test_a_text_of_axes_is_the_words_of_the_command_line(home):
    result = gs.run(
        "x=1..3:1 y=a,b", objective=lambda params, seed: {"value": params["x"] + seed}, home=home, quiet=True, report=False, executor="inline"
    )  # fmt: skip
    assert sorted(zip(result.points["x"], result.points["y"], strict=True)) == [
        (x, y) for x in (1, 2, 3) for y in ("a", "b")
    ]


def test_a_study_of_diverged_trials_alone_is_warned_of_also_when_quiet(home):
    how = {"home": home, "quiet": True, "report": False, "executor": "inline"}
    with pytest.warns(
        gs.GridsearchWarning, match=r"all 2 trials of study 's' diverged; trial 0: value is nan"
    ):
        result = gs.run(
            {"x": [1, 2]}, objective=lambda params, seed: {"value": float("nan")}, study="s", **how
        )
    assert repr(result) == "<StudyResult 's': 2 trials of 2 points, 2 diverged>"
