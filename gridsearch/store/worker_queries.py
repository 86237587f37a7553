"""What a worker without a grid asks of the ledger: which studies have work, and who has none.

Beside `claims`, which says who holds what.  A worker that has nothing to do asks often, so that only rows of trials
that wait or run are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, func, select, update

from gridsearch.records import TrialState
from gridsearch.store import ledger_tables
from gridsearch.store.messages import IdleRunner, OpenStudy, OpenTrial
from gridsearch.store.row_lookup import study_is_there, trial_is_there
from gridsearch.store.runner_identity import RunnerIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_s, _t, _r = ledger_tables.studies, ledger_tables.trials, ledger_tables.runners


def open_studies(connection: Connection, *, abandoned: Callable[[int], Collection[int]]) -> list[OpenStudy]:
    """Return all studies with how many of their trials wait and run, oldest first.

    Args:
        connection: for reading.
        abandoned: returns the ids of a study's trials whose runner is gone: they wait.
    """
    counts: dict[tuple[int, str], int] = {}
    query = (
        select(_t.c.study_id, _t.c.state, func.count())
        .where(_t.c.state.in_((TrialState.WAITING, TrialState.RUNNING)), trial_is_there())
        .group_by(_t.c.study_id, _t.c.state)
    )
    for study_id, state, count in connection.execute(query):
        counts[study_id, state] = count
    q = ledger_tables.stops
    found = []
    studies = (
        select(_s.c.id, _s.c.name, _s.c.uid, _s.c.next_number, func.coalesce(q.c.asked, 0).label("asked"))
        .join(q, q.c.study_id == _s.c.id, isouter=True)
        .where(study_is_there())
        .order_by(_s.c.id)
    )
    for row in connection.execute(studies):
        running = counts.get((row.id, TrialState.RUNNING), 0)
        gone = len(abandoned(row.id)) if running else 0
        found.append(
            OpenStudy(
                name=row.name,
                uid=row.uid,
                waiting=counts.get((row.id, TrialState.WAITING), 0) + gone,
                running=running - gone,
                numbers=row.next_number,
                stops=row.asked,
            )
        )
    return found


def open_trials(
    connection: Connection, study_id: int, *, abandoned: Callable[[int], Collection[int]]
) -> list[OpenTrial]:
    """Return the trials of a study that wait or run; see `open_studies`."""
    gone = abandoned(study_id)
    query = (
        select(_t.c.id, _t.c.key, _t.c.state)
        .where(
            _t.c.study_id == study_id,
            _t.c.state.in_((TrialState.WAITING, TrialState.RUNNING)),
            trial_is_there(),
        )
        .order_by(_t.c.id)
    )
    return [
        OpenTrial(id=row.id, key=row.key, waits=row.state == TrialState.WAITING or row.id in gone)
        for row in connection.execute(query)
    ]


def idle_runners(
    connection: Connection, *, dead: Callable[[RunnerIdentity], bool], within: float
) -> list[IdleRunner]:
    """Return the runners that hold no trial of any study, and were seen within so many seconds."""
    holds = select(_t.c.id).where(_t.c.runner_id == _r.c.id, _t.c.state == TrialState.RUNNING).exists()
    query = (
        select(_r.c.host, _r.c.boot, _r.c.pid, _r.c.started)
        .where(_r.c.seen > ledger_tables.StoreNow() - within, ~holds)
        .order_by(_r.c.id)
    )
    seen = (RunnerIdentity(**row._mapping) for row in connection.execute(query))
    return [IdleRunner(host=each.host.partition("/")[0], pid=each.pid) for each in seen if not dead(each)]


def depart(connection: Connection, owner: RunnerIdentity) -> None:
    """Note that a runner ends: nobody counts on it any more."""
    connection.execute(update(_r).where(_r.c.name == owner.name).values(seen=0.0))
