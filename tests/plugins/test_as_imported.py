"""A module that its session has changed after the import is no longer its file; what its own code does to it is no change."""

from __future__ import annotations

import importlib
import itertools
import sys

import pytest

import gridsearch as gs
from gridsearch import plugins

COUNT = itertools.count()

F = "def f(params, seed):\n    return {'y': %s}\n"
OBJECT = "class C:\n    def __init__(self, r): self.r = r\n    def set(self, r): self.r = r\nc = C(1)\n"
CHANGED = {
    "a computed constant": ("R = float('1')\n" + F % "R", "m.R = 2.0"),
    "an item of an array": ("import numpy as np\nW = np.ones(2)\n" + F % "float(W[0])", "m.W[0] = 7"),
    "another array": ("import numpy as np\nW = np.ones(2)\n" + F % "float(W[0])", "m.W = m.W + 1"),
    "an item of a computed list": ("W = list(range(3))\n" + F % "W[0]", "m.W[0] = 7"),
    "an array in a dict": (
        "import numpy as np\nW = {1: np.ones(2)}\n" + F % "float(W[1][0])",
        "m.W[1][0] = 7",
    ),
    "an attribute of an object": (OBJECT + F % "c.r", "m.c.r = 7"),
    "an attribute by a method": (OBJECT + F % "c.r", "m.c.set(7)"),
    "an attribute of a namespace in another": (
        "from types import SimpleNamespace as S\nc = S(a=S(b=1))\n" + F % "c.a.b",
        "m.c.a.b = 7",
    ),
    "an item of a list of a class": ("class C:\n    r = [1]\n" + F % "C.r[0]", "m.C.r[0] = 7"),
    "a static method": (
        "class C:\n    @staticmethod\n    def g(): return 1\n" + F % "C.g()",
        "m.C.g = staticmethod(lambda: 7)",
    ),
    "a property": (
        "class C:\n    @property\n    def g(self): return 1\n" + F % "C().g",
        "m.C.g = property(lambda self: 7)",
    ),
    "a class within a class": ("class C:\n    class D:\n        r = 1\n" + F % "C.D.r", "m.C.D.r = 7"),
    "the bases of a class": (
        "class A:\n    r = 1\nclass B:\n    r = 2\nclass C(A): pass\n" + F % "C.r",
        "m.C.__bases__ = (m.B,)",
    ),
    "a decorated function": (
        "import functools\ndef d(g): return functools.wraps(g)(lambda: g())\n@d\ndef g(): return 1\n"
        + F % "g()",
        "m.g = lambda: 7",
    ),
    "an item of a default": ("def g(x=[1]): return x[0]\n" + F % "g()", "m.g.__defaults__[0][0] = 7"),
    "a computed default": ("K = 1\ndef g(x=K): return x\n" + F % "g()", "m.g.__defaults__ = (7,)"),
    "a lambda": ("g = lambda: 1\n" + F % "g()", "m.g = lambda: 7"),
    "a lambda in a dict": ("G = {'a': lambda: 1}\n" + F % "G['a']()", "m.G['a'] = lambda: 7"),
    "what a name stands for": ("def a(): return 1\ndef b(): return 2\ng = a\n" + F % "g()", "m.g = m.b"),
    "what is imported": ("from math import sqrt, floor\n" + F % "sqrt(4.5)", "m.sqrt = m.floor"),
    "a name that is built in": (F % "abs(-1)", "m.abs = lambda x: 7"),
    "a constant of several": ("A, B = 1, 2\n" + F % "A", "m.A = 7"),
    "a constant in a branch": ("if True:\n    R = 1\n" + F % "R", "m.R = 7"),
    "a constant by its setter": (
        "R = 1\ndef set_rate(r):\n    global R\n    R = r\n" + F % "R",
        "m.set_rate(7)",
    ),
    "a setting by its function": (
        "CFG = {'r': 1}\ndef configure(**given): CFG.update(given)\n" + F % "CFG['r']",
        "m.configure(r=7)",
    ),
    "a class attribute by its method": (
        "class C:\n    r = 1\n    @classmethod\n    def set(cls, r): cls.r = r\n" + F % "C.r",
        "m.C.set(7)",
    ),
    "a function that a session registers": (
        "G = {}\ndef register(g): G['g'] = g\n" + F % "G['g']() if G else 1",
        "def g(): return 7\nm.register(g)",
    ),
    "a subclass that a session adds": (
        "class C: pass\n" + F % "len(C.__subclasses__())",
        "kept.append(type('D', (m.C,), {'__module__': '__main__'}))",
    ),
    "a function for another type": (
        "import functools\n@functools.singledispatch\ndef g(x): return 1\n" + F % "g(1.5)",
        "m.g.register(float)(lambda x: 7)",
    ),
    "a partial": ("import functools\ng = functools.partial(max, 1)\n" + F % "g(0)", "m.g = lambda x: 7"),
}


@pytest.fixture
def imported(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    names = []

    def make(code):
        names.append(f"changed_in_a_session_{next(COUNT)}")
        (tmp_path / f"{names[-1]}.py").write_text(code)
        importlib.invalidate_caches()
        return importlib.import_module(names[-1])

    yield make
    for name in names:
        del sys.modules[name]


@pytest.mark.parametrize("code, change", CHANGED.values(), ids=CHANGED)
def test_what_a_session_changes_in_a_module_is_in_the_address(code, change, imported):
    module = imported(code)
    before, first = plugins.identity(module.f), module.f({}, 0)
    assert before.locator == f"{module.__name__}:f"
    exec(change, {"m": module, "__name__": "__main__", "kept": KEPT})
    after = plugins.identity(module.f)
    assert module.f({}, 0) != first
    assert after.source != before.source
    assert after.locator == "", "a worker would import what the file says"


KEPT: list[type] = []

UNCHANGED = {
    "a counter": "N = 0\ndef f(params, seed):\n    global N\n    N += 1\n    return {'y': 1}\n",
    "kept results": "C = {}\ndef g(x):\n    if x not in C: C[x] = x + 1\n    return C[x]\n" + F % "g(1)",
    "what is read once": (
        "D = None\ndef load():\n    global D\n    if D is None: D = [1, 2]\n    return D\n" + F % "load()[0]"
    ),
    "a counter of a class": "class N:\n    n = 0\n    def __init__(self): N.n += 1\n" + F % "len([N()])",
    "a counter of an object": (
        "class N:\n    def __init__(self): self.n = 0\n    def __call__(self):\n        self.n += 1\n        return 1\n"
        "tally = N()\n" + F % "tally()"
    ),
    "a kept property": (
        "import functools\nclass C:\n    @functools.cached_property\n    def g(self): return 1\nc = C()\n"
        + F % "c.g"
    ),
    "flags": "import enum\nclass C(enum.Flag):\n    A = 1\n    B = 2\n" + F % "(C.A | C.B).value",
    "random numbers": "import numpy as np\nR = np.random.default_rng(0)\n" + F % "R.random() * 0",
    "warnings": "import warnings\n" + F % "len([warnings.warn('x')])",
    "a class of several kinds": (
        "import abc, dataclasses, typing\nT = typing.TypeVar('T')\nclass B(abc.ABC, typing.Generic[T]): pass\n"
        "@dataclasses.dataclass(slots=True)\nclass C(B[int]):\n    a: list = dataclasses.field(default_factory=list)\n"
        + F
        % "len(C().a) + isinstance(3, B)"
    ),
    "a network": (
        "import torch\nclass N(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.out = torch.nn.Linear(2, 1)\n    def forward(self, x): return self.out(x)\nnet = N()\n"
        + F
        % "len(net(torch.ones(1, 2)))"
    ),
}


@pytest.mark.parametrize("code", UNCHANGED.values(), ids=UNCHANGED)
@pytest.mark.filterwarnings("ignore:x")
def test_what_a_modules_own_code_does_to_it_is_no_change(code, imported):
    module = imported(code)
    before = plugins.identity(module.f)
    module.f({}, 0)
    assert plugins.identity(module.f) == before
    importlib.reload(module)
    assert plugins.identity(module.f) == before


def test_a_changed_module_trains_what_the_session_has_in_workers_and_here(imported, tmp_path):
    module = imported("import numpy as np\nW = np.ones(2)\n" + F % "float(W[0])")
    how = {"metric": "y", "grid": {"a": [1]}, "home": tmp_path, "quiet": True, "report": False}
    found = [gs.run(objective=module.f, **how).trials.value.tolist()]
    module.W[0] = 7
    found += [
        gs.run(objective=module.f, executor=e, **how).trials.value.tolist() for e in ("local", "inline")
    ]
    module.W[0] = 1
    last = gs.run(objective=module.f, **how)
    assert [found[0], found[1][-1:], found[2][-1:]] == [[1.0], [7.0], [7.0]]
    assert last.new == 0, "what it was before is known"


def test_a_module_that_puts_an_object_in_its_place_has_an_address(imported):
    settings = imported("import sys\nclass S:\n    rate = 1\nsys.modules[__name__] = S()\n")
    module = imported(f"import {type(settings).__module__} as s\n" + F % "s.rate")
    before = plugins.identity(module.f).source
    settings.rate = 2
    assert plugins.identity(module.f).source != before


def test_objects_that_answer_nothing_do_not_hinder_an_import(imported):
    module = imported(
        "class Stand:\n    __slots__ = ('a',)\n    def __getattr__(self, name): raise RuntimeError('outside')\n"
        "class Held:\n    def __eq__(self, other): raise RuntimeError('outside')\n    __hash__ = None\n"
        "s, h = Stand(), Held()\n" + F % "len([s, h])"
    )
    assert plugins.identity(module.f).locator == f"{module.__name__}:f"
