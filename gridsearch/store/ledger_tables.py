"""The ledger's tables, beside Optuna's in the same database; what is in them decides, Optuna's rows follow.

No foreign key leads into Optuna's tables: others delete there, and must be able to.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.sql.functions import FunctionElement

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Dialect

T = TypeVar("T")

REVISION = 2
"""Revision of what is written; raised whenever an older version could not read it as it is meant.

2: the distributions of Optuna's params span the study's values.
"""

CHUNK = 500
"""Ids in one statement: databases limit the number of variables."""

OF_STUDY = -1
"""Stands for the study itself where a file belongs to a trial's number: NULLs would not be unique."""

metadata = MetaData()


class Number(TypeDecorator[float]):
    """A number that may be missing, and is where it is no number: SQLite keeps NaN as NULL, so all databases do."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:  # noqa: ARG002
        """Return what is stored."""
        return None if value is None or math.isnan(value) else value


schema = Table(
    "gridsearch_schema", metadata, Column("revision", Integer, primary_key=True, autoincrement=False)
)

studies = Table(
    "gridsearch_studies",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("uid", String(32), nullable=False),  # also a user attribute of Optuna's study: its ids are reused
    Column("optuna_id", Integer, nullable=False),
    Column("dataset", Text, nullable=False),
    Column("metric", Text, nullable=False),
    Column("direction", String(16), nullable=False),
    Column("created", Double, nullable=False),  # seconds since 1970
    # axes with their kinds, and what all trials share: see params.StudyAxes
    Column("shown", Text, nullable=False),
    Column("class_names", Text, nullable=False),
    Column("commands", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("next_number", Integer, nullable=False),  # never falls: a number's folder is never used twice
    Column("note_version", Integer, nullable=False),
    sqlite_autoincrement=True,
)

data = Table(  # what is known of images, see records.DataFacts; an older store gets it when it is opened
    "gridsearch_data",
    metadata,
    Column("study_id", ForeignKey(studies.c.id, ondelete="CASCADE"), primary_key=True),
    Column("fingerprint", String(64), primary_key=True),
    Column("facts", Text, nullable=False),  # JSON
    sqlite_with_rowid=False,
)

runners = Table(
    "gridsearch_runners",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("host", Text, nullable=False),
    Column("boot", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started", Double, nullable=False),
    Column("seen", Double, nullable=False),
    sqlite_autoincrement=True,
)

trials = Table(
    "gridsearch_trials",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey(studies.c.id, ondelete="CASCADE"), nullable=False),
    Column("key", String(64), nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("settings", Text, nullable=False),  # canonical JSON
    Column("inactive", Text, nullable=False),  # JSON: axes that a condition takes away
    Column("state", String(16), nullable=False),
    Column("optuna_id", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    Column("attempt", Integer, nullable=False, default=0),  # fencing token: only ever grows
    Column("tries", Integer, nullable=False, default=0),  # claims since it was offered, but for released ones
    Column("runner_id", ForeignKey(runners.c.id)),
    Column("pack", Text),
    Column("lease_until", Double),  # by the store's clock
    Column("epochs", Integer, nullable=False, default=0),
    Column("value", Number),
    Column("metrics", Text),
    Column("seconds", Number),
    Column("reason", Text),
    Column("error", Text),
    UniqueConstraint("study_id", "key"),  # this, not a check before an insert, makes a point run once
    Index("gridsearch_trials_by_state", "study_id", "state"),
    Index("gridsearch_trials_by_runner", "runner_id"),
    sqlite_autoincrement=True,
)

epochs = Table(
    "gridsearch_epochs",
    metadata,
    Column("trial_id", ForeignKey(trials.c.id, ondelete="CASCADE"), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("train_loss", Number),  # see study_queries.epoch_row
    Column("train_accuracy", Number),
    Column("val_loss", Number),
    Column("val_accuracy", Number),
    Column("lr", Number),
    Column("seconds", Number),
    Column("images_per_second", Number),
    sqlite_with_rowid=False,
)

steps = Table(  # of plain functions; a store from before there were any gets it when it is opened
    "gridsearch_steps",
    metadata,
    Column("trial_id", ForeignKey(trials.c.id, ondelete="CASCADE"), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("metrics", Text, nullable=False),  # JSON, with NaN and Infinity
    Column("seconds", Number),
    sqlite_with_rowid=False,
)

artifacts = Table(
    "gridsearch_artifacts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey(studies.c.id, ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),  # the trial's, or OF_STUDY
    Column("name", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("optuna_artifact", String(36)),  # where the dashboard shows a copy of it
    UniqueConstraint("study_id", "number", "name"),
    sqlite_autoincrement=True,
)

stops = Table(  # requests that a study's runners stop; a store from before gets it when it is opened
    "gridsearch_stops",
    metadata,
    Column("study_id", ForeignKey(studies.c.id, ondelete="CASCADE"), primary_key=True),
    Column("asked", Integer, nullable=False),  # how often
    Column("at_once", Boolean, nullable=False),
    sqlite_with_rowid=False,
)

LATER = frozenset({data, steps, stops})
"""The tables that a store of this revision may lack: versions before did not make them."""


def chunks(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut ids, or rows, into pieces that fit a statement."""
    for start in range(0, len(rows), CHUNK):
        yield rows[start : start + CHUNK]


class StoreNow(FunctionElement[float]):
    """The store's clock in seconds since 1970: one clock for all who share a store; dialects say how it is read."""

    type = Float()
    inherit_cache = True
    name = "store_now"
