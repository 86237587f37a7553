"""From a study of a function to the same study by another metric that the function returned; beside `by_metric`.

Nobody but the user knows whether more or less of it is better.  Names like "loss" and "val_rmse" say it, any other is
maximized, as by `run --metric`; the metric's word may end in ":minimize" or ":maximize".
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gridsearch.errors import ArtifactError, UsageError, nearest
from gridsearch.records import TrialState
from gridsearch.reporting.ranking.points import finite
from gridsearch.reporting.words.text import plural, printable
from gridsearch.spec.study_options import DIRECTIONS, less_is_better

if TYPE_CHECKING:
    from gridsearch.records import StudyData, TrialRecord

_MOST_NAMED: Final = 3


def usual_direction(metric: str) -> str:
    """Return the direction of a function's metric where nobody gives one."""
    return "minimize" if less_is_better(metric) else "maximize"


def ranked_by_own(data: StudyData, asked: str) -> tuple[StudyData, tuple[str, ...]]:
    """Return a study of a function ranked by another of its metrics, and what to say of trials without it.

    Args:
        data: the study.
        asked: the metric's name, with ":minimize" or ":maximize" where its name does not say which.

    Raises:
        UsageError: the function returned no such metric, or it is the study's own, in another direction.
        ArtifactError: no trial has a finite value of it.
    """
    complete = [trial for trial in data.trials if trial.state is TrialState.COMPLETE]
    known = dict.fromkeys(name for trial in complete for name in trial.metrics)
    name, direction = asked, ""
    if asked not in known and asked.rpartition(":")[2] in DIRECTIONS:
        name, _, direction = asked.rpartition(":")
    if name not in known:
        raise UsageError(
            f"study {data.name!r} has no metric {printable(name, 80)!r}{nearest(name, known)}",
            hint="a study of a function is ranked by what the function returned",
        )
    own = data.own_metric or data.metric
    if name == own:
        usual = str(data.spec.get("direction", "maximize")) if data.own_metric else data.direction
        if direction not in ("", usual):
            raise UsageError(f"study {data.name!r} itself is ranked by {name!r}, with direction {usual}")
        if not data.own_metric:
            return data, ()
    else:
        usual = usual_direction(name)
    values = {t.number: v for t in complete if (v := finite(t.metrics.get(name))) is not None}
    if not values:
        raise ArtifactError(f"no trial of study {data.name!r} has a finite {printable(name, 80)}")
    missing = [t.number for t in complete if t.number not in values]
    shown = ", ".join(map(str, missing[:_MOST_NAMED]))
    more = f" and {len(missing) - _MOST_NAMED:,} more" if len(missing) > _MOST_NAMED else ""
    notes = (
        f"not ranked by {printable(name, 80)}: {plural(len(missing), 'trial')} without a finite value ({shown}{more})",
    )

    def trial(old: TrialRecord) -> TrialRecord:
        return replace(old, value=values.get(old.number))

    found = replace(
        data,
        metric=name,
        direction=direction or usual,
        own_metric="" if name == own else own,
        trials=tuple(trial(t) for t in data.trials),
    )
    return found, notes if missing else ()
