"""From a ranked study to all its findings, those left out that are to be silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsearch.records.axis import identity
from gridsearch.reporting.findings.axis_findings import NO_EFFECT, about_axes
from gridsearch.reporting.findings.curve_findings import about_curves
from gridsearch.reporting.findings.loss_findings import about_losses, lost_values
from gridsearch.reporting.findings.next_grids import NextGrids
from gridsearch.reporting.findings.seed_findings import about_seeds

if TYPE_CHECKING:
    from collections.abc import Collection

    from gridsearch.records import StudyData
    from gridsearch.reporting.findings.finding import Finding
    from gridsearch.reporting.ranking.ranking import Ranking


def find(data: StudyData, ranking: Ranking) -> tuple[Finding, ...]:
    """Return what a study shows and what would follow from it, in the order of the codes.

    Each finding has a statistical reason: a study that shows nothing gets none.

    Args:
        data: the study; its spec says which codes are to be silent.
        ranking: its ranking.
    """
    lost = lost_values(data, ranking)
    grids = NextGrids(data, ranking, lost=[(each.axis, each.value) for each in lost])
    silent = set(data.spec.get("ignore", ()))
    harmful = {
        each.axis for each in lost
    }  # an axis with a value that fails has an effect, whatever the others show
    about = [
        f
        for f in about_axes(ranking, grids, free=data.kind.free_axes)
        if f.code != NO_EFFECT or f.axis not in harmful
    ]
    idle = {f.axis for f in about if f.code == NO_EFFECT and NO_EFFECT not in silent}
    found = [
        *about,
        *about_curves(data, ranking, grids),
        *(() if _first_two_differ_in(ranking, idle) else about_seeds(data, ranking)),
        *about_losses(lost, ranking, grids),
    ]
    return tuple(sorted((f for f in found if f.code not in silent), key=lambda f: f.code))


def _first_two_differ_in(ranking: Ranking, axes: Collection[str | None]) -> bool:
    """Whether the two best points differ, and in nothing but these axes."""
    best, second = ranking.best, ranking.runner_up
    if best is None or second is None:
        return False
    apart = {a for a in ranking.varying if identity(best.level(a)) != identity(second.level(a))}
    return bool(apart) and apart <= set(axes)
