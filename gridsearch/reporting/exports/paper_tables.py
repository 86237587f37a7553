"""The ranking as a table to paste into a paper or a page: LaTeX with booktabs, or Markdown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from gridsearch.reporting.output.headline import show_interval, show_result
from gridsearch.reporting.output.plain_tables import axis_columns
from gridsearch.reporting.words.text import NOTHING, metric_name, plural, printable, show_param

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.records import StudyData
    from gridsearch.reporting.ranking.ranking import Ranking

_LATEX: Final = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "\u2013": "--",
    "\u2212": r"$-$",
    "…": r"\ldots{}",
}
_MARKDOWN: Final = re.compile(r"([\\`*_{}\[\]<>()#+!|~$&])")
_TIED: Final = "="


def latex_table(data: StudyData, ranking: Ranking) -> str:
    """Return the ranking as LaTeX: a table with booktabs' rules, all text escaped, ties with the best marked."""
    heads, rows, caption = _table(data, ranking)
    numbers = "".join("l" if 0 < i <= len(_axes(data, ranking)) else "r" for i in range(len(heads)))
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex(caption)}}}",
        rf"\begin{{tabular}}{{{numbers}}}",
        r"\toprule",
        " & ".join(map(_latex, heads)) + r" \\",
        r"\midrule",
        *(" & ".join(map(_latex_cell, row)) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def markdown_table(data: StudyData, ranking: Ranking) -> str:
    """Return the ranking as a Markdown table, all text escaped, ties with the best marked."""
    heads, rows, caption = _table(data, ranking)
    words = len(_axes(data, ranking))
    lines = [
        "| " + " | ".join(map(_markdown, heads)) + " |",
        "|" + "|".join(" --- " if 0 < i <= words else " ---: " for i in range(len(heads))) + "|",
        *("| " + " | ".join(map(_markdown, row)) + " |" for row in rows),
        "",
        _markdown(caption),
    ]
    return "\n".join(lines) + "\n"


def _table(data: StudyData, ranking: Ranking) -> tuple[list[str], list[list[str]], str]:
    """Return headings, rows and caption, as text that is not escaped yet."""
    axes, digits = _axes(data, ranking), ranking.digits_of()
    sure = any(p.ci_low is not None for p in ranking.points)
    results = ["n", metric_name(ranking.metric), *(["95 % interval"] if sure else [])]
    heads = ["rank", *axis_columns([printable(a) for a in axes], ["rank", *results]), *results]
    rows = []
    for point in ranking.points:
        tied = _TIED if point.tied_with_best and ranking.tied else ""
        rows.append(
            [
                NOTHING if point.rank is None else f"{point.rank}{tied}",
                *(show_param(point.params, axis) if axis in point.params else NOTHING for axis in axes),
                str(point.n),
                show_result(point, digits),
                *([show_interval(point, digits) or NOTHING] if sure else []),
            ]
        )
    about = f"{plural(len(ranking.points), 'point')} {data.kind.preposition} {data.dataset}"
    caption = f"{data.name}: {about}, by {metric_name(ranking.metric)}"
    notes = [f"{_TIED} tied with the best"] if ranking.tied else []
    if any(p.spread is not None for p in ranking.points):
        over = "seeds and folds" if any(p.folds is not None for p in ranking.points) else "seeds"
        notes.append(f"± standard deviation over {over}")
    if any(p.values and (p.diverged or p.pruned) for p in ranking.points):
        notes.append("a point with trials that gave no result ranks below those without")
    if any(p.outsized for p in ranking.points):
        notes.append("values far out of range rank below all others")
    if ranking.incomparable:
        notes.append(f"without {plural(len(ranking.incomparable), 'point')} trained on other images")
    return heads, rows, printable("; ".join([caption, *notes])) + "."


def _axes(data: StudyData, ranking: Ranking) -> Sequence[str]:
    return ranking.varying or data.axes


def _escaped(text: str, one: Callable[[str], str]) -> str:
    return "".join(map(one, text))


def _latex(text: str) -> str:
    """Escape text; two hyphens stay two, of which LaTeX would make a dash."""
    hyphens = text.replace("--", "-\0-").replace("--", "-\0-")
    return _escaped(hyphens, lambda letter: _LATEX.get(letter, letter)).replace("\0", "{}")


def _latex_cell(text: str) -> str:
    """Escape a cell; one that begins with a bracket would be read as an option of the line's end before it."""
    escaped = _latex(text)
    return f"{{{escaped}}}" if escaped.startswith("[") else escaped


def _markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text)
