"""Brings a store that an older version made up to this one, when it is opened for writing.

An older store is read as it is where it may not be written; a newer one is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select, update

from gridsearch.store import ledger_tables, optuna_trials
from gridsearch.store.params import StudyAxes

if TYPE_CHECKING:
    from sqlalchemy import Connection

OLDEST = 1
"""The oldest revision that can be read, and brought up to this one."""


def upgrade(connection: Connection) -> None:
    """Bring a store up to this version's revision; nothing if another process has done so meanwhile.

    Args:
        connection: of a writing transaction.
    """
    there = connection.scalar(select(func.max(ledger_tables.schema.c.revision)))
    if there is None or there >= ledger_tables.REVISION:
        return
    _span_distributions(connection)
    connection.execute(update(ledger_tables.schema).values(revision=ledger_tables.REVISION))


def _span_distributions(connection: Connection) -> None:
    """Give every param the distribution of its study's values: revision 1 had fixed, wide bounds."""
    s = ledger_tables.studies
    for row in connection.execute(select(s.c.optuna_id, s.c.shown)).all():
        axes = {axis.name: axis.distribution for axis in StudyAxes.from_json(row.shown).axes}
        optuna_trials.insert_params(connection, row.optuna_id, (), axes)
