"""Optuna's tables and how rows come into them; with optuna_studies and optuna_trials all that knows their schema.

Rows are written directly: Optuna's own calls take milliseconds each, commit each, and refuse a categorical
that grows.  Everything here runs on a connection of the caller's transaction.
"""

from __future__ import annotations

import json
import math
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import optuna
from optuna.storages._rdb import models
from optuna.trial import TrialState as OptunaState
from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    String,
    Table,
    insert,
    literal,
)
from sqlalchemy.dialects import sqlite

from gridsearch.records import TrialState
from gridsearch.store import ledger_tables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.sql.elements import ColumnElement

REVISION = "v3.2.0.a"
"""The one schema revision of Optuna whose rows this module writes."""

SUPPORTED = ">=5.0,<5.1"
"""The versions of Optuna that the conformance tests have passed on; pyproject.toml asks for the same."""

KEY_ATTRIBUTE = "key"
STUDY_ATTRIBUTE = "gridsearch"

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

metadata = models.BaseModel.metadata
MODELS = tuple(metadata.tables.values())

OF_TRIAL = (
    trial_params,
    trial_values,
    trial_intermediate_values,
    trial_user_attributes,
    trial_system_attributes,
    trial_heartbeats,
)
OF_STUDY = (directions, study_user_attributes, study_system_attributes)

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


_NAMED = re.compile(r"""^(revision|down_revision)\b[^=\n]*= *["']([^"']+)["']""", re.MULTILINE)


@lru_cache
def revisions() -> tuple[str, ...]:
    """Return the schema revisions that the installed Optuna knows, newest first.

    As its scripts say, each of which names the one before; alembic would import all of them, 0.1 s of each new store.
    """
    before: dict[str, str] = {}
    for script in (Path(models.__file__).parent / "alembic" / "versions").glob("*.py"):
        named = dict(_NAMED.findall(script.read_text("utf-8")))
        before[named["revision"]] = named.get("down_revision", "")
    found = [*(before.keys() - before.values())]
    while found and (earlier := before.get(found[-1])):
        found.append(earlier)
    return tuple(found)


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


def counted() -> list[tuple[str, Column[Any]]]:
    """Return each table of a store that counts its ids, Optuna's and the ledger's, with the column of the ids."""
    tables = (*MODELS, *ledger_tables.metadata.tables.values())
    return [
        (table.name, column)
        for table in tables
        if (column := table.autoincrement_column) is not None and table is not version_info
    ]


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
    statement: Any = sqlite.insert(table)
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql  # all its drivers, a sixth of what `status` takes

        statement = postgresql.insert(table)
    changed = {name: statement.excluded[name] for name in columns if name not in unique}
    if changed:
        return statement.on_conflict_do_update(index_elements=unique, set_=changed)
    return statement.on_conflict_do_nothing(index_elements=unique)


def quoted(text: ColumnElement[str]) -> ColumnElement[str]:
    """Return the JSON of a text that needs no escapes: a key, an id."""
    return literal('"') + text + literal('"')


def to_json(value: Any) -> str:
    """Return a value as Optuna keeps it; a number that is not finite becomes null, which JSON can hold."""
    if isinstance(value, float) and not math.isfinite(value):
        value = None
    return json.dumps(value)
