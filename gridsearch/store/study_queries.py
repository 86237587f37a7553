"""Reads studies for the service and for reporting, in a few statements however many trials they hold."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, func, select

from gridsearch.advice import Advice, named_again
from gridsearch.records import EpochRow, StepRow, StudyData, TrialRecord, TrialState
from gridsearch.spec.words import Worded, Words, words_of
from gridsearch.store import data_facts, ledger_tables, optuna_studies, optuna_trials
from gridsearch.store.messages import Artifact, StudySummary, TrialCurve
from gridsearch.store.params import StudyAxes, params_of, settings_of, state_of
from gridsearch.store.row_lookup import find_study, no_trial, study_is_there, trial_is_there

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from gridsearch.store.artifacts import Home

TEST_ATTRIBUTE = "test"
"""Optuna's dashboard shows it with the study; a list, since a second reading is to be seen for what it is."""

_s, _t, _e, _a = ledger_tables.studies, ledger_tables.trials, ledger_tables.epochs, ledger_tables.artifacts


@lru_cache(maxsize=256)
def inactive_of(text: str) -> tuple[str, ...]:
    """Read the axes that a condition takes away from a trial."""
    return tuple(json.loads(text))


def studies(
    connection: Connection, *, home: Home | None, abandoned: Callable[[int], Collection[int]]
) -> list[StudySummary]:
    """Return all studies, oldest first.

    Args:
        connection: for reading.
        home: where their files lie; None where nobody asks for their size.
        abandoned: returns the ids of a study's trials whose runner is gone.
    """
    counts: dict[int, dict[str, int]] = {}
    query = (
        select(_t.c.study_id, _t.c.state, func.count())
        .where(trial_is_there())
        .group_by(_t.c.study_id, _t.c.state)
    )
    for study_id, state, count in connection.execute(query):
        counts.setdefault(study_id, {})[state] = count
    for study_id, of_study in counts.items():
        if of_study.get(TrialState.RUNNING):
            gone = len(abandoned(study_id))
            of_study[TrialState.RUNNING] -= gone
            of_study[TrialState.WAITING] = of_study.get(TrialState.WAITING, 0) + gone
    titles = optuna_studies.names(connection)
    return [
        StudySummary(
            name=row.name,
            title=titles.get(row.optuna_id, row.name),
            dataset=row.dataset,
            metric=row.metric,
            direction=row.direction,
            created=datetime.fromtimestamp(row.created, UTC),
            counts={state.value: counts.get(row.id, {}).get(state.value, 0) for state in TrialState},
            size=0 if home is None else home.size(row.name),
        )
        for row in connection.execute(select(_s).where(study_is_there()).order_by(_s.c.id))
    ]


def marks(connection: Connection) -> dict[str, str]:
    """Return for each study, oldest first, what changes whenever one of its trials does, or its test images are read.

    One pass over the trials, without their settings, epochs and metrics: to be asked every few seconds.
    """
    query = (
        select(
            _t.c.study_id,
            _t.c.state,
            func.count(),
            func.sum(_t.c.epochs),
            func.sum(_t.c.attempt),
            func.sum(_t.c.tries),
        )
        .where(trial_is_there())
        .group_by(_t.c.study_id, _t.c.state)
        .order_by(_t.c.study_id, _t.c.state)
    )
    found: dict[int, list[str]] = {}
    for study_id, *row in connection.execute(query):
        found.setdefault(study_id, []).append(".".join(map(str, row)))
    rows = connection.execute(select(_s).where(study_is_there()).order_by(_s.c.id)).all()
    return {
        row.name: "-".join([row.uid, *found.get(row.id, ()), str(len(tests(connection, row)))])
        for row in rows
    }


def ledger(connection: Connection, study: str) -> tuple[tuple[str, ...], list[Row[Any]]]:
    """Return what a study shows, and its trials in the order in which it got them; nothing if there is none."""
    found = connection.execute(
        select(_s.c.id, _s.c.shown).where(_s.c.name == study, study_is_there())
    ).one_or_none()
    if found is None:
        return (), []
    query = select(_t).where(_t.c.study_id == found.id, trial_is_there()).order_by(_t.c.id)
    return StudyAxes.from_json(found.shown).names, list(connection.execute(query))


def rows_of_study(
    connection: Connection, study_id: int, *, state: TrialState | None = None
) -> list[Row[Any]]:
    """Return the trials of a study, by number."""
    query = select(_t).where(_t.c.study_id == study_id, trial_is_there()).order_by(_t.c.number)
    return list(connection.execute(query if state is None else query.where(_t.c.state == state)))


def counts(connection: Connection, study_id: int, ids: Iterable[int] | None) -> dict[TrialState, int]:
    """Return how many trials of a study, or of these ids in it, are in each state; all states are present."""
    found = dict.fromkeys(TrialState, 0)
    query = select(_t.c.id, _t.c.state).where(_t.c.study_id == study_id, trial_is_there())
    wanted = None if ids is None else set(ids)
    for trial_id, state in connection.execute(query):
        if wanted is None or trial_id in wanted:
            found[state_of(state)] += 1
    return found


def running_packs(connection: Connection, study_id: int) -> int:
    """Return how many packs of a study train now."""
    of_study = (_t.c.study_id == study_id, _t.c.state == TrialState.RUNNING, trial_is_there())
    return int(connection.scalar(select(func.count(_t.c.pack.distinct())).where(*of_study)) or 0)


def study_data(
    connection: Connection, name: str, *, abandoned: Callable[[int], Collection[int]]
) -> StudyData:
    """Return a study with all its trials and epochs.

    Args:
        connection: for reading.
        name: the study's.
        abandoned: returns the ids of a study's trials whose runner is gone: they wait, whatever their rows say.

    Raises:
        StudyNotFound: there is no such study.
    """
    study = find_study(connection, name)
    axes = StudyAxes.from_json(study.shown).names
    rows = rows_of_study(connection, study.id)
    gone = abandoned(study.id) if any(row.state == TrialState.RUNNING for row in rows) else ()
    trials = tuple(_record(row, axes, waits=row.id in gone) for row in rows)
    words = words_of(trial.params for trial in trials)
    if words:
        trials = tuple(replace(trial, params=Worded(trial.params, words)) for trial in trials)
    query = (
        select(_t.c.number, *(c for c in _e.c if c.name != "trial_id"))
        .join(_t, _t.c.id == _e.c.trial_id)
        .where(_t.c.study_id == study.id)
        .order_by(_e.c.trial_id, _e.c.epoch)
    )
    epochs: dict[int, list[EpochRow]] = {}
    for number, *columns in connection.execute(query):
        epochs.setdefault(number, []).append(epoch_row(*columns))
    of_function = any(trial.settings.kind.free_axes for trial in trials)
    if of_function:  # earlier versions noted settings of networks among its axes
        axes = tuple(name for name in axes if any(name in trial.params for trial in trials))
    return StudyData(
        name=study.name,
        dataset=study.dataset,
        metric=study.metric,
        direction=study.direction,
        axes=axes,
        trials=trials,
        class_names=tuple(json.loads(study.class_names)),
        commands=tuple(json.loads(study.commands)),
        environment=json.loads(study.environment),
        epochs={trial.number: tuple(epochs.get(trial.number, ())) for trial in trials},
        steps=_steps(connection, study.id) if of_function else {},
        test=_test(connection, study, words),
        facts=data_facts.read(connection, study),
        advice=_advice(study, trials),
        spec=json.loads(study.spec),
        id=study.id,
    )


def _advice(study: Row[Any], trials: Sequence[TrialRecord]) -> Advice:
    """Return what commands about a study need, but for where it lies."""
    named, lost = named_again(json.loads(study.spec), (use for t in trials for use in t.settings.uses))
    return Advice(study=study.name, named=named, lost=lost)


def _steps(connection: Connection, study_id: int) -> dict[int, tuple[StepRow, ...]]:
    """Return the steps of a function's trials by their numbers."""
    e = ledger_tables.steps
    query = (
        select(_t.c.number, e.c.step, e.c.metrics, e.c.seconds)
        .join(_t, _t.c.id == e.c.trial_id)
        .where(_t.c.study_id == study_id)
        .order_by(e.c.trial_id, e.c.step)
    )
    found: dict[int, list[StepRow]] = {}
    for number, step, metrics, seconds in connection.execute(query):
        found.setdefault(number, []).append(
            StepRow(step=step, metrics=json.loads(metrics), seconds=seconds or 0.0)
        )
    return {number: tuple(rows) for number, rows in found.items()}


def curves(
    connection: Connection, study_id: int, known: Mapping[int, tuple[int, int, TrialState]]
) -> list[TrialCurve]:
    """Return what the trials of a study have shown, by number, but for those that are known as they are now.

    Args:
        connection: for reading.
        study_id: the ledger's.
        known: attempt, epochs and state of trials by their ids.
    """
    columns = (_t.c.id, _t.c.optuna_id, _t.c.number, _t.c.attempt, _t.c.epochs, _t.c.state)
    shown = (_t.c.study_id == study_id, _t.c.epochs > 0, _t.c.state != TrialState.WAITING, trial_is_there())
    query = select(*columns).where(*shown).order_by(_t.c.number)
    changed = [
        row for row in connection.execute(query) if known.get(row.id) != (row.attempt, row.epochs, row.state)
    ]
    found: dict[int, TrialCurve] = {}
    for some in ledger_tables.chunks(changed):
        ids = [row.id for row in some]
        texts = select(_t.c.id, _t.c.settings).where(_t.c.id.in_(ids))
        settings = {row.id: settings_of(row.settings) for row in connection.execute(texts)}
        values = optuna_trials.intermediate_values(connection, [row.optuna_id for row in some])
        found |= {
            row.id: TrialCurve(
                trial=row.id,
                number=row.number,
                attempt=row.attempt,
                settings=settings[row.id],
                state=state_of(row.state),
                epochs=row.epochs,
                values=values.get(row.optuna_id, {}),
            )
            for row in some
        }
    return list(found.values())


def tests(connection: Connection, study: Row[Any]) -> list[dict[str, Any]]:
    """Return what each reading of the test images found, oldest first."""
    return list(optuna_studies.study_user_attribute(connection, study.optuna_id, TEST_ATTRIBUTE) or ())


def _test(connection: Connection, study: Row[Any], words: Words) -> dict[str, Any] | None:
    """Return what the last reading of the test images found, its point in the words of the study."""
    found = tests(connection, study)
    if not found or "params" not in found[-1]:
        return found[-1] if found else None
    return {**found[-1], "params": Worded(found[-1]["params"], words)}


def spec_of(connection: Connection, name: str) -> Mapping[str, Any]:
    """Return the spec that a study was last asked for with.

    Raises:
        StudyNotFound: there is no such study.
    """
    spec: dict[str, Any] = json.loads(find_study(connection, name).spec)
    return spec


def trial_record(connection: Connection, name: str, number: int) -> tuple[TrialRecord, tuple[EpochRow, ...]]:
    """Return one trial and its epochs.

    Raises:
        StudyNotFound: there is no such study.
        StoreError: the study has no such trial.
    """
    study = find_study(connection, name)
    query = select(_t).where(_t.c.study_id == study.id, _t.c.number == number, trial_is_there())
    row = connection.execute(query).one_or_none()
    if row is None:
        raise no_trial(connection, study, number)
    epochs = (
        select(*(c for c in _e.c if c.name != "trial_id")).where(_e.c.trial_id == row.id).order_by(_e.c.epoch)
    )
    return _record(row, StudyAxes.from_json(study.shown).names), tuple(
        epoch_row(*each) for each in connection.execute(epochs)
    )


def artifacts(connection: Connection, name: str, number: int | None) -> dict[str, Artifact]:
    """Return the files of a trial, or of the study itself, by name.

    Raises:
        StudyNotFound: there is no such study.
    """
    study = find_study(connection, name)
    of = ledger_tables.OF_STUDY if number is None else number
    query = select(_a).where(_a.c.study_id == study.id, _a.c.number == of).order_by(_a.c.name)
    return {
        row.name: Artifact(number=number, name=row.name, sha256=row.sha256, size=row.size)
        for row in connection.execute(query)
    }


def best_values(connection: Connection, study: Row[Any], count: int) -> list[tuple[float, int]]:
    """Return (value, number) of a study's best COMPLETE trials, best first; the older of two equals wins."""
    value = _t.c.value.desc() if study.direction == "maximize" else _t.c.value.asc()
    query = (
        select(_t.c.value, _t.c.number)
        .where(_t.c.study_id == study.id, _t.c.state == TrialState.COMPLETE, trial_is_there())
        .order_by(value, _t.c.number)
        .limit(count)
    )
    return [(value, number) for value, number in connection.execute(query)]


def hashes(connection: Connection, study_id: int, name: str) -> dict[int, str]:
    """Return the SHA-256 of the file of this name of each trial of a study that has one, by the trial's number."""
    of_trials = (_a.c.study_id == study_id, _a.c.name == name, _a.c.number != ledger_tables.OF_STUDY)
    return {
        row.number: row.sha256
        for row in connection.execute(select(_a.c.number, _a.c.sha256).where(*of_trials))
    }


def numbers_with(connection: Connection, study_id: int, name: str) -> list[int]:
    """Return the numbers of the trials of a study that have a file of this name."""
    return list(connection.scalars(select(_a.c.number).where(_a.c.study_id == study_id, _a.c.name == name)))


def _record(row: Row[Any], axes: Iterable[str], *, waits: bool = False) -> TrialRecord:
    settings = settings_of(row.settings)
    return TrialRecord(
        number=row.number,
        key=row.key,
        seed=row.seed,
        state=TrialState.WAITING if waits else state_of(row.state),
        params=params_of(settings, inactive_of(row.inactive), axes),
        settings=settings,
        value=row.value,
        metrics=json.loads(row.metrics) if row.metrics else {},
        epochs=0 if waits else row.epochs,
        seconds=row.seconds,
        attempts=row.tries,
        error=row.error,
        pruner=row.reason if row.state == TrialState.PRUNED else None,
    )


def epoch_row(
    epoch: int,
    train_loss: float | None,
    train_accuracy: float | None,
    val_loss: float | None,
    val_accuracy: float | None,
    lr: float | None,
    seconds: float | None,
    images_per_second: float | None,
) -> EpochRow:
    """Return an epoch from its row, where NaN is kept as NULL.

    A loss can be NaN, an accuracy cannot: so a validation loss is NaN, and not absent, beside an accuracy.
    """

    def number(value: float | None) -> float:
        return math.nan if value is None else value

    return EpochRow(
        epoch=epoch,
        train_loss=number(train_loss),
        train_accuracy=number(train_accuracy),
        val_loss=None if val_accuracy is None else number(val_loss),
        val_accuracy=val_accuracy,
        lr=number(lr),
        seconds=number(seconds),
        images_per_second=number(images_per_second),
    )
