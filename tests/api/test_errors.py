"""Every error survives the way to another process, whatever it was made of; what others say is made text first."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import traceback

import pytest

import gridsearch as gs
from gridsearch import errors
from gridsearch.errors import Ended, GridsearchError, SpecError, StudyNotFound, said, traced
from gridsearch.service.winner.refit import Interrupted
from gridsearch.training.metrics import Diverged


def tree(kind=GridsearchError):
    yield kind
    for below in kind.__subclasses__():
        yield from tree(below)


def make(kind):
    if issubclass(kind, SpecError):
        return kind(["a: b", "c: d"], hint="do this")
    if issubclass(kind, StudyNotFound):
        return kind("nope", ["one", "two"])
    return kind("what is wrong", hint="do this")


@pytest.mark.parametrize("kind", list(tree()), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("copied", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
def test_an_error_is_the_same_after_pickling_and_copying(kind, copied):
    error = make(kind)
    error.add_note("noted")
    again = copied(error)
    assert type(again) is kind
    assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))
    assert again.exit_code == error.exit_code


def test_an_error_made_of_other_arguments_than_its_message_is_the_same_too():
    class Odd(GridsearchError):
        def __init__(self, one, *, two):
            super().__init__(f"{one} and {two}")
            self.pair = (one, two)

    assert vars(copy.copy(Odd(1, two=2))) == vars(Odd(1, two=2))


@pytest.mark.parametrize(
    "error", [Ended(15), Interrupted(3), Diverged("loss", step=7, epoch=2, value=1e9)], ids=repr
)
def test_what_ends_a_command_or_a_training_survives_the_way_to_another_process_too(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (again.args, vars(again)) == (error.args, vars(error))


def _load(home):
    return gs.load("nope", home=home)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_pool_answers_with_the_error_that_a_study_is_not_there(home):
    gs.run(
        {"a": [1]},
        objective=lambda params, seed: {"value": 1.0},
        study="s",
        home=home,
        executor="inline",
        report=False,
        quiet=True,
    )
    with (
        multiprocessing.get_context("spawn").Pool(1) as pool,
        pytest.raises(StudyNotFound, match="'nope'; studies here: s"),
    ):
        pool.apply_async(_load, [home]).get(timeout=120)


def test_all_errors_and_argument_types_are_found_in_the_package_itself():
    for kind in tree():
        if kind.__module__ == errors.__name__:
            assert getattr(gs, kind.__name__) is kind
            assert kind.__name__ in gs.__all__
    for name in ("SearchArguments", "RunArguments", "BestArguments", "GridsearchWarning"):
        assert pickle.loads(pickle.dumps(getattr(gs, name))) is getattr(gs, name)


class _Failing(Exception):
    def __str__(self):
        return self.args[1]


class _NoText(Exception):
    def __str__(self):
        return self.args


class _Exits(Exception):
    def __str__(self):
        raise SystemExit(7)


class _Forwarding(Exception):
    """As of an API, whose attributes are those of an answer; an error of the second kind has none."""

    def __getattr__(self, name):
        return getattr(self.response, name)


def test_an_error_is_shown_with_its_traceback_whatever_python_meets_when_it_asks_it():
    try:
        raise _Forwarding("no answer")
    except _Forwarding as error:
        text = traced(error)
    assert "in test_an_error_is_shown" in text
    assert "_Forwarding: no answer\n" in text
    assert traced(ValueError("a\ud800")) == "ValueError: a?\n"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (_Exits(), "(its __str__ raised SystemExit)"),
        (_Failing("x"), "(its __str__ raised IndexError)"),
        (_NoText(), "(its __str__ raised TypeError)"),
        (ValueError("a\ud800b\0"), "a?b\ufffd"),
        (KeyError("k"), "'k'"),
    ],
)
def test_what_an_error_says_is_valid_text_whatever_its_own_str_does(error, words):
    assert said(error) == words


def test_what_users_named_does_not_act_on_the_terminal_that_shows_an_error_or_a_warning():
    """Python prints both by itself: at the end of a traceback, and by `warnings`."""
    hostile, shown = "axis \x1b[2J\x9b1m\u202e", r"axis \x1b[2J\x9b1m\u202e"
    assert str(SpecError([hostile, "b"])) == f"{shown}; b"
    assert str(gs.GridsearchWarning(hostile)) == shown
    text = "".join(traceback.format_exception_only(GridsearchError(hostile)))
    assert text.rstrip() == f"gridsearch.errors.GridsearchError: {shown}"
