"""What PostgreSQL does in a way of its own: connections, locks, its errors, its clock.

Nothing here outlives a transaction, so that a PgBouncer that hands each transaction another connection may stand in
between: locks are those of rows and of transactions, settings are SET LOCAL, and no statement is prepared.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg
from sqlalchemy import func, select
from sqlalchemy.ext.compiler import compiles

from gridsearch.errors import StoreError, StoreUnreachable, UsageError
from gridsearch.store.database import Access, Dialect, StoreAway, StoreConflict
from gridsearch.store.ledger_tables import StoreNow
from gridsearch.store.optuna_tables import counted

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from sqlalchemy import Connection

    from gridsearch.errors import GridsearchError

PASSWORD_FILE = "GRIDSEARCH_STORE_PASSWORD_FILE"  # noqa: S105 - a name, and no password

_CONNECT_SECONDS = "10"
"""So long each address of a host is tried."""

_SILENCE = {
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",  # milliseconds
}
"""A server that is gone without a word is known for lost after half a minute."""

_LOCK = 0x67726964
"""The lock of all who write: those of rows share it, the only writer has it alone."""

_NOW, _LATER = "SET LOCAL lock_timeout = {now}", "SET LOCAL lock_timeout = {busy}"
# What a server, a database or a user may have as another default: a writer that had to wait for the lock sees what was
# written before it got that, and a number is read as it was written.
_WRITE = f"BEGIN ISOLATION LEVEL READ COMMITTED; {_NOW}"
_WHOLE = f"SET LOCAL extra_float_digits = 1; {_LATER}"
_BEGIN = {
    Access.READ: f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {_WHOLE}",
    Access.ROWS: f"{_WRITE}; SELECT pg_advisory_xact_lock_shared({_LOCK}); {_WHOLE}",
    Access.ALL: f"{_WRITE}; SELECT pg_advisory_xact_lock({_LOCK}); {_WHOLE}",
}


class PostgresqlDialect(Dialect):
    """A database of a server, in which many write at once.

    Args:
        place: its URL.
        parameters: what the URL says, as libpq names it.
    """

    sqlalchemy_url = "postgresql+psycopg://"
    engine_options: ClassVar[Mapping[str, Any]] = {"use_native_hstore": False}  # one question less
    kept = 1  # servers have few connections, and there may be many runners

    def __init__(self, place: str, parameters: Mapping[str, str]) -> None:
        self.place = place
        self._parameters = parameters

    def connect(self) -> psycopg.Connection[Any]:
        """Connect to the server.

        Raises:
            psycopg.Error: it does not let us in, or nobody answers.
            UsageError: the file of the password cannot be read.
        """
        parameters = {**_SILENCE, "application_name": _own_name(), "client_encoding": "utf8"}
        if "PGCONNECT_TIMEOUT" not in os.environ:
            parameters["connect_timeout"] = _CONNECT_SECONDS
        if (password := _password()) is not None:
            parameters["password"] = password
        return psycopg.connect(
            **{**parameters, **self._parameters},  # type: ignore[arg-type]  # all are texts
            autocommit=True,  # we say BEGIN ourselves, with more in the same message
            prepare_threshold=None,
        )

    def connect_others(self) -> psycopg.Connection[Any]:
        """Connect to the server for code that begins no transaction itself."""
        connection = self.connect()
        connection.autocommit = False
        return connection

    def find(self) -> Hashable:
        """Return nothing that would change: a server that was replaced has lost its connections."""
        return None

    def begin(self, connection: Connection, access: Access, *, busy: float, now: float) -> None:
        """Begin a transaction and wait for the lock that its access needs, in one message to the server."""
        waits = {"now": now, "busy": busy}
        milliseconds = {
            name: max(1, int(1000 * wait)) for name, wait in waits.items()
        }  # 0 would wait for ever
        connection.exec_driver_sql(_BEGIN[access].format(**milliseconds))

    def is_locked(self, error: BaseException | None) -> bool:
        """Return whether another transaction holds the lock."""
        return getattr(error, "sqlstate", None) == _LOCK_TIMEOUT

    def refuses_for_now(self, error: BaseException | None) -> str | None:
        """Return what is the matter where the server has no connection left, is starting, or may be restarted."""
        if not isinstance(error, psycopg.Error):
            return None
        text = str(error)
        if error.sqlstate == "53300" or any(each in text for each in _CROWDED):
            return "takes no more connections just now"
        if error.sqlstate == "57P03" or any(each in text for each in _RESTARTED):
            return f"does not answer: {_line(error)}"
        return None

    def explain(self, error: Exception, *, busy: float) -> GridsearchError | None:
        """Return what an error of PostgreSQL or of a PgBouncer means for the user, None for a mistake of ours."""
        if not isinstance(error, psycopg.Error):
            return None
        state = error.sqlstate or ""
        text = _line(error)
        if state in _CONFLICTS:
            return StoreConflict(
                f"store {self.place}: others write the same rows again and again: {text}",
                hint="run the same command again",
            )
        if state == _LOCK_TIMEOUT:
            return StoreUnreachable(
                f"store {self.place} was locked by another transaction for more than {busy:.0f} s",
                hint="end the one that holds it (pg_stat_activity shows which), then run the same command again",
            )
        for prefixes, kind, what, hint in _BY_CODE:
            if state.startswith(prefixes):
                return kind(f"store {self.place} {what}: {text}", hint=hint)
        if not state and isinstance(error, psycopg.DataError):  # found before it was sent: a NUL
            return StoreError(f"store {self.place} cannot hold a text: {text}", hint="take the NUL out of it")
        if state or not isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
            return None
        # what comes before names host and user
        said = text.rpartition(" failed: ")[2] if " failed: " in text else ""
        for fragments, kind, what, hint in _AT_CONNECTING:
            if any(fragment in said for fragment in fragments):
                return kind(f"store {self.place} {what}: {text}", hint=hint)
        return StoreUnreachable(
            f"store {self.place} does not answer: {text}",
            hint="look at host, port and network, and whether the server runs; then run the same command again",
        )

    def refusal(self, number: int) -> psycopg.Error:
        """Return what PostgreSQL raises where the system refuses it the disk with that errno."""
        if number == errno.ENOSPC:
            return psycopg.errors.DiskFull("could not extend file: No space left on device")
        return psycopg.errors.IoError("could not write block: Input/output error")

    def counters(self, connection: Connection) -> dict[str, int]:
        """Return the last value of each table's sequence."""
        found = {}
        for name, sequence in _sequences(connection):
            last, called = connection.exec_driver_sql(f"SELECT last_value, is_called FROM {sequence}").one()  # noqa: S608
            found[name] = last if called else last - 1
        return found

    def set_counters(self, connection: Connection, counters: Mapping[str, int]) -> None:
        """Let each table's sequence go on after these."""
        for name, sequence in _sequences(connection):
            if (last := counters.get(name, 0)) > 0:
                connection.execute(select(func.setval(sequence, last)))

    def problems(self, connection: Connection) -> tuple[str, ...]:
        """Return the indexes that do not hold what they should; checksums are the server's own business."""
        query = (
            "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
            "WHERE NOT i.indisvalid AND c.relnamespace = current_schema()::regnamespace ORDER BY c.relname"
        )
        return tuple(f"index {name} is not valid" for name in connection.exec_driver_sql(query).scalars())


def _sequences(connection: Connection) -> list[tuple[str, str]]:
    """Return each table that counts its ids, and its sequence."""
    found = []
    for name, column in counted():
        query = select(func.pg_get_serial_sequence(name, column.name))
        if (sequence := connection.scalar(query)) is not None:
            found.append((name, sequence))
    return found


def _password() -> str | None:
    """Return the password from the file that the environment names, None where it names none.

    Raises:
        UsageError: the file cannot be read.
    """
    name = os.environ.get(PASSWORD_FILE)
    if not name:
        return None
    try:
        return Path(name).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(
            f"${PASSWORD_FILE}: {name} cannot be read: {reason}",
            hint="name a file that holds the password alone",
        ) from error


def _own_name() -> str:
    """Return how the server lists our connections."""
    return f"gridsearch {socket.gethostname()[:40]} {os.getpid()}"


def _line(error: psycopg.Error) -> str:
    """Return what an error says, in one line."""
    text = error.diag.message_primary or str(error)
    return " ".join(text.partition("\n")[0].split())


_CONFLICTS = (
    "40001",  # serialization failure
    "40P01",  # deadlock
    "23503",  # a row that others deleted meanwhile
    "23505",  # a row that others inserted meanwhile
)

_ANSWERS = "run the same command again once it answers"
_CONNECTIONS = "raise max_connections, or put a PgBouncer before it"
_PASSWORD = f"$PGPASSWORD, a passfile or the file that ${PASSWORD_FILE} names gives the password"

_BY_CODE: tuple[tuple[tuple[str, ...], type[GridsearchError], str, str], ...] = (
    (("53100",), StoreError, "has no space left", "free some space on the server; nothing was lost"),
    (("53300",), StoreUnreachable, "has no connection left", _CONNECTIONS),
    (("08", "57P", "25P03", "25P04"), StoreUnreachable, "does not answer", _ANSWERS),
    (("57014",), StoreUnreachable, "cancelled a statement", "look at statement_timeout of server and user"),
    (("53", "58"), StoreAway, "cannot be read or written", "look at the server's log"),
    (("42501",), StoreError, "refuses this user", "let the owner grant it: GRANT ... ON SCHEMA ..., or ON ALL TABLES"),
    (("25006",), StoreError, "cannot be written", "name the primary server: this one is read-only"),
    (("42P01", "42703", "XX"), StoreError, "is damaged", "restore a backup, or start another store"),
    (("22021", "22P05"), StoreError, "cannot hold a text", "make the database with the encoding UTF8"),
    (("22001",), StoreError, "cannot hold a text", "give it a shorter name"),
)  # fmt: skip
"""By the beginnings of https://www.postgresql.org/docs/current/errcodes-appendix.html; the first that fits counts."""

_LOCK_TIMEOUT = "55P03"

_CROWDED = (
    "too many clients",
    "too many connections",
    "remaining connection slots",
    "no more connections allowed",
)
_RESTARTED = (
    "the database system is starting up",
    "the database system is in recovery mode",
    "the database system is shutting down",
    "the database system is not yet accepting connections",
    "failed: Connection refused",
    "failed: Connection reset by peer",
    "failed: server closed the connection unexpectedly",  # also what stands before a server whose container restarts
    "failed: No such file or directory",  # its socket
    "server login has been failing",  # a PgBouncer before it
)
"""What a server that is restarted says, or the system in its place, one after another for some seconds."""

_AT_CONNECTING: tuple[tuple[tuple[str, ...], type[GridsearchError], str, str], ...] = (
    (_CROWDED, StoreUnreachable, "has no connection left", _CONNECTIONS),
    (("the database system is", "is not currently accepting", "server login"), StoreUnreachable, "does not answer",
     _ANSWERS),
    (("startup parameter",), StoreError, "takes no such option", "ALTER ROLE ... SET sets it behind a PgBouncer"),
    (("password", "authentication"), StoreError, "refuses this user", _PASSWORD),
    (("database",), StoreError, "is not there", "createdb makes a database"),
    (("role", "user"), StoreError, "refuses this user", "createuser makes a user"),
    (("pg_hba.conf", "SSL", "certificate"), StoreError, "refuses us", "look at sslmode and at pg_hba.conf"),
)  # fmt: skip
"""Servers give no code of an error before a connection stands."""


@compiles(StoreNow, "postgresql")
def _now(_element: StoreNow, _compiler: Any, **_options: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"
