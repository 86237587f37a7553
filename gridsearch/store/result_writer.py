"""Writes what workers report (epochs, results, failures) to the ledger and to Optuna's tables.

A write names its attempt; that of a worker which has lost its lease finds no row and changes nothing.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, bindparam

from gridsearch.records import Advance, FileRef, StepEnded, TrialFailed, TrialFinished, TrialState
from gridsearch.store import dashboard_artifacts, ledger_tables, optuna_tables
from gridsearch.store.claims import fence, fenced_update, held

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
_NOBODY = {"lease_until": None}
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
    optuna_tables.set_intermediate_values(connection, shown)
    connection.execute(_SET_EPOCHS, list(latest.values()))
    return len(accepted)


def finish(
    connection: Connection,
    events: Sequence[TrialFinished],
    *,
    home: Home,
    copies: Mapping[int, Sequence[DashboardFile]] | None = None,
) -> list[bool]:
    """Write results and move the files that come with them to their places; say which were accepted.

    Args:
        connection: of a writing transaction.
        events: the results.
        home: the files.
        copies: what the dashboard shows, by trial.
    """
    rows = {(row.id, row.attempt): row for row in held(connection, ((e.trial, e.attempt) for e in events))}
    accepted: list[tuple[Row[Any], TrialFinished, TrialState, str | None]] = []
    taken = []
    for e in events:
        row = rows.pop((e.trial, e.attempt), None)  # popped: a result counts once
        taken.append(row is not None)
        if row is not None:
            state, message = _outcome(e, row.metric)
            accepted.append((row, e, state, message))
            _move_files(home, row, e.files)
    if accepted:
        _write_results(connection, accepted)
        _write_files(connection, [(row, ref) for row, e, _, _ in accepted for ref in e.files])
        for row, *_ in accepted:
            files = [(file, row.optuna_id) for file in (copies or {}).get(row.id, ())]
            dashboard_artifacts.register(connection, files, study_id=row.study_id, optuna_id=row.optuna_study)
    return taken


def _outcome(event: TrialFinished, metric: str) -> tuple[TrialState, str | None]:
    """Return the state of a result: one that has no finite value is never ranked."""
    value = event.metrics.get(metric)
    assert event.state.ended and (value is not None or event.state is not TrialState.COMPLETE), event
    if event.state is TrialState.COMPLETE and not math.isfinite(value or 0.0):
        return TrialState.DIVERGED, event.message or f"{metric} is {value}"
    return event.state, event.message


def _write_results(
    connection: Connection, results: Sequence[tuple[Row[Any], TrialFinished, TrialState, str | None]]
) -> None:
    changes, values, attributes = [], [], []
    by_state: dict[TrialState, list[int]] = {}
    for row, e, state, message in results:
        value = e.metrics.get(row.metric) if state in (TrialState.COMPLETE, TrialState.PRUNED) else None
        changes.append(
            {
                **fence(row),
                "to_state": state,
                "to_value": value,
                "to_metrics": json.dumps(dict(e.metrics)),
                "to_epochs": e.epochs,
                "to_seconds": e.seconds,
                "to_error": message,
                "to_reason": e.pruner,
            }
        )
        by_state.setdefault(state, []).append(row.optuna_id)
        if value is not None:
            values.append((row.optuna_id, value))
        attributes.append(
            (row.optuna_id, _shown(state, message, epochs=e.epochs, seconds=e.seconds, metrics=e.metrics))
        )
    columns = ("state", "value", "metrics", "epochs", "seconds", "error", "reason")
    to: dict[str, Any] = {name: bindparam(f"to_{name}") for name in columns}
    connection.execute(fenced_update().values(to | _NOBODY), changes)
    optuna_tables.set_values(connection, values)
    optuna_tables.set_user_attributes(connection, attributes)
    for state, optuna_ids in by_state.items():
        optuna_tables.set_states(connection, optuna_ids, state)


def _shown(
    state: TrialState,
    message: str | None,
    *,
    epochs: int | None,
    seconds: float | None,
    metrics: Mapping[str, float],
) -> dict[str, Any]:
    """Return the user attributes of a trial that has ended, the same keys for all.

    A function may call a metric what we call something else ("seconds"): it is then shown as "metrics.seconds".
    """
    shown: dict[str, Any] = {
        "outcome": state.value,
        "epochs": epochs,
        "seconds": None if seconds is None else round(seconds, 3),
    }
    taken = {*shown, "error", "seed", optuna_tables.KEY_ATTRIBUTE}
    for name, value in metrics.items():
        rounded = float(f"{value:.12g}") if math.isfinite(value) else None  # in any unit
        shown[f"metrics.{name}" if name in taken else name] = rounded
    return shown | ({"error": message[:_ERROR_SHOWN]} if message else {})


def _move_files(home: Home, row: Row[Any], files: Sequence[FileRef]) -> None:
    scratch = home.scratch(row.study, row.number, row.attempt)
    for ref in files:
        home.move_verified(scratch / ref.name, home.trial_file(row.study, row.number, ref.name))


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


def fail(connection: Connection, events: Sequence[TrialFailed]) -> list[bool]:
    """Write that trials could not be trained; say which were accepted."""
    rows = {(row.id, row.attempt): row for row in held(connection, ((e.trial, e.attempt) for e in events))}
    accepted, taken = [], []
    for e in events:
        row = rows.pop((e.trial, e.attempt), None)
        taken.append(row is not None)
        if row is not None:
            accepted.append((row, e))
    if accepted:
        changes = [{**fence(row), "to_reason": e.reason, "to_error": e.message} for row, e in accepted]
        values: dict[str, Any] = {
            "state": TrialState.FAILED,
            "reason": bindparam("to_reason"),
            "error": bindparam("to_error"),
            **_NOBODY,
        }
        connection.execute(fenced_update().values(values), changes)
        optuna_tables.set_user_attributes(
            connection,
            (
                (
                    row.optuna_id,
                    _shown(TrialState.FAILED, e.message, epochs=row.epochs, seconds=None, metrics={}),
                )
                for row, e in accepted
            ),
        )
        optuna_tables.set_states(connection, [row.optuna_id for row, _ in accepted], TrialState.FAILED)
    return taken
