"""What is installed and what is handed on: every file that the package needs, and all that its source holds."""

from __future__ import annotations

import subprocess
import tomllib
from fnmatch import fnmatch
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def tracked(*under: str) -> list[str]:
    done = subprocess.run(["git", "ls-files", *under], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("no git checkout")
    return done.stdout.split()


def test_a_wheel_holds_every_file_of_the_package():
    data = PROJECT["tool"]["setuptools"]["package-data"]
    patterns = [*data["gridsearch"], *data["*"]]
    others = [
        Path(name).relative_to("gridsearch") for name in tracked("gridsearch") if not name.endswith(".py")
    ]
    assert others, "templates, C sources"
    assert [p for p in others if not any(fnmatch(str(p), pattern) for pattern in patterns)] == []


def test_a_source_distribution_holds_tests_studies_documents_and_the_tested_versions():
    wanted = {"tests", "studies", "docs", "docker", "constraints.txt", "Makefile"}
    words = {word for line in (ROOT / "MANIFEST.in").read_text().splitlines() for word in line.split()[1:]}
    assert wanted <= words


def test_every_name_that_is_installed_leads_to_something():
    """Built-in models and datasets are entry points, as the command is."""
    for group in PROJECT["project"]["entry-points"]:
        declared = PROJECT["project"]["entry-points"][group]
        there = {e.name: e for e in entry_points(group=group) if e.value.startswith("gridsearch.")}
        assert set(declared) <= set(there), group
        assert all(callable(there[name].load()) for name in declared)
    (script,) = entry_points(group="console_scripts", name="gridsearch")
    assert callable(script.load())
