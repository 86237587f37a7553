"""Copies a store from one database to another, whole and verified: `gridsearch store copy`.

Stands on `site`, which makes the target in one transaction with all that comes into it, and on the tables of the ledger
and of Optuna.  Files of trials are not in a store: they stay in home.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, select

from gridsearch import files
from gridsearch.advice import Advice, place
from gridsearch.errors import StoreError
from gridsearch.store import claims, ledger_tables, optuna_tables, row_lookup
from gridsearch.store.opening import open_store, site_of
from gridsearch.store.runner_identity import RunnerIdentity
from gridsearch.store.site import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import Connection, Table

    from gridsearch.store.site import Site
    from gridsearch.store.store import Store

_ROWS = 1000
_ANOTHER = "name as TO another file that is not there yet, or an empty database"
"""So many rows are read and written at once."""

_RANGE = 1 << 256


@dataclass(frozen=True, slots=True)
class TableSum:
    """What a table holds, the same in every kind of database and in any order of its rows.

    Attributes:
        rows: how many.
        digest: the sum of the rows' SHA-256, in hexadecimal.
    """

    rows: int
    digest: str


def copy_store(source: str, target: str, *, home: Path, lease: float) -> dict[str, TableSum]:
    """Copy a store into a database that holds nothing yet, in one transaction.

    Args:
        source: its URL.
        target: the URL of a database without tables, or of a file that is not there.
        home: where the files of the trials lie.
        lease: a runner that was seen within so many seconds may be at work.

    Returns:
        What each table holds, which was compared on both sides.

    Raises:
        UsageError: a URL is wrong.
        StoreError: there is no store, a runner or `best` is at work in it, or the target holds something.
        StoreUnreachable: one of the two does not answer.
    """
    site = site_of(target)
    with open_store(source, home=home, create=False) as store:
        found = site.inspect()
        if found.kind not in (Kind.NOTHING, Kind.EMPTY):
            raise StoreError(f"{site.place} holds something already: nothing was copied", hint=_ANOTHER)
        with ExitStack() as stack:
            reading = stack.enter_context(
                store._database.write()
            )  # so that nothing is written there meanwhile
            _require_idle(store, reading, lease=lease)
            for study in row_lookup.names(reading):
                _require_no_test(store, study, stack)
            there = {table.name: _sum(_rows(reading, table)) for table in _tables()}
            if not site.create(found, then=lambda writing: _fill(store, site, reading, writing, there)):
                raise StoreError(
                    f"{site.place} was made by another process meanwhile: nothing was copied",
                    hint=_ANOTHER,
                )
            for study, uid in row_lookup.uids(reading).items():
                store.home.share(study, uid, site.url)
    return there


def _fill(
    store: Store, site: Site, reading: Connection, writing: Connection, there: Mapping[str, TableSum]
) -> None:
    """Copy all rows and counters, and compare what was written with what was read."""
    for table in reversed(_tables()):
        writing.execute(delete(table))  # the rows by which a new store says its revision
    for table in _tables():
        for rows in _rows(reading, table):
            writing.execute(insert(table), rows)
    counters = store._database.dialect.counters(reading)
    site.dialect.set_counters(writing, counters)
    for table in _tables():
        copied = _sum(_rows(writing, table))
        if copied != there[table.name]:
            raise StoreError(
                f"{site.place}: table {table.name} is not what was read from {store.place} "
                f"({copied.rows} rows of {there[table.name].rows}): nothing was copied",
                hint="look whether another program writes there, then run the same command again",
            )


def _require_idle(store: Store, connection: Connection, *, lease: float) -> None:
    """Refuse a store in which a runner is at work: what it writes from now on would be missing in the copy."""
    runners = claims.at_work(connection, dead=RunnerIdentity.is_dead, within=lease)
    if runners:
        host, pid = runners[0].host.partition("/")[0], runners[0].pid
        where = place(store.home.root, store.url)
        studies = row_lookup.names(connection)
        stops = "; ".join(f"`{Advice(study=name, where=where).stop()}`" for name in studies[:3])
        raise StoreError(
            f"store {store.place}: process {pid} on {host} is at work in it, or was {lease:.0f} s ago: "
            "nothing was copied",
            hint=f"{stops} ends its runs; `gridsearch worker` ends with Ctrl-C",
        )


def _require_no_test(store: Store, study: str, stack: ExitStack) -> None:
    """Refuse a store while `best` is at work: that it has read the test images would be missing in the copy."""
    if not stack.enter_context(files.if_free(store.home.best_work(study) / files.LOCK)):
        raise StoreError(
            f"store {store.place}: `gridsearch best` trains the winner of study {study!r} again: nothing was copied",
            hint="wait until it ends, or end it with Ctrl-C",
        )


def _tables() -> Sequence[Table]:
    """Return all tables of a store; one that another refers to comes before it."""
    return (
        optuna_tables.alembic_version,
        *optuna_tables.metadata.sorted_tables,
        *ledger_tables.metadata.sorted_tables,
    )


def _rows(connection: Connection, table: Table) -> Iterator[list[dict[str, Any]]]:
    """Go through the rows of a table, many at a time."""
    found = connection.execute(select(table).execution_options(yield_per=_ROWS))
    for rows in found.mappings().partitions(_ROWS):
        yield [dict(row) for row in rows]


def _sum(pieces: Iterator[list[dict[str, Any]]]) -> TableSum:
    count, total = 0, 0
    for rows in pieces:
        count += len(rows)
        for row in rows:
            text = json.dumps([_plain(value) for value in row.values()], sort_keys=True)
            total += int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
    return TableSum(count, f"{total % _RANGE:064x}")


def _plain(value: Any) -> Any:
    """Return a value as all databases give it back."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bool):
        return int(value)
    return value
