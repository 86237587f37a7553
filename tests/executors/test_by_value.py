"""Functions that keep their results or are chosen by type travel to another process with what they are made of."""

from __future__ import annotations

import functools
import pickle
import subprocess
import sys

import pytest

from gridsearch.executors.by_value import dumped
from tests.plugins.addresses import made

HEAD = "import functools\n"
CODE = {
    "a kept result": "@functools.cache\ndef g(x): return x + 1\ndef f(p, s): return g(1)",
    "kept results of a function that calls itself": (
        "@functools.lru_cache(maxsize=9)\ndef fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)\n"
        "def f(p, s): return fib(9)"
    ),
    "a kept method": "class A:\n @functools.cache\n def g(self): return 2\ndef f(p, s): return A().g()",
    "what is attached to one": "@functools.cache\ndef g(): return 1\ng.rate = 3\ndef f(p, s): return g() + g.rate",
    "a kept property": "class A:\n @functools.cached_property\n def g(self): return 2\ndef f(p, s): return A().g",
    "a function chosen by type": (
        "@functools.singledispatch\ndef g(x): return 1\n@g.register\ndef _(x: float): return 2\n"
        "def f(p, s): return g(1.5) + 10 * g('a')"
    ),
    "a method chosen by type": (
        "class A:\n @functools.singledispatchmethod\n def g(self, x): return 1\n @g.register(float)\n"
        " def _(self, x): return 2\ndef f(p, s): return A().g(1.5)"
    ),
}


@pytest.mark.parametrize("code", CODE.values(), ids=CODE)
def test_a_copy_in_another_process_gives_the_same(code):
    f = made(HEAD + code)
    run = "import pickle, sys; print(pickle.load(sys.stdin.buffer)({}, 0))"
    command = [sys.executable, "-c", run]
    there = subprocess.run(command, input=dumped(f, by_value=()), capture_output=True, check=True)
    assert there.stdout.decode().strip() == str(f({}, 0))


def test_a_kept_result_is_kept_in_the_copy_as_well():
    copy = pickle.loads(
        dumped(made("import functools\n@functools.lru_cache(7)\ndef f(x): return [x]"), by_value=())
    )
    assert copy(1) is copy(1)
    assert copy.cache_info().maxsize == 7
    assert copy.__name__ == "f"


def test_what_another_process_can_import_is_taken_by_its_name():
    assert pickle.loads(dumped(functools.singledispatch, by_value=())) is functools.singledispatch
    content = dumped(plain, by_value=())
    assert pickle.loads(content) is plain
    assert pickle.loads(dumped(plain, by_value={__name__})) is not plain


@functools.cache
def plain(x):
    return x
