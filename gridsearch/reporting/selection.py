"""Which trials a report is about (`--where epochs=10`); between the store's data and the ranking."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from gridsearch.errors import UsageError, nearest
from gridsearch.reporting.text import printable, show_value
from gridsearch.spec.axes import canonical

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gridsearch.records import StudyData, TrialRecord, Value


def filter_data(data: StudyData, where: Mapping[str, Value]) -> StudyData:
    """Return the study with those trials alone that have all of the given values.

    Args:
        data: the study.
        where: value by axis, recipe key, "model.NAME", "data.NAME" or "seed"; a value is typed, or text as
            the command line gives it ("10" equals 10, 10.0 and 1e1; "true" equals true).

    Raises:
        UsageError: a name that the study's settings do not have, or values that no trial has.
    """
    if not where:
        return data
    wanted = {canonical(name, free=data.objective is not None): value for name, value in where.items()}
    known = {"seed", *data.axes}.union(
        *(t.settings.flat() for t in data.trials[:1]), *(t.params for t in data.trials)
    )
    for name in wanted:
        if data.trials and name not in known:
            raise UsageError(
                f"--where {printable(name)}: no such setting in study {data.name!r}{nearest(name, known)}"
            )
    trials = tuple(t for t in data.trials if all(_holds(t, name, value) for name, value in wanted.items()))
    if data.trials and not trials:
        asked = " ".join(f"{printable(k)}={show_value(v)}" for k, v in wanted.items())
        raise UsageError(
            f"--where {asked}: no trial of study {data.name!r} has it", hint=_there(data, wanted)
        )
    numbers = {t.number for t in trials}
    epochs = {number: rows for number, rows in data.epochs.items() if number in numbers}
    steps = {number: rows for number, rows in data.steps.items() if number in numbers}
    return dataclasses.replace(data, trials=trials, epochs=epochs, steps=steps)


def same_value(held: Value, asked: Value) -> bool:
    """Whether a held value is the one asked for, by canonical value; text is read as the held one's type."""
    if isinstance(asked, str) and not isinstance(held, str):
        return _same_as_text(held, asked.strip())
    if isinstance(held, bool) or isinstance(asked, bool):
        return held is asked
    if isinstance(held, float) and isinstance(asked, int | float):
        return math.isclose(held, asked, rel_tol=1e-12, abs_tol=0.0)
    return held == asked


def _same_as_text(held: Value, text: str) -> bool:
    if held is None:
        return text.lower() == "none"
    if isinstance(held, bool):
        return text.lower() == ("true" if held else "false")
    try:
        return math.isclose(float(held), float(text), rel_tol=1e-12, abs_tol=0.0)
    except ValueError:
        return False


def _holds(trial: TrialRecord, name: str, asked: Value) -> bool:
    if name == "seed":
        return same_value(trial.seed, asked)
    held = trial.params[name] if name in trial.params else trial.settings.get(name)
    return same_value(held, asked)


def _there(data: StudyData, wanted: Mapping[str, Value]) -> str:
    """Say which values there are of the names that were asked for."""
    parts = []
    for name in wanted:
        values = {
            show_value(t.seed if name == "seed" else t.params.get(name, t.settings.get(name))): None
            for t in data.trials
        }
        shown = ", ".join(list(values)[:10]) + (", ..." if len(values) > 10 else "")
        parts.append(f"{printable(name)} is {shown}")
    return "in this study " + "; ".join(parts)
