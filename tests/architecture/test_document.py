"""docs/architecture.md names what exists, and every package."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "gridsearch"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
PATHS = re.findall(r"`([\w/]+(?:\.(?:py|md|toml)|/))`", PAGE)


def test_every_file_that_the_page_names_exists():
    homes = [ROOT / name for name in ("gridsearch", "tests", "docs")]
    there = [path.relative_to(ROOT).as_posix() for home in homes for path in home.rglob("*")]
    there += [path.name for path in ROOT.iterdir()]
    missing = [p for p in PATHS if not any(f"/{known}/".endswith(f"/{p.rstrip('/')}/") for known in there)]
    assert PATHS
    assert missing == []


def test_every_package_is_named():
    packages = [path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("__init__.py")]
    unnamed = [name for name in packages if name != "." and f"{name.rpartition('/')[2]}`" not in PAGE]
    assert unnamed == []


def test_every_module_of_a_large_package_has_its_group():
    rows = PAGE.partition("## Inside the large packages")[2].partition("\n## ")[0]
    groups: dict[str, set[str]] = {}
    name = ""
    for package, text in re.findall(r"^\| (?:`([\w/]+)`)? ?\| (.*) \|$", rows, re.MULTILINE):
        name = package or name  # an empty cell stands for the one above
        groups.setdefault(name, set()).update(re.findall(r"`(\w+)`", text))
    assert len(groups) == 6
    for name, named in groups.items():
        there = {path.stem for path in (PACKAGE / name).glob("*.py")} - {"__init__"}
        assert (name, there - named, named - there) == (name, set(), set())


def test_every_class_and_function_that_the_page_names_exists():
    source = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    for name in re.findall(r"`([A-Z]\w+)`", PAGE):
        assert re.search(rf"^\s*class {name}\b", source, re.MULTILINE), name


def test_every_test_that_a_page_names_exists():
    named = {
        (path, name)
        for page in (ROOT / "docs").glob("*.md")
        for path, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text())
    }
    assert named
    for path, name in named:
        assert (ROOT / path).is_file(), path
        assert f"def {name}(" in (ROOT / path).read_text() or not name, f"{path}::{name}"
