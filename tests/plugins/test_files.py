"""A plug-in's file has modules of its own, and its address is what it and they hold."""

from __future__ import annotations

import decimal
import sys
import textwrap
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gridsearch import plugins
from gridsearch.errors import PluginError
from gridsearch.executors.borrowed_process import borrowed
from gridsearch.plugins.source_files import sha256

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def write(folder: Path, **files: str) -> Path:
    """Write modules ("pkg__sub" is pkg/sub.py); returns the folder."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/').replace('/init', '/__init__')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder


def found(folder: Path, name: str = "net.py:f"):
    return plugins.find(f"{folder}/{name}", plugins.OBJECTIVES)


def test_a_file_that_imports_nothing_of_the_users_own_has_its_bytes_as_its_address(folder):
    write(
        folder,
        net="import math, json.decoder\nfrom torch import nn\nimport gridsearch\ndef f(p, s): return math.pi",
        unused="A = 1",
    )
    assert found(folder).source == sha256(folder / "net.py")


IMPORTS = {
    "at the top": {"net": "from parts import A\ndef f(p=0, s=0): return A", "parts": "A = %d"},
    "by its name": {"net": "import parts\ndef f(p=0, s=0): return parts.A", "parts": "A = %d"},
    "under another name": {"net": "import parts as q\ndef f(p=0, s=0): return q.A", "parts": "A = %d"},
    "inside the function": {
        "net": "def f(p=0, s=0):\n    from parts import A\n    return A",
        "parts": "A = %d",
    },
    "inside a method": {
        "net": "class f:\n    def __new__(cls, p=0, s=0):\n        import parts\n        return parts.A",
        "parts": "A = %d",
    },
    "of a module that is imported": {
        "net": "import parts\ndef f(p=0, s=0): return parts.g()",
        "parts": "def g():\n    import deeper\n    return deeper.A",
        "deeper": "A = %d",
    },
    "of a package": {"net": "import pkg.sub\ndef f(p=0, s=0): return pkg.sub.A", "pkg__sub": "A = %d"},
    "of a package under another name": {
        "net": "import pkg.sub as q\ndef f(p=0, s=0): return q.A",
        "pkg__sub": "A = %d",
    },
    "a module out of a package": {
        "net": "from pkg import sub\ndef f(p=0, s=0): return sub.A",
        "pkg__init": "",
        "pkg__sub": "A = %d",
    },
    "a package's own file": {"net": "from pkg import A\ndef f(p=0, s=0): return A", "pkg__init": "A = %d"},
    "relative within a package": {
        "net": "from pkg.sub import A\ndef f(p=0, s=0): return A",
        "pkg__sub": "from .deep.er import A",
        "pkg__deep__er": "from ..here import A",
        "pkg__here": "A = %d",
    },
    "relative in the file itself": {
        "net": "from .parts import A\ndef f(p=0, s=0): return A",
        "parts": "A = %d",
    },
    "relative, late": {
        "net": "def f(p=0, s=0):\n    from . import parts\n    return parts.A",
        "parts": "A = %d",
    },
    "all names": {"net": "from parts import *\ndef f(p=0, s=0): return A", "parts": "A = %d"},
    "by import_module": {
        "net": "import importlib\ndef f(p=0, s=0): return importlib.import_module('parts').A",
        "parts": "A = %d",
    },
    "by a name that is computed": {
        "net": "from importlib import import_module\ndef f(p=0, s=0): return import_module('par' + 'ts').A",
        "parts": "A = %d",
    },
    "by __import__": {"net": "def f(p=0, s=0): return __import__('parts').A", "parts": "A = %d"},
    "by import_module under another name": {
        "net": "from importlib import import_module as load\nparts = load('parts')\ndef f(p=0, s=0): return parts.A",
        "parts": "A = %d",
    },
    "by import_module in a variable": {
        "net": "import importlib\nload = importlib.import_module\nparts = load('parts')\ndef f(p=0, s=0): return parts.A",
        "parts": "A = %d",
    },
    "by runpy": {
        "net": "import pathlib, runpy\nA = runpy.run_path(str(pathlib.Path(__file__).with_name('parts.py')))['A']\n"
        "def f(p=0, s=0): return A",
        "parts": "A = %d",
    },
    "by its text": {
        "net": "from pathlib import Path\nexec((Path(__file__).parent / 'lib/parts.py').read_text())\ndef f(p=0, s=0): return A",
        "lib__parts": "from more import B\nA = %d",
        "more": "B = 1",
    },
    "from a folder that the file adds": {
        "net": "import os, sys\nsys.path.append(os.path.join(os.path.dirname(__file__), 'lib'))\nimport parts\n"
        "def f(p=0, s=0):\n    import late\n    return parts.A + late.A",
        "lib__parts": "A = %d",
        "lib__late": "A = 0",
    },
    "late, from a folder that the file adds": {
        "net": "import os, sys\nsys.path.insert(0, os.path.join(os.path.dirname(__file__), 'lib'))\n"
        "def f(p=0, s=0):\n    import parts\n    return parts.A",
        "lib__parts": "A = %d",
    },
    "where another is missing": {
        "net": "try:\n    import no_such_module as q\nexcept ImportError:\n    import parts as q\ndef f(p=0, s=0): return q.A",
        "parts": "A = %d",
    },
    "of the name of a module of Python": {
        "net": "import profile\ndef f(p=0, s=0): return profile.A",
        "profile": "A = %d",
    },
    "around in a circle": {
        "net": "import parts\nB = %d\ndef f(p=0, s=0): return parts.g()",
        "parts": "def g():\n    import net\n    return net.B",
    },
}


@pytest.mark.parametrize("files", IMPORTS.values(), ids=IMPORTS)
def test_what_a_file_imports_is_in_its_address_and_in_what_it_returns(folder, files):
    before, path = set(sys.modules), list(sys.path)
    results, addresses = [], []
    for i, value in enumerate((3, 9, 3)):  # of one length, within one second
        place = folder if i < 2 else folder / "elsewhere"
        write(place, **{name: text.replace("%d", str(value)) for name, text in files.items()})
        plugin = found(place)
        results.append(plugin.target())
        addresses.append(plugin.source)
    assert results == [3, 9, 3]
    assert addresses[0] != addresses[1]
    assert addresses[2] == addresses[0], "wherever it lies"
    assert sys.path == path
    added = {name for name in sys.modules if name not in before and not name.startswith("gridsearch_plugin_")}
    assert not added & {"parts", "net", "pkg", "lib", "deeper", "late"}


def test_two_files_in_one_process_each_have_their_own_helper(folder):
    net = "import parts\ndef f(p=0, s=0):\n    import late\n    return parts.A, late.A\n"
    plugs = [found(write(folder / str(i), net=net, parts=f"A = {i}", late=f"A = {i}")) for i in (1, 2)]
    assert [plugin.target() for plugin in plugs] == [(1, 1), (2, 2)]
    assert plugs[0].source != plugs[1].source


def test_a_folder_of_the_path_is_the_users_own_and_an_installed_one_is_not(folder):
    write(folder, net="import parts, tool\ndef f(p=0, s=0): return parts.A, tool.A")
    write(folder / "own", parts="A = 1")
    write(folder / "installed" / "site-packages", tool="A = 1")
    write(folder / "target", other="A = 1")
    sys.path += [str(folder / "own"), str(folder / "installed" / "site-packages")]
    plugin = found(folder)
    assert plugin.target() == (1, 1)
    assert plugin.parts.keys() == {"net.py", "parts.py"}
    sys.modules.pop("tool")


def test_an_import_for_type_checkers_alone_does_not_count(folder):
    write(
        folder,
        net="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import parts\ndef f(p, s): return 1",
        parts="A = 1",
    )
    assert found(folder).source == sha256(folder / "net.py")


def test_a_module_that_is_changed_before_a_late_import_is_refused(folder):
    write(folder, net="def f(p=0, s=0):\n    import parts\n    return parts.A", parts="A = 1")
    plugin = found(folder)
    write(folder, parts="A = 2")
    with pytest.raises(PluginError, match=r"parts\.py has changed since the run began"):
        plugin.target()


def test_an_import_that_nobody_could_foresee_is_refused_with_what_to_do(folder):
    write(
        folder,
        net="import sys\ndef f(p=0, s=0):\n    sys.path.append(p)\n    import hidden\n    return hidden.A",
    )
    write(folder / "lib", hidden="A = 1")
    plugin = found(folder)
    with pytest.raises(
        PluginError, match=r"net\.py imports .*hidden\.py in a way that cannot be foreseen"
    ) as caught:
        plugin.target(str(folder / "lib"))
    assert caught.value.hint == "write `import hidden` at the top of net.py"


def test_a_missing_module_is_told_by_the_name_that_was_written(folder):
    write(folder, net="import pkg.nothing\ndef f(p, s): return 1", pkg__init="")
    with pytest.raises(PluginError, match=r"No module named 'pkg\.nothing'"):
        found(folder)


def test_a_module_named_by_its_name_is_taken_as_its_file_is(folder):
    sys.path.insert(0, str(folder))
    net = "from %sparts import A\ndef f(p=0, s=0): return A"
    write(folder, my_net=net % "my_", my_parts="A = 1", my_pkg__net=net % ".", my_pkg__parts="A = 1")
    for name in ("my_net:f", "my_pkg.net:f"):
        one = plugins.find(name, plugins.OBJECTIVES)
        write(folder, my_parts="A = 2", my_pkg__parts="A = 2")
        two = plugins.find(name, plugins.OBJECTIVES)
        assert (one.target(), two.target()) == (1, 2)
        assert one.source != two.source
        write(folder, my_parts="A = 1", my_pkg__parts="A = 1")
        assert plugins.find(name, plugins.OBJECTIVES).source == one.source


def test_how_a_file_sets_the_process_to_compute_is_noted_at_every_look_and_undone(folder):
    text = """
        import decimal, numpy as np
        decimal.getcontext().prec = 50
        np.seterr(all="raise")
        def f(params, seed): ...
    """
    write(folder, net=text, sets_precision=text)
    sys.path.insert(0, str(folder))
    for name in ("net.py:f", "net.py:f"):
        sets = found(folder, name).arithmetic
        assert (sets["decimal"].prec, sets["numpy"]["under"]) == (50, "raise")
    assert plugins.find("sets_precision:f", plugins.OBJECTIVES).arithmetic["decimal"].prec == 50
    assert (decimal.getcontext().prec, np.geterr()["under"]) == (28, "ignore")
    with borrowed(sets):
        assert (decimal.getcontext().prec, np.geterr()["under"]) == (50, "raise")


def test_classes_of_own_modules_can_be_pickled_and_hinted(folder):
    import dataclasses
    import pickle
    import typing

    write(
        folder,
        net="from __future__ import annotations\nfrom parts import D\ndef f(p: D, s: int): return D(1)",
        parts="from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass D:\n    a: int",
    )
    made = found(folder).target(None, 0)
    assert pickle.loads(pickle.dumps(made)) == made
    assert dataclasses.asdict(made) == {"a": 1}
    assert typing.get_type_hints(type(made)) == {"a": int}
    assert typing.get_type_hints(found(folder).target)["p"] is type(made)
