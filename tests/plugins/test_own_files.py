"""A plug-in's own files are the same plug-in wherever they are put, with nothing left at their old place."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gridsearch import plugins
from gridsearch.plugins.own_files import below, located, own_files

LAYOUTS = {
    "beside it": ("net.py", {"net.py": "from parts import width\n", "parts.py": "width = 3\n"}),
    "in its package": (
        "nets/deep/net.py",
        {
            "nets/__init__.py": "",
            "nets/deep/__init__.py": "'''Deep ones.'''\n",
            "nets/deep/net.py": "from ..parts import width\n",
            "nets/parts.py": "from .sizes.small import width\n",
            "nets/sizes/__init__.py": "",
            "nets/sizes/small.py": "width = 3\n",
        },
    ),
    "imported late": (
        "net.py",
        {"net.py": "def late():\n    import lazy\n    return lazy\nwidth = 3\n", "lazy.py": "x = 1\n"},
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_at_another_place_have_the_same_address(tmp_path, layout):
    main, content = LAYOUTS[layout]
    home, node = tmp_path / "home", tmp_path / "node"
    for name, text in content.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + ("def Net():\n    return width\n" if name == main else ""))
    (home / "unrelated.py").write_text("1 / 0\n")
    here = plugins.find(f"{home / main}:Net", plugins.MODELS)
    files = own_files([here], plugins.MODELS)
    assert {str(path.relative_to(home)) for path in files.paths} == set(content)
    for path in files.paths:
        below(node, path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, below(node, path))
    shutil.rmtree(home)
    there = plugins.find(located(here.locator, node), plugins.MODELS)
    assert Path(there.locator.rpartition(":")[0]).is_relative_to(node)
    assert there.source == here.source
    assert there.target() == 3


def test_nothing_that_is_installed_travels():
    found = [plugins.find(name, plugins.MODELS) for name in ("mlp", "lenet")]
    assert own_files(found, plugins.MODELS).paths == frozenset()
