"""How a decorated plug-in is called: as its decorator takes it, or as what that hands everything on to."""

from __future__ import annotations

import functools

import pytest

from gridsearch.errors import PluginError
from gridsearch.plugins import as_objective, of_object, takes_state


def by_params(function):
    @functools.wraps(function)
    def call(params, seed):
        return function(params["x"] + seed)

    return call


def timed(function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        return function(*args, **kwargs)

    return call


@by_params
def own_words(x, state=None):
    return {"y": x}


@timed
def handed_on(params, seed, state=None):
    return {"y": params["x"]}


@timed
def lacks_a_seed(params):
    return {"y": params["x"]}


@functools.lru_cache
def cached(params, seed):
    return {"y": params["x"]}


@pytest.mark.parametrize(("function", "state"), [(own_words, False), (handed_on, True), (cached, False)])
def test_a_decorated_function_is_called_as_its_decorator_takes_it(function, state):
    assert takes_state(as_objective(of_object(function))) is state


def test_what_is_handed_on_must_fit_the_function():
    with pytest.raises(PluginError, match="cannot be called with params and a seed"):
        as_objective(of_object(lacks_a_seed))
