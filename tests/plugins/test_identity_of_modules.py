"""A module of a user's own is addressed as it is loaded, whatever its file or the session has done to it since."""

from __future__ import annotations

import importlib
import sys
import textwrap
import warnings
import zipfile

import pytest

from gridsearch import plugins
from tests.plugins.addresses import address, made


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
