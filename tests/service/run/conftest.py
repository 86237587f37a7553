"""A study of trials that nobody trains yet, in a real store."""

from __future__ import annotations

import pytest

from gridsearch.service.run import trial_source
from gridsearch.store import open_store
from tests.service.run.scripted_run import Run


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("empty")
    open_store(f"sqlite:///{folder}/gridsearch.db", home=folder, create=True).close()
    return (folder / "gridsearch.db").read_bytes()


@pytest.fixture
def study(tmp_path, empty_store, monkeypatch):
    """Make a study of so many trials; the store is looked at whenever there is nothing to do."""
    monkeypatch.setattr(trial_source, "LOOK_AGAIN_SECONDS", 0.0)
    stores = []

    def make(trials):
        home = tmp_path / f"home{len(stores)}"
        home.mkdir()
        (home / "gridsearch.db").write_bytes(empty_store)
        stores.append(open_store(f"sqlite:///{home}/gridsearch.db", home=home, create=False))
        return Run(stores[-1], trials)

    yield make
    for store in stores:
        store.close()
