"""From a ranking to what a notebook shows below a cell that ends in a result: the headline and a short table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gridsearch.reporting.output.cautions import mixed_words
from gridsearch.reporting.output.headline import headline, show_interval, show_rank, show_result
from gridsearch.reporting.output.page import environment
from gridsearch.reporting.ranking.selection import part_words
from gridsearch.reporting.words.text import metric_name, plural, printable, show_params

if TYPE_CHECKING:
    from gridsearch.records import StudyData
    from gridsearch.reporting.ranking.points import RankedPoint
    from gridsearch.reporting.ranking.ranking import Ranking

MOST_ROWS: Final = 10


def ranking_html(data: StudyData, ranking: Ranking) -> str:
    """Return the first points as a piece of HTML without style or script; whatever names hold stays text."""
    words = headline(data, ranking)
    said = (
        part_words(data),
        words.warning,
        f"{words.won} {words.margin}".strip(),
        mixed_words(data, ranking),
        _apart_words(ranking),
    )
    lines = [line for line in said if line]
    heading = ("rank", "point", "n", metric_name(ranking.metric), "95 % interval", "")
    rows = [
        (
            show_rank(p),
            show_params(p.params, limit=200),
            str(p.n),
            show_result(p, ranking.digits_of()),
            show_interval(p, ranking.digits_of()),
            _mark(p, ranking),
        )
        for p in ranking.listed[:MOST_ROWS]
    ]
    hidden = len(ranking.listed) - len(rows)
    return (
        environment()
        .get_template("notebook.html")
        .render(
            study=printable(data.name),
            about=f"{data.kind.preposition} {printable(data.dataset)}",
            lines=lines,
            heading=heading,
            rows=rows,
            hidden=plural(hidden, "more point") if hidden else "",
        )
    )


def _apart_words(ranking: Ranking) -> str:
    """Say that the table has points besides which have ranks of their own; "" where it has none."""
    count = len(ranking.incomparable)
    if not count:
        return ""
    are = "is" if count == 1 else "are"
    return (
        f"{plural(count, 'point')} of other images, settings or code {are} ranked separately, below, with "
        f"{'its rank' if count == 1 else 'ranks'} in brackets, and not compared with the others."
    )


def _mark(point: RankedPoint, ranking: Ranking) -> str:
    """Return the word beside a point; "" where there is nothing to say."""
    if point.apart:
        return "apart"
    return "best" if point is ranking.best else "tied" if point.tied_with_best else ""
