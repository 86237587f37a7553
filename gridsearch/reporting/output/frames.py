"""From a study to tables: pandas frames for Python users, CSV for spreadsheets."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from gridsearch.records import EpochRow
from gridsearch.records.axis import LARGEST_INT
from gridsearch.reporting.ranking.points import finite, metric_value
from gridsearch.reporting.ranking.ranking import CLASS_METRICS, TRIAL_METRICS, Ranking, rank
from gridsearch.reporting.stats.predictions import harmless
from gridsearch.spec.grammar import reads_as_other

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    import pandas as pd

    from gridsearch.records import StudyData, TrialRecord

_TRIAL_COLUMNS = ("number", "seed", "state", "value")
_RESULT_COLUMNS = (*TRIAL_METRICS, "epochs", "seconds", "attempts", "error", "key")
_POINT_COLUMNS = ("rank", "n", "mean", "spread", "ci_low", "ci_high", "tied_with_best", "diverged", "trials")
_REPLICATE = ("seed", "fold")
_EXACT = 2**53
"""Up to here a float64 holds every whole number."""

_EPOCH_COLUMNS = tuple(field.name for field in dataclasses.fields(EpochRow))


def trials_frame(data: StudyData) -> pd.DataFrame:
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
    return _frame(rows, columns, words=(*axes, "state", "error", "key"))


def points_frame(data: StudyData, *, ranking: Ranking | None = None) -> pd.DataFrame:
    """Return one row a point, best first: rank, params, n, mean, spread over replicates, interval, other means."""
    ranking = ranking or rank(data)
    extra = list(ranking.others)
    if data.kind.classifies and "val_accuracy" not in (data.metric, *extra):
        extra.append("val_accuracy")
    if data.kind.classifies:
        recorded = {m for t in data.trials for m in t.metrics}
        extra += [m for m in CLASS_METRICS if m in recorded and m not in (data.metric, *extra)]
    named = metric_columns(extra, (*_POINT_COLUMNS, "seconds"))
    axes = axis_columns(data.axes, (*_POINT_COLUMNS, *named, "seconds"))
    rows = [
        [
            p.rank,
            *(p.params.get(a) for a in data.axes),
            *(getattr(p, name) for name in _POINT_COLUMNS[1:7]),
            *(p.metric_mean(m) for m in extra),
            p.seconds,
            p.diverged,
            " ".join(str(t.number) for t in p.trials),
        ]
        for p in ranking.listed
    ]
    columns = ["rank", *axes, *_POINT_COLUMNS[1:7], *named, "seconds", "diverged", "trials"]
    frame = _frame(rows, columns, words=(*axes, "tied_with_best", "trials"))
    return frame.astype({"rank": "Int64"})


def epochs_frame(data: StudyData) -> pd.DataFrame:
    """Return one row an epoch of a trial: number, its params, seed, then the epoch's scalars.

    Of a plain function, one row a step: its number and what was yielded.
    """
    if not data.kind.classifies:
        return _steps_frame(data)
    folds = _replicate_columns(data)
    axes = axis_columns(data.axes, ("number", *_REPLICATE[:folds], *_EPOCH_COLUMNS))
    rows: list[list[Any]] = []
    for trial in sorted(data.trials, key=lambda t: t.number):
        head = _epoch_head(trial, data.axes, folds)
        rows.extend(
            [*head, *(getattr(row, name) for name in _EPOCH_COLUMNS)]
            for row in data.epochs.get(trial.number, ())
        )
    return _frame(rows, ["number", *axes, *_REPLICATE[:folds], *_EPOCH_COLUMNS], words=axes)


def _steps_frame(data: StudyData) -> pd.DataFrame:
    metrics = list(dict.fromkeys(m for rows in data.steps.values() for row in rows for m in row.metrics))
    own = ("number", "seed", "step", "seconds")
    named = metric_columns(metrics, own)
    axes = axis_columns(data.axes, (*own, *named))
    rows = [
        [*_epoch_head(t, data.axes), row.step, *(row.metrics.get(m) for m in metrics), row.seconds]
        for t in sorted(data.trials, key=lambda t: t.number)
        for row in data.steps.get(t.number, ())
    ]
    return _frame(rows, ["number", *axes, "seed", "step", *named, "seconds"], words=axes)


def _frame(rows: Sequence[Sequence[Any]], columns: Sequence[str], *, words: Collection[str]) -> pd.DataFrame:
    """Return a frame whose columns have the types of what is in them.

    Whole numbers stay whole beside None (Int64), true and false likewise (boolean); a column of numbers is one where
    all are missing.

    Args:
        rows: by row.
        columns: their names.
        words: columns that may hold anything; without a value they are no numbers.
    """
    import pandas as pd

    held = [pd.Series([row[i] for row in rows], dtype=object) for i in range(len(columns))]
    made = [_typed(each, number=name not in words) for name, each in zip(columns, held, strict=True)]
    frame = pd.concat(made, axis=1) if made else pd.DataFrame()
    frame.columns = list(columns)
    return frame


def _typed(column: pd.Series, *, number: bool) -> pd.Series:
    present = [value for value in column if value is not None]
    gaps = len(present) < len(column)
    kinds = {type(value) for value in present}
    if not present:
        return column.astype("float64") if number else column
    if kinds == {bool}:
        return column.astype("boolean" if gaps else "bool")
    if kinds == {int} and all(abs(value) <= LARGEST_INT for value in present):
        return column.astype("Int64" if gaps else "int64")
    if kinds <= {int, float} and all(abs(value) <= _EXACT for value in present if type(value) is int):
        return column.astype("float64")
    return column


def metric_columns(metrics: Sequence[str], taken: Iterable[str]) -> list[str]:
    """Return a column's name for each metric; one that bears the name of another column is "metrics.NAME"."""
    return _apart(metrics, taken, "metrics.")


def effects_frame(ranking: Ranking) -> pd.DataFrame:
    """Return one row an effect, the strongest first: axis ("lr", or "batch,lr" for two together) and its share."""
    import pandas as pd

    from gridsearch.reporting.ranking.effects import decompose

    rows = [(e.axis, e.share) for e in decompose(ranking).effects]
    return pd.DataFrame(rows, columns=["axis", "share"])


def findings_frame(data: StudyData, *, ranking: Ranking) -> pd.DataFrame:
    """Return one row a finding; see `findings.Finding`."""
    import pandas as pd

    from gridsearch.reporting.findings.study_findings import find

    columns = ["code", "name", "axis", "sentence", "command"]
    return pd.DataFrame([f.to_json() for f in find(data, ranking)], columns=columns)


def ensembles_frame(ranking: Ranking) -> pd.DataFrame:
    """Return one row an ensemble of the best points; see `ensemble.Ensemble`."""
    import pandas as pd

    columns = ["points", "trials", "val_accuracy", "ci_low", "ci_high", "images", "alone"]
    return pd.DataFrame([e.to_json() for e in ranking.ensembles], columns=columns)


def trials_csv(data: StudyData) -> bytes:
    """Return `trials_frame` as CSV in UTF-8."""
    return to_csv(_marked(trials_frame(data), data))


def ranking_csv(data: StudyData, *, ranking: Ranking | None = None) -> bytes:
    """Return `points_frame` as CSV in UTF-8."""
    return to_csv(_marked(points_frame(data, ranking=ranking), data))


def _marked(frame: pd.DataFrame, data: StudyData) -> pd.DataFrame:
    """Say in every row of a part of a study that it is one: a table goes on without the name of its folder."""
    return frame if data.part is None else frame.assign(only_trials_with=data.part.words)


def to_csv(frame: pd.DataFrame) -> bytes:
    """Return a frame as CSV in UTF-8, without its index; text that a spreadsheet would run is made harmless.

    Numbers stay as they are, negative ones too; true and false are written as the command line has them.  Where text
    stands beside numbers, text that reads as one is in quotes.
    """
    safe = frame.astype(object).where(frame.notna(), None)
    for place, kind in enumerate(frame.dtypes):
        if kind.kind not in "iuf":
            values = list(safe.iloc[:, place])
            mixed = len({isinstance(v, str) for v in values}) > 1
            safe.isetitem(place, [_cell(v, mixed=mixed) for v in values])
    safe.columns = [harmless(str(c)) for c in frame.columns]
    return bytes(safe.to_csv(index=False, lineterminator="\n").encode("utf-8", "replace"))


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
    return harmless(value) if isinstance(value, str) else value


def _epoch_head(trial: TrialRecord, axes: Sequence[str], count: int = 1) -> list[Any]:
    return [trial.number, *(trial.params.get(a) for a in axes), *_replicate(trial, count)]


def _replicate_columns(data: StudyData) -> int:
    """Return how many of `_REPLICATE` a table has: the fold stands only where a study has folds."""
    return 1 + any(trial.settings.folds is not None for trial in data.trials)


def _replicate(trial: TrialRecord, count: int) -> list[int | None]:
    return [trial.seed, trial.settings.fold][:count]
