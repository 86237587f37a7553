"""Names of values, axes and classes, short enough for a figure and never two alike; between words and figures.

What is too long is cut where it equals the others: `/data/…0001.safetensors` beside `…0002…`.  What is alike even so
gets its number.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from gridsearch.reporting.words.text import printable, show_value
from gridsearch.reporting.words.typed import ABSENT, as_typed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gridsearch.records import Value

LONGEST_VALUE: Final = 24
_CONTEXT: Final = 4
"""Letters kept before the first that differs, so that a number is not torn: `…0012` and not `…2`."""


def distinct_labels(texts: Sequence[str], limit: int, *, marks: Sequence[str] | None = None) -> list[str]:
    """Return each text on one line, in at most `limit` letters as a rule, so that no two look alike.

    Args:
        texts: any; equal ones are numbered.
        limit: letters of a label; a mark may come on top.
        marks: what numbers each text where nothing else distinguishes it; default: 1, 2, 3 ...
    """
    whole = [printable(t) for t in texts]
    short = [printable(t, limit) for t in whole]
    for group in _alike(short):
        for i, text in zip(group, _cut_distinct([whole[i] for i in group], limit), strict=True):
            short[i] = text
    marks = marks or [str(i + 1) for i in range(len(texts))]
    numbered: set[int] = set()
    while groups := [g for g in _alike(short) if not numbered.issuperset(g)]:
        for i in {i for g in groups for i in g} - numbered:
            short[i] = f"{marks[i]}: {short[i]}"
            numbered.add(i)
    return short


def level_labels(values: Sequence[Value], limit: int = LONGEST_VALUE) -> list[str]:
    """Return a tick's label for each of an axis's distinct values; numbers with the digits that they need to differ."""
    names = [level_name(v) for v in values]
    for group in _alike(names):
        for i in group:
            names[i] = as_typed(values[i], values)
    return distinct_labels(names, limit)


def level_name(value: Value) -> str:
    """Return a value by itself: short, and "(not set)" for a point that lacks the axis."""
    if value == ABSENT:
        return "(not set)"
    if value == "":
        return '""'
    if isinstance(value, float) and len(show_value(value)) > 10:
        return f"{value:.4g}"  # 1.58489319246e-05: the table has all its digits
    return show_value(value)


def _alike(texts: Iterable[str]) -> list[list[int]]:
    """Return the places of texts that look the same, by groups of two and more."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, text in enumerate(texts):
        groups[_visible(text)].append(i)
    return [g for g in groups.values() if len(g) > 1]


def _visible(text: str) -> str:
    """Return the visible characters of a text: accents joined to their letters, nothing of what has no width."""
    if text.isascii():
        return text
    return "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")


def _cut_distinct(texts: Sequence[str], limit: int) -> list[str]:
    """Cut texts that look alike when cut in their middle where they are the same: before or behind what differs."""
    head = _shared(texts)
    tail = min(_shared([t[::-1] for t in texts]), min(map(len, texts)) - head)
    return [_cut(t, limit, head=head, tail=tail) for t in texts]


def _shared(texts: Sequence[str]) -> int:
    """Return how many letters all texts begin with."""
    first, last = min(texts), max(texts)
    return next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last))
    )


def _cut(text: str, limit: int, *, head: int, tail: int) -> str:
    """Return a text in `limit` letters, with all but `head` letters before and `tail` behind, if that fits."""
    size = len(text)
    drop = size - limit + 1
    if drop <= 1:
        return text
    if drop <= head:
        start = min(max(head - drop - _CONTEXT, 0), limit // 2)
        return f"{text[:start]}…{text[start + drop :]}"
    if drop <= tail:
        start = min(max(size - tail + _CONTEXT, limit // 2), size - drop)
        return f"{text[:start]}…{text[start + drop :]}"
    space = limit - 2 - (size - head - tail)
    if space < 0:
        return printable(text, limit)
    first = min(head, (space + 1) // 2)
    last = min(tail, space - first)
    before = f"{text[:first]}…" if first < head else text[:first]
    behind = f"…{text[size - last :]}" if last < tail else text[size - last :]
    return f"{before}{text[head : size - tail]}{behind}"
