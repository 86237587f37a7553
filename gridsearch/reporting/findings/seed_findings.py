"""The finding that seeds are too few to tell the first points apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsearch.reporting.findings.finding import Finding
from gridsearch.reporting.stats.uncertainty import MOST_SEEDS, Basis
from gridsearch.reporting.words.text import listed, plural, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gridsearch.records import StudyData
    from gridsearch.reporting.ranking.ranking import Ranking


def about_seeds(data: StudyData, ranking: Ranking) -> Iterator[Finding]:
    """Find that more seeds would separate the first points, or show how much of their difference is chance."""
    found = ranking.uncertainty
    if not data.whole or found.exact:  # the command is about all trials; and seeds that change nothing
        return
    if found.basis is Basis.IMAGES and not (
        ranking.by_train and (found.compared < 2 or found.runner_up_differs)
    ):
        several = found.compared > 1
        top = max(2, min(len(ranking.tied) + 1, 5)) if several else 1
        what = "of the difference is chance" if several else "the result varies by chance"
        yield _finding(data, f"More seeds would show how much {what}", seeds=2, top=top)
        return
    if found.compared < 2 or found.runner_up_differs or found.basis is Basis.NOTHING:
        return
    if found.more_seeds is None:
        yield Finding(
            code="GS104",
            sentence=f"Even {MOST_SEEDS} seeds would not separate the two best points: choose the cheaper one.",
            command=data.again.best() if data.kind.classifies and not data.again.lost else "",
        )
        return
    yield _finding(
        data,
        f"About {plural(found.more_seeds, 'more seed')} would separate the two best points, if the difference is as "
        "large as it seems (power 80 %)",
        seeds=found.more_seeds,
        top=2,
    )


def _finding(data: StudyData, words: str, *, seeds: int, top: int) -> Finding:
    if not data.again.lost:
        return Finding(code="GS104", sentence=f"{words}.", command=data.again.more_seeds(seeds, top))
    own = listed([printable(name) for name in data.again.lost])
    more = f"they need {own} again, which is not in a file: run the grid again from Python with more seeds."
    return Finding(code="GS104", sentence=f"{words}; {more}", command="")
