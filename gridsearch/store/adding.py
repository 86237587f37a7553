"""Puts a grid's trials into the ledger and into Optuna's tables, each exactly once; takes a study out again."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from gridsearch.advice import LOCATORS, command
from gridsearch.errors import StoreError, UsageError
from gridsearch.records import Settings, TrialDraft, TrialState
from gridsearch.store import (
    dashboard_notes,
    data_facts,
    deletion,
    ledger_tables,
    note_pages,
    optuna_studies,
    optuna_tables,
    optuna_trials,
)
from gridsearch.store.messages import Added, StudyDraft
from gridsearch.store.params import (
    Growth,
    StudyAxes,
    StudyAxis,
    grow,
    params_of,
    rows_of,
    settings_of,
    state_of,
)
from gridsearch.store.row_lookup import ledger_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_COMMANDS_KEPT = 100

_NOTED_TRIALS = 200
"""A study of more trials gives its trials no notes: the dashboard looks at all of them for each trial it shows."""


@dataclass(frozen=True, slots=True)
class _Study:
    """The study as the ledger has it at the start of the transaction."""

    id: int
    optuna_id: int
    shown: StudyAxes
    next_number: int


@dataclass(frozen=True, slots=True)
class _Known:
    """A trial that the ledger has already."""

    id: int
    state: TrialState
    inactive: frozenset[str]


def add(
    connection: Connection,
    draft: StudyDraft,
    drafts: Sequence[TrialDraft],
    *,
    prune: bool,
    begins: Callable[[], None] = lambda: None,
) -> Added:
    """Insert what is missing, offer again what failed, and let every trial show the same axes.

    Args:
        connection: of a writing transaction.
        draft: the study.
        drafts: the trials that the grid asks for.
        prune: whether pruning is on, so that a PRUNED trial counts as done.
        begins: is called where the study is made.

    Raises:
        UsageError: the study holds another dataset or is ranked by another metric.
        StoreError: a study of that name is there that gridsearch did not make.
    """
    deletion.drop_orphans(connection)
    study = _study(connection, draft, begins)
    wanted = {d.key: d for d in drafts}
    known = _known(connection, study.id)
    new = [d for key, d in wanted.items() if key not in known]
    again = {TrialState.FAILED} if prune else {TrialState.FAILED, TrialState.PRUNED}
    offered = [d for key, d in wanted.items() if key in known and known[key].state in again]

    growth = grow(study.shown, axes=draft.axes, settings=_distinct(new))
    numbers = _insert(connection, study, new, offered, known)
    activated = _activate(connection, (d for d in wanted.values() if d.key in known), known)
    _show(connection, study, growth, new=numbers, all_anew=bool(known) and (growth.missing or activated))
    if study.next_number + len(numbers) <= _NOTED_TRIALS:
        texts = {
            optuna_id: note_pages.trial_page(draft.again, number, d)
            for number, (optuna_id, d) in enumerate(numbers, start=study.next_number)
        }
        dashboard_notes.set_trial_notes(connection, study.optuna_id, texts)
    connection.execute(
        update(ledger_tables.studies)
        .where(ledger_tables.studies.c.id == study.id)
        .values(shown=growth.shown.to_json(), next_number=study.next_number + len(new) + len(offered))
    )
    varied = tuple(name for name in growth.varied if name not in draft.axes) if known else ()
    if varied and draft.command:
        _note_again(connection, study.id, draft.command)
    ids = {key: each.id for key, each in _known(connection, study.id).items()}
    states = [known[key].state for key in wanted if key in known]
    return Added(
        study_id=study.id,
        ids=tuple(ids[d.key] for d in drafts),
        new=len(new),
        reused=sum(s.ended and s not in again for s in states),
        offered_again=len(offered),
        in_flight=sum(not s.ended for s in states),
        varied=varied,
    )


def _note_again(connection: Connection, study_id: int, command: str) -> None:
    """Note a command twice that asks for another recipe than before: its study file has changed."""
    s = ledger_tables.studies
    commands = json.loads(connection.execute(select(s.c.commands).where(s.c.id == study_id)).scalar_one())
    if commands.count(command) == 1:
        commands = [*commands, command][-_COMMANDS_KEPT:]
        connection.execute(update(s).where(s.c.id == study_id).values(commands=json.dumps(commands)))


def _study(connection: Connection, draft: StudyDraft, begins: Callable[[], None]) -> _Study:
    """Find the study or make it, and note this run's command, environment and spec."""
    s = ledger_tables.studies
    row = connection.execute(select(s).where(s.c.name == draft.name)).one_or_none()
    if row is None:
        row = _insert_study(connection, draft)
        begins()
    if row.dataset != draft.dataset and not draft.same_images:
        raise UsageError(
            f"study {draft.name!r} is of {row.dataset}, not of {draft.dataset}",
            hint="name another study with --study",
        )
    if (row.metric, row.direction) != (draft.metric, draft.direction):
        raise UsageError(
            f"study {draft.name!r} is ranked by {row.metric} ({row.direction}), "
            f"not by {draft.metric} ({draft.direction})",
            hint="name another study with --study, or give --val, --metric and --direction as before",
        )
    data_facts.keep(connection, row, draft.facts)
    commands = json.loads(row.commands)
    if draft.command and draft.command not in commands[-1:]:
        commands = [*commands, draft.command][-_COMMANDS_KEPT:]
    note = dashboard_notes.set_study_note(
        connection, row.optuna_id, text=note_pages.study_page(draft, commands), ours=row.note_version
    )
    values = {
        "class_names": json.dumps(draft.class_names or json.loads(row.class_names)),
        "commands": json.dumps(commands),
        "environment": json.dumps(dict(draft.environment)),
        "spec": json.dumps(_with_locators(json.loads(row.spec), draft.spec)),
        "note_version": note,
    }
    connection.execute(update(s).where(s.c.id == row.id).values(values))
    attributes = {"dataset": draft.dataset, "metric": draft.metric, "command": draft.command}
    optuna_studies.set_study_user_attributes(connection, row.optuna_id, attributes)
    highest = optuna_trials.highest_number(connection, row.optuna_id)
    return _Study(row.id, row.optuna_id, StudyAxes.from_json(row.shown), max(row.next_number, highest + 1))


def _with_locators(before: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study's spec with the locators of all its code, that of earlier grids included."""
    kinds = {**before.get(LOCATORS, {}), **spec.get(LOCATORS, {})}
    known = {
        kind: {**before.get(LOCATORS, {}).get(kind, {}), **spec.get(LOCATORS, {}).get(kind, {})}
        for kind in kinds
    }
    return {**spec, **({LOCATORS: known} if known else {})}


def _insert_study(connection: Connection, draft: StudyDraft) -> Row[tuple[object, ...]]:
    s = ledger_tables.studies
    _free_name(connection, draft.name)
    uid = uuid.uuid4().hex
    optuna_id = optuna_studies.insert_study(
        connection, name=draft.name, uid=uid, metric=draft.metric, direction=draft.direction
    )
    row = {
        "name": draft.name,
        "uid": uid,
        "optuna_id": optuna_id,
        "dataset": draft.dataset,
        "metric": draft.metric,
        "direction": draft.direction,
        "created": time.time(),
        "shown": StudyAxes().to_json(),
        "class_names": "[]",
        "commands": "[]",
        "environment": "{}",
        "spec": "{}",
        "next_number": 0,
        "note_version": 0,
    }
    connection.execute(insert(s), row)
    return connection.execute(select(s).where(s.c.name == draft.name)).one()


def _free_name(connection: Connection, name: str) -> None:
    """Take away what a deletion has left under a study's name.

    Raises:
        StoreError: another study bears the name in Optuna's tables.
    """
    there = optuna_studies.study_named(connection, name)
    if there is None:
        return
    if (renamed := ledger_name(connection, name)) is not None:
        raise StoreError(
            f"{name!r} is what the dashboard calls study {renamed!r}", hint=f"name it with --study {renamed}"
        )
    if deletion.remnant(connection, name) is not None:
        optuna_studies.delete_study(connection, there)
        return
    if optuna_studies.study_user_attribute(connection, there, optuna_tables.STUDY_ATTRIBUTE) is not None:
        raise StoreError(
            f"the store holds a copy of a study under the name {name!r}, which another program made in Optuna's tables",
            hint="name another study with --study; what was trained is in the store that it was copied from",
        )
    empty = deletion.is_empty(connection, there)
    raise StoreError(
        f"the store holds {'an empty' if empty else 'a'} study {name!r} that gridsearch did not make",
        hint="name another study with --study"
        + (f", or take it away: {command('study', 'clean', name)}" if empty else ""),
    )


def _known(connection: Connection, study_id: int) -> dict[str, _Known]:
    t = ledger_tables.trials
    query = select(t.c.key, t.c.id, t.c.state, t.c.inactive).where(t.c.study_id == study_id)
    return {
        row.key: _Known(row.id, state_of(row.state), frozenset(json.loads(row.inactive)))
        for row in connection.execute(query)
    }


def _distinct(drafts: Iterable[TrialDraft]) -> list[Settings]:
    """Return the settings but for those that a replicate repeats (the same object, as a grid makes them)."""
    return list({id(d.settings): d.settings for d in drafts}.values())


def _insert(
    connection: Connection,
    study: _Study,
    new: Sequence[TrialDraft],
    offered: Sequence[TrialDraft],
    known: dict[str, _Known],
) -> list[tuple[int, TrialDraft]]:
    """Give every trial an Optuna trial, also one that is offered again: readers cache finished ones.

    Returns:
        Optuna's id and the draft of each trial that needs its params written.
    """
    t = ledger_tables.trials
    asked = [*new, *offered]
    if not asked:
        return []
    optuna_ids = optuna_trials.insert_trials(
        connection, study.optuna_id, first_number=study.next_number, count=len(asked)
    )
    fresh = list(zip(optuna_ids, asked, strict=True))
    optuna_trials.set_user_attributes(
        connection,
        ((i, {optuna_tables.KEY_ATTRIBUTE: d.key, **d.settings.replicate(d.seed)}) for i, d in fresh),
    )
    rows, changes = [], []
    texts = {id(each): _canonical(each) for each in _distinct(asked)}
    for number, (optuna_id, d) in enumerate(fresh, start=study.next_number):
        place = {"optuna_id": optuna_id, "number": number}
        if d.key in known:
            changes.append(place | {"of_trial": known[d.key].id})
            continue
        content = {
            "key": d.key,
            "seed": d.seed,
            "settings": texts[id(d.settings)],
            "inactive": json.dumps(d.inactive),
        }
        rows.append(
            place
            | content
            | {"study_id": study.id, "state": TrialState.WAITING, "attempt": 0, "tries": 0, "epochs": 0}
        )
    if rows:
        connection.execute(insert(t), rows)
    if changes:
        _offer_again(connection, changes)
    return fresh


def _offer_again(connection: Connection, changes: Sequence[Mapping[str, Any]]) -> None:
    """Let trials that ended wait again, in new rows of Optuna's, without what they showed."""
    t = ledger_tables.trials
    cleared = dict.fromkeys(
        ("value", "metrics", "seconds", "reason", "error", "runner_id", "pack", "lease_until")
    )
    again = {"state": TrialState.WAITING, "tries": 0, "epochs": 0, **cleared}
    places: dict[str, Any] = {"optuna_id": bindparam("optuna_id"), "number": bindparam("number")}
    connection.execute(update(t).where(t.c.id == bindparam("of_trial")).values(again | places), changes)
    for table in (ledger_tables.epochs, ledger_tables.steps):
        gone = delete(table).where(table.c.trial_id == bindparam("of_trial"))
        connection.execute(gone, [{"of_trial": change["of_trial"]} for change in changes])


def _canonical(settings: Settings) -> str:
    return json.dumps(settings.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _activate(connection: Connection, drafts: Iterable[TrialDraft], known: dict[str, _Known]) -> bool:
    """Show axes of trials that one grid took away and another asks for; return whether there are any."""
    changes = []
    for d in drafts:
        there = known[d.key].inactive
        if not there <= set(d.inactive):
            changes.append(
                {"of_trial": known[d.key].id, "inactive": json.dumps(sorted(there & set(d.inactive)))}
            )
    if changes:
        t = ledger_tables.trials
        statement = update(t).where(t.c.id == bindparam("of_trial")).values(inactive=bindparam("inactive"))
        connection.execute(statement, changes)
    return bool(changes)


def _show(
    connection: Connection,
    study: _Study,
    growth: Growth,
    *,
    new: Sequence[tuple[int, TrialDraft]],
    all_anew: bool,
) -> None:
    """Write the params of new trials, and those that older ones have come to lack."""
    shown = growth.shown
    for axis in growth.widened:
        optuna_trials.delete_params(connection, study.optuna_id, param=axis.name)
    rows = [
        row
        for optuna_id, d in new
        for row in rows_of(optuna_id, params_of(d.settings, d.inactive, shown.names), shown.axes)
    ]
    if all_anew or growth.widened:
        rows += _rows_of_all(connection, study, shown.axes)
    distributions = {axis.name: axis.distribution for axis in shown.axes}
    optuna_trials.insert_params(connection, study.optuna_id, rows, distributions)


def _rows_of_all(
    connection: Connection, study: _Study, axes: Sequence[StudyAxis]
) -> list[tuple[int, str, float]]:
    """Return the params of every trial, the failed ones that were offered again since included."""
    t = ledger_tables.trials
    names = [axis.name for axis in axes]
    query = select(t.c.key, t.c.settings, t.c.inactive).where(t.c.study_id == study.id)
    params = {
        row.key: params_of(settings_of(row.settings), json.loads(row.inactive), names)
        for row in connection.execute(query)
    }
    keys = optuna_trials.keys_of_trials(connection, study.optuna_id)
    return [row for optuna_id, key in keys if key in params for row in rows_of(optuna_id, params[key], axes)]
