"""Finds the ledger's rows of studies and trials that Optuna's tables still hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, func, select

from gridsearch.errors import StoreError, StudyNotFound, valid_text
from gridsearch.store import ledger_tables, optuna_studies, optuna_trials

if TYPE_CHECKING:
    from sqlalchemy.sql.elements import ColumnElement

_s, _t = ledger_tables.studies, ledger_tables.trials


def study_is_there() -> ColumnElement[bool]:
    """Return the condition that nobody deleted the study through another program."""
    return optuna_studies.study_matches(_s.c.optuna_id, _s.c.uid)


def trial_is_there() -> ColumnElement[bool]:
    """Return the condition that nobody deleted the trial through another program."""
    return optuna_trials.trial_matches(_t.c.optuna_id, _t.c.key)


def is_there(connection: Connection, uid: str) -> bool:
    """Return whether the ledger holds a study of an id that nobody deleted."""
    return bool(connection.scalar(select(func.count()).where(_s.c.uid == uid, study_is_there())))


def names(connection: Connection) -> list[str]:
    """Return the names of all studies, oldest first."""
    return list(connection.scalars(select(_s.c.name).where(study_is_there()).order_by(_s.c.id)))


def uids(connection: Connection) -> dict[str, str]:
    """Return the ids of all studies by their names."""
    return {row.name: row.uid for row in connection.execute(select(_s.c.name, _s.c.uid))}


def count_trials(connection: Connection, study_id: int) -> int:
    """Return how many trials a study has in Optuna's tables, those that were offered again twice."""
    optuna_id = connection.scalar(select(_s.c.optuna_id).where(_s.c.id == study_id))
    return 0 if optuna_id is None else optuna_trials.count(connection, optuna_id)


def find_study(connection: Connection, name: str) -> Row[Any]:
    """Return the ledger's row of a study.

    Raises:
        StudyNotFound: there is none, or it was deleted through another program.
        StoreError: it is the name that somebody gave to a study in the dashboard.
    """
    # what a terminal passes on may be no text, which a database refuses
    named = _s.c.name == valid_text(name)
    row = connection.execute(select(_s).where(named, study_is_there())).one_or_none()
    if row is None:
        if (renamed := ledger_name(connection, name)) is not None:
            raise StoreError(
                f"{name!r} is what the dashboard calls study {renamed!r}",
                hint=f"name it with --study {renamed}",
            )
        raise StudyNotFound(name, names(connection))
    return row


def ledger_name(connection: Connection, title: str) -> str | None:
    """Return the name of the study that others renamed to `title`, None if there is none."""
    there = optuna_studies.study_named(connection, title)
    found: str | None = connection.scalar(
        select(_s.c.name).where(_s.c.optuna_id == there, _s.c.name != valid_text(title), study_is_there())
    )
    return found


def optuna_id_of(connection: Connection, study: Row[Any], number: int) -> int:
    """Return Optuna's id of a study's trial.

    Raises:
        StoreError: the study has no such trial.
    """
    query = select(_t.c.optuna_id).where(_t.c.study_id == study.id, _t.c.number == number, trial_is_there())
    found = connection.scalar(query)
    if found is None:
        raise no_trial(connection, study, number)
    return int(found)


def no_trial(connection: Connection, study: Row[Any], number: int) -> StoreError:
    """Return the error that a study has no trial of a number, with what became of it."""
    key = optuna_trials.key_of_number(connection, study.optuna_id, number)
    now = connection.scalar(select(_t.c.number).where(_t.c.study_id == study.id, _t.c.key == key))
    if now is not None:
        return StoreError(
            f"trial {number} of study {study.name!r} failed and was offered again as trial {now}"
        )
    highest = connection.scalar(select(func.max(_t.c.number)).where(_t.c.study_id == study.id))
    hint = "the study has no trials yet" if highest is None else f"its trials are numbered up to {highest}"
    return StoreError(f"study {study.name!r} has no trial {number}", hint=hint)
