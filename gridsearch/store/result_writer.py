"""Writes what workers report (epochs, results, failures) to the ledger and to Optuna's tables.

A write names its attempt; that of a worker which has lost its lease finds no row and changes nothing.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, bindparam

from gridsearch.records import (
    Advance,
    FileRef,
    StepEnded,
    TrialFailed,
    TrialFinished,
    TrialResumed,
    TrialState,
)
from gridsearch.store import dashboard_artifacts, ledger_tables, optuna_tables, optuna_trials
from gridsearch.store.claims import fence, fenced_update, held, keep_epochs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gridsearch.store.artifacts import Home
    from gridsearch.store.dashboard_artifacts import DashboardFile

_EPOCH_COLUMNS = (
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "lr",
    "seconds",
    "images_per_second",
)
_ERROR_SHOWN = 200
_SET_EPOCHS = fenced_update().values(epochs=bindparam("epoch"))


def record_epochs(connection: Connection, events: Sequence[Advance]) -> int:
    """Write epochs and steps of several trials; return how many were accepted.  The same one twice is one."""
    rows = {(row.id, row.attempt): row for row in held(connection, ((e.trial, e.attempt) for e in events))}
    accepted = {(e.trial, e.epoch): e for e in events if (e.trial, e.attempt) in rows}
    if not accepted:
        return 0
    epochs, steps, shown = [], [], []
    latest: dict[int, dict[str, Any]] = {}
    for e in accepted.values():
        row = rows[e.trial, e.attempt]
        if isinstance(e, StepEnded):
            text = json.dumps(dict(e.metrics))
            steps.append({"trial_id": e.trial, "step": e.step, "metrics": text, "seconds": e.seconds})
        else:
            columns = {name: getattr(e, name) for name in _EPOCH_COLUMNS}
            epochs.append({"trial_id": e.trial, "epoch": e.epoch, **columns})
        value = e.value(row.metric)
        if value is not None:
            shown.append((row.optuna_id, e.epoch, value))
        latest[e.trial] = {
            **fence(row),
            "epoch": max(e.epoch, latest.get(e.trial, {"epoch": row.epochs})["epoch"]),
        }
    optuna_tables.upsert(connection, ledger_tables.epochs, ("trial_id", "epoch"), epochs)
    optuna_tables.upsert(connection, ledger_tables.steps, ("trial_id", "step"), steps)
    optuna_trials.set_intermediate_values(connection, shown)
    connection.execute(_SET_EPOCHS, list(latest.values()))
    return len(accepted)


def resume(connection: Connection, events: Sequence[TrialResumed]) -> int:
    """Write the epochs or steps that checkpoints hold and delete later ones; return how many trials were accepted."""
    rows = {(row.id, row.attempt): row for row in held(connection, ((e.trial, e.attempt) for e in events))}
    accepted = [e for e in events if (e.trial, e.attempt) in rows]
    if accepted:
        upto = {e.trial: e.epoch for e in accepted}
        keep_epochs(connection, [rows[e.trial, e.attempt] for e in accepted], upto)
        record_epochs(connection, [row for e in accepted for row in e.rows])
    return len(accepted)


def write_results(
    connection: Connection,
    events: Sequence[TrialFinished | TrialFailed],
    *,
    home: Home,
    copies: Mapping[int, Sequence[DashboardFile]] | None = None,
) -> list[bool]:
    """Write how trials ended and move the files that come with it to their places; say which were accepted.

    Args:
        connection: of a writing transaction.
        events: results and failures.
        home: the files.
        copies: what the dashboard shows, by trial.
    """
    rows = {(row.id, row.attempt): row for row in held(connection, ((e.trial, e.attempt) for e in events))}
    ended: list[_Ended] = []
    accepted = []
    for e in events:
        row = rows.pop((e.trial, e.attempt), None)  # popped: a result counts once
        accepted.append(row is not None)
        if row is None:
            continue
        if isinstance(e, TrialFailed):
            ended.append(_Ended(row, TrialState.FAILED, row.epochs, error=e.message, reason=e.reason))
        else:
            ended.append(_finished(row, e))
    if ended:
        _move_files(home, ended)
        _write_trials(connection, ended)
        _write_files(connection, [(each.row, ref) for each in ended for ref in each.files])
        for row in (each.row for each in ended):
            files = [(file, row.optuna_id) for file in (copies or {}).get(row.id, ())]
            dashboard_artifacts.register(connection, files, study_id=row.study_id, optuna_id=row.optuna_study)
    return accepted


@dataclass(frozen=True, slots=True)
class _Ended:
    """A trial that has ended, as it is written; `metrics` is None for one that failed."""

    row: Row[Any]
    state: TrialState
    epochs: int
    seconds: float | None = None
    metrics: Mapping[str, float] | None = None
    error: str | None = None
    reason: str | None = None
    files: Sequence[FileRef] = ()

    @property
    def value(self) -> float | None:
        """The value that ranks it; a trial that failed or diverged has none."""
        ranked = self.state in (TrialState.COMPLETE, TrialState.PRUNED)
        return (self.metrics or {}).get(self.row.metric) if ranked else None


def _finished(row: Row[Any], e: TrialFinished) -> _Ended:
    """Return a result as it is written: one that has no finite value is never ranked."""
    value = e.metrics.get(row.metric)
    assert e.state.ended and (value is not None or e.state is not TrialState.COMPLETE), e
    state, message = e.state, e.message
    if state is TrialState.COMPLETE and not math.isfinite(value or 0.0):
        state, message = TrialState.DIVERGED, message or f"{row.metric} is {value}"
    return _Ended(row, state, e.epochs, e.seconds, e.metrics, message, e.pruner, e.files)


def _write_trials(connection: Connection, ended: Sequence[_Ended]) -> None:
    columns = ("state", "value", "metrics", "epochs", "seconds", "error", "reason")
    changes = []
    by_state: dict[TrialState, list[int]] = {}
    for each in ended:
        values = {f"to_{name}": getattr(each, name) for name in columns}
        values["to_metrics"] = None if each.metrics is None else json.dumps(dict(each.metrics))
        changes.append(fence(each.row) | values)
        by_state.setdefault(each.state, []).append(each.row.optuna_id)
    to: dict[str, Any] = {name: bindparam(f"to_{name}") for name in columns}
    connection.execute(fenced_update().values(to | {"lease_until": None}), changes)
    optuna_trials.set_values(
        connection, [(each.row.optuna_id, each.value) for each in ended if each.value is not None]
    )
    optuna_trials.set_user_attributes(connection, [(each.row.optuna_id, _attributes(each)) for each in ended])
    for state, optuna_ids in by_state.items():
        optuna_trials.set_states(connection, optuna_ids, state)


def _attributes(ended: _Ended) -> dict[str, Any]:
    """Return the user attributes of a trial that has ended, the same keys for all.

    A function may call a metric what we call something else ("seconds"): it is then shown as "metrics.seconds".
    """
    shown: dict[str, Any] = {
        "outcome": ended.state.value,
        "epochs": ended.epochs,
        "seconds": None if ended.seconds is None else round(ended.seconds, 3),
    }
    taken = {*shown, "error", "seed", "fold", optuna_tables.KEY_ATTRIBUTE}
    for name, value in (ended.metrics or {}).items():
        rounded = float(f"{value:.12g}") if math.isfinite(value) else None  # in any unit
        shown[f"metrics.{name}" if name in taken else name] = rounded
    return shown | ({"error": ended.error[:_ERROR_SHOWN]} if ended.error else {})


def _move_files(home: Home, ended: Sequence[_Ended]) -> None:
    pairs = []
    for row, files in ((each.row, each.files) for each in ended):
        scratch = home.scratch(row.study, row.number, row.attempt)
        pairs += [(scratch / ref.name, home.trial_file(row.study, row.number, ref.name)) for ref in files]
    home.move_verified(pairs)


def _write_files(connection: Connection, files: Sequence[tuple[Row[Any], FileRef]]) -> None:
    rows = [
        {
            "study_id": row.study_id,
            "number": row.number,
            "name": ref.name,
            "sha256": ref.sha256,
            "size": ref.size,
        }
        for row, ref in files
    ]
    optuna_tables.upsert(connection, ledger_tables.artifacts, ("study_id", "number", "name"), rows)
