"""Writes what waits in a spool to the store: once, in order, under the claims that the records name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsearch.store import claims, spool
from gridsearch.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gridsearch.store.spool import SpoolRecord


def waiting(store: Store) -> int:
    """Return how many records of runs that are gone wait for the next run."""
    found = spool.left_behind(spool.roots(store.home.root, store.place))
    paths = [path for owner, paths in found if store.is_gone(owner) for path in paths]
    return sum((record := spool.read(path)) is None or _is_for(store, record) for path in paths)


def take_in(store: Store, *, warn: Callable[[str], None]) -> int:
    """Write what runs that are gone could not; return how many results came in.

    Args:
        store: the open store.
        warn: is called with what could not be taken in.
    """
    results = 0
    for owner, paths in spool.left_behind(spool.roots(store.home.root, store.place)):
        if store.is_gone(owner):
            results += sum(replay(store, path, warn=warn) for path in paths)
    return results


def replay(store: Store, path: Path, *, warn: Callable[[str], None]) -> int:
    """Write a record and take it away, unless it is for another store; return how many results it holds."""
    if not path.exists():  # another run was first
        return 0
    record = spool.read(path)
    if record is None:
        warn(
            f"{spool.set_aside(path)} is damaged: what it holds cannot be read, its trials are trained again"
        )
        return 0
    if not store.holds(record.study):
        if _is_for(store, record):  # somebody has deleted the study
            spool.drop(path)
        return 0
    for number in _write_record(store, record):
        warn(
            f"trial {number}: its runner lost the lease while the store was unavailable; that result does not count"
        )
    spool.drop(path)
    return len(record.ended)


def _is_for(store: Store, record: SpoolRecord) -> bool:
    """Whether a record was to be written to this store, which may have moved, and not to another one of its home."""
    return record.store in ("", store._database.identity) or store.holds(record.study)


def _write_record(store: Store, record: SpoolRecord) -> list[int]:
    """Write a record; return the numbers of the trials whose results came too late."""
    match record.call:
        case "record_epochs":
            Store.record_epochs(store, record.epochs)
        case "resume":
            Store.resume(store, record.resumed)
        case "requeue":
            Store.requeue(store, record.claims, retries=record.retries, reason=record.reason)
        case "unclaim":
            Store.unclaim(store, [trial for trial, _ in record.claims], pack=record.name)
        case "release":
            Store.release(store, record.claims)
        case "append_log":
            store.home.append_log(record.name, record.number, record.text)
        case "finish_many":
            accepted = Store.finish_many(store, record.ended, epochs=record.epochs, shown=record.shown)
            late = [(e.trial, e.attempt) for e, ok in zip(record.ended, accepted, strict=True) if not ok]
            with store._database.read() as connection:  # one written before it seemed to fail is there
                return claims.lost(connection, late)
    return []
