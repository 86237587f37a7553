"""What code asks of classes, functions and objects beside what they do is in its address, for code that asks alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gridsearch import plugins
from tests.plugins.addresses import address, made

HEAD = "import functools, inspect, sys, typing, types, weakref\n"
ASKED = {
    "a class's annotations": "class C:\n w: @int@\ndef f(p, s): return {'y': C.__annotations__['w'](1.5)}",
    "annotations by typing": "def g(a: @int@): pass\ndef f(p, s): return typing.get_type_hints(g)['a'](1.5)",
    "a decorator that converts by annotations": (
        "def d(g):\n def i(p, s): return g(**{n: a.annotation(1.5) for n, a in inspect.signature(g).parameters.items()})"
        "\n return i\ndef f(a: @int@): return a\nf = d(f)"
    ),
    "annotations of a class in a set": (
        "class C:\n w: @int@\nALL = {C}\ndef f(p, s): return [c.__annotations__['w'](1.5) for c in ALL]"
    ),
    "what a class is a generic of": (
        "T = typing.TypeVar('T')\nclass A(typing.Generic[T]): pass\nclass B(A[@int@]): pass\n"
        "def f(p, s): return typing.get_args(B.__orig_bases__[0])[0](1.5)"
    ),
    "subclasses": (
        "class L: pass\nclass Conv(L):\n def run(self): return @int(1)@\n"
        "def f(p, s): return {c.__name__: c for c in L.__subclasses__()}['Conv']().run()"
    ),
    "a docstring": "def f(p, s):\n '@int@'\n return f.__doc__",
    "a module's docstring": "__doc__ = '@int@'\ndef f(p, s): return __doc__",
    "what is wrapped": "def g(): pass\ng.__wrapped__ = lambda: @int(1)@\ndef f(p, s): return g.__wrapped__()",
    "a function by a name of the params": "def Conv(): return @int(1)@\ndef f(p, s): return globals()[p['k']]()",
    "a function by an evaluated text": "def Conv(): return @int(1)@\ndef f(p, s): return eval(p['k'] + '()')",
    "a function of the module by its name": (
        "def Conv(): return @int(1)@\ndef f(p, s): return getattr(sys.modules[__name__], p['k'])()"
    ),
}


@pytest.mark.parametrize("code", ASKED.values(), ids=ASKED)
def test_what_code_asks_for_is_in_its_address(code, monkeypatch):
    code = HEAD + code
    one, two = code.replace("@", ""), code.replace("@int", "float").replace("@", "")
    assert address(made(one)) == address(made(one)) != address(made(two)) == address(made(two))
    found = [plugins.identity(made(each)).older for each in (one, two)]
    assert found[0] == "" or found[0] != found[1], "nor do trials of earlier versions stand for it"


ORDERED = {
    "a namespace": "N = types.SimpleNamespace(@a=1, b=2@)",
    "a class": "class N:\n @a = 1; b = 2@",
    "a function's attributes": "def N(): pass\n@N.a = 1; N.b = 2@",
}


@pytest.mark.parametrize("code", ORDERED.values(), ids=ORDERED)
@pytest.mark.parametrize("asks", [True, False], ids=["asked", "unasked"])
def test_the_order_of_attributes_counts_where_code_asks_for_all_of_them(code, asks):
    body = "[v for k, v in vars(N).items() if k[0] != '_'][0]" if asks else "N.a"
    code = f"{HEAD}{code}\ndef f(p, s): return {body}"
    head, pair, tail = code.split("@")
    comma = "; " if ";" in pair else ", "
    other = comma.join(reversed(pair.split(comma)))
    assert (address(made(head + pair + tail)) != address(made(head + other + tail))) is asks


def test_annotations_that_no_code_asks_for_do_not_count():
    code = "class C:\n w: %s = 1\ndef g(a: %s): return a\ndef f(p, s): return g(C.w)"
    assert address(made(code % ("int", "int"))) == address(made(code % ("float", "'any'")))


KEPT = {
    "what a reduced object leaves out": (
        "class A:\n def __reduce__(self): return (A, ())\nX = A(); X.r = %s\ndef f(p, s): return X.r"
    ),
    "an object that is pickled by its name": (
        "class A:\n def __init__(self, r): self.r = r\n def __reduce__(self): return 'X'\n"
        "X = A(%s)\ndef f(p, s): return X.r"
    ),
    "an attribute of a kept result": (
        "@functools.cache\ndef g(): return 0\ng.rate = %s\ndef f(p, s): return g.rate"
    ),
    "a property of a class of one's own": (
        "class P(property): pass\nclass A:\n @P\n def r(self): return %s\ndef f(p, s): return A().r"
    ),
    "what a weak reference leads to": (
        "class A: r = %s\na = A()\nW = weakref.ref(a)\nD = weakref.WeakValueDictionary(a=a)\nS = weakref.WeakSet([a])\n"
        "def f(p, s): return W().r, D['a'].r, [b.r for b in S]"
    ),
    "a function chosen by type": (
        "@functools.singledispatch\ndef g(x): return 0\n@g.register\ndef _(x: float): return %s\n"
        "def f(p, s): return g(1.5)"
    ),
    "a method chosen by type": (
        "class A:\n @functools.singledispatchmethod\n def g(self, x): return 0\n @g.register(float)\n"
        " def _(self, x): return %s\ndef f(p, s): return A().g(1.5)"
    ),
    "objects that hold one another in sets": (
        "class N:\n def __init__(self, v): self.v = v; self.near = set()\n"
        "a, b = N(1), N(%s)\na.near.add(b); b.near.add(a)\ndef f(p, s): return next(iter(a.near)).v"
    ),
    "what an object with a lock holds": (
        "import threading\nclass A:\n def __init__(self): self.lock = threading.Lock()\nX = A(); X.r = %s\n"
        "def f(p, s): return X.r"
    ),
}


@pytest.mark.parametrize("code", KEPT.values(), ids=KEPT)
def test_what_pickles_and_weak_references_hide_has_an_address(code):
    one, two = HEAD + code % 1, HEAD + code % 2
    functions = [made(each) for each in (one, one, two)]
    first, again, other = map(address, functions)
    assert first == again != other
    assert functions[0]({"k": 1}, 0) != functions[2]({"k": 1}, 0)
    assert address(functions[0]) == first, "also when it has been called"


def test_arrays_by_rows_and_by_columns_are_two():
    code = "import numpy as np\nW = np.as%sarray(np.ones((2, 3)))\ndef f(p, s): return W.ravel('K')"
    assert address(made(code % "fortran")) != address(made(code % "contiguous"))


def test_members_of_a_ring_of_sets_have_one_address_in_every_process():
    code = (
        "from gridsearch import plugins\n"
        "class N:\n def __init__(self, v): self.v = v; self.near = set()\n"
        "nodes = [N(i) for i in range(5)]\n"
        "for n in nodes: n.near |= {*nodes} - {n}\n"
        "print(plugins.identity(lambda p, s: nodes[0].v).source)\n"
    )
    run = [sys.executable, "-c", code]
    found = {
        subprocess.run(run, env={"PYTHONHASHSEED": s}, capture_output=True, text=True, check=True).stdout
        for s in "123"
    }
    assert len(found) == 1, found
