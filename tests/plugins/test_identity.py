"""What is given from Python has an address: other behaviour is another one, the same behaviour the same everywhere."""

from __future__ import annotations

import functools
import io
import linecache
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gridsearch import plugins
from tests.plugins.addresses import address, made

FUNCTION = "def f(params, seed):\n    return {'y': %s}\n"
BEFORE = "def g(x): return x + %s\n"

PAIRS = {
    "a constant": (FUNCTION % "1.0", FUNCTION % "2.0"),
    "int and float": (FUNCTION % "1", FUNCTION % "1.0"),
    "True and 1": (FUNCTION % "True", FUNCTION % "1"),
    "0.0 and -0.0": (FUNCTION % "0.0", FUNCTION % "-0.0"),
    "a name that is called": (FUNCTION % "abs(seed)", FUNCTION % "float(seed)"),
    "a method that is called": (FUNCTION % "params.get('a')", FUNCTION % "params.pop('a')"),
    "a global": ("RATE = 1\n" + FUNCTION % "RATE", "RATE = 2\n" + FUNCTION % "RATE"),
    "a list": ("R = [1, 2]\n" + FUNCTION % "R[0]", "R = [2, 1]\n" + FUNCTION % "R[0]"),
    "order in a dict": ("R = {1: 2, 3: 4}\n" + FUNCTION % "R", "R = {3: 4, 1: 2}\n" + FUNCTION % "R"),
    "members of a set": ("R = {1, 2}\n" + FUNCTION % "R", "R = {1, 3}\n" + FUNCTION % "R"),
    "a helper": (BEFORE % 1 + FUNCTION % "g(seed)", BEFORE % 2 + FUNCTION % "g(seed)"),
    "a helper of a helper": (
        "def h(): return 1\n" + BEFORE % "h()" + FUNCTION % "g(1)",
        "def h(): return 2\n" + BEFORE % "h()" + FUNCTION % "g(1)",
    ),
    "a default": ("def f(p, s, a=1): return a", "def f(p, s, a=2): return a"),
    "a default by name": ("def f(p, s, *, a=1): return a", "def f(p, s, *, a=2): return a"),
    "kinds of arguments": ("def f(p, s, *, a=1): return a", "def f(p, s, a=1): return a"),
    "a closure": (
        "def m(k):\n    def f(p, s): return k\n    return f\nf = m(1)",
        "def m(k):\n    def f(p, s): return k\n    return f\nf = m(2)",
    ),
    "a function within": (
        "def f(p, s):\n    def g(): return 1\n    return g()",
        "def f(p, s):\n    def g(): return 2\n    return g()",
    ),
    "what is caught": (
        "def f(p, s):\n    try:\n        return p['a']\n    except KeyError:\n        return 1",
        "def f(p, s):\n    try:\n        return p['a']\n    except TypeError:\n        return 1",
    ),
    "a generator": ("def f(p, s): yield {'y': 1}", "def f(p, s): return {'y': 1}"),
    "a decorator": (
        "def d(f): return lambda p, s: f(p, s)\n@d\n" + FUNCTION % "1",
        "def d(f): return lambda p, s: [f(p, s)]\n@d\n" + FUNCTION % "1",
    ),
    "an attribute": (FUNCTION % "f.a" + "f.a = 1", FUNCTION % "f.a" + "f.a = 2"),
    "a method": ("class f:\n def a(self): return 1", "class f:\n def a(self): return 2"),
    "a class attribute": ("class f:\n a = 1", "class f:\n a = 2"),
    "a class attribute of a class attribute": (
        "class f:\n class g:\n  a = 1",
        "class f:\n class g:\n  a = 2",
    ),
    "a property": (
        "class f:\n @property\n def a(self): return 1",
        "class f:\n @property\n def a(self): return 2",
    ),
    "a static method": (
        "class f:\n @staticmethod\n def a(): return 1",
        "class f:\n @staticmethod\n def a(): return 2",
    ),
    "a base": (
        "class g:\n def a(self): return 1\nclass f(g): pass",
        "class g:\n def a(self): return 2\nclass f(g): pass",
    ),
    "an installed base": (
        "from torch import nn\nclass f(nn.Linear): pass",
        "from torch import nn\nclass f(nn.Conv2d): pass",
    ),
    "a partial": (
        "import functools\ndef g(p, s, a): return a\nf = functools.partial(g, a=1)",
        "import functools\ndef g(p, s, a): return a\nf = functools.partial(g, a=2)",
    ),
    "a bound method": (
        "class A:\n def __init__(self, k): self.k = k\n def g(self, p, s): return self.k\nf = A(1).g",
        "class A:\n def __init__(self, k): self.k = k\n def g(self, p, s): return self.k\nf = A(2).g",
    ),
    "an object that is called": (
        "class A:\n __slots__ = ('k',)\n def __call__(self, p, s): return self.k\nf = A(); f.k = 1",
        "class A:\n __slots__ = ('k',)\n def __call__(self, p, s): return self.k\nf = A(); f.k = 2",
    ),
    "a dataclass": (
        "import dataclasses\n@dataclasses.dataclass\nclass f:\n a: int = 1",
        "import dataclasses\n@dataclasses.dataclass\nclass f:\n a: int = 2",
    ),
    "an enum": (
        "import enum\nclass E(enum.Enum):\n A = 1\n" + FUNCTION % "E.A.value",
        "import enum\nclass E(enum.Enum):\n A = 2\n" + FUNCTION % "E.A.value",
    ),
    "a kept result": (
        "import functools\n@functools.lru_cache\ndef g(): return 1\n" + FUNCTION % "g()",
        "import functools\n@functools.lru_cache\ndef g(): return 2\n" + FUNCTION % "g()",
    ),
    "an array": (
        "import numpy as np\nW = np.arange(3)\n" + FUNCTION % "W",
        "import numpy as np\nW = np.arange(1, 4)\n" + FUNCTION % "W",
    ),
    "the type of an array": (
        "import numpy as np\nW = np.zeros(3)\n" + FUNCTION % "W",
        "import numpy as np\nW = np.zeros(3, int)\n" + FUNCTION % "W",
    ),
    "a tensor": (
        "import torch\nW = torch.zeros(3)\n" + FUNCTION % "W",
        "import torch\nW = torch.ones(3)\n" + FUNCTION % "W",
    ),
    "a network": (
        "import torch\nW = torch.nn.Linear(2, 1)\ntorch.nn.init.ones_(W.weight); torch.nn.init.ones_(W.bias)\n"
        + FUNCTION % "W",
        "import torch\nW = torch.nn.Linear(2, 1)\ntorch.nn.init.ones_(W.weight); torch.nn.init.zeros_(W.bias)\n"
        + FUNCTION % "W",
    ),
    "a table": (
        "import pandas as pd\nD = pd.DataFrame({'a': [1, 2], 'b': ['x', None]})\n" + FUNCTION % "D",
        "import pandas as pd\nD = pd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})\n" + FUNCTION % "D",
    ),
    "the order of a column's categories": (
        "import pandas as pd\nD = pd.Series(pd.Categorical(['x'], ['x', 'y']))\n" + FUNCTION % "D",
        "import pandas as pd\nD = pd.Series(pd.Categorical(['x'], ['y', 'x']))\n" + FUNCTION % "D",
    ),
    "whether categories are ordered": (
        "import pandas as pd\nD = pd.CategoricalIndex(['x'], ['x', 'y'])\n" + FUNCTION % "D",
        "import pandas as pd\nD = pd.CategoricalIndex(['x'], ['x', 'y'], ordered=True)\n" + FUNCTION % "D",
    ),
    "what is attached to a table": (
        "import pandas as pd\nD = pd.DataFrame({'a': [1]})\nD.attrs['unit'] = 1\n" + FUNCTION % "D",
        "import pandas as pd\nD = pd.DataFrame({'a': [1]})\nD.attrs['unit'] = 2\n" + FUNCTION % "D",
    ),
    "names of an index's levels": (
        "import pandas as pd\nD = pd.MultiIndex.from_tuples([(0, 1)], names=['a', 'b'])\n" + FUNCTION % "D",
        "import pandas as pd\nD = pd.MultiIndex.from_tuples([(0, 1)], names=['b', 'a'])\n" + FUNCTION % "D",
    ),
    "what is attached to a tensor": (
        "import torch\nW = torch.zeros(3)\nW.scale = 1\n" + FUNCTION % "W",
        "import torch\nW = torch.zeros(3)\nW.scale = 2\n" + FUNCTION % "W",
    ),
    "what is attached to an array": (
        "import numpy as np\nclass A(np.ndarray): pass\nW = np.zeros(3).view(A)\nW.scale = 1\n"
        + FUNCTION % "W",
        "import numpy as np\nclass A(np.ndarray): pass\nW = np.zeros(3).view(A)\nW.scale = 2\n"
        + FUNCTION % "W",
    ),
    "names in a table": (
        "import pandas as pd\nD = pd.DataFrame({'a': [1, 2]})\n" + FUNCTION % "D",
        "import pandas as pd\nD = pd.DataFrame({'b': [1, 2]})\n" + FUNCTION % "D",
    ),
    "a pattern": (
        "import re\nR = re.compile('a')\n" + FUNCTION % "R",
        "import re\nR = re.compile('b')\n" + FUNCTION % "R",
    ),
    "what a short name stands for": (
        "from torch.nn import ReLU as Act\nclass f:\n def a(self): return Act()",
        "from torch.nn import GELU as Act\nclass f:\n def a(self): return Act()",
    ),
    "which module is called so": (
        "import math as m\n" + FUNCTION % "m",
        "import cmath as m\n" + FUNCTION % "m",
    ),
    "a global that is evaluated": (
        "RATE = 1\n" + FUNCTION % "eval('RATE')",
        "RATE = 2\n" + FUNCTION % "eval('RATE')",
    ),
    "a text that is evaluated": (
        "RATE = 1\nTEXT = 'RATE + 1'\n" + FUNCTION % "eval(TEXT)",
        "RATE = 2\nTEXT = 'RATE + 1'\n" + FUNCTION % "eval(TEXT)",
    ),
    "a global that is looked up": (
        "RATE = 1\n" + FUNCTION % "globals()['RATE']",
        "RATE = 2\n" + FUNCTION % "globals()['RATE']",
    ),
    "a number of many digits": ("R = [10**5000]\n" + FUNCTION % "R", "R = [10**5000 + 1]\n" + FUNCTION % "R"),
    "a compiled function": (
        "def g(x): return 0\ng._torchdynamo_orig_callable = lambda x: x + 1\n" + FUNCTION % "g",
        "def g(x): return 0\ng._torchdynamo_orig_callable = lambda x: x + 2\n" + FUNCTION % "g",
    ),
    "a generator of random numbers": (
        "import random\nR = random.Random(1)\n" + FUNCTION % "R",
        "import random\nR = random.Random(2)\n" + FUNCTION % "R",
    ),
}


@pytest.mark.parametrize("one, two", PAIRS.values(), ids=PAIRS)
def test_other_behaviour_is_another_address_and_the_same_is_the_same(one, two):
    assert address(made(one)) == address(made(one)) != address(made(two)) == address(made(two))


def test_two_functions_on_one_line_of_a_file_are_two():
    one, two = (lambda p, seed: {"y": 1.0}), (lambda p, seed: {"y": 2.0})
    assert address(one) != address(two)


def test_addresses_are_the_same_in_every_process_whatever_its_hash_seed():
    code = (
        "import sys, textwrap; from gridsearch import plugins\n"
        "words = {'x', 'yy', 'zzz', ('w', 1)}; names = {'a': words}\n"
        "def f(params, seed): return {'y': float(params['a'] in {'x', 'yy', 'zzz', 'w'})}\n"
        "def g(params, seed): return f(params, seed), words, names\n"
        "class C:\n def __init__(self): self.b = self.a = words\n def m(self, p, s): return self.a\n"
        "print([plugins.identity(t).source for t in (f, g, C, C().m)])\n"
    )
    run = [sys.executable, "-"]
    found = {
        subprocess.run(
            run, input=code, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in "12"
    }
    assert len(found) == 1, found


def test_where_code_stands_does_not_matter_when_it_is_addressed_by_value():
    code = "RATE = 3\ndef f(params, seed): return RATE\n"
    assert address(made(code)) == address(made("\n\n\n# moved down\n" + code))


@pytest.mark.parametrize("head", ["", "RATE = 3\n"], ids=["alone", "with a global"])
def test_comments_docstrings_and_annotations_do_not_matter_when_it_is_addressed_by_value(head, monkeypatch):
    one = head + "def f(params, seed):\n    return {'y': 'a', 'z': RATE}\n"
    two = (
        head
        + "def f(params: dict, seed: int) -> dict:\n    'says so'\n    # a remark\n    return {'y': 'a', 'z': RATE}\n"
    )
    found = []
    for i, text in enumerate((one, two)):
        name = f"<cell {i}>"
        monkeypatch.setitem(linecache.cache, name, (len(text), None, text.splitlines(True), name))
        space = {"__name__": "__main__"}
        exec(compile(text, name, "exec"), space)
        found.append(address(space["f"]))
    assert found[0] == found[1]


def test_a_string_that_is_returned_is_no_docstring():
    assert address(made("f = lambda p, s: 'a'")) != address(made("f = lambda p, s: 'b'"))
    assert address(made("def f(p, s):\n 'a'\n return 'a'")) != address(
        made("def f(p, s):\n 'b'\n return 'b'")
    )


PATCHES = {
    "a function of a module": ("import math", "math.sqrt", "math.sqrt(2)"),
    "a function of a module in a module": (
        "import torch",
        "torch.nn.functional.relu",
        "torch.nn.functional.relu(torch.ones(1))",
    ),
    "a method of a class": ("from fractions import Fraction", "Fraction.limit_denominator", "Fraction(1)"),
}


@pytest.mark.parametrize("head, name, call", PATCHES.values(), ids=PATCHES)
def test_what_the_session_puts_into_an_installed_module_is_in_the_address(head, name, call, monkeypatch):
    space = {}
    exec(head, space)
    monkeypatch.setattr(eval(name.rpartition(".")[0], space), name.rpartition(".")[2], eval(name, space))
    code = f"{head}\n{FUNCTION % call}"
    before = address(made(code))
    found = []
    for factor in (2, 3):
        exec(f"def mine(*args): return {factor}\nmine.__module__ = {__name__!r}", globals())
        exec(f"{name} = mine", space | {"mine": mine})  # noqa: F821 - made above
        found.append(address(made(code)))
        assert list(plugins.patched(made(code))) == [plugins_name(name)]
    assert len({before, *found}) == 3


def plugins_name(name):
    """Return the full name of what a patch replaces."""
    return {"Fraction.limit_denominator": "fractions.Fraction.limit_denominator"}.get(name, name)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(VALUES, VALUES)
def test_captured_values_have_one_address_exactly_if_they_are_one(one, two):
    def capture(value):
        return functools.partial(print, value)

    assert (address(capture(one)) == address(capture(two))) is (repr(one) == repr(two))


@given(st.frozensets(st.text() | st.integers() | st.tuples(st.text(), st.booleans())))
def test_the_order_in_which_a_set_was_filled_does_not_matter(members):
    again = frozenset(reversed(list(members)))
    assert address(functools.partial(print, members)) == address(functools.partial(print, again))


def test_what_has_no_address_is_named_and_another_each_time_unless_a_version_stands_for_it(tmp_path):
    with (tmp_path / "log").open("w") as log:

        def f(params, seed):
            log.write("x")

        one, two = plugins.identity(f), plugins.identity(f)
        assert one.missing == ("log (a _io.TextIOWrapper)",)
        assert one.source != two.source
        versioned = [plugins.identity(f, version=v).source for v in ("1", "1")]
        assert len(set(versioned)) == 1
        assert plugins.identity(lambda p, s: log, version="1").source != versioned[0], "its code counts still"


def test_objects_that_hold_one_another_have_an_address():
    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n != 0 and even(n - 1)

    ring = [1]
    ring.append(ring)
    assert address(even) == address(even) != address(odd)
    assert address(functools.partial(print, ring))


def test_what_many_kinds_of_values_hold_is_told_apart():
    kinds = [
        np.float32(1), np.float64(1), np.arange(2), np.arange(2)[::-1], np.array(["a", None], object),
        torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.bfloat16), torch.nn.Parameter(torch.tensor([1.0])),
        torch.device("cpu"), torch.float32, pd.Series([1]), pd.Series([1], name="a"), pd.Series([1], index=["a"]),
        range(3), slice(1), io.BytesIO(b"a"), object(), type, Exception("a"), functools.reduce, np.sin, np.ma.masked_array([1], [True]),
        np.ma.masked_array([1], [False]),
    ]  # fmt: skip
    found = [address(functools.partial(print, kind)) for kind in kinds]
    assert len(set(found)) == len(kinds)
    assert found == [address(functools.partial(print, kind)) for kind in kinds]
