"""In which order the trials of a study train, where the user asks for one: which of two goes first.

Between the study's trials and the queue, for a run as for its plan.  Packs are made of trials that may share one; the
order decides which of a group go into its next pack, and which group goes next.  Where packs are settled beforehand
(`fixed_packs`) it decides which of these goes first, and nothing about what is in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsearch.records.axis import identity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.planning.queue import T
    from gridsearch.records import Value


def rank_of(
    order: str, trials: Callable[[], Sequence[T]], *, cost: Callable[[T], float]
) -> Callable[[T], float] | None:
    """Return what ranks the trials of a study, the first lowest; None for "given", where the longest go first.

    Args:
        order: "given", "spread" (the first trials lie evenly over all points; a point's second seed comes once
            every point has its first) or "cheap-first".
        trials: gives all trials of the study, so that a run which goes on keeps the order that it began with.
        cost: what a trial costs.
    """
    if order == "cheap-first":
        return cost
    if order != "spread":
        return None
    places = _evenly(trials())
    last = len(places)
    return lambda trial: places.get(trial.key, last)


def _evenly(trials: Sequence[T]) -> dict[str, int]:
    """Return the place of each trial by its key."""
    from gridsearch.spec.spread import spread  # with numpy, which this order alone needs

    points: dict[tuple[object, ...], list[str]] = {}
    values: list[dict[str, Value]] = []
    flats: dict[int, tuple[tuple[object, ...], dict[str, Value]]] = {}
    for trial in trials:
        settings = trial.settings
        if id(settings) not in flats:  # replicates of a grid share theirs
            flat = settings.flat()
            flats[id(settings)] = tuple((name, identity(value)) for name, value in sorted(flat.items())), flat
        point, flat = flats[id(settings)]
        if point not in points:
            points[point] = []
            values.append(flat)
        points[point].append(trial.key)
    replicates = list(points.values())
    order = spread(values)
    turns = max(map(len, replicates), default=0)
    keys = (replicates[i][turn] for turn in range(turns) for i in order if turn < len(replicates[i]))
    return {key: place for place, key in enumerate(keys)}
