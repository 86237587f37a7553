"""From a ranked study, its winner's predictions and the images to the pictures of a report, each in words too.

A picture that cannot be drawn is left out, and a sentence says why.  The others are drawn by `Pictures`, later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsearch.errors import ArtifactError, GridsearchError
from gridsearch.reporting.figures.pictures import Classes, Pictures
from gridsearch.reporting.ranking.out_of_fold import predictions_of
from gridsearch.reporting.stats.predictions import (
    Mistake,
    Predictions,
    balanced_accuracy,
    confident_mistakes,
    confusion_matrix,
    describe_pairs,
    macro_f1,
    most_confused,
    per_class,
)
from gridsearch.reporting.words.text import capitalized, listed, metric_name, plural, printable, show_params

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from gridsearch.plugins import ImageData
    from gridsearch.records import StudyData, TrialRecord
    from gridsearch.reporting.ranking.points import RankedPoint
    from gridsearch.reporting.ranking.ranking import Ranking


def pictures_of(
    data: StudyData,
    ranking: Ranking,
    *,
    predictions: Callable[[int], Predictions | None],
    images: Callable[[TrialRecord], ImageData] | None = None,
    live: bool = False,
) -> Pictures:
    """Return all that a study's report shows, to be drawn.

    Args:
        data: the study, filtered already.
        ranking: its ranking.
        predictions: the stored validation predictions of a trial by its number, None if there are none.
        images: gives what a trial was trained on, or raises a GridsearchError that says why not; None
            where nobody asks.
        live: name the figures that the page's script draws, and have the others alone drawn.
    """
    from gridsearch.reporting.figures import matplotlib_setup

    found = Pictures(scripted=_scripted(data, ranking) if live else None)
    try:
        if not live or images is not None:
            matplotlib_setup.load()
    except ArtifactError as error:
        found.notes.append(f"{error.message[0].upper()}{error.message[1:]}: {error.hint}.")
        return found
    _add_study(found, data, ranking)
    _add_pareto(found, ranking)
    if not data.kind.classifies:
        return found
    _add_winner(found, data, ranking, predictions)
    if images is not None and ranking.best_trial is not None:
        _add_images(found, data, images, ranking.best_trial)
    return found


def _scripted(data: StudyData, ranking: Ranking) -> frozenset[str]:
    """Return the figures for which the page's script has something to draw."""
    found = {"confusion", "reliability"}
    if ranking.varying:
        found.add("heatmap")
    if len(ranking.varying) > 1:
        found |= {"marginals", "parallel"}
    if any(data.steps.values()) or any(data.epochs.values()):
        found.add("curves")
    if sum(1 for p in ranking.points if p.drawable and p.seconds) > 1:
        found.add("cost")
    return frozenset(found)


def _add_study(found: Pictures, data: StudyData, ranking: Ranking) -> None:
    from gridsearch.reporting.figures.cost import cost_figure
    from gridsearch.reporting.figures.curves import curves_figure
    from gridsearch.reporting.figures.heatmap import heatmap_figures
    from gridsearch.reporting.figures.marginals import marginals_figure
    from gridsearch.reporting.figures.parallel import parallel_figure

    found.add(
        "heatmap",
        lambda: heatmap_figures(data, ranking=ranking).get("heatmap"),
        title="Over the grid",
        alt=_heatmap_alt(ranking),
    )
    metric = metric_name(ranking.metric)
    axes = listed([printable(a, 40) for a in ranking.varying])
    found.add(
        "marginals",
        lambda: marginals_figure(data, ranking=ranking),
        title="Each axis by itself",
        alt=f"{capitalized(metric)} of every point over each of {axes}, with the median of each value. "
        f"{_best_words(ranking)}",
    )
    found.add(
        "parallel",
        lambda: parallel_figure(data, ranking=ranking),
        title="Every point across the axes",
        alt=f"Parallel coordinates: a line for each point across {axes}, coloured by its {metric}. "
        f"{_best_words(ranking)}",
    )
    sets = "train" if ranking.by_train else "train beside validation"
    found.add(
        "curves",
        lambda: curves_figure(data, ranking=ranking),
        title="Learning curves",
        alt=f"Loss and accuracy by epoch of the best points, {sets}."
        if data.kind.classifies
        else f"{capitalized(metric)} and what else was yielded, by step, of the best points.",
    )
    found.add(
        "cost",
        lambda: cost_figure(data, ranking=ranking),
        title="Against time",
        alt=f"{capitalized(metric)} of every point against the time of a trial, with the points that no cheaper "
        "one equals.",
    )


def _add_pareto(found: Pictures, ranking: Ranking) -> None:
    from gridsearch.reporting.figures.front_figure import pareto_figure
    from gridsearch.reporting.ranking.pareto import front_words

    if ranking.pareto is not None:
        front = ranking.pareto
        found.add(
            "pareto",
            lambda: pareto_figure(front, ranking.varying),
            title="Best trade-offs",
            alt=front_words(front),
        )


def _add_winner(
    found: Pictures,
    data: StudyData,
    ranking: Ranking,
    predictions: Callable[[int], Predictions | None],
) -> None:
    from gridsearch.reporting.figures.confusion import confusion_figure

    best, trial = ranking.best, ranking.best_trial
    if best is None or trial is None:
        return
    found.winner, note = _winner_predictions(best, trial, predictions)
    if found.winner is None:
        found.notes.append(note)
        return
    matrix = confusion_matrix(found.winner)
    names = data.classes_of(best.settings)
    if not names and data.class_names:
        found.notes.append(
            "Classes are shown by their numbers: an older version made this study, which kept the names of its "
            "newest images alone."
        )
    pairs = most_confused(matrix, names)
    note = _winner_note(best, trial, ranking, images=len(found.winner.labels))
    commonest = f" Most common error: {pairs[0].words}." if pairs else " No mistakes."
    alt = f"Confusion matrix of {len(matrix)} classes: rows true, columns predicted.{commonest}"
    found.add(
        "confusion",
        lambda: confusion_figure(
            matrix, class_names=names, title="Confusion matrix of the winner", note=note
        ),
        title="Confusion matrix",
        alt=alt,
    )
    _add_reliability(found, found.winner)
    found.classes = Classes(
        results=per_class(matrix, names),
        balanced_accuracy=balanced_accuracy(matrix),
        macro_f1=macro_f1(matrix),
        pairs=describe_pairs(pairs),
    )


def _first(names: Sequence[str], most: int = 20) -> list[str]:
    """Return the first names, and how many more there are."""
    more = len(names) - most
    return [*names[:most], *([f"{more:,} more"] if more > 0 else [])]


def _add_reliability(found: Pictures, winner: Predictions) -> None:
    from gridsearch.reporting.figures.reliability_diagram import reliability_figure, reliability_words
    from gridsearch.reporting.stats.reliability import reliability

    bins = reliability(winner)
    if not bins:
        return
    found.add(
        "reliability",
        lambda: reliability_figure(bins, title="How far the winner's probabilities can be trusted"),
        title="How far its probabilities can be trusted",
        alt=f"Reliability diagram: the share of images that is right, by the probability of the chosen class. "
        f"{reliability_words(bins)}",
    )


def _winner_predictions(
    best: RankedPoint, trial: TrialRecord, predictions: Callable[[int], Predictions | None]
) -> tuple[Predictions | None, str]:
    if best.folds is not None:
        pooled = predictions_of(best, predictions)
        missing = "No seed has usable predictions of all its folds, so there is no confusion matrix."
        return pooled, "" if pooled is not None else missing
    try:
        found = predictions(trial.number)
    except (ArtifactError, OSError, ValueError) as error:
        return (
            None,
            f"The predictions of trial {trial.number} cannot be used: {printable(str(error), 300)}.",
        )
    if found is None or not len(found.labels):
        return (
            None,
            f"Trial {trial.number} has no stored validation predictions, so there is no confusion matrix.",
        )
    return found, ""


def _add_images(
    found: Pictures, data: StudyData, images: Callable[[TrialRecord], ImageData], winner: TrialRecord
) -> None:
    from gridsearch.reporting.figures.samples import sample_figure, sample_of

    try:
        dataset = images(winner)
    except (GridsearchError, OSError) as error:
        words = printable(error.message if isinstance(error, GridsearchError) else str(error), 300)
        found.notes.append(f"No images are shown: {words}.")
        return
    pictures, labels = dataset.train_images, dataset.train_labels
    if found.winner is not None and not _same_images(found.winner, labels):
        found.notes.append("No images are shown: they have changed since the winner was trained.")
        return
    if found.winner is not None and found.winner.indices is not None:
        found.pixels = pictures
    places = _showable(found.winner, dataset)
    if places is not None:
        chosen = sample_of(labels[places], classes=len(dataset.class_names))
        shown = [pictures[places[own]] for own in chosen]
        names = [printable(n, 30) for n in dataset.class_names]
        found.add(
            "samples",
            lambda: sample_figure(
                shown, class_names=dataset.class_names, title=f"A sample of {printable(data.dataset, 60)}"
            ),
            title="The images",
            alt=f"A few images of each of {len(chosen)} classes: {listed(_first(names))}.",
        )
    if found.winner is not None:
        _add_mistakes(found, found.winner, pictures, dataset.class_names)


def _same_images(winner: Predictions, labels: np.ndarray) -> bool:
    places = winner.indices
    if places is None or not len(places):
        return True
    within = int(places.min()) >= 0 and int(places.max()) < len(labels)
    return within and bool((labels[places] == winner.labels).all())


def _showable(winner: Predictions | None, dataset: ImageData) -> np.ndarray | None:
    """Return the images that a report may show: those held out for validation, never one that is for test."""
    import numpy as np

    if winner is not None and winner.indices is not None and len(winner.indices):
        return winner.indices
    return np.arange(len(dataset.train_labels)) if dataset.test_images is not None else None


def _add_mistakes(
    found: Pictures, winner: Predictions, pictures: np.ndarray, class_names: Sequence[str]
) -> None:
    """Add the images that the winner was surest to get wrong."""
    from gridsearch.reporting.figures.samples import MOST_MISTAKES, mistakes_figure

    mistakes = confident_mistakes(winner, limit=MOST_MISTAKES)
    places = winner.indices
    if places is None or not mistakes:
        return
    wrong = int((~winner.right).sum())
    shown = pictures[[int(places[m.image]) for m in mistakes]]
    found.add(
        "mistakes",
        lambda: mistakes_figure(
            shown,
            mistakes,
            class_names=class_names,
            title="The winner's most confident errors",
            note=f"Of {plural(wrong, 'mistake')} among {plural(len(places), 'validation image')}.",
        ),
        title="Surest mistakes",
        alt=_mistakes_alt(mistakes, class_names),
    )


def _mistakes_alt(mistakes: Sequence[Mistake], class_names: Sequence[str]) -> str:
    from gridsearch.reporting.stats.predictions import class_labels

    highest = 1 + max(max(m.true, m.predicted) for m in mistakes)
    names = class_labels(class_names, max(highest, len(class_names)))
    words = [
        f"{printable(names[m.true], 40)} predicted as {printable(names[m.predicted], 40)} "
        f"at {100 * m.probability:.1f} %"
        for m in mistakes[:4]
    ]
    return f"The {plural(len(mistakes), 'image')} that the winner got wrong with most confidence: {listed(words)}."


def _winner_note(best: RankedPoint, trial: TrialRecord, ranking: Ranking, *, images: int) -> str:
    params = show_params(best.params, ranking.varying, limit=80) if ranking.varying else ""
    if best.folds is not None:
        each = f"each by the network of the {best.folds} that was not trained on it"
        return f"Seed {trial.seed}. {plural(images, 'image')}, {each}. {params}".strip()
    seed = f" (seed {trial.seed} alone, of {plural(best.n, 'seed')})" if best.n > 1 else ""
    return f"Trial {trial.number}{seed}. {plural(images, 'validation image')}. {params}".strip()


def _best_words(ranking: Ranking) -> str:
    best = ranking.best
    if best is None:
        return ""
    params = show_params(best.params, ranking.varying, limit=120)
    return f"Best: {params} with {ranking.digits_of().show(best.mean)}."


def _heatmap_alt(ranking: Ranking) -> str:
    axes = listed([printable(a, 40) for a in ranking.varying])
    metric = capitalized(metric_name(ranking.metric))
    return f"{metric} over {axes}. {_best_words(ranking)} The numbers are in the ranking's table."
