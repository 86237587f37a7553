"""Follows the ledger's studies in Optuna's tables, where others rename, copy and delete them.

Optuna's dashboard renames a study by copying it under the new name and deleting the old one; a deletion that is
cut off leaves rows behind.  A study is known by the id that it bears as a user attribute, a trial by its key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, select, update

from gridsearch.records import TrialState
from gridsearch.store import ledger_tables, optuna_studies, optuna_tables, optuna_trials
from gridsearch.store.row_lookup import study_is_there

if TYPE_CHECKING:
    from sqlalchemy import Connection


def moved(connection: Connection) -> list[tuple[int, int]]:
    """Return the ledger's id and Optuna's new id of each study that was copied and deleted by others."""
    s = ledger_tables.studies
    lost = connection.execute(select(s.c.id, s.c.uid).where(~study_is_there())).all()
    found = ((row.id, optuna_studies.study_of_uid(connection, row.uid)) for row in lost)
    return [(study_id, optuna_id) for study_id, optuna_id in found if optuna_id is not None]


def relink(connection: Connection) -> None:
    """Let studies that others copied and deleted go on in their copies.

    Args:
        connection: of a writing transaction.
    """
    s, t = ledger_tables.studies, ledger_tables.trials
    for study_id, optuna_id in moved(connection):
        row = connection.execute(select(s).where(s.c.id == study_id)).one()
        connection.execute(update(s).where(s.c.id == study_id).values(optuna_id=optuna_id))
        optuna_studies.name_metric(connection, optuna_id, row.metric)
        # A point that failed and was offered again has two trials of one key: the later one is the ledger's.
        places = {key: trial_id for trial_id, key in optuna_trials.keys_of_trials(connection, optuna_id)}
        rows = connection.execute(select(t.c.id, t.c.key, t.c.state).where(t.c.study_id == study_id)).all()
        changes = [{"of_trial": r.id, "place": places[r.key]} for r in rows if r.key in places]
        if changes:
            statement = update(t).where(t.c.id == bindparam("of_trial")).values(optuna_id=bindparam("place"))
            connection.execute(statement, changes)
        there = optuna_trials.states(connection, optuna_id)
        for state in TrialState:  # a trial may have ended while it was copied
            known = optuna_tables.optuna_state(state)
            copies = [places[r.key] for r in rows if r.state == state and r.key in places]
            optuna_trials.set_states(connection, [i for i in copies if there[i] is not known], state)
