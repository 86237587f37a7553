"""A store as others see it: through Optuna's own storage, and by the files of its trials."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import optuna
import pytest
from sqlalchemy.pool import NullPool

if TYPE_CHECKING:
    from gridsearch.store import Store

only_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
"""Marks a test of what a SQLite file alone does, or of what has nothing to do with the kind of database."""


def optuna_url(url: str) -> str:
    """The URL by which Optuna finds the database."""
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


def reader(store: Store) -> optuna.storages.RDBStorage:
    """Optuna's storage on the database, without the check of its schema that another test makes."""
    return _storage(optuna_url(store.url))


def stored(store: Store, study: str, number: int, name: str) -> bytes:
    """The bytes of a trial's file, which are those that the store knows."""
    known = store.artifacts(study, number)[name]
    return store.home.read_verified(store.home.trial_file(study, number, name), known.sha256)


@lru_cache  # one that knows its statements reads ten times as fast
def _storage(url: str) -> optuna.storages.RDBStorage:
    return optuna.storages.RDBStorage(
        url,
        engine_kwargs={"poolclass": NullPool},  # no connection is left open
        skip_compatibility_check=True,
        skip_table_creation=True,
    )
