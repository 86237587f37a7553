"""Whether a run's study and trials are still there: others may delete them at any moment, through other programs too.

Asked by `store` and `run_store` in the transactions in which it matters.
"""

from __future__ import annotations

from sqlalchemy import Connection, select

from gridsearch.errors import StudyDeleted
from gridsearch.store import ledger_tables
from gridsearch.store.row_lookup import study_is_there, trial_is_there

_SHOWN = 12
"""So many numbers of trials are named in one line."""


def require_study(connection: Connection, study_id: int) -> str:
    """Return the id that a study bears in Optuna's tables too; no other study ever bears it.

    Raises:
        StudyDeleted: the study was deleted, by us or through another program.
    """
    s = ledger_tables.studies
    uid: str | None = connection.scalar(select(s.c.uid).where(s.c.id == study_id, study_is_there()))
    if uid is None:
        raise study_deleted()
    return uid


def study_deleted() -> StudyDeleted:
    """Return the error that a study which is being run is no longer there."""
    return StudyDeleted(
        "study deleted: the store does not hold it any more", hint="the same command begins it anew"
    )


def require_trials(connection: Connection, study_id: int) -> None:
    """Check that no trial of a study is missing.

    Raises:
        StudyDeleted: one was deleted through another program.
    """
    t = ledger_tables.trials
    gone = connection.scalars(
        select(t.c.number).where(t.c.study_id == study_id, ~trial_is_there()).order_by(t.c.number)
    ).all()
    if gone:
        numbers = ", ".join(map(str, gone[:_SHOWN])) + (", ..." if len(gone) > _SHOWN else "")
        what = f"trial{'s' * (len(gone) > 1)} {numbers} deleted: the store does not hold "
        raise StudyDeleted(
            f"{what}{'them' if len(gone) > 1 else 'it'} any more",
            hint=f"the same command begins {'them' if len(gone) > 1 else 'it'} anew",
        )
