"""From a study to pandas frames, for Python users; `plain_tables` says what is in them."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gridsearch.reporting.output import plain_tables

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from gridsearch.records import StudyData
    from gridsearch.reporting.output.plain_tables import Kind, PlainTable
    from gridsearch.reporting.ranking.ranking import Ranking

_DTYPES: Mapping[Kind, tuple[Any, Any]] = MappingProxyType(
    {
        "bool": ("bool", "boolean"),
        "int": ("int64", "Int64"),
        "float": ("float64", "float64"),
        "object": ("object", "object"),
    }
)
"""Of a column, and of one with gaps."""


def trials_frame(data: StudyData) -> pd.DataFrame:
    """Return one row a trial, see `plain_tables.trials_table`."""
    return frame_of(plain_tables.trials_table(data))


def points_frame(data: StudyData, *, ranking: Ranking | None = None) -> pd.DataFrame:
    """Return one row a point, best first, see `plain_tables.points_table`."""
    return frame_of(plain_tables.points_table(data, ranking=ranking)).astype({"rank": "Int64"})


def epochs_frame(data: StudyData) -> pd.DataFrame:
    """Return one row an epoch of a trial, or a step of a function, see `plain_tables.epochs_table`."""
    return frame_of(plain_tables.epochs_table(data))


def frame_of(table: PlainTable) -> pd.DataFrame:
    """Return a frame whose columns have the types of what is in them.

    Whole numbers stay whole beside None (Int64), true and false likewise (boolean); a column of numbers is one where
    all are missing.
    """
    import pandas as pd

    made = [
        pd.Series(values, dtype=object).astype(_DTYPES[kind][None in values])
        for values, kind in table.by_column()
    ]
    frame = pd.concat(made, axis=1) if made else pd.DataFrame()
    frame.columns = list(table.columns)
    return frame


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
