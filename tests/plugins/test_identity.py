"""What is given from Python has an address: other behaviour is another one, the same behaviour the same everywhere."""

from __future__ import annotations

import functools
import importlib
import io
import linecache
import subprocess
import sys
import textwrap
import warnings
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gridsearch import plugins


def address(target, **given):
    found = plugins.identity(target, **given)
    assert not found.missing or given, found.missing
    return found.source


def made(code, name="f", **around):
    """Run code as a prompt, a notebook's cell or `exec` does: there is no file."""
    space = {"__name__": "__main__", **around}
    exec(textwrap.dedent(code), space)
    return space[name]


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


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module of the user's own, import it, and give back what rewrites it."""
    monkeypatch.syspath_prepend(tmp_path)
    names = []

    def write(name, text, *, reload=True):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        names.append(name)
        importlib.invalidate_caches()
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        if not reload:
            return sys.modules[name]
        sys.modules.pop(name, None)
        return importlib.import_module(name)

    yield write
    for name in names:
        sys.modules.pop(name, None)


EDITS = {
    "its code": ("def fit(p, s): return 1", "def fit(p, s): return 2"),
    "a constant": ("RATE = 1\ndef fit(p, s): return RATE", "RATE = 2\ndef fit(p, s): return RATE"),
    "a default": ("def fit(p, s, a=1): return a", "def fit(p, s, a=2): return a"),
    "a method": (
        "class A:\n def a(self): return 1\ndef fit(p, s): return A()",
        "class A:\n def a(self): return 2\ndef fit(p, s): return A()",
    ),
    "a class attribute": (
        "class A:\n a = 1\ndef fit(p, s): return A.a",
        "class A:\n a = 2\ndef fit(p, s): return A.a",
    ),
}


@pytest.mark.parametrize("before, after", EDITS.values(), ids=EDITS)
def test_a_module_edited_and_not_reloaded_is_addressed_as_it_is_loaded(module, before, after):
    old = plugins.identity(module("my_fit", before).fit)
    assert old.locator == "my_fit:fit"
    stale = plugins.identity(module("my_fit", after, reload=False).fit)
    new = plugins.identity(module("my_fit", after).fit)
    assert (stale.locator, new.locator) == ("", "my_fit:fit")
    assert stale.edited.endswith("my_fit.py")
    assert len({old.source, stale.source, new.source}) == 3
    assert plugins.identity(module("my_fit", before).fit).source == old.source


def test_a_module_of_an_archive_is_no_edited_file(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
        archive.writestr("in_archive.py", "def fit(p, s): return 1\n")
    monkeypatch.syspath_prepend(tmp_path / "app.zip")
    found = plugins.identity(importlib.import_module("in_archive").fit)
    assert (found.locator, found.edited, found.missing) == ("", "", ())


def test_nobody_is_warned_again_of_what_python_has_warned_of(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = module("my_warnings", "def fit(p, s): return 1 is 1, '\\d'\n").fit
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plugins.identity(fit).locator == "my_warnings:fit"


AS_WRITTEN = {
    "enums": "import enum\nclass E(enum.Enum):\n A = 1\nclass I(enum.IntFlag):\n A = 1\nclass S(enum.StrEnum):\n A = 'a'",
    "a named tuple": "from typing import NamedTuple\nclass P(NamedTuple):\n a: int = 1",
    "slots": "import dataclasses\nclass A:\n __slots__ = ('a',)\n@dataclasses.dataclass(slots=True)\nclass B:\n a: int = 1",
    "a metaclass": "class M(type):\n def __new__(m, n, b, d):\n  d['k'] = 1\n  return super().__new__(m, n, b, d)\nclass A(metaclass=M):\n a = 1",
    "a base that adds": "class A:\n def __init_subclass__(cls): cls.k = 1\nclass B(A):\n a = 1",
    "a count of its objects": "class A:\n n = 0\n def __init__(self): A.n += 1\na = A()",
    "a registry": "R = {}\ndef add(f):\n R[f.__name__] = f\n return f\n@add\ndef g(): return 1",
    "a table made in steps": "T = {'a': [1]}\nT['a'].append(2)\nfor i in range(3): T[i] = i\nN = ['a']\nN += ['b']",
    "a cache": "SEEN = set()\ndef see(x): SEEN.add(x)\nsee(1)",
    "a configuration": "import dataclasses\n@dataclasses.dataclass\nclass C:\n a: int = 1\nc = C(2)\nd = C()\nd.a = 3",
}


@pytest.mark.parametrize("text", AS_WRITTEN.values(), ids=AS_WRITTEN)
def test_a_module_that_nobody_changed_is_what_its_file_says(module, text):
    found = plugins.identity(module("my_kinds", f"{text}\ndef fit(p, s): return 1\n").fit)
    assert (found.locator, found.edited) == ("my_kinds:fit", "")


def test_what_cannot_be_seen_in_a_file_shows_by_its_functions_staying_the_same(module):
    text = "W = sum([%d])\ndef fit(p, s): return W"
    assert plugins.identity(module("my_w", text % 1).fit).locator
    assert plugins.identity(module("my_w", text % 2, reload=False).fit).locator == ""


@pytest.mark.parametrize(
    "change",
    [
        "m.RATE = 5",
        "m.fit.__defaults__ = (5,)",
        "m.A.a = 5",
        "m.fit.b = 5",
        "m.A.new = 5",
        "m.TABLE['lr'] = 5",
        "m.TABLE['more']['lr'] = 5",
        "m.NAMES.append(5)",
        "m.config.rate = 5",
        "m.Config.rate = 5",
        "m.space.rate = 5",
    ],
)
def test_a_module_changed_in_the_session_is_addressed_as_it_is(module, change):
    m = module(
        "my_changed",
        """
        import dataclasses, types
        RATE = 1
        TABLE = {'lr': 1, 'more': {'lr': 2}}
        NAMES = ['a']
        class A:
            a = 1
        @dataclasses.dataclass
        class Config:
            rate: float = 1
            names: list = dataclasses.field(default_factory=list)
        config = Config(rate=2)
        space = types.SimpleNamespace(rate=1)
        def fit(p, s, a=1): return RATE, TABLE, NAMES, A.a, fit.b, Config.rate, config.rate, space.rate
        fit.b = 2
        """,
    )
    before = plugins.identity(m.fit)
    exec(change, {"m": m})
    after = plugins.identity(m.fit)
    assert before.locator
    assert not after.locator
    assert before.source != after.source


def test_a_module_that_counts_its_calls_keeps_its_address(module):
    m = module(
        "my_count",
        "N = 0\nseen = []\ndef fit(p, s):\n    global N\n    N += 1; seen.append(p)\n    return N\n",
    )
    before = plugins.identity(m.fit).source
    m.fit({}, 0)
    assert plugins.identity(m.fit).source == before


def test_the_helpers_of_a_module_are_in_its_address(module):
    module("my_parts", "UNITS = 3")
    m = module("my_user", "from my_parts import UNITS\ndef fit(p, s): return UNITS")
    one = plugins.identity(m.fit)
    module("my_parts", "UNITS = 4")  # reloaded, but not what imported it
    stale = plugins.identity(m.fit)
    m = module("my_user", "from my_parts import UNITS\ndef fit(p, s): return UNITS")
    two = plugins.identity(m.fit)
    assert (bool(one.locator), bool(stale.locator), bool(two.locator)) == (True, False, True)
    assert len({one.source, stale.source, two.source}) == 3


def test_a_module_that_a_function_of_the_session_names_is_in_its_address_loaded_or_not(module):
    module("my_late", "UNITS = 3")
    inside = "def f(p, s):\n    from my_late import UNITS\n    return UNITS\n"
    above = "import my_late\ndef f(p, s): return my_late.UNITS\n"
    before = [address(made(code)) for code in (inside, above)]
    sys.modules.pop("my_late")
    assert address(made(inside)) == before[0]
    module("my_late", "UNITS = 4")
    after = [address(made(code)) for code in (inside, above)]
    assert not set(before) & set(after)
