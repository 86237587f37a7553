"""Which trials a report is about (`--where epochs=10`); between the store's data and the ranking.

A condition is a word as it is typed or shown.  It means what it means in a grid: `3` the number, `"3"` the word, `none`
no value; and `absent` that the point does not have that axis.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from typing import TYPE_CHECKING, Final

from gridsearch.errors import UsageError, nearest
from gridsearch.records import Part
from gridsearch.records.axis import identity
from gridsearch.reporting.ranking.own_metrics import usual_direction
from gridsearch.reporting.words.text import metric_name, printable, show_value
from gridsearch.reporting.words.typed import ABSENT, as_typed, matching
from gridsearch.spec.axes import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gridsearch.records import StudyData, TrialRecord, Value

_LONGEST_FOLDER: Final = 80
_UNSAFE: Final = re.compile(r"[^a-z0-9._=+,-]")


def filter_data(data: StudyData, where: Mapping[str, Value]) -> StudyData:
    """Return the study with those trials alone that have all of the given values, and say so in its `part`.

    Args:
        data: the study.
        where: value by axis, recipe key, "model.NAME", "data.NAME", "seed" or "fold"; a value is typed, or text as
            the command line gives it ("10" equals 10, 10.0 and 1e1; "true" equals true; '"3"' is the word 3;
            "absent" is that there is no such axis).

    Raises:
        UsageError: a name that the study's settings do not have, values that no trial has, or one that stands for
            several.
    """
    if not where:
        return data
    asked = {canonical(name, free=data.kind.free_axes): value for name, value in where.items()}
    if len(asked) < len(where):
        raise UsageError(f"--where {' '.join(map(printable, where))}: two of these are names of one setting")
    folds = {"fold"} if any(t.settings.folds is not None for t in data.trials) else set()
    known = {"seed", *folds, *data.axes}.union(
        *(t.settings.flat() for t in data.trials[:1]), *(t.params for t in data.trials)
    )
    for name in asked:
        if data.trials and name not in known:
            raise UsageError(
                f"--where {printable(name)}: no such setting in study {data.name!r}{nearest(name, known)}"
            )
    held = {name: _distinct(_held(t, name, data.axes) for t in data.trials) for name in asked}
    found = {name: _meant(name, value, held[name], data) for name, value in asked.items()}
    words = " ".join(f"{printable(name)}={as_typed(value, held[name])}" for name, value in found.items())
    trials = tuple(
        t
        for t in data.trials
        if all(identity(_held(t, name, data.axes)) == identity(v) for name, v in found.items())
    )
    if data.trials and not trials:
        raise UsageError(
            f"--where {words}: no trial of study {data.name!r} has all of it",
            hint=f"in this study {'; '.join(_there(name, values) for name, values in held.items())}",
        )
    numbers = {t.number for t in trials}
    if data.part is not None:  # a part of a part
        found, words = {**data.part.where, **found}, f"{data.part.words} {words}"
    return dataclasses.replace(
        data,
        trials=trials,
        epochs={number: rows for number, rows in data.epochs.items() if number in numbers},
        steps={number: rows for number, rows in data.steps.items() if number in numbers},
        part=Part(
            where=found,
            words=words,
            folder=_folder(found),
            trials=len(trials),
            of=len(data.trials) if data.part is None else data.part.of,
        ),
    )


def part_words(data: StudyData) -> str:
    """Return what of a study is shown, in sentences; "" for all of it by its own metric.

    "Only trials with x=1: 2 of 6. Ranked by macro F1; the study itself is ranked by validation accuracy."
    """
    words = []
    if (part := data.part) is not None:
        count = f"all {part.of:,}" if part.trials == part.of else f"{part.trials:,} of {part.of:,}"
        words.append(f"Only trials with {part.words}: {count}.")
    if data.own_metric:
        by, own = metric_name(data.metric), metric_name(data.own_metric)
        # of a metric that this program knows it goes without saying
        less = data.direction == "minimize" and not data.kind.classifies
        better = ", the lower the better" if less else ""
        words.append(f"Ranked by {by}{better}; the study itself is ranked by {own}.")
    return " ".join(words)


def folder_of(data: StudyData) -> str:
    """Return a name for the folder of what is shown of a study; "" for all of it by its own metric."""
    by = ""
    if data.own_metric:
        usual = data.kind.classifies or data.direction == usual_direction(data.metric)
        by = safe_name(f"by={data.metric}{'' if usual else f',{data.direction}'}")
    return ",".join(name for name in (by, data.part.folder if data.part else "") if name)


def _held(trial: TrialRecord, name: str, axes: Sequence[str]) -> Value:
    """Return what a trial has of a name; `ABSENT` where a condition takes an axis away."""
    if name == "seed":
        return trial.seed
    if name == "fold" and trial.settings.fold is not None:
        return trial.settings.fold
    if name in trial.params or name in axes:
        return trial.params.get(name, ABSENT)
    return trial.settings.flat().get(name, ABSENT)


def _distinct(values: Iterable[Value]) -> list[Value]:
    return list({identity(v): v for v in values}.values())


def _meant(name: str, asked: Value, held: Sequence[Value], data: StudyData) -> Value:
    """Return the one value of those held that is meant.

    Raises:
        UsageError: none is, or several are.
    """
    matches = matching(asked, held)
    if len(matches) == 1 or not held:
        return matches[0] if matches else asked
    shown = asked if isinstance(asked, str) else show_value(asked)
    if not matches:
        raise UsageError(
            f"--where {printable(name)}={printable(shown)}: no trial of study {data.name!r} has it",
            hint=f"in this study {_there(name, held)}",
        )
    exact = " or ".join(f"{printable(name)}={as_typed(v, held)}" for v in matches[:4])
    raise UsageError(
        f"--where {printable(name)}={printable(shown)} stands for {len(matches)} values", hint=f"say {exact}"
    )


def _folder(found: Mapping[str, Value]) -> str:
    """Return a name for the folder of this part: the same for the same values, and another for others."""
    return safe_name(",".join(f"{name}={as_typed(found[name])}" for name in sorted(found)))


def safe_name(exact: str) -> str:
    """Return a name that a folder may bear: the words themselves where that goes, else some of them and a hash."""
    if not _UNSAFE.search(exact) and len(exact) <= _LONGEST_FOLDER:
        return exact
    digest = hashlib.sha256(exact.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{_UNSAFE.sub('-', exact.lower())[: _LONGEST_FOLDER - 9].rstrip('.-')}-{digest}"


def _there(name: str, held: Sequence[Value]) -> str:
    """Say which values there are of a name that was asked for."""
    shown = ", ".join(as_typed(v, held) for v in held[:10])
    return f"{printable(name)} is {shown}" + (", ..." if len(held) > 10 else "")
