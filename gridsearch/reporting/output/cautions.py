"""From a ranking to what it does not cover, in sentences; they stand below the headline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gridsearch.records import StudyData, TrialState
from gridsearch.records.axis import identity
from gridsearch.records.image_metrics import ACCURACY
from gridsearch.reporting.ranking.points import levels_of
from gridsearch.reporting.ranking.ranking import CLASS_METRICS
from gridsearch.reporting.stats.uncertainty import Basis, Uncertainty
from gridsearch.reporting.words.text import listed, metric_name, plural, printable, show_metric, show_params
from gridsearch.reporting.words.typed import as_typed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.records import Value
    from gridsearch.reporting.ranking.points import RankedPoint
    from gridsearch.reporting.ranking.ranking import Ranking
    from gridsearch.reporting.words.digits import Digits

FEW_SEEDS: Final = 2
MOST_VALUES: Final = 6
MOST_NAMED: Final = 3
"""Points that a sentence names; others are counted."""

_VERSION: Final = "data_version"

ONE_SEED: Final = (
    "One seed per point: how much another seed would change is unknown, so small differences may be chance."
)
_ONE_TRIAL: Final = "One point with one seed: how much another seed would change is unknown."


def cautions(data: StudyData, ranking: Ranking) -> list[str]:
    """Return what the ranking does not cover, a sentence or two each."""
    found: list[str] = []
    if ranking.best is not None:
        found.append(_seed_caution(ranking))
        if ranking.best.diverged:
            noun = ranking.best.noun
            found.append(
                f"The winner itself diverged with another {noun}: no point completed all of its {noun}s."
            )
        if words := _untaught_caution(data, ranking):
            found.append(words)
    special = (_few_caution, _fewer_caution, _unsettled_caution, _outsized_caution)
    found += [words for caution in special if (words := caution(ranking))]
    if caution := _pruned_caution(data, ranking):
        found.append(caution)
    if caution := _early_caution(data):
        found.append(caution)
    if ranking.class_metrics:
        found.append(_class_caution(data, ranking))
    facts = data.facts.get(ranking.best.settings.data_fingerprint) if ranking.best is not None else None
    found += [f"{doubt[:1].upper()}{doubt[1:]}." for doubt in (facts.doubts if facts is not None else ())]
    if ranking.incomparable:
        found.append(_incomparable_caution(data, ranking))
    selects = {t.settings.get("select") for t in data.trials}
    if data.kind.classifies and "best" in selects:
        found.append(
            "A trial's value is that of its best epoch, chosen on the same images that rank it, so it "
            "is slightly too good."
            if selects == {"best"}
            else "Some trials count their best epoch and others their last one: these values are not comparable."
        )
    if data.sample is not None:
        count, of = data.sample
        found.append(
            f"Only {plural(count, 'point')} of the grid's {of:,} {'was' if count == 1 else 'were'} requested "
            "(--sample), spread evenly over the grid: a point outside the sample may be better."
        )
    if data.trials and not ranking.by_train and data.kind.classifies:
        worse = f"{'higher' if ranking.direction == 'minimize' else 'lower'} {_plain_name(ranking.metric)}"
        lucky = f" The best of many is partly lucky: expect a slightly {worse} on new images."
        found.append(
            f"Ranked on validation data only, not on the test set.{lucky if _several(ranking) else ''}"
        )
    open_states = {s: ranking.counts.get(s.value, 0) for s in (TrialState.WAITING, TrialState.RUNNING)}
    if any(open_states.values()):
        words = listed([f"{n:,} {s.value}" for s, n in open_states.items() if n])
        found.append(f"The study is not finished: {words}. The ranking may change.")
    return found


def _several(ranking: Ranking) -> bool:
    """Whether more than one point has a value, so that one of them was chosen."""
    return sum(p.mean is not None for p in ranking.points) > 1


def _untaught_caution(data: StudyData, ranking: Ranking) -> str:
    """Say that the winner is not clearly better than a constant answer, "" where it is."""
    best = ranking.best
    facts = data.facts.get(best.settings.data_fingerprint) if best is not None else None
    if (
        best is None
        or best.mean is None
        or facts is None
        or facts.constant is None
        or ranking.metric != ACCURACY
    ):
        return ""
    name, share = facts.constant
    if (best.mean if best.ci_low is None else best.ci_low) > share:
        return ""
    answer = f" {printable(name, 40)!r}" if name else " the same class"
    return (
        f"The winner is not clearly better than always answering{answer}, which is right for "
        f"{show_metric(share, ACCURACY)} of the training images: it may have learned nothing. Try other learning "
        "rates, or more epochs."
    )


def _plain_name(metric: str) -> str:
    """Return a metric's name without the split that it is of."""
    return metric_name(metric).removeprefix("validation ")


def _incomparable_caution(data: StudyData, ranking: Ranking) -> str:
    """Say which points were trained on other images, and how to see more of them."""
    names = {p.params[_VERSION]: None for p in ranking.incomparable if _VERSION in p.params}
    versions = listed([str(name) for name in list(names)[:MOST_NAMED]])
    one = len(ranking.incomparable) == 1
    text = (
        f"{plural(len(ranking.incomparable), 'point')} {'was' if one else 'were'} trained on other images"
        f"{f' ({_VERSION} {versions})' if names else ''}: {'it is' if one else 'they are'} ranked separately, below, "
        f"with {'its rank' if one else 'ranks'} in brackets, and not compared with the others."
    )
    if not names:
        return text
    return f"{text} To see them: `{data.again.report('--where', f'{_VERSION}={next(iter(names))}')}`."


def _pruned_caution(data: StudyData, ranking: Ranking) -> str:
    """Return what pruning means for the ranking, "" where no trial was pruned."""
    pruned = [t for t in data.trials if t.state is TrialState.PRUNED]
    if not pruned:
        return ""
    epochs = sorted({t.epochs for t in pruned})
    span = f"{epochs[0]} to {epochs[-1]}" if len(epochs) > 1 else f"{epochs[0]}"
    unit = data.kind.unit
    by = listed(sorted({t.pruner for t in pruned if t.pruner}))
    text = (
        f"{plural(len(pruned), 'trial')} {'was' if len(pruned) == 1 else 'were'} pruned{f' by {by}' if by else ''} "
        f"after {span} {unit}{'s' * (epochs[-1] != 1)} and {'has' if len(pruned) == 1 else 'have'} no final value; "
        "a run without --prune trains them to the end."
    )
    if any(p.pruned and p.values for p in ranking.points):
        text += (
            f" A point with pruned {ranking.noun}s ranks below all points without: "
            f"the mean of its remaining {ranking.noun}s is too good."
        )
    return text


def _early_caution(data: StudyData) -> str:
    """Say how many trials came to the end of their patience, and which epoch then counts; "" where none did."""
    early = [t for t in data.trials if t.stopped_early]
    if not early:
        return ""
    epochs, of = sorted({t.epochs for t in early}), sorted({t.settings.length or 0 for t in early})
    spans = (f"{each[0]} to {each[-1]}" if len(each) > 1 else f"{each[0]}" for each in (epochs, of))
    text = f"{plural(len(early), 'trial')} stopped early, after {' of '.join(spans)} epochs"
    if any(t.settings.get("select") == "last" for t in early):
        text += "; with select=last the epoch at which they stopped counts, not their best one"
    return f"{text}."


def _class_caution(data: StudyData, ranking: Ranking) -> str:
    """Say how uneven classes are, and whether another point does better by the rare ones."""
    best = ranking.best
    own = data.facts.get(best.settings.data_fingerprint) if best is not None else None
    counts = (
        own if own is not None and own.uneven else next((f for f in data.facts.values() if f.uneven), None)
    )
    if counts is not None:
        fewest, most = (counts.train.index(f(counts.train)) for f in (min, max))
        uneven = " and ".join(
            f"{counts.train[i]:,} of {counts.class_names[i] or i!s}" for i in (fewest, most)
        )
        of = "" if own in (None, counts) else " of some of the images"
        words = f"The classes{of} are uneven ({uneven})"
    else:
        words = "Accuracy and balanced accuracy differ, so some classes are recognized better than others"
    words += ": balanced accuracy and macro F1, which weight all classes equally, are shown beside accuracy."
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
        images = _images_caution(found) if found.basis is Basis.IMAGES else _why_none(ranking)
        return f"{images}{ONE_SEED if _several(ranking) else _ONE_TRIAL}"
    fewest = min(p.n for p in ranking.points if p.mean is not None)
    noun, most = ranking.noun, ranking.most_seeds
    seeds = f"{fewest} to {most} {noun}s" if fewest != most else f"{fewest} {noun}s"
    if found.basis is Basis.FOLDS and fewest == most and ranking.best is not None:
        seeds = ranking.best.replicates
    words = f"{seeds} per point; ± is the standard deviation over {noun}s, [ ] the 95 % interval of the mean."
    if found.exact:
        words = (
            f"{words.partition(',')[0]}. All {noun}s of each point give the same value; another {noun} may differ, and "
            "by how much cannot be estimated. "
        )
        return words + (
            _images_caution(found).rstrip() if found.basis is Basis.IMAGES else "So there is no interval."
        )
    if found.pooled:
        words += (
            f" {plural(found.pooled, 'point')} {'has' if found.pooled == 1 else 'have'} the same value for each {noun}"
            f", but another {noun} may differ: the interval uses the variation of similar points."
        )
    if most == FEW_SEEDS and noun == "seed":
        words += (
            " Two seeds are too few to estimate how much a point varies, so intervals are wide; a "
            "third seed helps most."
        )
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
        f"The {metric_name(ranking.metric)} of {names} is finite, but too large to be averaged with the others: "
        f"{'this point ranks' if len(found) == 1 else 'these points rank'} last and "
        f"{'is' if len(found) == 1 else 'are'} left out of the shares of variance."
    )


def _unsettled_caution(ranking: Ranking) -> str:
    """Name the points whose seeds scatter so widely that nothing can be said of them, "" where there are none."""
    found = [ranking.points[i] for i in ranking.uncertainty.unsettled]
    if not found:
        return ""
    names = _named(ranking, found, lambda p: f"{plural(p.n, p.noun)}, {_range(p, ranking.digits_of())}")
    one = len(found) == 1
    return (
        f"{names} {'varies' if one else 'vary'} so much between {ranking.noun}s that {'its' if one else 'their'} "
        f"values cannot show whether {'it is' if one else 'they are'} worse than the best, although better points can "
        "be told apart from it: add seeds to settle it."
    )


def _images_caution(found: Uncertainty) -> str:
    words, unread = (
        f"Intervals and ties cover only the choice of the {found.images or 0:,} validation images. ",
        found.unread,
    )
    if unread:
        words += f"The predictions of {plural(unread, 'point')} are missing or unusable, so they have no interval. "
    if found.beyond:
        words += f"Only the first {found.compared - found.beyond:,} points have an interval. "
    return words


def _why_none(ranking: Ranking) -> str:
    """Say why a ranking of one seed has no intervals, where predictions were looked for."""
    if ranking.uncertainty.unread:
        return "The winner's predictions are missing or unusable, so there are no intervals. "
    return ""


def _range(point: RankedPoint, digits: Digits) -> str:
    """Return the lowest and the highest value of a point's seeds: "66.00 to 100.00 %"."""
    return f"{digits.show(min(point.values), unit=False)} to {digits.show(max(point.values))}"


def _few_caution(ranking: Ranking) -> str:
    """Say that the winner stands on fewer seeds than it was given, or than others have; "" where it does not."""
    best = ranking.best
    if best is None or not best.values:
        return ""
    lost = {
        state: sum(t.state is state for t in best.trials)
        for state in (
            TrialState.FAILED,
            TrialState.DIVERGED,
            TrialState.PRUNED,
            TrialState.RUNNING,
            TrialState.WAITING,
        )
    }
    lost = {state: n for state, n in lost.items() if n}
    if not lost and best.n >= ranking.most_seeds:
        return ""
    missing = f" ({listed([f'{n:,} {state.value}' for state, n in lost.items()])})" if lost else ""
    least = f", where other points have up to {ranking.most_seeds:,}" if best.n < ranking.most_seeds else ""
    noun = best.noun
    of = f" of its {plural(len(best.trials), noun)}" if lost else f" {noun if best.n == 1 else f'{noun}s'}"
    mend = "Complete them before you rely on its lead."
    if not lost:
        mend = "Give it as many before you rely on its lead."
    elif set(lost) == {TrialState.DIVERGED}:
        mend = "Do not rely on its lead."
    return (
        f"The winner's result is the mean of only {best.n:,}{of}{missing}{least}: "
        f"with {'all of them' if lost else 'as many'} it may be worse. {mend}"
    )


def _fewer_caution(ranking: Ranking) -> str:
    """Say how many points are compared over part of their replicates, "" where none is."""
    found = [i for i in ranking.uncertainty.over_fewer if i > 1]
    if not found:
        return ""
    has, nouns = "has" if len(found) == 1 else "have", f"{ranking.noun}s"
    return (
        f"{plural(len(found), 'point')} {has} other {nouns} than the best: they are compared over the {nouns} "
        "that both have, not by the means shown here."
    )


def mixed_words(data: StudyData, ranking: Ranking) -> str:
    """Return a caution that names the recipes and how to see each by itself, "" where there is one."""
    if not ranking.mixed:
        return ""
    parts = []
    for axis in ranking.mixed:
        levels = levels_of(ranking.points, axis)
        words = [
            f"{as_typed(v, levels)} ({plural(_points_at(ranking, axis, v), 'point')})"
            for v in levels[:MOST_VALUES]
        ]
        more = ["more"] if len(levels) > MOST_VALUES else []
        parts.append(f"{printable(axis)} is {listed([*words, *more])}")
    first = ranking.mixed[0]
    best = ranking.points[0].level(first)
    alone = data.again.report("--where", f"{first}={as_typed(best)}")
    found = "; ".join(parts)
    return f"This ranking mixes points with different settings: {found}. To compare like with like: {alone}"


def _points_at(ranking: Ranking, axis: str, value: Value) -> int:
    return sum(identity(p.level(axis)) == identity(value) for p in ranking.points)
