"""Opens a store, after an inspection that changes nothing; a new one is made whole or not at all."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from gridsearch.advice import Advice, place
from gridsearch.errors import StoreError
from gridsearch.store import ledger_tables, optuna_tables, reconcile, upgrading
from gridsearch.store.database import translated
from gridsearch.store.site import Found, Kind, Site
from gridsearch.store.sqlite_site import SqliteSite
from gridsearch.store.store import Store
from gridsearch.store.url import postgresql_parameters

if TYPE_CHECKING:
    from pathlib import Path

    from gridsearch.store.database import Database


def open_store(url: str, *, home: Path, create: bool) -> Store:
    """Open the store that a URL names; inspect first, write only to what is ours.

    Args:
        url: `sqlite:///PATH` or `postgresql://USER@HOST/DATABASE`.
        home: folder of the artifacts; made when the first file is written.
        create: make the store, and the folder it lies in, if they are not there.

    Raises:
        UsageError: the URL is wrong.
        StoreError: no store there, not a database, not ours, of another schema, damaged or not writable.
        StoreUnreachable: nobody answers.
    """
    site = site_of(url)
    found = site.inspect()
    if found.kind in (Kind.NOTHING, Kind.EMPTY):
        if not create:
            what = "no store at" if found.kind is Kind.NOTHING else "nothing in the store"
            makes = Advice(where=place(home, url)).first_run()
            raise StoreError(
                f"{what} {site.place}", hint=f"`{makes}` makes one; --home or --store says where another is"
            )
        _require_known_optuna()
        site.create(found)
        found = site.inspect()
    _require_usable(site, found)
    database = site.database()
    with translated(database.dialect):
        if site.settle(database):
            _bring_up_to_date(database, found)
    return Store(database, url=site.url, home=home)


def store_exists(url: str) -> bool:
    """Return whether there is anything at the place that a URL names.

    Raises:
        UsageError: the URL is wrong.
    """
    return site_of(url).exists()


def store_facts(url: str) -> tuple[str, bool]:
    """Return what kind of database a store is in, with its version, and whether this user may write it.

    Raises:
        StoreError: it cannot be read.
        StoreUnreachable: nobody answers.
    """
    site = site_of(url)
    database = site.database()
    try:
        with translated(database.dialect):
            return site.server(database), site.settle(database)
    finally:
        database.close()


def site_of(url: str) -> Site:
    """Return the place that a URL names.

    Raises:
        UsageError: the URL is wrong.
    """
    parameters = postgresql_parameters(url)
    if parameters is None:
        return SqliteSite(url)
    from gridsearch.store.postgresql_site import PostgresqlSite  # psycopg is an extra

    return PostgresqlSite(url, parameters)


def _bring_up_to_date(database: Database, found: Found) -> None:
    """Add what an older version did not write, and follow studies that others copied under another name."""
    current = found.complete and found.revision == ledger_tables.REVISION
    if current:
        with database.read() as connection:
            if not reconcile.moved(connection):
                return
    with database.write() as connection:
        ledger_tables.metadata.create_all(connection)
        upgrading.upgrade(connection)
        reconcile.relink(connection)


def _require_known_optuna() -> None:
    """Refuse to make tables of a revision that we do not write."""
    newest = optuna_tables.revisions()[0]
    if newest != optuna_tables.REVISION:
        raise StoreError(
            f"Optuna {optuna_tables.version()} has tables that this gridsearch does not know ({newest})",
            hint=f"pip install 'optuna{optuna_tables.SUPPORTED}', or a newer gridsearch",
        )


def _require_usable(site: Site, found: Found) -> None:
    """Refuse what is not ours, or not of the revisions that this version reads."""
    if found.kind is Kind.OPTUNA:
        raise StoreError(
            f"{site.place} is an Optuna database that gridsearch did not make", hint=site.another
        )
    if found.kind is not Kind.OURS:
        raise StoreError(f"{site.place} is a database that belongs to another program", hint=site.another)
    versions = f"(schema {found.revision}, this one reads {ledger_tables.REVISION})"
    if found.revision > ledger_tables.REVISION:
        raise StoreError(
            f"store {site.place} was made by a newer gridsearch {versions}",
            hint="pip install --upgrade gridsearch",
        )
    if found.revision < upgrading.OLDEST:
        raise StoreError(
            f"store {site.place} was made by an older gridsearch {versions}",
            hint="read it with the gridsearch that made it, and start a new store with --store",
        )
    if found.optuna_revision != optuna_tables.REVISION:
        known = found.optuna_revision in optuna_tables.revisions()
        age, fix = (
            ("an older", f"optuna storage upgrade --storage {shlex.quote(site.optuna_url)}")
            if known
            else ("a newer", "pip install --upgrade gridsearch")
        )
        raise StoreError(
            f"store {site.place} holds tables of {age} Optuna (revision {found.optuna_revision}, "
            f"this gridsearch writes {optuna_tables.REVISION}, of Optuna {optuna_tables.SUPPORTED})",
            hint=fix,
        )
    if found.missing is not None:
        raise StoreError(f"store {site.place} is damaged: it has no {found.missing}", hint=site.copy)
