"""A run on a SQLite file that tries again at once, so that no test waits."""

from __future__ import annotations

import pytest

from gridsearch import files
from gridsearch.store import run_store
from tests.store.runs import Run


@pytest.fixture
def url(home):
    """A file: what is tested here is what SQLite does."""
    return f"sqlite:///{home}/gridsearch.db"


@pytest.fixture(autouse=True)
def quickly(monkeypatch, tmp_path):
    monkeypatch.setattr(run_store, "BUSY_SECONDS", 0.02)
    monkeypatch.setattr(run_store, "_TRY_SECONDS", 0.02)
    monkeypatch.setattr(run_store, "_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(run_store, "_CHECK_SECONDS", 0.0)
    monkeypatch.setattr(run_store, "_OTHERS_FIRST", 0.0)
    monkeypatch.setattr(files, "temporary_root", lambda: tmp_path)


@pytest.fixture
def run(store, make):
    made = Run(store, make)
    yield made
    made.store.close()
