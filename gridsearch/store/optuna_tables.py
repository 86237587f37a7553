"""Optuna's tables and what is written to them; the only module that knows Optuna's ORM models.

Rows are written directly: Optuna's own calls take milliseconds each, commit each, and refuse a categorical
that grows.  Everything here runs on a connection of the caller's transaction.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import optuna
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import TrialState as OptunaState
from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    String,
    Table,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from gridsearch.records import TrialState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy.sql.elements import ColumnElement

REVISION = "v3.2.0.a"
"""The one schema revision of Optuna whose rows this module writes."""

SUPPORTED = ">=5.0,<5.1"
"""The versions of Optuna that the conformance tests have passed on; pyproject.toml asks for the same."""

KEY_ATTRIBUTE = "key"
STUDY_ATTRIBUTE = "gridsearch"
_ARTIFACT_PREFIX = "artifacts:"
_METRIC_NAMES = "study:metric_names"

studies = cast("Table", models.StudyModel.__table__)
directions = cast("Table", models.StudyDirectionModel.__table__)
study_user_attributes = cast("Table", models.StudyUserAttributeModel.__table__)
study_system_attributes = cast("Table", models.StudySystemAttributeModel.__table__)
trials = cast("Table", models.TrialModel.__table__)
trial_params = cast("Table", models.TrialParamModel.__table__)
trial_values = cast("Table", models.TrialValueModel.__table__)
trial_intermediate_values = cast("Table", models.TrialIntermediateValueModel.__table__)
trial_user_attributes = cast("Table", models.TrialUserAttributeModel.__table__)
trial_system_attributes = cast("Table", models.TrialSystemAttributeModel.__table__)
trial_heartbeats = cast("Table", models.TrialHeartbeatModel.__table__)
version_info = cast("Table", models.VersionInfoModel.__table__)
alembic_version = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))

TABLES = frozenset(models.BaseModel.metadata.tables) | {alembic_version.name}

_OF_TRIAL = (
    trial_params,
    trial_values,
    trial_intermediate_values,
    trial_user_attributes,
    trial_system_attributes,
    trial_heartbeats,
)
_OF_STUDY = (directions, study_user_attributes, study_system_attributes)

_STATES = {
    TrialState.WAITING: OptunaState.WAITING,
    TrialState.RUNNING: OptunaState.RUNNING,
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.DIVERGED: OptunaState.FAIL,
    TrialState.FAILED: OptunaState.FAIL,
}


def optuna_state(state: TrialState) -> OptunaState:
    """Return the state by which Optuna knows a trial."""
    return _STATES[state]


@lru_cache
def revisions() -> tuple[str, ...]:
    """Return the schema revisions that the installed Optuna knows, newest first."""
    from alembic.script import ScriptDirectory  # a fifth of a second, for new stores and unknown ones alone

    scripts = ScriptDirectory(str(Path(models.__file__).parent / "alembic"))
    return tuple(script.revision for script in scripts.walk_revisions())


def version() -> str:
    """Return the installed Optuna's version."""
    return str(optuna.__version__)


def create(connection: Connection) -> None:
    """Create Optuna's tables as Optuna does, with the rows by which it knows their revision."""
    models.BaseModel.metadata.create_all(connection)
    alembic_version.create(connection, checkfirst=True)
    connection.execute(
        insert(version_info),
        {"version_info_id": 1, "schema_version": models.SCHEMA_VERSION, "library_version": version()},
    )
    connection.execute(insert(alembic_version), {"version_num": REVISION})


# Studies.


def study_named(connection: Connection, name: str) -> int | None:
    """Return the id of the study of a name, None if there is none."""
    found: int | None = connection.scalar(select(studies.c.study_id).where(studies.c.study_name == name))
    return found


def study_of_uid(connection: Connection, uid: str) -> int | None:
    """Return the id of the study that bears the ledger's id of a study, None if there is none."""
    a = study_user_attributes
    found: int | None = connection.scalar(
        select(func.max(a.c.study_id)).where(a.c.key == STUDY_ATTRIBUTE, a.c.value_json == _json(uid))
    )
    return found


def description(connection: Connection, study_id: int) -> dict[str, Any] | None:
    """Return what the dashboard's list says of a study; None if it is not there."""
    query = select(studies.c.study_name).where(studies.c.study_id == study_id)
    name = connection.scalar(query)
    if name is None:
        return None
    ways = select(directions.c.direction).where(directions.c.study_id == study_id)
    a = study_user_attributes
    attributes = select(a.c.key, a.c.value_json).where(a.c.study_id == study_id)
    return {
        "study_id": study_id,
        "study_name": name,
        "directions": [way.name.lower() for way in connection.scalars(ways.order_by(directions.c.objective))],
        "user_attrs": [
            {"key": row.key, "value": str(json.loads(row.value_json))}
            for row in connection.execute(attributes)
        ],
        "is_preferential": False,
    }


def names(connection: Connection) -> dict[int, str]:
    """Return the names of all studies by their ids."""
    query = select(studies.c.study_id, studies.c.study_name)
    return {row.study_id: row.study_name for row in connection.execute(query)}


def rename_study(connection: Connection, study_id: int, name: str) -> None:
    """Give a study another name."""
    connection.execute(update(studies).where(studies.c.study_id == study_id).values(study_name=name))


def own_studies(connection: Connection) -> list[tuple[int, str]]:
    """Return id and name of each study that bears an id of the ledger's, or whose trials all bear a key."""
    a, b = study_user_attributes, trial_user_attributes
    uid = exists().where(a.c.study_id == studies.c.study_id, a.c.key == STUDY_ATTRIBUTE)
    some = exists().where(trials.c.study_id == studies.c.study_id)
    key = exists().where(b.c.trial_id == trials.c.trial_id, b.c.key == KEY_ATTRIBUTE)
    foreign = exists().where(trials.c.study_id == studies.c.study_id, ~key)
    query = select(studies.c.study_id, studies.c.study_name).where(uid | (some & ~foreign))
    return [(study_id, name) for study_id, name in connection.execute(query)]


def study_matches(optuna_id: ColumnElement[int], uid: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that Optuna's study is there and is the one that the ledger means."""
    a = study_user_attributes
    return exists().where(
        studies.c.study_id == optuna_id,
        a.c.study_id == studies.c.study_id,
        a.c.key == STUDY_ATTRIBUTE,
        a.c.value_json == _quoted(uid),
    )


def insert_study(connection: Connection, *, name: str, uid: str, metric: str, direction: str) -> int:
    """Insert a study with its direction and the name of its metric; return its id."""
    study_id = connection.execute(insert(studies), {"study_name": name}).inserted_primary_key
    assert study_id is not None
    row = {"study_id": study_id[0], "objective": 0, "direction": StudyDirection[direction.upper()]}
    connection.execute(insert(directions), row)
    set_study_user_attributes(connection, study_id[0], {STUDY_ATTRIBUTE: uid})
    name_metric(connection, study_id[0], metric)
    return int(study_id[0])


def name_metric(connection: Connection, study_id: int, metric: str) -> None:
    """Say what a study's value is."""
    set_study_system_attributes(connection, study_id, {_METRIC_NAMES: [metric]})


def set_study_user_attributes(connection: Connection, study_id: int, values: Mapping[str, Any]) -> None:
    """Set user attributes of a study."""
    rows = [{"study_id": study_id, "key": k, "value_json": _json(v)} for k, v in values.items()]
    upsert(connection, study_user_attributes, ("study_id", "key"), rows)


def study_user_attribute(connection: Connection, study_id: int, key: str) -> Any:
    """Return a user attribute of a study, None if it has none of that name."""
    a = study_user_attributes
    text = connection.scalar(select(a.c.value_json).where(a.c.study_id == study_id, a.c.key == key))
    return None if text is None else json.loads(text)


def set_study_system_attributes(connection: Connection, study_id: int, values: Mapping[str, Any]) -> None:
    """Set system attributes of a study."""
    rows = [{"study_id": study_id, "key": k, "value_json": _json(v)} for k, v in values.items()]
    upsert(connection, study_system_attributes, ("study_id", "key"), rows)


def delete_study(connection: Connection, study_id: int) -> None:
    """Delete a study and all that hangs on it."""
    of_study = select(trials.c.trial_id).where(trials.c.study_id == study_id)
    for table in _OF_TRIAL:
        connection.execute(delete(table).where(table.c.trial_id.in_(of_study)))
    connection.execute(delete(trials).where(trials.c.study_id == study_id))
    for table in _OF_STUDY:
        connection.execute(delete(table).where(table.c.study_id == study_id))
    connection.execute(delete(studies).where(studies.c.study_id == study_id))


# Trials.


def trial_matches(optuna_id: ColumnElement[int], key: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that Optuna's trial is there and bears the key: deleted ids come back."""
    a = trial_user_attributes
    return exists().where(
        trials.c.trial_id == optuna_id,
        a.c.trial_id == trials.c.trial_id,
        a.c.key == KEY_ATTRIBUTE,
        a.c.value_json == _quoted(key),
    )


def highest_number(connection: Connection, study_id: int) -> int:
    """Return the highest number of a study's trials, -1 if it has none."""
    found: int | None = connection.scalar(
        select(func.max(trials.c.number)).where(trials.c.study_id == study_id)
    )
    return -1 if found is None else found


def insert_trials(connection: Connection, study_id: int, *, first_number: int, count: int) -> list[int]:
    """Insert WAITING trials with consecutive numbers; return their ids in that order."""
    numbers = range(first_number, first_number + count)
    state = _STATES[TrialState.WAITING]
    connection.execute(insert(trials), [{"study_id": study_id, "number": n, "state": state} for n in numbers])
    query = select(trials.c.trial_id).where(trials.c.study_id == study_id, trials.c.number >= first_number)
    return [row[0] for row in connection.execute(query.order_by(trials.c.number))]


def keys_of_trials(connection: Connection, study_id: int) -> list[tuple[int, str]]:
    """Return id and key of every trial of a study that bears a key, by id."""
    a = trial_user_attributes
    query = (
        select(trials.c.trial_id, a.c.value_json)
        .join(a, (a.c.trial_id == trials.c.trial_id) & (a.c.key == KEY_ATTRIBUTE))
        .where(trials.c.study_id == study_id)
        .order_by(trials.c.trial_id)
    )
    return [(row[0], json.loads(row[1])) for row in connection.execute(query)]


def key_of_number(connection: Connection, study_id: int, number: int) -> str | None:
    """Return the key that a study's trial of a number bears, None if there is none."""
    a = trial_user_attributes
    query = (
        select(a.c.value_json)
        .join(trials, trials.c.trial_id == a.c.trial_id)
        .where(trials.c.study_id == study_id, trials.c.number == number, a.c.key == KEY_ATTRIBUTE)
    )
    found = connection.scalar(query)
    return None if found is None else str(json.loads(found))


def insert_params(
    connection: Connection,
    study_id: int,
    rows: Sequence[tuple[int, str, float]],
    distributions: Mapping[str, Callable[[float, float], str]],
) -> None:
    """Insert params that are not there yet, and give all rows of a param of the study one distribution.

    Args:
        connection: of a writing transaction.
        study_id: Optuna's id.
        rows: (trial id, name, value as Optuna keeps it).
        distributions: for each name what returns its distribution as JSON, from the least and the greatest
            value of its rows; it must read the stored values as before.
    """
    there = _spans(connection, study_id)
    spans = {name: (low, high) for name, low, high, _ in there}
    for _, name, value in rows:
        low, high = spans.get(name, (value, value))
        spans[name] = min(low, value), max(high, value)
    wanted = {name: distributions[name](*span) for name, span in spans.items() if name in distributions}
    of_study = select(trials.c.trial_id).where(trials.c.study_id == study_id)
    for name, _, _, texts in there:
        if name in wanted and texts != {wanted[name]}:
            all_rows = (trial_params.c.param_name == name, trial_params.c.trial_id.in_(of_study))
            connection.execute(update(trial_params).where(*all_rows).values(distribution_json=wanted[name]))
    values = [
        {"trial_id": i, "param_name": name, "param_value": value, "distribution_json": wanted[name]}
        for i, name, value in rows
    ]
    upsert(connection, trial_params, ("trial_id", "param_name"), values, overwrite=False)


def _spans(connection: Connection, study_id: int) -> list[tuple[str, float, float, set[str]]]:
    """Return name, least and greatest value of each param of a study, and the distributions of its rows."""
    p = trial_params
    bounds = (func.min(p.c.param_value), func.max(p.c.param_value))
    texts = (func.min(p.c.distribution_json), func.max(p.c.distribution_json))
    query = (
        select(p.c.param_name, *bounds, *texts)
        .join(trials, trials.c.trial_id == p.c.trial_id)
        .where(trials.c.study_id == study_id)
        .group_by(p.c.param_name)
    )
    return [(name, low, high, {first, last}) for name, low, high, first, last in connection.execute(query)]


def delete_params(connection: Connection, study_id: int, *, param: str) -> None:
    """Delete all rows of a param."""
    of_study = select(trials.c.trial_id).where(trials.c.study_id == study_id)
    connection.execute(
        delete(trial_params).where(trial_params.c.param_name == param, trial_params.c.trial_id.in_(of_study))
    )


def set_user_attributes(connection: Connection, values: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
    """Set user attributes of trials; a number that is not finite becomes null, which JSON can hold."""
    rows = [
        {"trial_id": trial_id, "key": k, "value_json": _json(v)}
        for trial_id, attributes in values
        for k, v in attributes.items()
    ]
    upsert(connection, trial_user_attributes, ("trial_id", "key"), rows)


def set_states(connection: Connection, trial_ids: Sequence[int], state: TrialState) -> None:
    """Set the state of trials, and the times that go with it (naive UTC, as Optuna keeps them)."""
    if not trial_ids:
        return
    now = datetime.now(UTC).replace(tzinfo=None)
    values: dict[str, Any] = {"state": _STATES[state]}
    if state is TrialState.WAITING:
        values |= {"datetime_start": None, "datetime_complete": None}
    elif state is TrialState.RUNNING:
        values |= {"datetime_start": now, "datetime_complete": None}
    else:
        values |= {"datetime_complete": now}
    statement = update(trials).where(trials.c.trial_id == bindparam("of_trial")).values(values)
    connection.execute(statement, [{"of_trial": i} for i in trial_ids])


def states(connection: Connection, study_id: int) -> dict[int, OptunaState]:
    """Return the states of a study's trials by their ids."""
    query = select(trials.c.trial_id, trials.c.state).where(trials.c.study_id == study_id)
    return {row.trial_id: row.state for row in connection.execute(query)}


def set_values(connection: Connection, values: Iterable[tuple[int, float]]) -> None:
    """Set the objective value of trials."""
    rows = []
    for trial_id, value in values:
        stored, kind = models.TrialValueModel.value_to_stored_repr(value)
        rows.append({"trial_id": trial_id, "objective": 0, "value": stored, "value_type": kind})
    upsert(connection, trial_values, ("trial_id", "objective"), rows)


def set_intermediate_values(connection: Connection, values: Iterable[tuple[int, int, float]]) -> None:
    """Set intermediate values as (trial id, step, value); NaN and infinity as Optuna keeps them."""
    rows = []
    for trial_id, step, value in values:
        stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
        rows.append(
            {
                "trial_id": trial_id,
                "step": step,
                "intermediate_value": stored,
                "intermediate_value_type": kind,
            }
        )
    upsert(connection, trial_intermediate_values, ("trial_id", "step"), rows)


def intermediate_values(connection: Connection, trial_ids: Sequence[int]) -> dict[int, dict[int, float]]:
    """Return the intermediate values of trials by id and step."""
    t = trial_intermediate_values
    found: dict[int, dict[int, float]] = {}
    query = select(t.c.trial_id, t.c.step, t.c.intermediate_value, t.c.intermediate_value_type)
    read = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
    for trial_id, step, stored, kind in connection.execute(query.where(t.c.trial_id.in_(trial_ids))):
        found.setdefault(trial_id, {})[step] = read(stored, kind)
    return found


def delete_intermediate_values(connection: Connection, trial_ids: Sequence[int]) -> None:
    """Delete the intermediate values of trials."""
    if trial_ids:
        statement = delete(trial_intermediate_values).where(
            trial_intermediate_values.c.trial_id == bindparam("of_trial")
        )
        connection.execute(statement, [{"of_trial": i} for i in trial_ids])


def set_artifact(
    connection: Connection, *, study_id: int, trial_id: int | None, meta: Mapping[str, str | None]
) -> None:
    """Register a file of Optuna's artifact store with a trial, or with the study."""
    key = _ARTIFACT_PREFIX + cast("str", meta["artifact_id"])
    text = json.dumps(dict(meta))  # Optuna keeps a JSON text within JSON
    if trial_id is None:
        set_study_system_attributes(connection, study_id, {key: text})
    else:
        row = {"trial_id": trial_id, "key": key, "value_json": _json(text)}
        upsert(connection, trial_system_attributes, ("trial_id", "key"), [row])


def upsert(
    connection: Connection,
    table: Table,
    unique: tuple[str, ...],
    rows: Sequence[Mapping[str, Any]],
    *,
    overwrite: bool = True,
) -> None:
    """Insert rows; those that are there already are overwritten, or left alone."""
    if rows:
        statement = _upsert(connection.dialect.name, table, unique, tuple(rows[0]) if overwrite else ())
        connection.execute(statement, list(rows))


@lru_cache
def _upsert(dialect: str, table: Table, unique: tuple[str, ...], columns: tuple[str, ...]) -> Any:
    # Built once: to build a statement takes as long as to execute it.
    statement = (postgresql if dialect == "postgresql" else sqlite).insert(table)
    changed = {name: statement.excluded[name] for name in columns if name not in unique}
    if changed:
        return statement.on_conflict_do_update(index_elements=unique, set_=changed)
    return statement.on_conflict_do_nothing(index_elements=unique)


def _quoted(text: ColumnElement[str]) -> ColumnElement[str]:
    """Return the JSON of a text that needs no escapes: a key, an id."""
    return literal('"') + text + literal('"')


def _json(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        value = None
    return json.dumps(value)
