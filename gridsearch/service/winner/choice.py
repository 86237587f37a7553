"""Which point is refitted, and with which settings: the first of the report's ranking, on all training images.

Stands between the ranking and `best`, which trains and tests what is chosen here.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gridsearch.errors import StoreError
from gridsearch.records import ImageSettings, TrialState, point_address
from gridsearch.reporting.output.headline import TRAIN_WARNING, headline
from gridsearch.reporting.words.text import plural
from gridsearch.service.queries.reports import rank_study

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.records import StudyData, TrialRecord
    from gridsearch.reporting import RankedPoint, Ranking
    from gridsearch.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Winner:
    """What is trained again.

    Attributes:
        point: the point of rank 1.
        settings: its settings, but for all training images and without a choice among epochs.
        seeds: of its complete trials.
        notes: what to know of the choice, in sentences.
    """

    point: RankedPoint
    ranking: Ranking
    settings: ImageSettings
    seeds: tuple[int, ...]
    notes: tuple[str, ...]

    @property
    def id(self) -> str:
        """What distinguishes it from other points."""
        return point_address(self.point.settings)


def choose(store: Store, data: StudyData) -> Winner:
    """Return the winner, by the ranking that the report shows.

    Raises:
        StoreError: no trial has a result.
    """
    ranking = rank_study(store, data)
    point = ranking.best
    if point is None:
        counts = ", ".join(f"{n} {state}" for state, n in data.counts().items() if n) or "no trials"
        raise StoreError(
            f"study {data.name!r} has no finished trial, and so no winner ({counts})",
            hint=data.to_a_result,
        )
    done = [t for t in point.trials if t.state is TrialState.COMPLETE]
    chosen = ImageSettings.of(point.settings)
    replicates = "seeds" if point.folds is None else "folds and seeds"
    epochs, why = _refit_epochs(chosen, done, replicates)
    settings = replace(chosen, val=0.0, folds=None, select="last", patience=None, epochs=epochs)
    notes = []
    if data.part is not None:
        notes.append(
            f"Chosen among the trials with {data.part.words} alone: {data.part.trials} of {data.part.of}."
        )
    if ranking.by_train:
        notes.append(TRAIN_WARNING)
    if settings.subset is not None:
        notes.append(
            f"The recipe trains on a subset, and so does the refit: {plural(settings.subset, 'image')}."
        )
    if why is not None:
        notes.append(why)
    if unfinished := sum(not t.state.ended for t in data.trials):
        open_ones = f"{plural(unfinished, 'trial')} {'is' if unfinished == 1 else 'are'} open"
        notes.append(f"The study is not finished ({open_ones}): another point may still win.")
    return Winner(
        point=point,
        ranking=ranking,
        settings=settings,
        seeds=tuple(sorted({t.seed for t in done})),
        notes=tuple(notes),
    )


def _refit_epochs(
    chosen: ImageSettings, done: Sequence[TrialRecord], replicates: str
) -> tuple[int, str | None]:
    """Return the epochs of the refit, which no validation images can end, and why where the search chose or stopped.

    Args:
        chosen: the winner's settings in the search.
        done: its complete trials.
        replicates: what they differ in, in words.
    """
    if chosen.select == "best":
        selected = [int(t.metrics["selected_epoch"]) for t in done if "selected_epoch" in t.metrics]
        epochs = statistics.median_low(selected) if selected else chosen.epochs
        return epochs, (
            "Without validation images no epoch can be chosen: the refit has "
            f"{plural(epochs, 'epoch')}, the median over {replicates} of those that were chosen in the search."
        )
    if any(t.stopped_early for t in done):
        epochs = statistics.median_low([t.epochs for t in done])
        return epochs, (
            "Without validation images nothing stops the refit early: it has "
            f"{plural(epochs, 'epoch')}, the median over {replicates} of those after which the search stopped."
        )
    return chosen.epochs, None


def ranked_by(data: StudyData, winner: Winner) -> str:
    """Return what won and by how much, in the report's words."""
    words = headline(data, winner.ranking)
    points = plural(len(winner.ranking.points), "point")
    return f"In a search over {points}: {words.won} {words.margin}".strip()
