"""From a ranking to the sentences that a reader meets first: what won, by how much, how sure that is.

The terminal and the page say the same words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridsearch.records import StudyData, TrialState
from gridsearch.reporting.ensemble import ensembles_in_words
from gridsearch.reporting.evaluation import in_words
from gridsearch.reporting.ranking import CLASS_METRICS
from gridsearch.reporting.text import (
    NOTHING,
    listed,
    metric_name,
    plural,
    printable,
    show_metric,
    show_params,
    show_seconds,
)
from gridsearch.reporting.uncertainty import MOST_SEEDS, Basis, Uncertainty

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.reporting.digits import Digits
    from gridsearch.reporting.ranking import RankedPoint, Ranking


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """What the top of every output says.

    Attributes:
        won: what won.
        margin: by how much, and whether luck may have made it, "" where there is nothing to compare.
        test: what the test set showed, "" before `best` has read it.
        warning: what makes the ranking worth little, in capitals' stead; "" if nothing does.
        advice: what would tell more, with the command for it; "" where nothing would.
        cautions: what the ranking does not cover.
        ensembles: what the best points say together, "" without their predictions.
        method: where intervals and ties come from and what they assume, in two sentences; "" without any.
    """

    won: str
    margin: str
    test: str
    warning: str
    advice: str
    cautions: tuple[str, ...]
    ensembles: str
    method: str


FEW_SEEDS = 2
MOST_NAMED = 3
"""Points that a sentence names; others are counted."""

ONE_SEED = (
    "One seed per point: this says nothing about the luck of the seed; small differences may be chance."
)

METHODS = {
    Basis.SEEDS: (
        "With 95 % confidence an interval holds the mean that its point would have over all seeds, judged by the "
        "scatter of the point's own seeds (Student's t), or by that of points like it where its seeds give one value "
        "(pooled variance); a point is tied with the best unless the best's lead is "
        "larger than luck makes it in 5 % of such studies, allowing for the best being the pick of all points "
        "(multiple comparisons with the best). This assumes that values scatter over seeds about like a normal "
        "distribution, and that points of similar error scatter alike as far as their seeds do not say otherwise."
    ),
    Basis.IMAGES: (
        "With 95 % confidence an interval holds the accuracy that its network would have over all images of this "
        "kind (Wilson's interval); a point is tied with the best unless the best has more of the images that only "
        "one of the two has right than luck gives it in 5 % of such studies, allowing for the best being the pick "
        "of all points (McNemar's exact test). This assumes that the validation images are a random sample, and "
        "covers their choice alone: with another seed the ranking may be another."
    ),
}
"""Where intervals and ties come from, and what they assume; `over_seeds` and `over_images` say more."""

TRAIN_WARNING = (
    "Nothing was held out (val=0): this ranking is by TRAIN accuracy. "
    "It says how well the networks fit what they were trained on, not how they do on new images."
)


def headline(data: StudyData, ranking: Ranking) -> Headline:
    """Return what won and what to make of it."""
    return Headline(
        won=_won(ranking),
        margin=_margin(ranking),
        test=in_words(data.test) if data.test is not None else "",
        warning=TRAIN_WARNING if ranking.by_train else "",
        advice="" if data.part else _advice(data, ranking),  # it would be about all trials
        cautions=tuple(_cautions(data, ranking)),
        ensembles=ensembles_in_words(ranking.ensembles),
        method=METHODS.get(ranking.uncertainty.basis, ""),
    )


def show_mean(point: RankedPoint, digits: Digits, *, spread: bool = True) -> str:
    """Return a point's mean with the spread over its seeds: "93.71 ± 0.12 %"."""
    if point.mean is None:
        return NOTHING
    digits = _of_point(point, digits)
    if point.spread is None or not spread:
        return digits.show(point.mean)
    unit = " %" if digits.show(point.mean).endswith("%") else ""
    return f"{digits.show(point.mean, unit=False)} ± {digits.spread(point.spread)}{unit}"


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


def show_range(point: RankedPoint, digits: Digits) -> str:
    """Return the lowest and the highest value of a point's seeds: "66.00 to 100.00 %"."""
    return f"{digits.show(min(point.values), unit=False)} to {digits.show(max(point.values))}"


def time_spent(data: StudyData) -> str:
    """Return how long the trials took, each as its share of its pack."""
    seconds = [t.seconds for t in data.trials if t.seconds is not None]
    work = "training" if data.objective is None else "computing"
    return (
        f"{show_seconds(sum(seconds))} of {work} in {plural(len(seconds), 'trial')}"
        if seconds
        else "no time yet"
    )


def _won(ranking: Ranking) -> str:
    best = ranking.best
    if best is None:
        return "No point has a result yet."
    name = show_params(best.params, ranking.varying or None)
    how = f"{show_mean(best, ranking.digits_of())} {metric_name(ranking.metric)}"
    seeds = f"mean of {plural(best.n, 'seed')}" if best.n > 1 else "one seed"
    interval = show_interval(best, ranking.digits_of())
    sure = f", 95 % interval {interval}" if interval else ""
    return f"{name} is best: {how} ({seeds}{sure})."


def _margin(ranking: Ranking) -> str:
    best, second = ranking.best, ranking.runner_up
    if best is None or best.mean is None or second is None or second.mean is None:
        return ""
    name = show_params(second.params, ranking.varying)
    if second.mean == best.mean:
        words = f"The second, {name}, has exactly the same mean."
    else:
        ahead = ranking.digits_of().difference(abs(best.mean - second.mean))
        words = f"It is {ahead} ahead of the second, {name}."
    return f"{words} {_tie(ranking)}".strip()


def _tie(ranking: Ranking) -> str:
    """Say how many points are tied with the best, and by whose luck."""
    tied, of = len(ranking.tied), ranking.uncertainty.compared
    luck = {Basis.SEEDS: "the luck of the seed", Basis.IMAGES: "the choice of the validation images"}.get(
        ranking.uncertainty.basis
    )
    if luck is None or of < 2:
        equal = f"{plural(tied, 'other point')} {'has' if tied == 1 else 'have'} exactly the same mean."
        return equal if tied > 1 else ""
    if not tied:
        return f"No other point is tied with it: its lead is more than {luck} explains (95 % sure)."
    points = f"all {of - 1:,} others" if 1 < tied == of - 1 else plural(tied, "other point")
    return f"It is tied with {points}: {luck} may explain the difference."


def _advice(data: StudyData, ranking: Ranking) -> str:
    """Say what would separate the first points."""
    found = ranking.uncertainty
    if found.compared < 2 or found.runner_up_told:
        return "" if found.basis is not Basis.IMAGES or ranking.by_train else _try_seeds(data, ranking)
    if found.basis is Basis.IMAGES:
        return _try_seeds(data, ranking)
    if found.basis is not Basis.SEEDS or found.exact:
        return ""
    if found.more_seeds is None:
        return f"Even {MOST_SEEDS} seeds would not separate the first two: take whichever costs less."
    return (
        f"About {plural(found.more_seeds, 'more seed')} would separate the first two, if their difference is what it "
        f"seems (80 % chance){_by(data, found.more_seeds, 2)}"
    )


def _try_seeds(data: StudyData, ranking: Ranking) -> str:
    top = max(2, min(len(ranking.tied) + 1, 5))
    return f"More seeds would show how much is luck{_by(data, 2, top)}"


def _by(data: StudyData, seeds: int, top: int) -> str:
    """Return how more seeds are had: the command, or what comes nearest to one."""
    if data.part is not None:  # the best points of a part need not be those of the study
        return "."
    if data.again.lost:
        own = listed([printable(name) for name in data.again.lost])
        return (
            f"; they need {own} again, which no file names: give the grid again from Python with more seeds."
        )
    return f": {data.again.more_seeds(seeds, top)}"


def _cautions(data: StudyData, ranking: Ranking) -> list[str]:
    cautions = []
    if ranking.best is not None:
        cautions.append(_seed_caution(ranking))
        if ranking.best.diverged:
            cautions.append(
                "The winner itself diverged with another seed: no point came through with all of its seeds."
            )
    cautions += [c for c in (_unsettled_caution(ranking), _outsized_caution(ranking)) if c]
    if caution := _pruned_caution(data, ranking):
        cautions.append(caution)
    if ranking.class_metrics:
        cautions.append(_class_caution(ranking))
    selects = {t.settings.select for t in data.trials}
    if data.objective is None and "best" in selects:
        cautions.append(
            "A trial's value is that of its best epoch, which was chosen on the same images that rank it: "
            "it is a little too high."
            if selects == {"best"}
            else "Some trials count their best epoch and others their last one: their values do not compare."
        )
    if data.trials and not ranking.by_train and data.objective is None:
        cautions.append(
            "Ranked by the validation split alone; the test set plays no part in it. The winner of many is a "
            "little lucky: expect somewhat less on new images."
        )
    open_states = {s: ranking.counts.get(s.value, 0) for s in (TrialState.WAITING, TrialState.RUNNING)}
    if any(open_states.values()):
        words = listed([f"{n:,} {s.value}" for s, n in open_states.items() if n])
        cautions.append(f"The study is not finished: {words}. The ranking may change.")
    return cautions


def _pruned_caution(data: StudyData, ranking: Ranking) -> str:
    """Return what pruning means for the ranking, "" where no trial was pruned."""
    pruned = [t for t in data.trials if t.state is TrialState.PRUNED]
    if not pruned:
        return ""
    epochs = sorted({t.epochs for t in pruned})
    span = f"{epochs[0]} to {epochs[-1]}" if len(epochs) > 1 else f"{epochs[0]}"
    unit = "epoch" if data.objective is None else "step"
    by = listed(sorted({t.pruner for t in pruned if t.pruner}))
    text = (
        f"{plural(len(pruned), 'trial')} {'was' if len(pruned) == 1 else 'were'} pruned{f' by {by}' if by else ''} "
        f"after {span} {unit}{'s' * (epochs[-1] != 1)} and {'has' if len(pruned) == 1 else 'have'} no final value; "
        "a run without --prune trains them to the end."
    )
    if any(p.pruned and p.values for p in ranking.points):
        text += (
            " A point that lost seeds to pruning ranks below those that lost none: "
            "the mean of its remaining seeds is too high."
        )
    return text


def _class_caution(ranking: Ranking) -> str:
    """Say that classes are uneven, and whether another point does better by the rare ones."""
    words = (
        "The classes are uneven: beside accuracy stand balanced accuracy and macro F1, where all count alike."
    )
    best = ranking.best
    scores = {
        i: s for i, p in enumerate(ranking.ranked) if (s := p.metric_mean(CLASS_METRICS[0])) is not None
    }
    first = ranking.ranked[max(scores, key=lambda i: scores[i])] if scores else best
    if first is None or first is best:
        return words
    name = show_params(first.params, ranking.varying)
    score = show_metric(first.metric_mean(CLASS_METRICS[0]), CLASS_METRICS[0])
    return f"{words} By balanced accuracy {name} would be first, with {score}."


def _seed_caution(ranking: Ranking) -> str:
    found = ranking.uncertainty
    if ranking.most_seeds <= 1:
        return f"{_images_caution(found)}{ONE_SEED}" if found.basis is Basis.IMAGES else _why_none(ranking)
    fewest = min(p.n for p in ranking.points if p.mean is not None)
    seeds = f"{fewest} to {ranking.most_seeds} seeds" if fewest != ranking.most_seeds else f"{fewest} seeds"
    words = f"{seeds} per point; ± is the standard deviation over seeds, [ ] the 95 % interval of the mean."
    if found.exact:
        words = words.partition(",")[0]
        return f"{words}. No point differs between its seeds: they show no luck, and there are no intervals."
    if found.lent:
        words += (
            f" {plural(found.lent, 'point')} {'has' if found.lent == 1 else 'have'} one value at all seeds, which does "
            "not say that another seed would give it too: the interval takes the scatter of points like it."
        )
    if ranking.most_seeds == FEW_SEEDS:
        words += " Two seeds hardly show how much a point scatters, so intervals are wide; a third narrows them most."
    return words


def _named(ranking: Ranking, points: Sequence[RankedPoint], what: Callable[[RankedPoint], str]) -> str:
    """Return the first of some points, each with what is to be known of it, and how many more there are."""
    shown = [
        f"{show_params(p.params, ranking.varying or None, limit=80)} ({what(p)})" for p in points[:MOST_NAMED]
    ]
    more = len(points) - len(shown)
    return listed([*shown, f"{more:,} more"] if more else shown)


def _outsized_caution(ranking: Ranking) -> str:
    """Name the points whose values are out of all measure, "" where there are none."""
    found = [p for p in ranking.points if p.outsized]
    if not found:
        return ""
    names = _named(ranking, found, lambda p: ranking.digits_of().show(p.mean))
    return (
        f"The {metric_name(ranking.metric)} of {names} is finite, but too large for any sum with the others: "
        f"{'this point ranks' if len(found) == 1 else 'these points rank'} last, and shares of variance leave "
        f"{'it' if len(found) == 1 else 'them'} out."
    )


def _unsettled_caution(ranking: Ranking) -> str:
    """Name the points whose seeds scatter so widely that nothing can be said of them, "" where there are none."""
    found = [ranking.points[i] for i in ranking.uncertainty.unsettled]
    if not found:
        return ""
    names = _named(ranking, found, lambda p: f"{plural(p.n, 'seed')}, {show_range(p, ranking.digits_of())}")
    one = len(found) == 1
    return (
        f"{names} {'scatters' if one else 'scatter'} so widely over {'its' if one else 'their'} seeds that these "
        f"cannot tell whether {'it is' if one else 'they are'} worse than the best, though better points are told "
        "from it; more seeds would."
    )


def _images_caution(found: Uncertainty) -> str:
    words = f"Intervals and ties are about the {found.images or 0:,} validation images. "
    if found.unread:
        words += f"The predictions of {plural(found.unread, 'point')} are not there: no interval for them. "
    if found.beyond:
        words += f"Only the first {found.compared - found.beyond:,} points have an interval. "
    return words


def _why_none(ranking: Ranking) -> str:
    """Say why a ranking of one seed has no intervals, where predictions were looked for."""
    if ranking.uncertainty.unread:
        return f"The winner's predictions are not there, so there are no intervals. {ONE_SEED}"
    return ONE_SEED
