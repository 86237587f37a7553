"""The reports of parts of a study, beside that of the whole: their list, which the whole's page carries.

A part's report (`report --where`) never writes over the whole's; it is entered in that page's list alone.
"""

from __future__ import annotations

import json
import re
from html import escape
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from gridsearch.reporting.words.text import metric_name, plural, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PREFIX: Final = "report-"
MOST_PARTS: Final = 50
_BEGIN, _END = "<!-- parts -->", "<!-- end of parts -->"


def parts_beside(folder: Path) -> list[tuple[str, str]]:
    """Return the reports of parts of a study that lie beside its report: address and words of each, by name."""
    found = []
    for ranking in sorted(folder.parent.glob(f"{PREFIX}*/ranking.json"))[:MOST_PARTS]:
        try:
            words = _words(json.loads(ranking.read_text("utf-8")))
        except (OSError, ValueError, KeyError, TypeError):  # not ours, or half deleted
            continue
        found.append((f"../{quote(ranking.parent.name)}/index.html", printable(words)))
    return found


def _words(report: Mapping[str, Any]) -> str:
    """Return what a report is of: some trials, another metric, or both."""
    part: Any = report.get("part")
    words = []
    if part or "study_metric" not in report:
        words.append(f"Only trials with {part['words']} ({plural(part['trials'], 'trial')})")
    if "study_metric" in report:
        words.append(f"{'ranked' if part else 'Ranked'} by {metric_name(report['metric'])}")
    return ", ".join(words)


def parts_list(parts: Sequence[tuple[str, str]]) -> str:
    """Return the list as HTML, between two marks by which `with_parts` finds it again."""
    items = "".join(f'<li><a href="{escape(href)}">{escape(words)}</a></li>' for href, words in parts)
    if items:
        items = f"<p>Parts of it, each as it was when its report was made:</p><ul>{items}</ul>"
    return f"{_BEGIN}{items}{_END}"


def with_parts(page: str, parts: Sequence[tuple[str, str]]) -> str:
    """Return a page with its list of parts made anew; a page without one stays as it is."""
    pattern = f"{re.escape(_BEGIN)}.*?{re.escape(_END)}"
    return re.sub(pattern, lambda _: parts_list(parts), page, count=1, flags=re.DOTALL)
