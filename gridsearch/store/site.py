"""Where a store is, or may be made: what every kind of database has to say before it is opened."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from sqlalchemy import insert, inspect

from gridsearch.store import ledger_tables, optuna_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from sqlalchemy import Connection, Table

    from gridsearch.store.database import Database, Dialect

    Filler: TypeAlias = Callable[[Connection], None]


class Kind(StrEnum):
    """What lies at the place where the store should be."""

    NOTHING = "nothing"
    EMPTY = "empty"  # no bytes, or a database without tables
    OURS = "ours"
    OPTUNA = "optuna"  # Optuna's tables alone
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Found:
    """What lies there.

    Attributes:
        kind: whose it is.
        revision: of our tables, 0 where it does not say.
        optuna_revision: of Optuna's.
        complete: it has the tables too that an older version did not make.
        missing: a table or a column that every version made and that is not there, None if all are.
    """

    kind: Kind
    revision: int = 0
    optuna_revision: str | None = None
    complete: bool = True
    missing: str | None = None


class Site(ABC):
    """A place that a URL names.

    Attributes:
        place: as messages name it.
        url: as a command names it.
        optuna_url: as Optuna's own commands name it.
        dialect: what kind of database it is.
        another: how to name another place.
        copy: what helps where it is damaged.
    """

    place: str
    url: str
    optuna_url: str
    dialect: Dialect
    another: str
    copy: str

    @abstractmethod
    def exists(self) -> bool:
        """Return whether there is anything."""

    @abstractmethod
    def inspect(self) -> Found:
        """Return what is there, and change nothing of it.

        Raises:
            StoreError: it cannot be read, or is no database.
            StoreUnreachable: nobody answers.
        """

    @abstractmethod
    def create(self, found: Found, *, then: Filler | None = None) -> bool:
        """Make a new store where nothing is, whole or not at all; another process may do so at the same time.

        Args:
            found: what is there.
            then: what comes into it in the same transaction.

        Returns:
            Whether it was we who made it.

        Raises:
            StoreError: it cannot be made.
        """

    @abstractmethod
    def database(self) -> Database:
        """Return the database, which is there.

        Raises:
            StoreError: no connection to it can be made.
        """

    @abstractmethod
    def server(self, database: Database) -> str:
        """Return the kind of the database and its version, in a few words."""

    @abstractmethod
    def settle(self, database: Database) -> bool:
        """Set what has to be set before it is used; return whether this user may write it."""


def kind_of(names: Collection[str]) -> Kind:
    """Return whose a database with tables of these names is."""
    if not names:
        return Kind.EMPTY
    if ledger_tables.schema.name in names:
        # Also the tables of a damaged or unknown schema are ours: their revision says so, or is missing.
        return Kind.OURS
    return Kind.OPTUNA if {"studies", "trials", "version_info"} <= set(names) else Kind.FOREIGN


def missing(columns: Mapping[str, Collection[str]]) -> str | None:
    """Return a table or a column that every version made and that is not there, None if all are.

    Args:
        columns: the names of the columns of each table that is there.
    """
    tables: tuple[Table, ...] = (*ledger_tables.metadata.tables.values(), *optuna_tables.MODELS)
    for table in tables:
        if table.name not in columns:
            if table not in ledger_tables.LATER:
                return f"table {table.name}"
            continue
        for column in table.columns:
            if column.name not in columns[table.name]:
                return f"column {table.name}.{column.name}"
    return None


def fill(database: Database, then: Filler | None = None) -> bool:
    """Create all tables in one transaction, unless another process did so while we waited for the lock.

    Args:
        database: which.
        then: what comes into them in the same transaction.

    Returns:
        Whether it was we who made them.
    """
    with database.write() as transaction:
        if inspect(transaction).get_table_names():
            return False
        optuna_tables.create(transaction)
        ledger_tables.metadata.create_all(transaction)
        transaction.execute(insert(ledger_tables.schema), {"revision": ledger_tables.REVISION})
        if then is not None:
            then(transaction)
    return True
