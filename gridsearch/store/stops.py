"""Requests that the runners of a study stop, for whichever machine they run on.

A study's requests are counted.  A run notes the count when it begins and stops once that has grown: so it heeds
no request of before, whatever the clocks say, and none needs to be taken back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from gridsearch.store import ledger_tables, optuna_tables

if TYPE_CHECKING:
    from sqlalchemy import Connection

_q = ledger_tables.stops


@dataclass(frozen=True, slots=True)
class Stops:
    """How often a study's runners were asked to stop, and whether at once the last time."""

    count: int = 0
    at_once: bool = False


def asked(connection: Connection, study_id: int) -> Stops:
    """Return the requests for a study so far."""
    row = connection.execute(select(_q).where(_q.c.study_id == study_id)).one_or_none()
    return Stops() if row is None else Stops(row.asked, row.at_once)


def ask(connection: Connection, study_id: int, *, at_once: bool) -> None:
    """Ask all that run a study now to stop: at their next epoch's end, or at once."""
    row = {"study_id": study_id, "asked": 0, "at_once": at_once}
    optuna_tables.upsert(connection, _q, ("study_id",), [row], overwrite=False)
    again = update(_q).where(_q.c.study_id == study_id)
    connection.execute(again.values(asked=_q.c.asked + 1, at_once=at_once))
