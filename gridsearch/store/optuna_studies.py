"""Writes and reads studies in Optuna's tables, on a connection of the caller's transaction."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy import Connection, case, delete, exists, func, insert, select, update

from gridsearch.errors import valid_text
from gridsearch.store.optuna_tables import (
    KEY_ATTRIBUTE,
    OF_STUDY,
    OF_TRIAL,
    STUDY_ATTRIBUTE,
    directions,
    quoted,
    studies,
    study_system_attributes,
    study_user_attributes,
    to_json,
    trial_system_attributes,
    trial_user_attributes,
    trials,
    upsert,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.sql.elements import ColumnElement

_OPEN = (TrialState.WAITING, TrialState.RUNNING)
_ARTIFACT_PREFIX = "artifacts:"
_METRIC_NAMES = "study:metric_names"


def study_named(connection: Connection, name: str) -> int | None:
    """Return the id of the study of a name, None if there is none."""
    found: int | None = connection.scalar(
        select(studies.c.study_id).where(studies.c.study_name == valid_text(name))
    )
    return found


def study_of_uid(connection: Connection, uid: str) -> int | None:
    """Return the id of the study that bears the ledger's id of a study, None if there is none."""
    a = study_user_attributes
    found: int | None = connection.scalar(
        select(func.max(a.c.study_id)).where(a.c.key == STUDY_ATTRIBUTE, a.c.value_json == to_json(uid))
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


def is_whole(connection: Connection, study_id: int) -> bool:
    """Return whether a study that bears an id of the ledger's has ended trials alone, and lacks none up to its last.

    Such a one was copied by another program, from here or from another store: a deletion would have left it otherwise.
    """
    query = select(
        func.count(trials.c.trial_id),
        func.max(trials.c.number),
        func.sum(case((trials.c.state.in_(_OPEN), 1), else_=0)),
    ).where(trials.c.study_id == study_id)
    count, last, unfinished = connection.execute(query).one()
    uid = study_user_attribute(connection, study_id, STUDY_ATTRIBUTE)
    return uid is not None and count > 0 and last + 1 == count and not unfinished


def study_matches(optuna_id: ColumnElement[int], uid: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that Optuna's study is there and is the one that the ledger means."""
    a = study_user_attributes
    return exists().where(
        studies.c.study_id == optuna_id,
        a.c.study_id == studies.c.study_id,
        a.c.key == STUDY_ATTRIBUTE,
        a.c.value_json == quoted(uid),
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
    rows = [{"study_id": study_id, "key": k, "value_json": to_json(v)} for k, v in values.items()]
    upsert(connection, study_user_attributes, ("study_id", "key"), rows)


def study_user_attribute(connection: Connection, study_id: int, key: str) -> Any:
    """Return a user attribute of a study, None if it has none of that name."""
    a = study_user_attributes
    text = connection.scalar(select(a.c.value_json).where(a.c.study_id == study_id, a.c.key == key))
    return None if text is None else json.loads(text)


def set_study_system_attributes(connection: Connection, study_id: int, values: Mapping[str, Any]) -> None:
    """Set system attributes of a study."""
    rows = [{"study_id": study_id, "key": k, "value_json": to_json(v)} for k, v in values.items()]
    upsert(connection, study_system_attributes, ("study_id", "key"), rows)


def set_artifact(
    connection: Connection, *, study_id: int, trial_id: int | None, meta: Mapping[str, str | None]
) -> None:
    """Register a file of Optuna's artifact store with a trial, or with the study."""
    key = _ARTIFACT_PREFIX + cast("str", meta["artifact_id"])
    text = json.dumps(dict(meta))  # Optuna keeps a JSON text within JSON
    if trial_id is None:
        set_study_system_attributes(connection, study_id, {key: text})
    else:
        row = {"trial_id": trial_id, "key": key, "value_json": to_json(text)}
        upsert(connection, trial_system_attributes, ("trial_id", "key"), [row])


def delete_study(connection: Connection, study_id: int) -> None:
    """Delete a study and all that hangs on it."""
    of_study = select(trials.c.trial_id).where(trials.c.study_id == study_id)
    for table in OF_TRIAL:
        connection.execute(delete(table).where(table.c.trial_id.in_(of_study)))
    connection.execute(delete(trials).where(trials.c.study_id == study_id))
    for table in OF_STUDY:
        connection.execute(delete(table).where(table.c.study_id == study_id))
    connection.execute(delete(studies).where(studies.c.study_id == study_id))
