"""Writes and reads trials with their params and values in Optuna's tables, in the caller's transaction."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from optuna.storages._rdb import models
from sqlalchemy import Connection, bindparam, case, delete, exists, func, insert, select, update

from gridsearch.records import TrialState
from gridsearch.store.optuna_tables import (
    KEY_ATTRIBUTE,
    optuna_state,
    quoted,
    to_json,
    trial_intermediate_values,
    trial_params,
    trial_user_attributes,
    trial_values,
    trials,
    upsert,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from optuna.trial import TrialState as OptunaState
    from sqlalchemy.sql.elements import ColumnElement


def trial_matches(optuna_id: ColumnElement[int], key: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that Optuna's trial is there and bears the key: deleted ids come back."""
    a = trial_user_attributes
    return exists().where(
        trials.c.trial_id == optuna_id,
        a.c.trial_id == trials.c.trial_id,
        a.c.key == KEY_ATTRIBUTE,
        a.c.value_json == quoted(key),
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
    state = optuna_state(TrialState.WAITING)
    connection.execute(insert(trials), [{"study_id": study_id, "number": n, "state": state} for n in numbers])
    query = select(trials.c.trial_id).where(trials.c.study_id == study_id, trials.c.number >= first_number)
    return [row[0] for row in connection.execute(query.order_by(trials.c.number))]


def count(connection: Connection, study_id: int) -> int:
    """Return how many trials a study has."""
    return int(connection.scalar(select(func.count()).where(trials.c.study_id == study_id)) or 0)


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
        {"trial_id": trial_id, "key": k, "value_json": to_json(v)}
        for trial_id, attributes in values
        for k, v in attributes.items()
    ]
    upsert(connection, trial_user_attributes, ("trial_id", "key"), rows)


def set_states(connection: Connection, trial_ids: Sequence[int], state: TrialState) -> None:
    """Set the state of trials, and the times that go with it (naive UTC, as Optuna keeps them)."""
    if not trial_ids:
        return
    now = datetime.now(UTC).replace(tzinfo=None)
    values: dict[str, Any] = {"state": optuna_state(state)}
    if state is TrialState.WAITING:
        values |= {"datetime_start": None, "datetime_complete": None}
    elif state is TrialState.RUNNING:
        values |= {"datetime_start": now, "datetime_complete": None}
    else:
        # A clock that was set back meanwhile would let the trial end before it began.
        before = trials.c.datetime_start
        values |= {"datetime_complete": case((before > now, before), else_=now)}
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


def delete_intermediate_values(connection: Connection, after: Mapping[int, int]) -> None:
    """Delete the intermediate values of trials after these steps."""
    if after:
        table = trial_intermediate_values
        statement = delete(table).where(
            table.c.trial_id == bindparam("of_trial"), table.c.step > bindparam("after")
        )
        connection.execute(statement, [{"of_trial": i, "after": step} for i, step in after.items()])
