"""Findings about values of an axis at which trials fail, or diverge, all in the same way, and elsewhere do not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from gridsearch.records import TrialState
from gridsearch.records.axis import identity
from gridsearch.reporting.findings.finding import LEVEL, Finding
from gridsearch.reporting.ranking.points import levels_of
from gridsearch.reporting.words.text import plural, printable, show_param
from gridsearch.reporting.words.typed import ABSENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gridsearch.records import StudyData, TrialRecord, Value
    from gridsearch.reporting.findings.next_grids import NextGrids
    from gridsearch.reporting.ranking.ranking import Ranking

_ENDED = (TrialState.COMPLETE, TrialState.DIVERGED, TrialState.FAILED, TrialState.PRUNED)
_CODES = {TrialState.FAILED: ("GS105", "failed"), TrialState.DIVERGED: ("GS106", "diverged")}
_LIKELY = 0.5
"""The share of a value's trials that must be lost: of one that is lost now and then, its settings decide no less."""


class LostValue(NamedTuple):
    """A value of an axis at which trials are lost in one way, and elsewhere are not.

    Attributes:
        state: FAILED or DIVERGED.
        trials: those that were lost in this way.
        p_value: of Fisher's exact test.
        at: how many trials with this value were lost so, of how many.
        elsewhere: likewise without it.
    """

    axis: str
    value: Value
    state: TrialState
    trials: Sequence[TrialRecord]
    p_value: float
    at: tuple[int, int]
    elsewhere: tuple[int, int]


def lost_values(data: StudyData, ranking: Ranking) -> list[LostValue]:
    """Return for each way in which trials are lost the value that has to do with it, where there is one."""
    ended = [t for t in data.trials if t.state in _ENDED]
    candidates = [(a, v) for a in ranking.varying for v in levels_of(ranking.points, a) if v != ABSENT]
    every = []
    for state in _CODES:
        ways: dict[str, list[TrialRecord]] = {}
        for trial in ended:
            if trial.state is state:
                ways.setdefault(_way(trial), []).append(trial)
        for lost in ways.values():
            if (found := _decisive(ended, lost, candidates)) is not None:
                axis, value, p_value, at, elsewhere = found
                every.append(LostValue(axis, value, state, lost, p_value, at, elsewhere))
    return every


def about_losses(lost: Sequence[LostValue], ranking: Ranking, grids: NextGrids) -> Iterator[Finding]:
    """Find values at which trials are lost; see `lost_values`."""
    for each in lost:
        axis, value, (hit, at), (other, rest) = each.axis, each.value, each.at, each.elsewhere
        code, verb = _CODES[each.state]
        kept = [v for v in levels_of(ranking.points, axis) if v != ABSENT and identity(v) != identity(value)]
        first = next(t for t in each.trials if _has(t, axis, value))
        why = f" ({printable(first.error, 100)})" if first.error and each.state is TrialState.FAILED else ""
        point = next((p for p in (ranking.best, *ranking.points) if p is not None), None)
        assert point is not None
        yield Finding(
            code=code,
            axis=axis,
            value=value,
            sentence=f"{hit} of {plural(at, 'trial')} with {printable(axis)}={show_param(first.params, axis)} {verb} "
            f"in the same way{why}, and {other} of {rest} without it (Fisher's exact test, p {_p(each.p_value)}; the "
            f"first is trial {first.number}). Continue without this value.",
            command=grids.without(axis, kept=kept, point=point) if kept else "",
        )


def _decisive(
    ended: list[TrialRecord], lost: list[TrialRecord], candidates: list[tuple[str, Value]]
) -> tuple[str, Value, float, tuple[int, int], tuple[int, int]] | None:
    """Return the value that separates lost trials from others best, if it does: axis, value, p, and both counts."""
    from scipy.stats import fisher_exact

    numbers = {t.number for t in lost}
    found = []
    for axis, value in candidates:
        at = [t for t in ended if _has(t, axis, value)]
        hit = sum(t.number in numbers for t in at)
        other, rest = len(lost) - hit, len(ended) - len(at)
        if not at or not rest or hit / len(at) < _LIKELY:
            continue
        p = float(fisher_exact([[hit, len(at) - hit], [other, rest - other]], alternative="greater").pvalue)
        if p < LEVEL / len(candidates):
            found.append((axis, value, p, (hit, len(at)), (other, rest)))
    return min(found, key=lambda each: each[2], default=None)


def _has(trial: TrialRecord, axis: str, value: Value) -> bool:
    return axis in trial.params and identity(trial.params[axis]) == identity(value)


def _way(trial: TrialRecord) -> str:
    """Return how a trial was lost: its error but for the numbers in it; all divergence is one way."""
    return re.sub(r"\d+", "0", trial.error or "") if trial.state is TrialState.FAILED else ""


def _p(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"= {value:.2g}"
