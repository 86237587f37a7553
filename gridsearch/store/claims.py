"""Who works on which trial: claims, leases, and what happens when somebody dies."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, bindparam, delete, func, select, update

from gridsearch.records import Trial, TrialState
from gridsearch.store import ledger_tables, optuna_tables, optuna_trials
from gridsearch.store.messages import Reclaimed, RunnerAtWork
from gridsearch.store.params import StudyAxes, params_of, settings_of, state_of
from gridsearch.store.row_lookup import trial_is_there
from gridsearch.store.runner_identity import RunnerIdentity
from gridsearch.store.study_queries import inactive_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy.sql.dml import Update

    from gridsearch.store.artifacts import Home

_t = ledger_tables.trials
_NOBODY = {"runner_id": None, "pack": None, "lease_until": None}


def claim(
    connection: Connection, packs: Mapping[str, Sequence[int]], *, owner: RunnerIdentity, lease: float
) -> dict[str, list[Trial]]:
    """Take those of the trials of some packs that wait, by a conditional statement.

    Args:
        connection: in a transaction that writes.
        packs: ledger ids of trials by the id of their pack.
        owner: who takes them.
        lease: seconds that the claim holds without a heartbeat.

    Returns:
        For each pack the trials that were taken, in their order; another runner may have been first.
    """
    runner = register(connection, owner)
    pack_of = {trial: pack for pack, ids in packs.items() for trial in ids}
    taken: dict[int, Row[Any]] = {}
    for some in ledger_tables.chunks(list(pack_of)):
        # What another runner claims at this moment is passed over, not waited for, where rows can be locked.
        waiting = (
            select(_t.c.id)
            .where(_t.c.id.in_(some), _t.c.state == TrialState.WAITING, trial_is_there())
            .with_for_update(skip_locked=True, of=_t)
        )
        values = {
            "state": TrialState.RUNNING,
            "runner_id": runner,
            "pack": next(iter(packs)),
            "attempt": _t.c.attempt + 1,
            "tries": _t.c.tries + 1,
            "lease_until": ledger_tables.StoreNow() + lease,
        }
        statement = update(_t).where(_t.c.id.in_(waiting)).values(values).returning(_t)
        taken |= {row.id: row for row in connection.execute(statement)}
    if not taken:
        return {pack: [] for pack in packs}
    if len(packs) > 1:
        set_packs(connection, {trial: pack_of[trial] for trial in taken})
    optuna_trials.set_states(connection, [row.optuna_id for row in taken.values()], TrialState.RUNNING)
    names = _shown_names(connection, {row.study_id for row in taken.values()})
    trials = {trial: as_trial(row, names[row.study_id]) for trial, row in taken.items()}
    return {pack: [trials[i] for i in dict.fromkeys(ids) if i in trials] for pack, ids in packs.items()}


def set_packs(connection: Connection, packs: Mapping[int, str]) -> None:
    """Note in which packs trials train, by their ledger ids."""
    connection.execute(_SET_PACK, [{"of_trial": trial, "in_pack": pack} for trial, pack in packs.items()])


_SET_PACK = update(_t).where(_t.c.id == bindparam("of_trial")).values(pack=bindparam("in_pack"))


def as_trial(row: Row[Any], names: Sequence[str]) -> Trial:
    """Return a ledger row as a trial that shows these axes."""
    settings = settings_of(row.settings)
    return Trial(
        id=row.id,
        number=row.number,
        key=row.key,
        seed=row.seed,
        settings=settings,
        params=params_of(settings, inactive_of(row.inactive), names),
        state=state_of(row.state),
        attempt=row.attempt,
    )


def _shown_names(connection: Connection, study_ids: Iterable[int]) -> dict[int, tuple[str, ...]]:
    s = ledger_tables.studies
    query = select(s.c.id, s.c.shown).where(s.c.id.in_(list(study_ids)))
    return {row.id: StudyAxes.from_json(row.shown).names for row in connection.execute(query)}


def register(connection: Connection, owner: RunnerIdentity) -> int:
    """Return the row of a runner, made if need be, and note that it was seen."""
    r = ledger_tables.runners
    seen = update(r).where(r.c.name == owner.name).values(seen=ledger_tables.StoreNow()).returning(r.c.id)
    found = connection.scalar(seen)
    if found is None:
        row = {
            "name": owner.name,
            "host": owner.host,
            "boot": owner.boot,
            "pid": owner.pid,
            "started": owner.started,
            "seen": 0.0,
        }
        optuna_tables.upsert(connection, r, ("name",), [row])
        found = connection.scalar(seen)
    assert found is not None
    return int(found)


def renew(connection: Connection, owner: RunnerIdentity, *, lease: float) -> set[tuple[int, int]]:
    """Extend the leases of all that an owner holds; return it as (trial, attempt)."""
    r = ledger_tables.runners
    seen = connection.scalar(
        update(r).where(r.c.name == owner.name).values(seen=ledger_tables.StoreNow()).returning(r.c.id)
    )
    statement = (
        update(_t)
        .where(_t.c.runner_id == seen, _t.c.state == TrialState.RUNNING)
        .values(lease_until=ledger_tables.StoreNow() + lease)
        .returning(_t.c.id, _t.c.attempt)
    )
    return {(row.id, row.attempt) for row in connection.execute(statement)}


def reclaim(
    connection: Connection, study_id: int, *, dead: Callable[[RunnerIdentity], bool], home: Home
) -> list[Reclaimed]:
    """Take back what a dead process on this host holds, and what anybody holds whose lease has ended.

    That a runner ended is not its trials' fault: it does not count as a try.

    Args:
        connection: in a transaction that writes.
        study_id: of the ledger.
        dead: says whether an owner has certainly ended.
        home: has the checkpoints that the trials go on from.
    """
    seen = [row.id for row, gone in _running(connection, study_id, dead=dead) if gone]
    lost: list[Row[Any]] = []
    for some in ledger_tables.chunks(seen):  # looked at again under a lock: others may be first
        lost += [row for row, gone in _running(connection, study_id, dead=dead, lock=some) if gone]
    epochs = put_back(connection, lost, tries_back=1, home=home)
    return [reclaimed(row, tries=row.tries - 1, epoch=epochs[row.id]) for row in lost]


def reclaimed(row: Row[Any], *, tries: int, epoch: int, requeued: bool = True) -> Reclaimed:
    """Return what became of a claim that was taken back."""
    return Reclaimed(
        trial=row.id, number=row.number, attempt=row.attempt, tries=tries, requeued=requeued, epoch=epoch
    )


def abandoned(
    connection: Connection, study_id: int, *, dead: Callable[[RunnerIdentity], bool]
) -> frozenset[int]:
    """Return the trials that `reclaim` would take back: their rows say that they train, and nobody does."""
    return frozenset(row.id for row, gone in _running(connection, study_id, dead=dead) if gone)


def runners(
    connection: Connection, study_id: int, *, dead: Callable[[RunnerIdentity], bool]
) -> list[RunnerAtWork]:
    """Return who holds trials of a study, those that are gone included."""
    found: dict[int | None, RunnerAtWork] = {}
    for row, gone in _running(connection, study_id, dead=dead):
        before = found.get(row.runner_id)
        began = None if row.began is None else row.began.replace(tzinfo=UTC)
        starts = [each for each in (began, before.since if before else None) if each is not None]
        found[row.runner_id] = RunnerAtWork(
            host=(row.host or "").partition("/")[0],
            pid=row.pid,
            seen=None if row.seen is None else datetime.fromtimestamp(row.seen, UTC),
            since=min(starts, default=None),
            trials=(*(before.trials if before else ()), row.number),
            gone=gone and (before is None or before.gone),
        )
    return list(found.values())


def at_work(
    connection: Connection, *, dead: Callable[[RunnerIdentity], bool], within: float
) -> list[RunnerIdentity]:
    """Return the runners of all studies that may be at work: seen within so many seconds, and not known to be dead."""
    r = ledger_tables.runners
    query = select(r.c.host, r.c.boot, r.c.pid, r.c.started).where(
        r.c.seen > ledger_tables.StoreNow() - within
    )
    seen = [RunnerIdentity(**row._mapping) for row in connection.execute(query)]
    return [each for each in seen if not dead(each)]


def store_time(connection: Connection) -> float:
    """Return the time by the store's clock, in seconds since 1970."""
    return float(connection.scalar(select(ledger_tables.StoreNow())) or 0.0)


def is_silent(connection: Connection, owner: RunnerIdentity) -> bool:
    """Return whether a runner holds no trial whose lease lasts."""
    r = ledger_tables.runners
    lasting = (_t.c.state == TrialState.RUNNING, _t.c.lease_until >= ledger_tables.StoreNow())
    query = (
        select(func.count(_t.c.id)).join(r, r.c.id == _t.c.runner_id).where(r.c.name == owner.name, *lasting)
    )
    return not connection.scalar(query)


def _running(
    connection: Connection,
    study_id: int,
    *,
    dead: Callable[[RunnerIdentity], bool],
    lock: Sequence[int] | None = None,
) -> list[tuple[Row[Any], bool]]:
    """Return the trials of a study whose rows say that they train, each with whether its runner is gone.

    Args:
        connection: for reading, or of a writing transaction.
        study_id: the ledger's.
        dead: says whether a runner has certainly ended.
        lock: the ids of those to lock and return, but for any that others have locked; None for all, without a lock.
    """
    r = ledger_tables.runners
    running = (_t.c.study_id == study_id, _t.c.state == TrialState.RUNNING, trial_is_there())
    owner = (r.c.host, r.c.boot, r.c.pid, r.c.started, r.c.seen)
    s = ledger_tables.studies
    study = select(s.c.name).where(s.c.id == study_id).scalar_subquery().label("study")
    o = optuna_tables.trials
    expired = _t.c.lease_until < ledger_tables.StoreNow()
    query = (
        select(
            _t,
            study,
            *owner,
            o.c.datetime_start.label("began"),
            expired.label("expired"),
        )
        .join(r, r.c.id == _t.c.runner_id, isouter=True)
        .join(o, o.c.trial_id == _t.c.optuna_id)
        .where(*running)
        .order_by(_t.c.number)
    )
    if lock is not None:
        query = query.where(_t.c.id.in_(lock)).with_for_update(skip_locked=True, of=_t)
    gone: dict[int | None, bool] = {None: True}
    found = []
    for row in connection.execute(query):
        if row.runner_id not in gone:
            gone[row.runner_id] = dead(
                RunnerIdentity(host=row.host, boot=row.boot, pid=row.pid, started=row.started)
            )
        found.append((row, gone[row.runner_id] or row.expired or row.lease_until is None))
    return found


_HELD = (
    select(
        *(_t.c[name] for name in ("id", "study_id", "optuna_id", "number", "attempt", "tries", "epochs")),
        ledger_tables.studies.c.name.label("study"),
        ledger_tables.studies.c.uid,
        ledger_tables.studies.c.optuna_id.label("optuna_study"),
        ledger_tables.studies.c.metric,
    )
    .join(ledger_tables.studies, ledger_tables.studies.c.id == _t.c.study_id)
    .where(
        _t.c.id.in_(bindparam("ids", expanding=True)),
        _t.c.state == TrialState.RUNNING,
        trial_is_there(),
    )
)


_LOCKED = _HELD.order_by(_t.c.id).with_for_update(of=_t)


def held(connection: Connection, claims: Iterable[tuple[int, int]], *, lock: bool = True) -> list[Row[Any]]:
    """Return the rows of those claims (trial, attempt) that still hold, in their order.

    A claim has ended when another attempt runs, the trial waits or has ended, or others deleted it.

    Args:
        connection: of a writing transaction, or without a lock for reading.
        claims: which.
        lock: whether they hold until the transaction ends.
    """
    query = _LOCKED if lock else _HELD
    pairs = list(dict.fromkeys(claims))
    rows: dict[tuple[int, int], Row[Any]] = {}
    for some in ledger_tables.chunks([trial for trial, _ in pairs]):
        rows |= {(row.id, row.attempt): row for row in connection.execute(query, {"ids": list(some)})}
    return [rows[pair] for pair in pairs if pair in rows]


def claimed_for(connection: Connection, ids: Sequence[int], pack: str) -> list[tuple[int, int]]:
    """Return those of these trials that train in a pack, each with its attempt."""
    query = select(_t.c.id, _t.c.attempt).where(_t.c.pack == pack, _t.c.state == TrialState.RUNNING)
    return [(row.id, row.attempt) for row in connection.execute(query) if row.id in set(ids)]


def running(connection: Connection, study_id: int) -> list[int]:
    """Return the numbers of the trials of a study that run."""
    query = select(_t.c.number).where(_t.c.study_id == study_id, _t.c.state == TrialState.RUNNING)
    return list(connection.scalars(query))


def release(connection: Connection, claims: Sequence[tuple[int, int]], *, home: Home) -> int:
    """Give claims back that were not worked to their end; they do not count as tries."""
    rows = held(connection, claims)
    put_back(connection, rows, tries_back=1, home=home)
    return len(rows)


def put_back(
    connection: Connection, rows: Sequence[Row[Any]], *, tries_back: int, home: Home
) -> dict[int, int]:
    """Let trials wait again in their Optuna rows, with the epochs or steps up to their checkpoints.

    Args:
        connection: in a transaction that writes.
        rows: of the ledger, as they were when they were claimed.
        tries_back: how many tries do not count.
        home: has the checkpoints.

    Returns:
        For each trial the epoch that it goes on from.
    """
    upto = {row.id: home.checkpoint_epoch(row.study, row.number) for row in rows}
    if rows:
        keep_epochs(connection, rows, upto)
        values = {"state": TrialState.WAITING, "tries": _t.c.tries - tries_back, **_NOBODY}
        connection.execute(fenced_update().values(values), [fence(row) for row in rows])
        optuna_trials.set_states(connection, [row.optuna_id for row in rows], TrialState.WAITING)
    return upto


def keep_epochs(connection: Connection, rows: Sequence[Row[Any]], upto: Mapping[int, int]) -> None:
    """Delete what was recorded of epochs and steps after those that running trials go on from.

    Args:
        connection: of a writing transaction.
        rows: the trials.
        upto: the last epoch to keep of each, by its id.
    """
    for table, number in (
        (ledger_tables.epochs, ledger_tables.epochs.c.epoch),
        (ledger_tables.steps, ledger_tables.steps.c.step),
    ):
        later = delete(table).where(table.c.trial_id == bindparam("of_trial"), number > bindparam("upto"))
        connection.execute(later, [{"of_trial": row.id, "upto": upto[row.id]} for row in rows])
    optuna_trials.delete_intermediate_values(connection, {row.optuna_id: upto[row.id] for row in rows})
    shorter = fenced_update().where(_t.c.epochs > bindparam("upto")).values(epochs=bindparam("upto"))
    connection.execute(shorter, [{**fence(row), "upto": upto[row.id]} for row in rows])


def fenced_update() -> Update:
    """Return an update that touches a trial only while the attempt that writes is the one that runs."""
    return update(_t).where(
        _t.c.id == bindparam("of_trial"),
        _t.c.attempt == bindparam("of_attempt"),
        _t.c.state == TrialState.RUNNING,
    )


def fence(row: Row[Any]) -> dict[str, Any]:
    """Return the parameters of `fenced_update` for a row."""
    return {"of_trial": row.id, "of_attempt": row.attempt}


def lost(connection: Connection, claims: Iterable[tuple[int, int]]) -> list[int]:
    """Return the numbers of the trials that have no result of these claims (trial, attempt), and never will."""
    attempts = dict(claims)
    query = select(_t.c.id, _t.c.number, _t.c.attempt, _t.c.state).where(_t.c.id.in_(list(attempts)))
    return [
        row.number
        for row in connection.execute(query)
        if row.attempt != attempts[row.id] or not state_of(row.state).ended
    ]
