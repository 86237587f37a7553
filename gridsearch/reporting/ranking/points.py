"""A point of a study with its replicates, and the values that count; below all of ranking.

Only the study's metric decides, and only COMPLETE trials count.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

from gridsearch.records import Settings, TrialRecord, TrialState, Value
from gridsearch.records.axis import identity
from gridsearch.reporting.stats import moments
from gridsearch.reporting.words.text import show_params, show_replicates
from gridsearch.reporting.words.typed import ABSENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RankedPoint:
    """A point with its replicates.

    Attributes:
        rank: counted from 1, equal for equal means (1, 1, 3); None while the point has no result.
        params: what varies in the study, and the axes of the grid.
        settings: everything that decides the result, the seed aside.
        trials: its replicates in order of their seeds and folds, in whatever state.
        values: the metric of the COMPLETE ones, in the same order; fractions for accuracies.
        mean: mean of `values`, None if there are none.
        spread: standard deviation over seeds and folds (n - 1 in the denominator), None with fewer than two.
        ci_low: lower end of the 95 % confidence interval of the mean, None where there is none; likewise ci_high.
            What it is about, seeds, folds or images, says the ranking's `uncertainty`.
        tied_with_best: whether the point cannot be distinguished from the best, itself included; only equal means
            are tied where the ranking has no basis to say more.
        outsized: whether its mean is so large that no sum holds both it and the others: it ranks last.
        apart: 0 where it is ranked with the best point; else the number, from 1, of those with which it is ranked
            separately: each of these begins at rank 1 again.
    """

    rank: int | None
    params: Mapping[str, Value]
    settings: Settings
    trials: tuple[TrialRecord, ...]
    values: tuple[float, ...]
    mean: float | None
    spread: float | None
    ci_low: float | None = None
    ci_high: float | None = None
    tied_with_best: bool = False
    outsized: bool = False
    apart: int = 0

    def __repr__(self) -> str:
        """Return one line: place, params and mean; its trials and settings would fill a screen."""
        place = f"{self.rank}, apart" if self.apart else f"{self.rank}"
        return f"<RankedPoint {place}: {show_params(self.params, limit=160)}; n={self.n}, mean {self.mean}>"

    @property
    def n(self) -> int:
        """The number of replicates that count."""
        return len(self.values)

    @property
    def folds(self) -> int | None:
        """The number of folds of its cross-validation, None without one."""
        return self.settings.folds

    @property
    def seeds(self) -> int:
        """The number of seeds of which a replicate counts."""
        return len({t.seed for t in self.complete})

    @property
    def replicates(self) -> str:
        """How many replicates count, in words: "3 seeds", "5 folds x 3 seeds"; "one seed"."""
        if self.n == 1 and self.folds is None:
            return "one seed"
        return show_replicates(self.n, seeds=self.seeds, folds=self.folds)

    @property
    def noun(self) -> str:
        """What its replicates are called: "seed", or "fold"."""
        return "seed" if self.folds is None else "fold"

    @property
    def tier(self) -> int:
        """0: ranked by its mean; 1 to 3: likewise, below all those; 4: diverged at every seed; 5: no result."""
        if self.outsized:
            return 3
        if self.diverged:
            return 2 if self.values else 4
        if not self.values:
            return 5
        return 1 if self.pruned else 0

    @property
    def diverged(self) -> int:
        """The number of replicates that diverged."""
        return sum(t.state is TrialState.DIVERGED for t in self.trials)

    @property
    def pruned(self) -> int:
        """The number of replicates that were ended early."""
        return sum(t.state is TrialState.PRUNED for t in self.trials)

    @property
    def complete(self) -> tuple[TrialRecord, ...]:
        """The COMPLETE replicates in order of their seeds and folds."""
        return tuple(t for t in self.trials if t.state is TrialState.COMPLETE)

    @property
    def drawable(self) -> bool:
        """Whether it has a mean that figures draw: no replicate diverged, and it is not out of all measure.

        A maximized 1e181 ranks last: on the scale of the others it would have the colour of the best.
        """
        return self.mean is not None and not self.diverged and not self.outsized

    @property
    def seconds(self) -> float | None:
        """Mean wall time of the COMPLETE replicates."""
        return moments.mean([t.seconds for t in self.complete if t.seconds is not None])

    def level(self, axis: str) -> Value:
        """Return the point's value of an axis, `ABSENT` if it does not have that axis."""
        return self.params.get(axis, ABSENT)

    def metric_mean(self, name: str) -> float | None:
        """Return the mean of one of the final metrics over the COMPLETE replicates that have it, finite."""
        values = (finite(t.metrics.get(name)) for t in self.complete)
        return moments.mean([v for v in values if v is not None])


def metric_value(trial: TrialRecord, metric: str) -> float | None:
    """Return a COMPLETE trial's value of the study's metric, None where it has none or it is not finite.

    A trial without held-out images has no validation metric, whatever its value column says: a train accuracy
    never stands in for it.
    """
    if trial.state is not TrialState.COMPLETE:
        return None
    value = finite(trial.metrics.get(metric))
    if (
        value is None
        and metric not in trial.metrics
        and not (metric.startswith("val_") and trial.settings.trains_on_all)
    ):
        value = finite(trial.value)
    return value


class Replicate(NamedTuple):
    """Which replicate of its point a trial is; points are compared over those that they share.

    Attributes:
        seed: of the trial.
        fold: which fold it held out, 0 without folds.
        split: what else decides which images were held out: values on others are not paired.
    """

    seed: int
    fold: int
    split: str

    @classmethod
    def of(cls, trial: TrialRecord) -> Self:
        """Return which replicate a trial is."""
        settings = trial.settings
        return cls(trial.seed, settings.fold or 0, repr(settings.split()))

    @property
    def partition(self) -> tuple[int, str]:
        """What its fold has in common with those that images were parted into together with it."""
        return self.seed, self.split


def values_by_replicate(trials: Iterable[TrialRecord], metric: str) -> dict[Replicate, float]:
    """Return the value of each replicate that counts."""
    return {Replicate.of(t): v for t in trials if (v := metric_value(t, metric)) is not None}


def means_in_common(one: RankedPoint, other: RankedPoint, metric: str) -> tuple[float, float, int] | None:
    """Return the means of two points over the replicates that both have, and how many these are; None without any."""
    first, second = (values_by_replicate(p.trials, metric) for p in (one, other))
    shared = sorted(set(first) & set(second))
    means = [moments.mean([own[replicate] for replicate in shared]) for own in (first, second)]
    return None if means[0] is None or means[1] is None else (means[0], means[1], len(shared))


def finite(value: float | None) -> float | None:
    """Return a number, None for None, NaN and the infinities (JSON has no word for them)."""
    return float(value) if value is not None and math.isfinite(value) else None


def point_key(settings: Settings) -> str:
    """Return what distinguishes points: `records.trial_key` without the seed and the fold."""
    content = settings.point().to_json()
    for name in ("dataset", "data_options"):  # as in records.trial_key: the fingerprint says what the data is
        content.pop(name, None)
    return json.dumps(content, sort_keys=True)


def levels_of(points: Sequence[RankedPoint], axis: str) -> tuple[Value, ...]:
    """Return an axis's values: numbers ascending, other values before them in the order of their trials."""
    first: dict[tuple[bool, Value], Value] = {}
    for point in sorted(points, key=lambda p: p.trials[0].number):
        value = point.level(axis)
        first.setdefault(identity(value), value)
    words: list[Value] = []
    numbers: list[int | float] = []
    for value in first.values():
        if isinstance(value, int | float) and not isinstance(value, bool):
            numbers.append(value)
        else:
            words.append(value)
    return (*words, *sorted(numbers))


class Levels:
    """An axis's values in the order of `levels_of`, and the place of each point among them.

    Args:
        points: whose values they are.
        axis: the axis.
    """

    def __init__(self, points: Sequence[RankedPoint], axis: str) -> None:
        self.axis = axis
        self.values = levels_of(points, axis)
        self._places = {identity(value): i for i, value in enumerate(self.values)}

    def __len__(self) -> int:
        return len(self.values)

    def place(self, point: RankedPoint) -> int:
        """Return the place of a point's value, counted from 0."""
        return self._places[identity(point.level(self.axis))]

    @property
    def joined(self) -> bool:
        """Whether a line may join its values: all are numbers."""
        return not any(isinstance(value, str | bool | None) for value in self.values)
