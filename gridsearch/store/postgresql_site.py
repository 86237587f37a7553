"""A PostgreSQL database as the place of a store: inspected without a change, and made whole or not at all."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gridsearch.errors import StoreError
from gridsearch.store import ledger_tables
from gridsearch.store.database import Database, short_lived
from gridsearch.store.postgresql_dialect import PostgresqlDialect
from gridsearch.store.site import Found, Kind, Site, fill, kind_of, missing
from gridsearch.store.url import postgresql_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from gridsearch.store.site import Filler

_COLUMNS = """
SELECT c.relname, a.attname
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema())
AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend d
    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
)
"""
"""The columns of all tables and views that no extension made."""

_WRITABLE = """
SELECT NOT pg_is_in_recovery() AND current_setting('default_transaction_read_only') = 'off'
AND has_table_privilege('gridsearch_schema', 'UPDATE')
"""

_SERVER = """
SELECT current_setting('server_version'), current_user, current_setting('max_connections'),
(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')
"""

_OLDEST_SERVER = 120000


class PostgresqlSite(Site):
    """A database that is a store, or may become one: its tables lie in the first schema of the search path.

    Args:
        url: as it was given.
        parameters: what it says, as libpq names it.
    """

    another = "name another database with --store, or a schema of its own with ?options=-csearch_path%3DNAME"
    copy = "restore a backup, or start a new store with --store"

    def __init__(self, url: str, parameters: Mapping[str, str]) -> None:
        self.place = self.url = postgresql_url(url)
        self.optuna_url = self.url.replace("postgresql://", PostgresqlDialect.sqlalchemy_url, 1)
        self.dialect = PostgresqlDialect(self.place, parameters)

    def exists(self) -> bool:
        """Return whether the database holds any table."""
        return self.inspect().kind is not Kind.EMPTY

    def inspect(self) -> Found:
        """Return whose tables the database holds."""
        with short_lived(self.dialect).read() as connection:
            self._require_server(connection)
            columns: dict[str, set[str]] = {}
            for table, column in connection.exec_driver_sql(_COLUMNS):
                columns.setdefault(table, set()).add(column)
            kind = kind_of(columns)
            if kind is not Kind.OURS:
                return Found(kind)
            revision = connection.exec_driver_sql("SELECT max(revision) FROM gridsearch_schema").scalar()
            optuna_revision = connection.exec_driver_sql(
                "SELECT max(version_num) FROM alembic_version"
            ).scalar()
        return Found(
            kind,
            revision or 0,
            optuna_revision,
            complete=columns.keys() >= set(ledger_tables.metadata.tables),
            missing=missing(columns),
        )

    def _require_server(self, connection: Connection) -> None:
        """Refuse a server that is too old, and a user that has no schema to put tables into."""
        version = int(connection.exec_driver_sql("SHOW server_version_num").scalar() or 0)
        if version < _OLDEST_SERVER:
            raise StoreError(
                f"store {self.place} is a PostgreSQL {version // 10000}",
                hint="use PostgreSQL 12 or a later one",
            )
        if connection.exec_driver_sql("SELECT current_schema()").scalar() is None:
            raise StoreError(
                f"store {self.place} has no schema for this user",
                hint="CREATE SCHEMA makes the one that the search path names",
            )

    def create(self, found: Found, *, then: Filler | None = None) -> bool:  # noqa: ARG002 - it is always there
        """Make all tables; of several processes that do so at once the first makes them."""
        return fill(short_lived(self.dialect), then)

    def database(self) -> Database:
        """Return the database."""
        return Database(self.dialect)

    def server(self, database: Database) -> str:
        """Return the server's version, who we are there, how many connections it has, and how soon it answers."""
        with database.read() as connection:
            version, user, most, used = connection.exec_driver_sql(_SERVER).one()
            asked = time.perf_counter()
            connection.exec_driver_sql("SELECT 1")
            milliseconds = 1000 * (time.perf_counter() - asked)
        return (
            f"PostgreSQL {version.split()[0]}, {used} of {most} connections, answers in {milliseconds:.1f} ms, "
            f"as user {user}"
        )

    def settle(self, database: Database) -> bool:
        """Return whether this user may write the store."""
        with database.read() as connection:
            return bool(connection.exec_driver_sql(_WRITABLE).scalar())
