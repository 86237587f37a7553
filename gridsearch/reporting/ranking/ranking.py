"""From a study's trials to ranked points: the stage of reporting on which tables, figures and page rest.

Only the study's metric decides, and only COMPLETE trials count.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from gridsearch.records.axis import identity
from gridsearch.records.image_metrics import ACCURACY, TRAIN_ACCURACY, label_of
from gridsearch.records.study_kinds import IMAGES, StudyKind
from gridsearch.reporting.ranking.out_of_fold import predictions_of
from gridsearch.reporting.ranking.points import RankedPoint, finite, point_key, values_by_replicate
from gridsearch.reporting.ranking.recipes import mixed_settings
from gridsearch.reporting.stats import moments
from gridsearch.reporting.words.digits import Digits
from gridsearch.reporting.words.text import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gridsearch.records import StudyData, TrialRecord, Value
    from gridsearch.reporting.ranking.inference import Measured
    from gridsearch.reporting.ranking.pareto import ParetoFront
    from gridsearch.reporting.stats.ensemble import Ensemble
    from gridsearch.reporting.stats.predictions import Predictions
    from gridsearch.reporting.stats.uncertainty import Uncertainty

TRIAL_METRICS: Final = ("val_accuracy", "val_loss", "train_accuracy", "train_loss")
"""What every trial on images has."""
CLASS_METRICS: Final = ("balanced_accuracy", "macro_f1")
"""Metrics in which every class counts alike, however many images it has."""
UNEVEN: Final = 0.005
"""Where accuracy and balanced accuracy of a trial differ by so much, both are shown."""
MOST_APART: Final = 512
"""Powers of two by which a mean may be larger than the median one: a float holds the squares of no more."""
MOST_METRICS: Final = 12
"""Metrics of a function that tables show beside the one that ranks."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Ranking:
    """A study's points, best first; points without a result come last, in order of their trials.

    Attributes:
        best: the winner, None while no point has a mean.
        varying: the axes that have more than one value over the points, in the study's order.
        uncertainty: what intervals and ties rest on, and how many seeds would help.
        ensembles: what the best points say together; none without stored predictions.
        others: the metrics beside the ranking one that are worth a column.
        kind: what the study is of.
        noun: what the replicates of its points are called: "seed", or "fold" where there is a cross-validation.
        digits: by metric, how the numbers of its column are written.
        incomparable: points that were trained on other images, ranked among themselves and not compared with
            `points`.
        mixed: those of `varying` that no grid asked for: the study holds points of several recipes.
        pareto: the points by several quantities, None where nobody asked.
    """

    metric: str
    direction: str
    points: tuple[RankedPoint, ...]
    counts: Mapping[str, int]
    best: RankedPoint | None
    varying: tuple[str, ...]
    uncertainty: Uncertainty
    ensembles: tuple[Ensemble, ...] = ()
    others: tuple[str, ...] = ()
    kind: StudyKind = IMAGES
    noun: str = "seed"
    digits: Mapping[str, Digits] = field(default_factory=dict)
    incomparable: tuple[RankedPoint, ...] = ()
    mixed: tuple[str, ...] = ()
    pareto: ParetoFront | None = None

    def __repr__(self) -> str:
        """Return one line: how many points there are, and the best."""
        return f"<Ranking by {self.metric!r}: {plural(len(self.listed), 'point')}; best {self.best}>"

    def digits_of(self, metric: str | None = None) -> Digits:
        """Return how numbers of a metric are written in this ranking; default: of the one that ranks."""
        name = metric or self.metric
        return self.digits.get(name) or Digits(name)

    @property
    def listed(self) -> tuple[RankedPoint, ...]:
        """All points, as tables list them: those that are ranked, then those of other images."""
        return *self.points, *self.incomparable

    @property
    def best_trial(self) -> TrialRecord | None:
        """The winner's first COMPLETE seed and fold: chosen beforehand, never the luckiest replicate."""
        return next(iter(self.best.complete), None) if self.best else None

    @property
    def ranked(self) -> tuple[RankedPoint, ...]:
        """The points that have a mean and no diverged replicate, best first; none whose mean is out of all measure."""
        return tuple(p for p in self.points if p.drawable)

    @property
    def runner_up(self) -> RankedPoint | None:
        """The point after the winner, None if there is no other with a mean."""
        others = [p for p in self.points if p is not self.best and p.mean is not None]
        return others[0] if others and self.best else None

    @property
    def tied(self) -> tuple[RankedPoint, ...]:
        """The points that cannot be distinguished from the best, itself aside, best first."""
        return tuple(p for p in self.points if p.tied_with_best and p is not self.best)

    @property
    def class_metrics(self) -> tuple[str, ...]:
        """The class-balanced metrics, where classes are so uneven that they say something else than accuracy."""
        return tuple(m for m in self.others if m in CLASS_METRICS) if self.kind.classifies else ()

    @property
    def by_train(self) -> bool:
        """Whether nothing was held out, so that the ranking goes by what the network was trained on."""
        return self.kind.classifies and self.metric.startswith("train_")

    @property
    def most_seeds(self) -> int:
        """The largest number of replicates that count at any point."""
        return max((p.n for p in self.points), default=0)


def rank(
    data: StudyData,
    *,
    predictions: Callable[[int], Predictions | None] | None = None,
    known: Mapping[int, Measured] | None = None,
) -> Ranking:
    """Rank a study's points by the mean of its metric over seeds and folds, and say how sure that is.

    Args:
        data: the study.
        predictions: the stored validation predictions of a trial by its number; with one seed a point, all that is
            known of a ranking's uncertainty comes from them, and with any number the ensembles.
        known: what the predictions of some trials say by the metric, by their number: these are not read for it again.

    Trials that differ in seed and fold alone are replicates of one point.  A point with a diverged replicate ranks
    below all without one.  A point with pruned replicates ranks below those without any: only its better seeds
    are left, so its mean is too good.  A point whose mean is finite but out of all measure (a loss of 1e181 beside
    0.1) ranks below all these.  A point of which no replicate is complete or diverged has rank None.
    Equal means share a rank, in the order of their trials.  Where images changed, the points of the newest run's
    images are ranked; those of others each among themselves (`Ranking.incomparable`): no accuracy on other images
    is compared.
    """
    from gridsearch.reporting.ranking.inference import assess  # with scipy, which only a ranking needs

    if (by_images := _by_images(data)) is not None:
        return _with_incomparable(
            [rank(part, predictions=predictions, known=known) for part in by_images], data
        )
    sign = -1.0 if data.direction == "minimize" else 1.0
    ranked = _best_first(data, sign)
    peers = sum(p.mean is not None and p.tier == ranked[0].tier for p in ranked)
    ranked, uncertainty = assess(
        ranked,
        [values_by_replicate(p.trials, data.metric) for p in ranked],
        metric=data.metric,
        sign=sign,
        peers=peers,
        read=_reader(data, predictions, known or {}),
    )
    best = ranked[0] if ranked and ranked[0].mean is not None else None
    others = other_metrics(data)
    varying = varying_axes(ranked, data.axes)
    ranking = Ranking(
        metric=data.metric,
        direction=data.direction,
        points=tuple(ranked),
        counts=data.counts(),
        best=best,
        varying=varying,
        uncertainty=uncertainty,
        others=others,
        kind=data.kind,
        noun="fold" if any(p.folds for p in ranked) else "seed",
        digits={name: _digits(ranked, name, data.metric) for name in (data.metric, *others)},
        mixed=mixed_settings(varying, data.commands) if data.kind.classifies else (),
    )
    if predictions is None or not data.kind.classifies or data.metric != "val_accuracy":
        return ranking
    return _with_ensembles(ranking, predictions)


def _best_first(data: StudyData, sign: float) -> list[RankedPoint]:
    """Return the points with their ranks; `sign` is -1 where the lower metric is the better one."""
    groups: dict[str, list[TrialRecord]] = {}
    for trial in data.trials:
        groups.setdefault(point_key(trial.settings), []).append(trial)
    points = _measured([_point(trials, metric=data.metric) for trials in groups.values()])
    points.sort(key=lambda p: (p.tier, 0.0 if p.mean is None else -sign * p.mean, p.trials[0].number))
    return _with_ranks(points)


def _with_ensembles(ranking: Ranking, predictions: Callable[[int], Predictions | None]) -> Ranking:
    from gridsearch.reporting.stats.ensemble import ensembles

    by_number = {p.complete[0].number: p for p in ranking.ranked}
    found = ensembles([*by_number], lambda number: predictions_of(by_number[number], predictions))
    return replace(ranking, ensembles=found)


def _reader(
    data: StudyData, predictions: Callable[[int], Predictions | None] | None, known: Mapping[int, Measured]
) -> Callable[[RankedPoint], Measured | None] | None:
    """Return what says what a point's first trial shows by the study's metric; None where no predictions are."""
    from gridsearch.reporting.ranking.inference import measured

    if predictions is None or not data.kind.classifies:
        return None

    def read(point: RankedPoint) -> Measured | None:
        found = known.get(point.complete[0].number)
        if found is not None and found.score.value == point.mean:
            return found
        label = label_of(data.metric, data.classes_of(point.settings))
        return measured(point, predictions, metric=data.metric, label=label)

    return read


def _by_images(data: StudyData) -> list[StudyData] | None:
    """Return the parts of a study that were trained on other images each, newest first; None where all are alike."""
    ages = data.data_ages() if data.kind.classifies else {}
    if len(set(ages.values())) < 2:
        return None
    parts: dict[int, list[TrialRecord]] = {}
    for trial in data.trials:
        parts.setdefault(ages[trial.settings.data_fingerprint], []).append(trial)
    return [replace(data, trials=tuple(parts[age])) for age in sorted(parts)]


def _with_incomparable(rankings: list[Ranking], data: StudyData) -> Ranking:
    """Return the first ranking that has a winner, with the points of the others apart."""
    first = next((r for r in rankings if r.best is not None), rankings[0])
    return with_others(first, [r for r in rankings if r is not first], data)


def with_others(first: Ranking, others: Iterable[Ranking], data: StudyData) -> Ranking:
    """Return a ranking of some of a study's points, with those of other rankings apart, each group by itself."""
    groups = [first.incomparable]
    for ranking in others:
        groups += [ranking.points, ranking.incomparable]
    apart: list[RankedPoint] = []
    for group in groups:
        base = max((p.apart for p in apart), default=0)
        start = base + 1 - min((p.apart for p in group), default=0)
        apart += [replace(p, tied_with_best=False, apart=start + p.apart) for p in group]
    return replace(first, counts=data.counts(), incomparable=tuple(apart))


def winners_classes(data: StudyData, ranking: Ranking) -> tuple[str, ...]:
    """Return the class names of the images that the winner was trained on, by label."""
    return data.classes_of(ranking.best.settings) if ranking.best is not None else data.class_names


def other_metrics(data: StudyData) -> tuple[str, ...]:
    """Return the metrics beside the ranking one that tables show: of images ours, of a function its own."""
    names: Iterable[str] = ("val_loss", "train_accuracy", "train_loss")
    if data.metric not in (ACCURACY, TRAIN_ACCURACY):
        names = (ACCURACY, *names)
    if _uneven(data):
        names = (*CLASS_METRICS, *names)
    if not data.kind.classifies:
        names = dict.fromkeys(name for trial in data.trials for name in trial.metrics)
    return tuple(name for name in names if name != data.metric)[:MOST_METRICS]


def varying_axes(points: Iterable[RankedPoint], axes: Sequence[str]) -> tuple[str, ...]:
    """Return the axes of which the points hold more than one value."""
    seen: dict[str, set[tuple[bool, Value]]] = {axis: set() for axis in axes}
    for point in points:
        for axis, values in seen.items():
            values.add(identity(point.level(axis)))
    return tuple(axis for axis in axes if len(seen[axis]) > 1)


def _point(trials: list[TrialRecord], *, metric: str) -> RankedPoint:
    trials.sort(key=lambda t: (t.seed, t.settings.fold or 0, t.number))
    values = tuple(values_by_replicate(trials, metric).values())
    return RankedPoint(
        rank=None,
        params=trials[0].params,
        settings=trials[0].settings.point(),
        trials=tuple(trials),
        values=values,
        mean=moments.mean(values),
        spread=moments.deviation(values),
    )


def _digits(points: Sequence[RankedPoint], metric: str, ranked_by: str) -> Digits:
    if metric != ranked_by:
        return Digits.of([p.metric_mean(metric) for p in points], metric)
    return Digits.of([p.mean for p in points], metric, spreads=[p.spread for p in points])


def _uneven(data: StudyData) -> bool:
    """Whether classes have uneven numbers of images; where an older store did not count them, by what that does."""
    counted = [facts.uneven for facts in data.facts.values() if facts.train]
    if counted:
        return any(counted)
    for trial in data.trials:
        plain, balanced = (finite(trial.metrics.get(m)) for m in ("val_accuracy", CLASS_METRICS[0]))
        if plain is not None and balanced is not None and abs(plain - balanced) >= UNEVEN:
            return True
    return False


def _measured(points: list[RankedPoint]) -> list[RankedPoint]:
    """Mark the points whose means are out of all measure: their squares, in units of the usual, are no floats."""
    sizes = sorted(moments.unit([p.mean]) for p in points if p.mean)
    if not sizes:
        return points
    most = sizes[(len(sizes) - 1) // 2] + MOST_APART
    return [replace(p, outsized=True) if p.mean and moments.unit([p.mean]) > most else p for p in points]


def _with_ranks(points: Sequence[RankedPoint]) -> list[RankedPoint]:
    ranked: list[RankedPoint] = []
    top = points[0] if points and points[0].mean is not None else None
    place, previous = 0, None
    for position, point in enumerate(points, start=1):
        tier = point.tier
        standing = (tier, point.mean)
        place = place if standing == previous else position
        previous = standing
        tied = top is not None and tier == top.tier and point.mean == top.mean
        ranked.append(replace(point, rank=None if tier == 5 else place, tied_with_best=tied))
    return ranked
