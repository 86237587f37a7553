"""From a ranking to the sentences that a reader meets first: what won, by how much, how sure that is.

The terminal and the page say the same words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridsearch.records import StudyData, TrialState
from gridsearch.reporting.evaluation import in_words
from gridsearch.reporting.text import (
    NOTHING,
    listed,
    metric_name,
    plural,
    show_difference,
    show_metric,
    show_params,
    show_seconds,
    show_spread,
)

if TYPE_CHECKING:
    from gridsearch.reporting.ranking import RankedPoint, Ranking


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """What the top of every output says.

    Attributes:
        won: what won.
        margin: by how much, "" where there is nothing to compare.
        test: what the test set showed, "" before `best` has read it.
        warning: what makes the ranking worth little, in capitals' stead; "" if nothing does.
        cautions: what the ranking does not cover.
    """

    won: str
    margin: str
    test: str
    warning: str
    cautions: tuple[str, ...]


ONE_SEED = (
    "One seed per point: this says nothing about the luck of the seed; small differences may be chance."
)

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
        cautions=tuple(_cautions(data, ranking)),
    )


def show_mean(point: RankedPoint, metric: str) -> str:
    """Return a point's mean with the spread over its seeds: "93.71 ± 0.12 %"."""
    if point.mean is None:
        return NOTHING
    if point.spread is None:
        return show_metric(point.mean, metric)
    unit = " %" if show_metric(point.mean, metric).endswith("%") else ""
    return f"{show_metric(point.mean, metric, unit=False)} ± {show_spread(point.spread, metric)}{unit}"


def time_spent(data: StudyData) -> str:
    """Return how long the trials took, each as its share of its pack."""
    seconds = [t.seconds for t in data.trials if t.seconds is not None]
    return (
        f"{show_seconds(sum(seconds))} of training in {plural(len(seconds), 'trial')}"
        if seconds
        else "no time yet"
    )


def _won(ranking: Ranking) -> str:
    best = ranking.best
    if best is None:
        return "No point has a result yet."
    name = show_params(best.params, ranking.varying or None)
    how = f"{show_mean(best, ranking.metric)} {metric_name(ranking.metric)}"
    seeds = f"mean of {plural(best.n, 'seed')}" if best.n > 1 else "one seed"
    return f"{name} is best: {how} ({seeds})."


def _margin(ranking: Ranking) -> str:
    best, second = ranking.best, ranking.runner_up
    if best is None or best.mean is None or second is None or second.mean is None:
        return ""
    tied = sum(p.tied_with_best for p in ranking.points) - 1
    if tied:
        have = "has" if tied == 1 else "have"
        return f"{plural(tied, 'other point')} {have} exactly the same mean: it is a tie."
    ahead = show_difference(abs(best.mean - second.mean), ranking.metric)
    return f"It is {ahead} ahead of the second, {show_params(second.params, ranking.varying)}."


def _cautions(data: StudyData, ranking: Ranking) -> list[str]:
    cautions = []
    if ranking.best is not None:
        cautions.append(_seed_caution(ranking))
        if ranking.best.diverged:
            cautions.append(
                "The winner itself diverged with another seed: no point came through with all of its seeds."
            )
    if caution := _pruned_caution(data, ranking):
        cautions.append(caution)
    selects = {t.settings.select for t in data.trials}
    if "best" in selects:
        cautions.append(
            "A trial's value is that of its best epoch, which was chosen on the same images that rank it: "
            "it is a little too high."
            if selects == {"best"}
            else "Some trials count their best epoch and others their last one: their values do not compare."
        )
    if data.trials and not ranking.by_train:
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
    by = listed(sorted({t.pruner for t in pruned if t.pruner}))
    text = (
        f"{plural(len(pruned), 'trial')} {'was' if len(pruned) == 1 else 'were'} pruned{f' by {by}' if by else ''} "
        f"after {span} epoch{'s' * (epochs[-1] != 1)} and {'has' if len(pruned) == 1 else 'have'} no final value; "
        "a run without --prune trains them to the end."
    )
    if any(p.pruned and p.values for p in ranking.points):
        text += (
            " A point that lost seeds to pruning ranks below those that did not: "
            "the mean of its remaining seeds is too high."
        )
    return text


def _seed_caution(ranking: Ranking) -> str:
    if ranking.most_seeds <= 1:
        return ONE_SEED
    fewest = min(p.n for p in ranking.points if p.mean is not None)
    seeds = f"{fewest} to {ranking.most_seeds} seeds" if fewest != ranking.most_seeds else f"{fewest} seeds"
    return f"{seeds} per point; ± is the standard deviation over seeds, not a confidence interval."
