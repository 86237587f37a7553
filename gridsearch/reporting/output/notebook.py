"""From a ranking to what a notebook shows below a cell that ends in a result: the headline and a short table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gridsearch.reporting.output.cautions import mixed_words
from gridsearch.reporting.output.headline import headline, show_interval, show_result
from gridsearch.reporting.output.page import environment
from gridsearch.reporting.ranking.selection import part_words
from gridsearch.reporting.words.text import NOTHING, metric_name, plural, printable, show_params

if TYPE_CHECKING:
    from gridsearch.records import StudyData
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
    )
    lines = [line for line in said if line]
    heading = ("rank", "point", "n", metric_name(ranking.metric), "95 % interval", "")
    rows = [
        (
            NOTHING if p.rank is None else str(p.rank),
            show_params(p.params, limit=200),
            str(p.n),
            show_result(p, ranking.digits_of()),
            show_interval(p, ranking.digits_of()),
            "best" if p is ranking.best else "tied" if p.tied_with_best else "",
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
