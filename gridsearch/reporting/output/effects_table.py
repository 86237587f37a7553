"""The page's table of effects: what share of the variance each axis explains, and how these shares were found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gridsearch.reporting.words.text import printable

if TYPE_CHECKING:
    from gridsearch.reporting.ranking.effects import Decomposition
    from gridsearch.reporting.ranking.ranking import Ranking

EFFECTS_EXACT: Final = (
    "Share of the variance over all trials that each axis explains, and that each pair of axes explains beyond its two "
    "axes. Exact, because the points with a result are a complete grid."
)
EFFECTS_FITTED: Final = (
    "Share of the variance over all trials that each axis, and each pair of axes, explains beyond all others. "
    "Estimated by least squares, because the grid has holes or uneven seeds."
)
EFFECTS_TOGETHER: Final = (
    "Axes vary together in this grid (paired values, holes): {share} of the variance is confounded, so it cannot be "
    "attributed to any single one."
)
EFFECTS_OVERLAP: Final = (
    "Because of the holes, axes vary together and these shares are confounded: they overlap, do not add up to 100 %, "
    "and each is an upper bound."
)
MOST_EFFECTS: Final = 12
SEEN_SHARE: Final = 0.0005
"""A share below it is shown as 0.0 %."""


def method(decomposition: Decomposition) -> str:
    """Return what the shares are, and which of it is confounded where some is."""
    if decomposition.exact:
        return EFFECTS_EXACT
    confounded = decomposition.confounded_share
    if confounded < -SEEN_SHARE:
        return f"{EFFECTS_FITTED} {EFFECTS_OVERLAP}"
    if confounded > SEEN_SHARE:
        return f"{EFFECTS_FITTED} {EFFECTS_TOGETHER.format(share=f'{100 * confounded:.1f} %')}"
    return EFFECTS_FITTED


def rows(ranking: Ranking, decomposition: Decomposition) -> list[tuple[str, str]]:
    """Return each axis and pair of axes with its share, in words; none where one axis explains all by itself."""
    residual = decomposition.residual_share
    if residual is None or len(ranking.varying) < 2:
        return []
    shown, hidden = decomposition.effects[:MOST_EFFECTS], decomposition.effects[MOST_EFFECTS:]
    confounded = decomposition.confounded_share
    most = "up to " if confounded < -SEEN_SHARE else ""
    found = [
        (" \u00d7 ".join(printable(a) for a in e.axis.split(",")), f"{most}{100 * e.share:.1f} %")
        for e in shown
    ]
    if confounded > SEEN_SHARE:
        found.append(("confounded", f"{100 * confounded:.1f} %"))
    if most:
        return [*found, ("no axis or pair", f"{100 * residual:.1f} %")]
    rest = residual + sum(e.share for e in hidden)
    return [*found, ("everything else", f"{100 * max(0.0, rest):.1f} %")]
