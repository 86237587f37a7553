"""Connections and transactions: the one place where the store begins, commits and translates errors.

Below it stands a `Dialect` for each kind of database (`sqlite_dialect`); above it nobody asks which kind it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, Pool, QueuePool

from gridsearch import faults
from gridsearch.errors import StoreError, StoreUnreachable

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from sqlalchemy import Connection

    from gridsearch.errors import GridsearchError

BUSY_SECONDS = 60.0
"""How long a transaction waits for another one's lock."""


class StoreAway(StoreError):
    """The store cannot be read or written just now, and may soon answer again."""


class Access(Enum):
    """What a transaction may do beside others."""

    READ = "read"
    ROWS = "rows"  # writes rows that it has locked, beside others that do
    ALL = "all"  # is the only writer


class Dialect(ABC):
    """What one kind of database does in a way of its own.

    Attributes:
        place: the database as messages name it.
        sqlalchemy_url: what names the dialect and its driver, and nothing else, to SQLAlchemy.
    """

    place: str
    sqlalchemy_url: str

    @abstractmethod
    def connect(self) -> Any:
        """Return a new connection of the driver's, which begins no transaction of its own accord.

        Raises:
            Exception: the driver's; see `explain`.
        """

    @abstractmethod
    def find(self) -> Hashable:
        """Return what tells the database from another one at the same place.

        Raises:
            StoreUnreachable: there is none.
        """

    @abstractmethod
    def begin(self, connection: Connection, access: Access, *, busy: float) -> None:
        """Begin a transaction; wait for others' locks for so many seconds, now and in all its statements."""

    @abstractmethod
    def explain(self, error: Exception, *, busy: float) -> GridsearchError | None:
        """Return what an error of the database means for the user, None for a mistake of ours."""

    @abstractmethod
    def refusal(self, number: int) -> Exception:
        """Return what the database raises where the system refuses it the disk with that errno."""

    @abstractmethod
    def problems(self, connection: Connection) -> tuple[str, ...]:
        """Return what an integrity check finds, nothing if all is well."""


class Database:
    """One database and its transactions.

    Args:
        dialect: what kind it is and where.
        pool: how connections are kept; threads share what a QueuePool holds.
        busy: how long to wait for another's lock, in seconds; None for a minute.

    Attributes:
        busy: may be changed; it holds from the next transaction on.
    """

    def __init__(self, dialect: Dialect, *, pool: type[Pool] = QueuePool, busy: float | None = None) -> None:
        self.dialect = dialect
        self.busy = BUSY_SECONDS if busy is None else busy
        self.engine = create_engine(dialect.sqlalchemy_url, creator=dialect.connect, poolclass=pool)
        self._found: Hashable = None

    @property
    def place(self) -> str:
        """The database as messages name it."""
        return self.dialect.place

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection that sees one state of the store throughout."""
        with self._transaction(Access.READ) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give a connection that is the only writer; all it does is committed at the end, or nothing is.

        Raises:
            StoreError: the store is damaged, read-only or full.
            StoreUnreachable: another process held its lock for too long.
        """
        with self._writing(Access.ALL) as connection:
            yield connection

    @contextmanager
    def write_rows(self) -> Iterator[Connection]:
        """Give a connection that writes beside others that do: what it changes it has to lock, or to fence, before.

        Raises:
            StoreError: the store is damaged, read-only or full.
            StoreUnreachable: another process held a lock for too long.
        """
        with self._writing(Access.ROWS) as connection:
            yield connection

    @contextmanager
    def _writing(self, access: Access) -> Iterator[Connection]:
        with self._transaction(access) as connection:
            yield connection
            faults.at("commit", failing=self.dialect.refusal)
        faults.at("committed")

    @contextmanager
    def _transaction(self, access: Access) -> Iterator[Connection]:
        found = self.dialect.find()
        if self._found not in (None, found):
            self.engine.dispose()  # what its connections write would be lost
        self._found = found
        with translated(self.dialect, self.busy), self.engine.connect() as connection, connection.begin():
            self.dialect.begin(connection, access, busy=self.busy)
            yield connection

    def problems(self) -> tuple[str, ...]:
        """Return what an integrity check finds, nothing if all is well."""
        with self.read() as connection:
            return self.dialect.problems(connection)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def short_lived(dialect: Dialect) -> Database:
    """Return a database that keeps no connection open."""
    return Database(dialect, pool=NullPool)


@contextmanager
def translated(dialect: Dialect, busy: float | None = None) -> Iterator[None]:
    """Turn the errors of a database into ours; an error of our own SQL passes through.

    Args:
        dialect: of the database.
        busy: how long a lock was waited for, in seconds; None for a minute.
    """
    try:
        yield
    except Exception as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        known = isinstance(cause, Exception) and dialect.explain(
            cause, busy=BUSY_SECONDS if busy is None else busy
        )
        if not known:
            raise
        raise known from error


def may_return(error: Exception) -> bool:
    """Whether the store that raised an error may soon answer again: it is locked, cannot be read, or is not there."""
    return isinstance(error, (StoreUnreachable, StoreAway))
