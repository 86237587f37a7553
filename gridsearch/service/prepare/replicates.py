"""More seeds for the best points of a stored study; chooses the trials, which then run like any others."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING, Final

from gridsearch.errors import StoreError, UsageError
from gridsearch.records import StudyData, TrialDraft, TrialRecord, TrialState, trial_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.records import Settings
    from gridsearch.reporting import RankedPoint


TOP: Final = 2
"""For how many points more seeds are, where nobody says: the first two, which the report would tell apart."""


@dataclass(frozen=True, slots=True)
class MoreSeeds:
    """Asks for more replicates.

    Attributes:
        seeds: how many more for each point.
        top: for how many points, the best first.
    """

    seeds: int
    top: int = TOP

    def __post_init__(self) -> None:
        """Refuse what is no number of seeds or points.

        Raises:
            UsageError: either is not a whole number of at least 1.
        """
        for option, value in (("--more-seeds", self.seeds), ("--top", self.top)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UsageError(f"{option} {value}: must be a whole number of at least 1")


def more_replicates(data: StudyData, more: MoreSeeds) -> tuple[TrialDraft, ...]:
    """Return the trials that give the best points their additional seeds, and those that they lack already.

    Each point gets the smallest seeds that it does not have: points of the same seeds get the same new ones, so
    that they can be compared seed by seed.

    Raises:
        StoreError: no point has a result, so none is best.
    """
    from gridsearch import reporting

    ranking = reporting.rank(data)
    points = ranking.ranked or tuple(p for p in ranking.points if p.mean is not None)
    if not points:
        raise StoreError(
            f"study {data.name!r} has no finished trial, so no point is best yet",
            hint=data.to_a_result,
        )
    return tuple(d for point in points[: more.top] for d in _of_point(point, data.axes, more.seeds))


def _of_point(point: RankedPoint, axes: Sequence[str], seeds: int) -> list[TrialDraft]:
    """Return a point's replicates without a result, and so many new ones."""
    first = point.trials[0]
    open_ones = [stored_draft(t, axes) for t in point.trials if not has_result(t)]
    taken = {t.seed for t in point.trials}
    new = islice((seed for seed in count() if seed not in taken), seeds)
    own = tuple(first.params)
    made = [_draft(each, seed, own, axes) for seed in new for each in point.settings.replicates(seed)]
    return [*open_ones, *made]


def open_or_more(data: StudyData, more: MoreSeeds | None) -> tuple[TrialDraft, ...]:
    """Return the trials without a result (all, where there is none), or more replicates of the best points."""
    if more is not None:
        return more_replicates(data, more)
    missing = [t for t in data.trials if not has_result(t)] or data.trials
    return tuple(stored_draft(t, data.axes) for t in missing)


def has_result(trial: TrialRecord) -> bool:
    """Whether a trial need not be trained again."""
    return trial.state in (TrialState.COMPLETE, TrialState.DIVERGED)


def stored_draft(trial: TrialRecord, axes: Sequence[str]) -> TrialDraft:
    """Return a stored trial as a grid would ask for it.

    Args:
        trial: the trial.
        axes: the study's.
    """
    return _draft(trial.settings, trial.seed, tuple(trial.params), axes)


def _draft(settings: Settings, seed: int, own: Sequence[str], axes: Sequence[str]) -> TrialDraft:
    return TrialDraft(
        key=trial_key(settings, seed),
        seed=seed,
        settings=settings,
        axes=tuple(own),
        inactive=tuple(axis for axis in axes if axis not in own),
    )
