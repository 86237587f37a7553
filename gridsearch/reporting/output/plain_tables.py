"""From a study to tables of plain values, and to CSV for spreadsheets.

Below `frames`, which makes pandas frames of the same tables for Python users: a report has its files without pandas.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from gridsearch.records import EpochRow
from gridsearch.records.axis import LARGEST_INT
from gridsearch.reporting.ranking.points import finite, metric_value
from gridsearch.reporting.ranking.ranking import CLASS_METRICS, TRIAL_METRICS, Ranking, rank
from gridsearch.reporting.stats.predictions import csv_text, harmless
from gridsearch.spec.grammar import reads_as_other

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from gridsearch.records import StudyData, TrialRecord

Kind: TypeAlias = Literal["bool", "int", "float", "object"]

_TRIAL_COLUMNS = ("number", "seed", "state", "value")
_RESULT_COLUMNS = (*TRIAL_METRICS, "epochs", "seconds", "attempts", "error", "key")
_POINT_COLUMNS = ("rank", "n", "mean", "spread", "ci_low", "ci_high", "tied_with_best")
_LOST_COLUMNS = ("diverged", "pruned")
_APART = "apart"
_OF_POINTS = (*_POINT_COLUMNS, "seconds", *_LOST_COLUMNS, "trials", _APART)
_REPLICATE = ("seed", "fold")
_EXACT = 2**53
"""Up to here a float64 holds every whole number."""

_EPOCH_COLUMNS = tuple(field.name for field in dataclasses.fields(EpochRow))


@dataclass(frozen=True, slots=True)
class PlainTable:
    """Rows of values.

    Attributes:
        columns: their names.
        rows: the values, by row.
        words: columns that may hold anything; without a value they are no numbers.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    words: Collection[str]

    def by_column(self) -> list[tuple[list[Any], Kind]]:
        """Return the values of each column, and what all of them are."""
        found = []
        for place, name in enumerate(self.columns):
            values = [row[place] for row in self.rows]
            found.append((values, _kind(values, number=name not in self.words)))
        return found


def _kind(values: Sequence[Any], *, number: bool) -> Kind:
    """Return what the values of a column are that are not None; whole numbers beside others are made such ones."""
    present = [value for value in values if value is not None]
    kinds = {type(value) for value in present}
    if not present:
        return "float" if number else "object"
    if kinds == {bool}:
        return "bool"
    if kinds == {int} and all(abs(value) <= LARGEST_INT for value in present):
        return "int"
    if kinds <= {int, float} and all(abs(value) <= _EXACT for value in present if type(value) is int):
        return "float"
    return "object"


def trials_table(data: StudyData) -> PlainTable:
    """Return one row a trial: number, params, seed, fold, state, value, metrics, epochs, seconds, error, key.

    The fold stands only where there are folds.
    An axis that bears the name of a result (`epochs`) is found as "params.epochs".  Where trials have a patience there
    is `stopped_early` besides.
    """
    patient = ["stopped_early"] if any(t.settings.get("patience") is not None for t in data.trials) else []
    results = [*_RESULT_COLUMNS[4:], *patient]
    extra = sorted({m for t in data.trials for m in t.metrics}.difference(_RESULT_COLUMNS[:4]))
    extra = [m for m in extra if (m, data.metric) != ("value", "value")]  # it is the value
    folds = _replicate_columns(data)
    own = (*_TRIAL_COLUMNS, *_REPLICATE[:folds], *_RESULT_COLUMNS, *patient)
    named = metric_columns(extra, own)
    axes = axis_columns(data.axes, (*own, *named))
    rows = [
        [
            t.number,
            *(t.params.get(a) for a in data.axes),
            *_replicate(t, folds),
            t.state.value,
            metric_value(t, data.metric),
            *(finite(t.metrics.get(m)) for m in _RESULT_COLUMNS[:4]),
            *(finite(t.metrics.get(m)) for m in extra),
            *(getattr(t, name) for name in results),
        ]
        for t in sorted(data.trials, key=lambda t: t.number)
    ]
    columns = [
        *("number", *axes, *_REPLICATE[:folds], "state", "value"),
        *(*_RESULT_COLUMNS[:4], *named, *results),
    ]
    return PlainTable(columns, rows, (*axes, "state", "error", "key"))


def points_table(data: StudyData, *, ranking: Ranking | None = None) -> PlainTable:
    """Return one row a point, best first: rank, params, n, mean, spread over replicates, interval, other means.

    Then the mean time, how many of its replicates diverged or were pruned, and the numbers of its trials.
    Where points are ranked separately, which begins at rank 1 again, `apart` stands beside the rank: 0 of those that
    are ranked with the best, then a number for each group of others.
    """
    ranking = ranking or rank(data)
    extra = list(ranking.others)
    if not data.kind.classifies:  # all of them, not only those that tables have space for
        names = dict.fromkeys(name for trial in data.trials for name in trial.metrics)
        extra = [name for name in names if name != data.metric]
    if data.kind.classifies and "val_accuracy" not in (data.metric, *extra):
        extra.append("val_accuracy")
    if data.kind.classifies:
        recorded = {m for t in data.trials for m in t.metrics}
        extra += [m for m in CLASS_METRICS if m in recorded and m not in (data.metric, *extra)]
    named = metric_columns(extra, _OF_POINTS)
    axes = axis_columns(data.axes, (*_OF_POINTS, *named))
    rows = [
        [
            p.rank,
            *([p.apart] if ranking.incomparable else []),
            *(p.params.get(a) for a in data.axes),
            *(getattr(p, name) for name in _POINT_COLUMNS[1:]),
            *(p.metric_mean(m) for m in extra),
            p.seconds,
            *(getattr(p, name) for name in _LOST_COLUMNS),
            " ".join(str(t.number) for t in p.trials),
        ]
        for p in ranking.listed
    ]
    apart = [_APART] if ranking.incomparable else []
    columns = ["rank", *apart, *axes, *_POINT_COLUMNS[1:], *named, "seconds", *_LOST_COLUMNS, "trials"]
    return PlainTable(columns, rows, (*axes, "tied_with_best", "trials"))


def epochs_table(data: StudyData) -> PlainTable:
    """Return one row an epoch of a trial: number, its params, seed, then the epoch's scalars.

    Of a plain function, one row a step: its number and what was yielded.
    """
    if not data.kind.classifies:
        return _steps_table(data)
    folds = _replicate_columns(data)
    axes = axis_columns(data.axes, ("number", *_REPLICATE[:folds], *_EPOCH_COLUMNS))
    rows: list[list[Any]] = []
    for trial in sorted(data.trials, key=lambda t: t.number):
        head = _epoch_head(trial, data.axes, folds)
        rows.extend(
            [*head, *(getattr(row, name) for name in _EPOCH_COLUMNS)]
            for row in data.epochs.get(trial.number, ())
        )
    return PlainTable(["number", *axes, *_REPLICATE[:folds], *_EPOCH_COLUMNS], rows, axes)


def _steps_table(data: StudyData) -> PlainTable:
    metrics = list(dict.fromkeys(m for rows in data.steps.values() for row in rows for m in row.metrics))
    own = ("number", "seed", "step", "seconds")
    named = metric_columns(metrics, own)
    axes = axis_columns(data.axes, (*own, *named))
    rows = [
        [*_epoch_head(t, data.axes), row.step, *(row.metrics.get(m) for m in metrics), row.seconds]
        for t in sorted(data.trials, key=lambda t: t.number)
        for row in data.steps.get(t.number, ())
    ]
    return PlainTable(["number", *axes, "seed", "step", *named, "seconds"], rows, axes)


def metric_columns(metrics: Sequence[str], taken: Iterable[str]) -> list[str]:
    """Return a column's name for each metric; one that bears the name of another column is "metrics.NAME"."""
    return _apart(metrics, taken, "metrics.")


def trials_csv(data: StudyData) -> bytes:
    """Return `trials_table` as CSV in UTF-8."""
    return to_csv(_marked(trials_table(data), data))


def ranking_csv(data: StudyData, *, ranking: Ranking | None = None) -> bytes:
    """Return `points_table` as CSV in UTF-8."""
    return to_csv(_marked(points_table(data, ranking=ranking), data))


def _marked(table: PlainTable, data: StudyData) -> PlainTable:
    """Say in every row of a part of a study that it is one: a table goes on without the name of its folder."""
    if data.part is None:
        return table
    name = "only_trials_with"
    rows = [[*row, data.part.words] for row in table.rows]
    return PlainTable([*table.columns, name], rows, [*table.words, name])


def to_csv(table: PlainTable) -> bytes:
    """Return a table as CSV in UTF-8; text that a spreadsheet would run is made harmless.

    Numbers stay as they are, negative ones too; true and false are written as the command line has them.  Text that
    pandas and R take for a missing value is in quotes, and where text stands beside numbers, text that reads as one.
    """
    columns = [_cells(values, kind) for values, kind in table.by_column()]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(harmless(str(name)) for name in table.columns)
    writer.writerows(zip(*columns, strict=True))
    return out.getvalue().encode("utf-8", "replace")


def _cells(values: Sequence[Any], kind: Kind) -> list[Any]:
    """Return a column as it is written; what is missing, or no number, is empty."""
    held = [None if isinstance(value, float) and math.isnan(value) else value for value in values]
    if kind == "int":
        return held
    if kind == "float":
        return [None if value is None else float(value) for value in held]
    mixed = len({isinstance(value, str) for value in held}) > 1
    return [_cell(value, mixed=mixed) for value in held]


def axis_columns(axes: Sequence[str], taken: Iterable[str]) -> tuple[str, ...]:
    """Return a column name for each axis: its own, or "params.NAME" where a result has that name already."""
    return tuple(_apart(axes, taken, "params."))


def _apart(names: Sequence[str], taken: Iterable[str], prefix: str) -> list[str]:
    """Return names, those that are taken behind a prefix, so that no two columns bear one name."""
    reserved = set(taken)
    used = reserved.union(names)
    found = []
    for name in names:
        column = prefix + name if name in reserved else name
        while name in reserved and column in used:  # by a metric that is called "params.x" itself
            column = prefix + column
        used.add(column)
        found.append(column)
    return found


def _cell(value: Any, *, mixed: bool = False) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if mixed and isinstance(value, str) and reads_as_other(value):
        return json.dumps(value)
    return csv_text(value) if isinstance(value, str) else value


def _epoch_head(trial: TrialRecord, axes: Sequence[str], count: int = 1) -> list[Any]:
    return [trial.number, *(trial.params.get(a) for a in axes), *_replicate(trial, count)]


def _replicate_columns(data: StudyData) -> int:
    """Return how many of `_REPLICATE` a table has: the fold stands only where a study has folds."""
    return 1 + any(trial.settings.folds is not None for trial in data.trials)


def _replicate(trial: TrialRecord, count: int) -> list[int | None]:
    return [trial.seed, trial.settings.fold][:count]
