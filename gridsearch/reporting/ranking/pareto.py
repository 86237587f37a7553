"""What points are compared by beside the metric that ranks, and the Pareto front that came of it.

`fronts` makes it; figure, tables and JSON show it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gridsearch.errors import UsageError, nearest
from gridsearch.records.image_metrics import METRICS, RECALL, image_metric
from gridsearch.reporting.words.text import metric_name, plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gridsearch.reporting.ranking.points import RankedPoint

PARAMETERS: Final = "parameters"
LATENCY: Final = "latency"
SECONDS: Final = "seconds"
COSTS: Final = {
    PARAMETERS: ("parameters", "trainable parameters"),
    LATENCY: ("latency", "milliseconds an image"),
    SECONDS: ("training time", "seconds of a trial, its share of its pack"),
}
"""What may be asked for beside metrics: its name in words, and its unit."""

Ends = tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """Something that points have more or less of.

    Attributes:
        name: of a metric its name, else one of `COSTS`.
        smaller: whether less is better.
    """

    name: str
    smaller: bool

    @property
    def words(self) -> str:
        """What it is called."""
        return COSTS[self.name][0] if self.name in COSTS else metric_name(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A point that has all the quantities.

    Attributes:
        values: of the quantities, in their order.
        ends: their 95 % intervals; of a latency its quartiles; None where there is none.
        front: whether no other point is as good in all quantities and better in one.
        open: whether another one is, but by no more than the intervals leave open.
    """

    point: RankedPoint
    values: tuple[float, ...]
    ends: tuple[Ends, ...]
    front: bool
    open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ParetoFront:
    """The points of a study by several quantities.

    Attributes:
        candidates: those of the front first, each by the first quantity, best first.
        left_out: how many ranked points lack one of the quantities, or have replicates that were pruned.
        pruned: whether there are any of the latter.
        measured: how latencies were measured, by name; empty where none was asked for.
    """

    quantities: tuple[Quantity, ...]
    candidates: tuple[Candidate, ...]
    left_out: int
    measured: Mapping[str, Any]
    pruned: bool = False

    @property
    def front(self) -> tuple[Candidate, ...]:
        """The points of the front, best by the first quantity first."""
        return tuple(c for c in self.candidates if c.front)

    def to_json(self) -> dict[str, Any]:
        """Return the entry of `report --json`."""
        return {
            "quantities": [
                {"name": q.name, "direction": "minimize" if q.smaller else "maximize"}
                for q in self.quantities
            ],
            "points": [
                {
                    "params": dict(c.point.params),
                    "front": c.front,
                    "open": c.open,
                    "values": {q.name: v for q, v in zip(self.quantities, c.values, strict=True)},
                    "intervals": {
                        q.name: None if e is None else list(e)
                        for q, e in zip(self.quantities, c.ends, strict=True)
                    },
                }
                for c in self.candidates
            ],
            "left_out": self.left_out,
            "latency": dict(self.measured) or None,
        }


def quantities_of(words: Iterable[str]) -> tuple[Quantity, ...]:
    """Read what is asked for; a word may name several, with commas between them, unless it is a class's recall.

    Raises:
        UsageError: an unknown quantity, one twice, or fewer than two.
    """
    names: list[str] = []
    for word in words:
        names += [word] if word.startswith(RECALL) else [each.strip() for each in word.split(",")]
    found = tuple(_quantity(name) for name in names)
    twice = [q.name for q in found if [other.name for other in found].count(q.name) > 1]
    if twice:
        raise UsageError(f"--pareto: {twice[0]} is given twice")
    if len(found) < 2:
        raise UsageError("--pareto takes two quantities or more", hint="say accuracy,parameters,latency")
    return found


def _quantity(name: str) -> Quantity:
    if name in COSTS:
        return Quantity(name=name, smaller=True)
    try:
        metric = image_metric(name)
    except UsageError:
        known = (*(metric.word for metric in METRICS), f"{RECALL}CLASS", *COSTS)
        raise UsageError(f"--pareto: unknown quantity {name!r}{nearest(name, known)}") from None
    return Quantity(name=metric.name, smaller=metric.smaller)


def front_words(found: ParetoFront) -> str:
    """Return what the front is and how its latencies were measured, in sentences."""
    names = ", ".join(f"{q.words} ({'less' if q.smaller else 'more'} is better)" for q in found.quantities)
    of = f"{plural(len(found.front), 'point')} of {len(found.candidates):,}"
    words = f"By {names}: {of} that no other beats in every respect."
    opened = sum(c.open for c in found.candidates)
    if opened:
        words += f" Of {plural(opened, 'other')} the intervals leave open whether one does."
    if found.left_out:
        are = "is" if found.left_out == 1 else "are"
        or_pruned = ", or with pruned seeds," if found.pruned else ""
        words += f" {plural(found.left_out, 'point')} without all of these{or_pruned} {are} left out."
    if how := found.measured:
        words += (
            f" Latency: milliseconds for a batch of {how['batch']} image, median of {how['repeats']} calls or more and "
            f"its quartiles; ONNX Runtime {how['version']}, {plural(how['threads'], 'thread')}, {how['processor']}."
        )
    return words
