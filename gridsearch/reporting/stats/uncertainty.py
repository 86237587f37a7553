"""What a ranking knows of its own uncertainty; made by `inference`, shown by headline, tables and figures."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MOST_SEEDS: Final = 100
"""More seeds than these are not asked for: the difference is then too small to matter."""


class Basis(StrEnum):
    """What the intervals of a ranking are about."""

    SEEDS = "seeds"
    FOLDS = "folds"
    IMAGES = "images"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertainty:
    """How sure a ranking is.

    Attributes:
        basis: what the intervals are about.
        compared: points that were compared with the best, itself included; 0 where none were.
        images: validation images, where it is about images.
        unread: compared points whose predictions are not there.
        beyond: compared points that are too many to read the predictions of.
        exact: whether no point's seeds differ at all, so that there are no intervals over seeds.
        pooled: points whose seeds do not differ, so that their intervals are made from the others' scatter.
        unsettled: places in the ranking of points that neither are tied with the best nor distinguished from it.
        over_fewer: places in the ranking of points that were compared over fewer seeds than they or the best have,
            those that both have.
        runner_up_differs: whether the second differs from the best.
        seeds_needed: shared seeds in all that the first two need to be distinguished, None where that cannot be said or
            they are more than `MOST_SEEDS`.
        more_seeds: how many more than the first two have, likewise.
    """

    basis: Basis = Basis.NOTHING
    compared: int = 0
    images: int | None = None
    unread: int = 0
    beyond: int = 0
    exact: bool = False
    pooled: int = 0
    unsettled: tuple[int, ...] = ()
    over_fewer: tuple[int, ...] = ()
    runner_up_differs: bool = False
    seeds_needed: int | None = None
    more_seeds: int | None = None
