"""From a ranking to the sentences that a reader meets first: what won, by how much, how sure that is.

The terminal and the page say the same words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gridsearch.records import TrialState
from gridsearch.records.image_metrics import ACCURACY, LOSS
from gridsearch.reporting.output.cautions import cautions
from gridsearch.reporting.ranking.points import means_in_common
from gridsearch.reporting.stats.ensemble import ensembles_in_words
from gridsearch.reporting.stats.evaluation import in_words
from gridsearch.reporting.stats.uncertainty import Basis
from gridsearch.reporting.words.text import (
    NOTHING,
    listed,
    metric_name,
    plural,
    show_params,
    show_seconds,
)

if TYPE_CHECKING:
    from gridsearch.records import StudyData
    from gridsearch.reporting.ranking.points import RankedPoint
    from gridsearch.reporting.ranking.ranking import Ranking
    from gridsearch.reporting.words.digits import Digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """What the top of every output says.

    Attributes:
        won: what won.
        margin: by how much, and whether luck may have made it, "" where there is nothing to compare.
        test: what the test set showed, "" before `best` has read it.
        warning: what makes the ranking worth little, in capitals' stead; "" if nothing does.
        cautions: what the ranking does not cover.
        ensembles: what the best points say together, "" without their predictions.
        method: where intervals and ties come from and what they assume, in two sentences; "" without any.
    """

    won: str
    margin: str
    test: str
    warning: str
    cautions: tuple[str, ...]
    ensembles: str
    method: str


_ROUNDING = 1e-12

METHODS = {
    Basis.SEEDS: (
        "A 95 % interval contains, with 95 % confidence, the mean that a point would have over all seeds. It is "
        "computed from the variation over the point's own seeds (Student's t), or, if these all give one value, from "
        "that of similar points (pooled variance). A point is tied with the best unless the best leads by more "
        "than chance would in 95 % of such studies; the test allows for the best having been picked from all points "
        "(multiple comparisons with the best). Assumptions: values over seeds are about normally distributed, and "
        "points of similar error vary alike unless their seeds show otherwise."
    ),
    Basis.FOLDS: (
        "A 95 % interval contains, with 95 % confidence, the mean that a point would have over all samples of this "
        "many images and all seeds. It is computed from the variation over the point's folds (Student's t). Folds "
        "share training images and are not independent, so the variance of the mean of K folds is taken to be "
        "s^2 (1/K + n2/n1), with n2 validation and n1 training images (Nadeau and Bengio 2003), less what several "
        "partitions average away; this is conservative for networks that depend little on their training images. "
        "Points are compared fold by fold. A point is tied with the best unless the best leads by more than chance "
        "would in 95 % of such studies; the test allows for the best having been picked from all points (multiple "
        "comparisons with the best). Assumption: values over folds are about normally distributed."
    ),
    Basis.IMAGES: (
        "A 95 % interval contains, with 95 % confidence, the accuracy of the network over all images of this kind "
        "(Wilson's interval). Two networks are compared on the images that only one of them classifies correctly. A "
        "point is tied with the best unless the best has more of these than chance would give it in 95 % of such "
        "studies; the test allows for the best having been picked from all points (McNemar's exact test). Assumption: "
        "the validation images are a random sample. Variation between seeds is not covered: another seed may change "
        "the ranking."
    ),
}
"""Where intervals and ties come from, and what they assume; `over_seeds` and `over_images` say more."""

_OTHER_IMAGES: Final = (
    "A 95 % interval contains, with 95 % confidence, the {metric} of the network over all images of this kind "
    "({interval}). A point is tied with the best unless the best leads by more than the choice of the images would "
    "make it in 95 % of such studies; the test allows for the best having been picked from all points ({test}). "
    "Assumption: the validation images are a random sample. Variation between seeds is not covered: another seed may "
    "change the ranking."
)
_CONTRIBUTIONS: Final = "a normal test of what each image contributes to the difference"
_OF_CLASSES: Final = "combined from the intervals of the classes"
_OF_IMAGES: Final = {
    "balanced_accuracy": (_OF_CLASSES, _CONTRIBUTIONS),
    "macro_f1": (_OF_CLASSES, _CONTRIBUTIONS),
    "auc": (f"{_OF_CLASSES}, Newcombe's", _CONTRIBUTIONS),
    LOSS: ("from how much the losses of the images vary, on a logarithmic scale", _CONTRIBUTIONS),
    "ece": (
        "15 bins of confidence; from how much the images vary, extended downwards because gaps are partly chance",
        _CONTRIBUTIONS,
    ),
}
"""By metric: where its interval over the images comes from, and its test."""
_HITS: Final = ("Wilson's", "McNemar's exact test")
"""The same of metrics that are a share of images."""

TRAIN_WARNING = (
    "Nothing was held out (val=0): this ranking is by TRAIN accuracy. "
    "It says how well the networks fit their training images, not how they perform on new ones."
)


def headline(data: StudyData, ranking: Ranking) -> Headline:
    """Return what won and what to make of it."""
    return Headline(
        won=_won(ranking),
        margin=_margin(ranking),
        test=_test(data, ranking),
        warning=TRAIN_WARNING if ranking.by_train else "",
        cautions=tuple(cautions(data, ranking)),
        ensembles=ensembles_in_words(ranking.ensembles),
        method=_method(ranking),
    )


def _method(ranking: Ranking) -> str:
    """Return where intervals and ties come from and what they assume."""
    basis, metric = ranking.uncertainty.basis, ranking.metric
    if basis is Basis.IMAGES and metric != ACCURACY:
        interval, test = _OF_IMAGES.get(metric, _HITS)
        return _OTHER_IMAGES.format(metric=metric_name(metric), interval=interval, test=test)
    return METHODS.get(basis, "")


def _test(data: StudyData, ranking: Ranking) -> str:
    """Return what the test set showed, of which point, and whether another one wins by now."""
    test, best = data.test, ranking.best
    if test is None:
        return ""
    everyone = (*ranking.points, *ranking.incomparable)
    tested = next((p for p in everyone if any(t.number == test["trial"] for t in p.trials)), None)
    words = in_words(test if tested is None else {**test, "params": tested.params})
    if best is None or tested is best:
        return words
    if tested is None:
        return f"{words} It is not the result of any point ranked here."
    name = show_params(best.params, ranking.varying or None)
    if tested.settings.data_fingerprint != best.settings.data_fingerprint:
        return (
            f"{words} It was measured on other images than those of the winner, {name}, which was not tested."
        )
    place = "a point without a rank" if tested.rank is None else f"rank {tested.rank}"
    if tested.apart:
        place = "a point that is ranked separately"
    return f"{words} Another point leads now, {name}: the test result is that of {place}."


def show_rank(point: RankedPoint, *, tied: bool = False) -> str:
    """Return a point's rank: "2", "2=" where it is tied; "(1)" of one that is ranked separately."""
    if point.rank is None:
        return NOTHING
    return f"({point.rank})" if point.apart else f"{point.rank}{'=' * tied}"


def show_mean(point: RankedPoint, digits: Digits, *, spread: bool = True) -> str:
    """Return a point's mean with the spread over its seeds: "93.71 ± 0.12 %"."""
    if point.mean is None:
        return NOTHING
    digits = _of_point(point, digits)
    if point.spread is None or not spread:
        return digits.show(point.mean)
    unit = " %" if digits.show(point.mean).endswith("%") else ""
    return f"{digits.show(point.mean, unit=False)} ± {digits.spread(point.spread)}{unit}"


def show_result(point: RankedPoint, digits: Digits) -> str:
    """Return a point's mean, and what happened to replicates that are not in it: "0.102 (2 diverged)", "failed"."""
    if point.mean is not None and not point.diverged and not point.pruned:
        return show_mean(point, digits)
    counts = {"diverged": point.diverged, "pruned": point.pruned}
    lost = [f"{count} {state}" for state, count in counts.items() if count]
    if point.mean is None:
        return next((state for state, count in counts.items() if count), without_value(point))
    return f"{show_mean(point, digits)} ({', '.join(lost)})"


def without_value(point: RankedPoint) -> str:
    """Return why a point has no value: its trials' state, or "no value" where they are complete and lack the metric."""
    state = next((t.state for t in point.trials if t.state is not TrialState.COMPLETE), None)
    return "no value" if state is None else state.value


def show_interval(point: RankedPoint, digits: Digits) -> str:
    """Return the 95 % interval of a point's mean: "[93.41, 94.01]" in the metric's unit, "" without one."""
    if point.ci_low is None or point.ci_high is None:
        return ""
    return _of_point(point, digits).interval(point.ci_low, point.ci_high)


def _of_point(point: RankedPoint, digits: Digits) -> Digits:
    """Return the digits of one point's numbers: as many as show that its interval has a width."""
    if point.ci_low is None or point.ci_high is None:
        return digits
    return digits.finer(point.ci_high - point.ci_low)


def time_spent(data: StudyData) -> str:
    """Return how long the trials took, each as its share of its pack."""
    seconds = [t.seconds for t in data.trials if t.seconds is not None]
    return (
        f"{show_seconds(sum(seconds))} of {data.kind.work} in {plural(len(seconds), 'trial')}"
        if seconds
        else "no training time yet"
    )


def _won(ranking: Ranking) -> str:
    best = ranking.best
    if best is None:
        return _nothing_won(ranking)
    name = show_params(best.params, ranking.varying or None)
    how = f"{show_mean(best, ranking.digits_of())} {metric_name(ranking.metric)}"
    seeds = f"mean of {best.replicates}" if best.n > 1 else best.replicates
    interval = show_interval(best, ranking.digits_of())
    sure = f", 95 % interval {interval}" if interval else ""
    counts = {"diverged": best.diverged, "pruned": best.pruned}
    sure += "".join(f"; {count} more {state}" for state, count in counts.items() if count)
    return f"{name} is best: {how} ({seeds}{sure})."


def _nothing_won(ranking: Ranking) -> str:
    """Say that no point has a result: yet, or what became of all trials where another run would train none of them."""
    found = {state: n for state, n in ranking.counts.items() if n}
    last = (TrialState.DIVERGED, TrialState.PRUNED)
    if not found or any(TrialState(state) not in last for state in found):
        return "No point has a result yet."
    return f"No point has a result: {listed([f'{n:,} {state}' for state, n in found.items()])}."


def _margin(ranking: Ranking) -> str:
    best, second = ranking.best, ranking.runner_up
    if best is None or best.mean is None or second is None or second.mean is None:
        return ""
    name, digits = show_params(second.params, ranking.varying), ranking.digits_of()
    gap = _lead(ranking, best.mean, second.mean)
    if second.tier > best.tier:
        words = _below(ranking, second, better=gap < 0)
    elif second.mean == best.mean:
        words = f"The runner-up, {name}, has exactly the same mean."
    elif abs(gap) <= _ROUNDING * max(abs(best.mean), abs(second.mean)):
        words = f"The runner-up, {name}, has the same mean up to rounding."
    else:
        words = f"It is {digits.difference(gap)} ahead of the runner-up, {name}."
    return " ".join(w for w in (words, _over_fewer(ranking, best, second), _tie(ranking)) if w)


def _lead(ranking: Ranking, first: float, second: float) -> float:
    """Return by how much one value is better than another, below zero where it is worse."""
    return second - first if ranking.direction == "minimize" else first - second


def _below(ranking: Ranking, point: RankedPoint, *, better: bool) -> str:
    """Say why a point ranks below the best whatever its mean."""
    why = f"some of its {point.noun}s were pruned"
    if point.outsized:
        why = "its values are far out of range"
    elif point.diverged:
        why = f"{point.diverged} of its {plural(len(point.trials), point.noun)} diverged"
    mean = ranking.digits_of().show(point.mean)
    seeds = f"the mean of {point.replicates}" if point.n > 1 else point.replicates
    but = "though that is better, " if better else ""
    name = show_params(point.params, ranking.varying)
    return f"The next, {name}, has {mean} ({seeds}); {but}it ranks below because {why}."


def _over_fewer(ranking: Ranking, best: RankedPoint, second: RankedPoint) -> str:
    """Give the means that the first two are compared by, where these are not the means that are shown."""
    if 1 not in ranking.uncertainty.over_fewer:
        return ""
    found = means_in_common(best, second, ranking.metric)
    if found is None:
        return ""
    *means, shared = found
    gap, digits = _lead(ranking, means[0], means[1]), ranking.digits_of()
    side = "ahead" if gap >= 0 else "behind"
    words = f"Over the {plural(shared, ranking.noun)} that both have, by which they are compared,"
    if abs(gap) <= _ROUNDING * max(map(abs, means)):
        return f"{words} they have the same mean ({digits.show(means[0])})."
    return (
        f"{words} it is "
        f"{digits.finer(gap).difference(abs(gap))} {side} ({digits.show(means[0])} against {digits.show(means[1])})."
    )


def _tie(ranking: Ranking) -> str:
    """Say how many points are tied with the best, and by whose luck."""
    found = ranking.uncertainty
    tied, of = len(ranking.tied), found.compared
    luck = {
        Basis.SEEDS: "chance variation between seeds",
        Basis.FOLDS: "chance variation between folds",
        Basis.IMAGES: "the choice of the validation images",
    }.get(found.basis)
    means = {p.mean for p in ranking.tied}
    equal = ranking.best is not None and means == {ranking.best.mean}
    if luck is None or of < 2 or found.exact or equal:  # no difference that luck might explain
        have = "has" if tied == 2 else "have"
        return f"{plural(tied - 1, 'more point')} {have} this mean too." if tied > 1 else ""
    if not tied:
        over = " over the points that can be compared" if found.unsettled else ""
        return (
            f"No other point is tied with it: its lead{over} is more than {luck} explains (95 % confidence)."
        )
    every = 1 < tied == of - 1 == len(ranking.points) - 1
    points = f"all {tied:,} others" if every else plural(tied, "other point")
    return f"It is tied with {points}: {luck} may explain the difference."
