"""Optuna's storage for a viewer that asks every few seconds: only trials that have changed are read again.

Optuna's own reads a study whole each time, 0.6 ms a trial on a laptop's core, which it takes from the training
beside it; its cache never reads a finished trial again, though a grid that grows adds params to those too.
"""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from optuna.storages import RDBStorage
from optuna.trial import TrialState as OptunaState
from sqlalchemy import Connection, func, select
from sqlalchemy.pool import NullPool

from gridsearch.store import ledger_tables, optuna_tables
from gridsearch.store.database import short_lived

if TYPE_CHECKING:
    from collections.abc import Container

    from optuna.trial import FrozenTrial

    from gridsearch.store.database import Dialect

_MANY = 100
"""So many changed trials are read faster with the whole study: one at a time costs ten times as much each."""


@dataclass(slots=True)
class _CachedStudy:
    """A study as it was read last.

    Attributes:
        version: changes whenever trials of any state may have changed.
        trials: by Optuna's id.
        files: how many files are shown with those that have any, by Optuna's id; pictures come after the result.
    """

    version: tuple[Any, ...] | None = None
    trials: dict[int, FrozenTrial] = field(default_factory=dict)
    files: dict[int, int] = field(default_factory=dict)


class ViewerStorage(RDBStorage):
    """Optuna's storage on a store's database.

    Args:
        dialect: what kind of database it is and where.
    """

    def __init__(self, dialect: Dialect) -> None:
        # A connection of ours waits for a writer as long as we do; Optuna's own gives up after 5 s.
        super().__init__(
            dialect.sqlalchemy_url,
            engine_kwargs={"creator": dialect.connect_others, "poolclass": NullPool},
            skip_compatibility_check=True,
            skip_table_creation=True,
        )
        self._database = short_lived(dialect)
        self._seen: dict[int, _CachedStudy] = {}
        self._lock = threading.Lock()

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[OptunaState] | None = None,
    ) -> list[FrozenTrial]:
        """Return the trials of a study by number, those alone that may have changed read anew.

        Raises:
            KeyError: there is no such study.
        """
        with self._lock:
            found = self._refresh(study_id)
        trials = [trial for trial in found if states is None or trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def _refresh(self, study_id: int) -> list[FrozenTrial]:
        with self._database.read() as connection:
            version = _version(connection, study_id)
            t = optuna_tables.trials
            query = select(t.c.trial_id, t.c.state).where(t.c.study_id == study_id).order_by(t.c.number)
            now = {row.trial_id: row.state for row in connection.execute(query)}
            files = _files(connection, study_id)
        seen = self._seen.setdefault(study_id, _CachedStudy())
        changed = [
            i
            for i, state in now.items()
            if _changed(seen.trials.get(i), state) or files.get(i) != seen.files.get(i)
        ]
        if not now or version != seen.version or len(changed) > _MANY:
            trials = {trial._trial_id: trial for trial in super().get_all_trials(study_id, deepcopy=False)}
        else:
            trials = {i: seen.trials[i] for i in now if i in seen.trials}
            for i in changed:
                try:
                    trials[i] = self.get_trial(i)
                except KeyError:  # deleted at this moment
                    trials.pop(i, None)
        self._seen[study_id] = _CachedStudy(version, trials, files)
        return sorted(trials.values(), key=lambda trial: trial.number)


def _changed(before: FrozenTrial | None, state: OptunaState) -> bool:
    return before is None or before.state is not state or state is OptunaState.RUNNING


def _files(connection: Connection, study_id: int) -> dict[int, int]:
    """Return how many files are shown with each trial of a study that has any."""
    a, t, s = ledger_tables.artifacts, ledger_tables.trials, ledger_tables.studies
    query = (
        select(t.c.optuna_id, func.count())
        .join(s, s.c.id == t.c.study_id)
        .join(a, (a.c.study_id == t.c.study_id) & (a.c.number == t.c.number))
        .where(s.c.optuna_id == study_id, a.c.optuna_artifact.is_not(None))
        .group_by(t.c.optuna_id)
    )
    return {row.optuna_id: row[1] for row in connection.execute(query)}


def _version(connection: Connection, study_id: int) -> tuple[Any, ...] | None:
    """Return what changes when a run adds to a study, which may give every trial of it another param."""
    s = ledger_tables.studies
    columns = (s.c.uid, s.c.shown, s.c.commands, s.c.spec, s.c.next_number)
    row = connection.execute(select(*columns).where(s.c.optuna_id == study_id)).one_or_none()
    return None if row is None else tuple(row)
