"""Connections and transactions: the one place where the store begins, commits and translates errors.

Below it stands a `Dialect` for each kind of database (`sqlite_dialect`, `postgresql_dialect`); above it nobody asks
which kind it is.
"""

from __future__ import annotations

import functools
import itertools
import json
import logging
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, ParamSpec, TypeVar

from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, QueuePool

from gridsearch import faults
from gridsearch.errors import StoreError, StoreUnreachable
from gridsearch.random_streams import CHANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping

    from sqlalchemy import Connection, Engine

    from gridsearch.errors import GridsearchError

BUSY_SECONDS = 60.0
"""How long a transaction waits for another one's lock."""

SILENT_SECONDS = 3.0
"""Whoever waits longer than this for another's lock says so."""

_ATTEMPTS = 8
"""So often a transaction is begun that others are in the way of."""

_FIRST_PAUSE = 0.02

_log = logging.getLogger(__name__)

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


class StoreAway(StoreError):
    """The store cannot be read or written just now, and may soon answer again."""


class StoreFull(StoreError):
    """The store cannot be written since its disk has no space left."""


class StoreConflict(StoreUnreachable):
    """What a transaction wrote disagrees with what others wrote meanwhile; begun anew it may succeed."""


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
        engine_options: of `sqlalchemy.create_engine`.
        kept: most connections that stay open for the next transaction.
    """

    place: str
    sqlalchemy_url: str
    engine_options: ClassVar[Mapping[str, Any]] = {}
    kept: ClassVar[int] = 5

    @abstractmethod
    def connect(self) -> Any:
        """Return a new connection of the driver's, which begins no transaction of its own accord.

        Raises:
            Exception: the driver's; see `explain`.
        """

    def connect_others(self) -> Any:
        """Return a new connection for code that is not ours, which begins transactions as the driver does."""
        return self.connect()

    @abstractmethod
    def find(self) -> Hashable:
        """Return what tells the database from another one at the same place.

        Raises:
            StoreUnreachable: there is none.
        """

    @abstractmethod
    def begin(self, connection: Connection, access: Access, *, busy: float, now: float) -> None:
        """Begin a transaction and take the lock that its access needs.

        Args:
            connection: of `connect`.
            access: what the transaction may do.
            busy: seconds for which its statements wait for others' locks.
            now: seconds for which it waits to begin.
        """

    @abstractmethod
    def explain(self, error: Exception, *, busy: float) -> GridsearchError | None:
        """Return what an error of the database means for the user, None for a mistake of ours."""

    @abstractmethod
    def is_locked(self, error: BaseException | None) -> bool:
        """Return whether an error at the beginning says that somebody else holds a lock."""

    def refuses_for_now(self, error: BaseException | None) -> str | None:  # noqa: ARG002 - for servers
        """Return what is the matter where an error at connecting says that the database may soon take a connection."""
        return None

    @abstractmethod
    def refusal(self, number: int) -> Exception:
        """Return what the database raises where the system refuses it the disk with that errno."""

    @abstractmethod
    def counters(self, connection: Connection) -> dict[str, int]:
        """Return the highest id that was ever given in each table that counts its ids."""

    @abstractmethod
    def set_counters(self, connection: Connection, counters: Mapping[str, int]) -> None:
        """Let the tables give ids above these from now on."""

    @abstractmethod
    def problems(self, connection: Connection) -> tuple[str, ...]:
        """Return what an integrity check finds, nothing if all is well."""


class Database:
    """One database and its transactions.

    Args:
        dialect: what kind it is and where.
        keeps: whether connections stay open for the next transaction; threads share them.
        engine: whose connections to use, None for its own.
        busy: how long to wait for another's lock, in seconds; None for a minute.

    Attributes:
        busy: may be changed; it holds from the next transaction on.
    """

    def __init__(
        self,
        dialect: Dialect,
        *,
        keeps: bool = True,
        busy: float | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.dialect = dialect
        self.busy = BUSY_SECONDS if busy is None else busy
        self.engine = _engine(dialect, keeps=keeps) if engine is None else engine
        self._found: Hashable = None

    def beside(self) -> Database:
        """Return another view of this database through the same connections, which waits as long as it is told."""
        return Database(self.dialect, busy=self.busy, engine=self.engine)

    @property
    def place(self) -> str:
        """The database as messages name it."""
        return self.dialect.place

    @property
    def identity(self) -> str:
        """What tells this database from all others, those included that lie at its place before or later.

        Raises:
            StoreUnreachable: there is none at the place.
        """
        return f"{self.place} {self.dialect.find() or ''}".rstrip()

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
        with translated(self.dialect, self.busy), self._begun(access) as connection:
            transaction = connection.get_transaction()
            assert transaction is not None
            with transaction:
                yield connection

    def _begun(self, access: Access) -> Connection:
        """Return a connection that has begun a transaction, as soon as the database takes one more."""
        began = time.monotonic()
        fresh = False
        waiting = Waiting(self.place, self.busy)
        for pause in _pauses():
            connection = None
            try:
                connection = self.engine.connect()
                connection.begin()
                self.dialect.begin(connection, access, busy=self.busy, now=waiting.seconds)
            except Exception as error:
                if connection is not None:
                    connection.close()
                cause = error.orig if isinstance(error, DBAPIError) else error
                if isinstance(error, DBAPIError) and error.connection_invalidated and not fresh:
                    fresh = True  # it was lost while nobody used it: no statement of ours is in question
                    continue
                if self.dialect.is_locked(cause) and waiting.goes_on("is locked by another process"):
                    continue
                why = self.dialect.refuses_for_now(cause)
                if why is None or time.monotonic() - began + pause > self.busy:
                    raise
                if time.monotonic() - began > SILENT_SECONDS:
                    waiting.goes_on(why)
                time.sleep(pause)
            else:
                return connection
        raise AssertionError("pauses have no end")

    def problems(self) -> tuple[str, ...]:
        """Return what an integrity check finds, nothing if all is well."""
        with self.read() as connection:
            return self.dialect.problems(connection)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


class Waiting:
    """Waits for a lock in two parts, and says between them that it waits.

    Args:
        place: the database as messages name it.
        busy: seconds for both together; few of them are waited for in silence.

    Attributes:
        seconds: of the part that comes next.
    """

    def __init__(self, place: str, busy: float) -> None:
        self._place, self._busy = place, busy
        self._said = busy < 2 * SILENT_SECONDS
        self.seconds = busy if self._said else SILENT_SECONDS

    def goes_on(self, why: str) -> bool:
        """Say that a store is waited for, and why; return whether there is another part."""
        if self._said:
            return False
        self._said = True
        self.seconds = self._busy - SILENT_SECONDS
        _log.warning("store %s %s; waiting for up to %.0f s", self._place, why, self.seconds)
        return True


def _engine(dialect: Dialect, *, keeps: bool) -> Engine:
    pool = {"poolclass": QueuePool, "pool_size": dialect.kept} if keeps else {"poolclass": NullPool}
    return create_engine(dialect.sqlalchemy_url, creator=dialect.connect, **pool, **dialect.engine_options)


def short_lived(dialect: Dialect) -> Database:
    """Return a database that keeps no connection open."""
    return Database(dialect, keeps=False)


@contextmanager
def translated(dialect: Dialect, busy: float | None = None) -> Iterator[None]:
    """Turn the errors of a database into ours; an error of our own SQL passes through.

    Args:
        dialect: of the database.
        busy: how long a lock was waited for, in seconds; None for a minute.
    """
    try:
        yield
    except json.JSONDecodeError as error:
        raise StoreError(
            f"store {dialect.place} is damaged: what should be JSON is not ({error})",
            hint="restore a backup, or start another store",
        ) from error
    except Exception as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        known = isinstance(cause, Exception) and dialect.explain(
            cause, busy=BUSY_SECONDS if busy is None else busy
        )
        if not known:
            raise
        raise known from error


def retried(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Let a method that is one transaction begin anew where it disagreed with others; its arguments are read again."""

    @functools.wraps(method)
    def again(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        for pause in itertools.islice(_pauses(), _ATTEMPTS - 1):
            try:
                return method(self, *args, **kwargs)
            except StoreConflict:
                time.sleep(pause)
        return method(self, *args, **kwargs)

    return again


def _pauses() -> Iterator[float]:
    """Go through times to wait before the next attempt, each longer than the one before, up to about a second."""
    pause = _FIRST_PAUSE
    while True:
        yield pause * CHANCE.uniform(0.5, 1.0)  # else all who were in each other's way come back together
        pause = min(2 * pause, 1.0)


def may_return(error: Exception) -> bool:
    """Whether the store that raised an error may soon answer again: it is locked, cannot be read, or is not there."""
    return isinstance(error, (StoreUnreachable, StoreAway))
