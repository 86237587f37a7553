"""Deletes studies from the ledger and from Optuna's tables, and finds what others have deleted in part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, exists, func, select

from gridsearch.errors import StudyNotFound, valid_text
from gridsearch.store import ledger_tables, optuna_studies, optuna_tables, reconcile
from gridsearch.store.row_lookup import ledger_name, study_is_there, trial_is_there

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row


def remove(connection: Connection, study: str) -> list[str]:
    """Delete the rows of a study; return the ids of its files in the dashboard.

    Raises:
        StudyNotFound: there is no such study.
    """
    s = ledger_tables.studies
    row = _row_of(connection, study)
    found = copies(connection, row.optuna_id)
    there = connection.scalar(select(s.c.id).where(s.c.id == row.id, study_is_there()))
    if there is not None:
        optuna_studies.delete_study(connection, row.optuna_id)
    connection.execute(delete(s).where(s.c.id == row.id))
    return found


def uid_of(connection: Connection, study: str) -> str:
    """Return the id of a study, whether or not it is still in Optuna's tables.

    Raises:
        StudyNotFound: there is no such study.
    """
    uid: str = _row_of(connection, study).uid
    return uid


def _row_of(connection: Connection, study: str) -> Row[Any]:
    s = ledger_tables.studies
    row = connection.execute(select(s).where(s.c.name == valid_text(study))).one_or_none()
    if row is None:
        raise StudyNotFound(study, connection.scalars(select(s.c.name)).all())
    return row


def copies(connection: Connection, optuna_id: int) -> list[str]:
    """Return the ids of a study's files in the dashboard, by the study's id in Optuna's tables."""
    s, a = ledger_tables.studies, ledger_tables.artifacts
    query = (
        select(a.c.optuna_artifact)
        .join(s, s.c.id == a.c.study_id)
        .where(s.c.optuna_id == optuna_id, a.c.optuna_artifact.is_not(None))
    )
    return list(connection.scalars(query))


def drop_orphans(connection: Connection) -> None:
    """Drop studies and trials of the ledger that others deleted in Optuna's tables."""
    reconcile.relink(connection)
    s, t, a = ledger_tables.studies, ledger_tables.trials, ledger_tables.artifacts
    connection.execute(delete(s).where(~study_is_there()))
    dropped = connection.execute(delete(t).where(~trial_is_there()))
    if dropped.rowcount:
        theirs = exists().where(t.c.study_id == a.c.study_id, t.c.number == a.c.number)
        connection.execute(delete(a).where(a.c.number != ledger_tables.OF_STUDY, ~theirs))


def clear_remnant(connection: Connection, name: str) -> bool:
    """Delete what a deletion that was cut off has left of a study; return whether there was anything."""
    there = optuna_studies.study_named(connection, name)
    if there is None or ledger_name(connection, name) is not None:
        return False
    if remnant(connection, name) is None and not is_empty(connection, there):
        return False
    optuna_studies.delete_study(connection, there)
    return True


def remnant(connection: Connection, name: str) -> int | None:
    """Return Optuna's id of what a deletion that was cut off has left of a study; None if there is nothing.

    Args:
        connection: for reading.
        name: the study's name in Optuna's tables.
    """
    there = optuna_studies.study_named(connection, name)
    return there if there is not None and there in _remnants(connection).values() else None


def remnants(connection: Connection) -> tuple[str, ...]:
    """Return the names of studies of ours that were deleted in part."""
    return tuple(_remnants(connection))


def _remnants(connection: Connection) -> dict[str, int]:
    s = ledger_tables.studies
    known = set(connection.scalars(select(s.c.optuna_id).where(study_is_there())))
    return {
        name: i
        for i, name in optuna_studies.own_studies(connection)
        if i not in known and not optuna_studies.is_whole(connection, i)
    }


def is_empty(connection: Connection, optuna_id: int) -> bool:
    """Return whether a study of Optuna holds no trial."""
    t = optuna_tables.trials
    return not connection.scalar(select(func.count(t.c.trial_id)).where(t.c.study_id == optuna_id))
