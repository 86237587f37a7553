"""From several ranked studies to what their winners have over each other; beside `ranking`, above pages and tables.

Winners are ranked together where their studies go by one metric on the same images.  How far the first is ahead of
each other one is given as an interval, see `winner_differences`; with more than two studies the intervals hold
together.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final, Self

from gridsearch.records import CODE_KEYS
from gridsearch.reporting.ranking.points import RankedPoint, point_key, values_by_replicate
from gridsearch.reporting.ranking.winner_differences import difference, mean_of, sign_of
from gridsearch.reporting.words.text import listed, metric_name, plural, printable
from gridsearch.spec.words import Worded, words_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gridsearch.records import Value
    from gridsearch.reporting.ranking.winner_differences import Difference, Side
    from gridsearch.spec.words import Words

LEVEL: Final = 0.05
_DIFFERENCE_KEYS: Final = ("study", "behind", "ci_low", "ci_high", "differs", "method")


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPoint:
    """A point that two or more of the studies hold.

    Attributes:
        means: by study, None where that study lacks the point or its result; likewise n, the seeds that count.
        differs: whether a seed that two studies have gave them different values; their means, where they share none.
    """

    params: Mapping[str, Value]
    means: tuple[float | None, ...]
    n: tuple[int, ...]
    differs: bool


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Comparison:
    """Several studies beside each other.

    Attributes:
        sides: best winner first where they are ranked together, else as they were given.
        not_comparable: why they are not ranked together, "" where they are.
        differences: of all winners but the first; none where they are not ranked together.
        shared: the points that two or more hold, in the first side's order.
    """

    sides: tuple[Side, ...]
    not_comparable: str
    differences: tuple[Difference, ...]
    shared: tuple[SharedPoint, ...]

    def __repr__(self) -> str:
        """Return one line: the studies, and how many points they share."""
        return f"<Comparison of {listed(list(self.names))}: {plural(len(self.shared), 'shared point')}>"

    def to_json(self) -> dict[str, Any]:
        """Return the content of `report --json` with several studies."""
        return {
            "schema": 1,
            "ranked_together": not self.not_comparable,
            "why_not": self.not_comparable or None,
            "studies": [
                _side_json(side, None if self.not_comparable else i)
                for i, side in enumerate(self.sides, start=1)
            ],
            "differences": [
                {
                    **{name: getattr(d, name) for name in _DIFFERENCE_KEYS},
                    "means_compared": None if d.means is None else list(d.means),
                }
                for d in self.differences
            ],
            "shared_points": [
                {
                    "params": dict(p.params),
                    "means": dict(zip(self.names, p.means, strict=True)),
                    "n": dict(zip(self.names, p.n, strict=True)),
                }
                for p in self.shared
            ],
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The studies' names."""
        return tuple(side.data.name for side in self.sides)


def compare(sides: Sequence[Side]) -> Comparison:
    """Compare studies by their winners, and match the points that they share.

    Args:
        sides: two or more, each with a winner.
    """
    not_comparable = _not_comparable(sides)
    if not not_comparable:
        sign = sign_of(sides[0])
        sides = sorted(sides, key=lambda side: -sign * mean_of(side))
    level = LEVEL / max(1, len(sides) - 1)
    differences = (
        () if not_comparable else tuple(difference(sides[0], other, level=level) for other in sides[1:])
    )
    return Comparison(
        sides=tuple(sides), not_comparable=not_comparable, differences=differences, shared=_shared(sides)
    )


def _varying(sides: Sequence[Side]) -> tuple[str, ...]:
    """Return the axes that vary in any of the studies, or between their winners."""
    axes = dict.fromkeys(a for side in sides for a in (*side.ranking.varying, *side.data.axes))
    winners = [side.winner for side in sides]
    names = dict.fromkeys(k for w in winners for k in w.settings.flat())
    between = [a for a in names if len({repr(w.settings.get(a)) for w in winners}) > 1]
    hidden = {"dataset", "data_fingerprint", *(f"{kind}_source" for kind in (*CODE_KEYS, "objective"))}
    return tuple(dict.fromkeys([*axes, *(a for a in between if a not in hidden)]))


@dataclass(frozen=True, slots=True)
class ComparedAxes:
    """What tells the points of all studies apart.

    Attributes:
        names: the axes that vary in any of the studies, or between their winners.
        words: of their values among those of all studies, since what is one study's 0.02848 may be another's too.
    """

    names: tuple[str, ...]
    words: Words

    @classmethod
    def of(cls, sides: Sequence[Side]) -> Self:
        """Return the axes of some studies."""
        names = _varying(sides)
        return cls(names, words_of(_values(p, names) for side in sides for p in side.ranking.listed))

    def params(self, point: RankedPoint) -> Worded:
        """Return a point's values of the axes, from its settings where its study did not vary them."""
        return Worded(_values(point, self.names), self.words)


def _values(point: RankedPoint, axes: Sequence[str]) -> dict[str, Value]:
    known = point.settings.flat()
    values = {a: point.params.get(a, known.get(a)) for a in axes if a in point.params or a in known}
    return {a: v for a, v in values.items() if a in point.params or v is not None}


def _side_json(side: Side, rank: int | None) -> dict[str, Any]:
    winner, trial = side.winner, side.ranking.best_trial
    return {
        "rank": rank,
        "study": side.data.name,
        "part": None if side.data.part is None else side.data.part.words,
        "dataset": side.data.dataset,
        "metric": side.data.metric,
        "direction": side.data.direction,
        "points": len(side.ranking.points),
        "trials": len(side.data.trials),
        "best": {
            "params": dict(winner.params),
            "trial": None if trial is None else trial.number,
            "n": winner.n,
            "mean": winner.mean,
            "ci_low": winner.ci_low,
            "ci_high": winner.ci_high,
        },
    }


def _not_comparable(sides: Sequence[Side]) -> str:
    metrics = list(dict.fromkeys((side.data.metric, side.data.direction) for side in sides))
    if len(metrics) > 1:
        same = len({m for m, _ in metrics}) < len(metrics)
        names = listed([f"{metric_name(m)} {d}d" if same else metric_name(m) for m, d in metrics])
        words = "so their winners are shown side by side and not ranked together."
        return f"The studies are ranked by different metrics ({names}), {words}"
    made_on = {s.winner.settings.scored_on() for s in sides}
    if len(made_on) > 1:
        what = " or ".join(dict.fromkeys(side.data.kind.differ for side in sides))
        names = listed(list(dict.fromkeys(printable(side.data.dataset, 60) for side in sides)))
        return (
            f"They were made {what} ({names}), so their winners are shown side by side and not ranked "
            "together."
        )
    return ""


def _shared(sides: Sequence[Side]) -> tuple[SharedPoint, ...]:
    held = [{point_key(p.settings): p for p in side.ranking.points} for side in sides]
    axes = ComparedAxes.of(sides)
    found = []
    for key in dict.fromkeys(key for points in held for key in points):
        points = [own.get(key) for own in held]
        there = [p for p in points if p is not None]
        if len(there) > 1:
            found.append(
                SharedPoint(
                    params=axes.params(there[0]),
                    means=tuple(None if p is None else p.mean for p in points),
                    n=tuple(0 if p is None else p.n for p in points),
                    differs=_differ([p for p in there if p.mean is not None], sides[0].data.metric),
                )
            )
    return tuple(found)


def _differ(points: Sequence[RankedPoint], metric: str) -> bool:
    """Whether one point has different values in several studies: seed by seed, since means are over all seeds."""

    def apart(one: RankedPoint, two: RankedPoint) -> bool:
        first, second = (values_by_replicate(p.trials, metric) for p in (one, two))
        shared = set(first) & set(second)
        return any(first[s] != second[s] for s in shared) if shared else one.mean != two.mean

    return any(apart(one, two) for one, two in combinations(points, 2))
