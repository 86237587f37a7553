"""The words that stand for an axis's values wherever they are shown: short, different, and read back as typed.

A word depends on the values beside it.  A number of ten digits or more was worked out (a range in log, a float of
32 bits) and is shown with four of them, or with as many as tell it from the other values of its axis; all others
are shown as they are.  So the word that a table shows selects the point again (`spelled`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from gridsearch.records import Value
from gridsearch.spec.grammar import reads_as_other

if TYPE_CHECKING:
    from collections.abc import Iterable

Words: TypeAlias = Mapping[str, Mapping[float | str, str]]
"""The words of floats that are shown short, and of text that is shown in quotes, by axis and value."""


SHOWN_DIGITS = 4
_WORKED_OUT = 10
"""Significant digits from which on a number was worked out, not typed."""
_DIGITS = 17
"""Significant digits that tell any two floats apart."""


class Worded(dict[str, Value]):
    """The params of a trial, with the words that stand for its numbers among those of its study.

    Args:
        params: the values by name.
        words: of the whole study.
    """

    def __init__(self, params: Mapping[str, Value], words: Words) -> None:
        super().__init__(params)
        self.words = words

    def __reduce__(self) -> tuple[type[Worded], tuple[dict[str, Value], Words]]:
        return Worded, (dict(self), self.words)


def word(params: Mapping[str, Value], name: str) -> str | None:
    """Return the word of a param that is shown shorter than it is, None of any other."""
    value = params[name]
    if not isinstance(params, Worded) or not isinstance(value, float | str):
        return None
    return params.words.get(name, {}).get(value)


def exact(value: float) -> str:
    """Return the shortest text that is read back as this very float: 0.001, 1e-05, 0.30000000000000004."""
    text = f"{value:.12g}"
    shortest = repr(value)  # of the least floats the shorter one: 1e-320
    return text if float(text) == value and len(text) <= len(shortest) else shortest


def short_words(values: Iterable[Value]) -> dict[float, str]:
    """Return the words of those floats that are shown shorter than they are; no two words stand for one value.

    Args:
        values: all values of one axis, in any order.
    """
    numbers = {v for v in values if isinstance(v, int | float) and not isinstance(v, bool)}
    long = [v for v in numbers if isinstance(v, float) and _significant(v) >= _WORKED_OUT]
    if not long:
        return {}
    texts = {digits: _texts(numbers, digits) for digits in range(SHOWN_DIGITS, _DIGITS + 1)}
    return {v: _word(v, numbers, texts) for v in long}


def words_of(params: Iterable[Mapping[str, Value]]) -> Words:
    """Return the words of the points of a study, by axis and value."""
    values: dict[str, dict[tuple[bool, Value], Value]] = {}
    for each in params:
        for name, value in each.items():
            values.setdefault(name, {}).setdefault((isinstance(value, bool), value), value)
    found: dict[str, dict[float | str, str]] = {}
    for name, held in values.items():
        found[name] = dict([*short_words(held.values()).items(), *quoted_words(held.values()).items()])
    return {name: words for name, words in found.items() if words}


def quoted_words(values: Iterable[Value]) -> dict[str, str]:
    """Return the words of text that stands beside other values and reads as one: "1e5" beside the number 1e5.

    Args:
        values: all values of one axis, in any order.
    """
    held = list(values)
    texts = [value for value in held if isinstance(value, str)]
    if len(texts) == len(held):
        return {}
    return {text: json.dumps(text, ensure_ascii=False) for text in texts if reads_as_other(text)}


def spelled(values: Iterable[Value]) -> dict[float, float]:
    """Return the value that each number stands for which is one's word and not a value itself.

    Args:
        values: all values of one axis.
    """
    held = list(values)
    numbers = {v for v in held if isinstance(v, int | float) and not isinstance(v, bool)}
    return {n: v for v, word in short_words(held).items() if (n := float(word)) not in numbers}


def _word(value: float, numbers: set[float], texts: Mapping[int, Mapping[str, int]]) -> str:
    whole = len(f"{abs(value):.0f}") if 1 <= abs(value) < 10**_WORKED_OUT else 0
    for digits in range(max(SHOWN_DIGITS, whole), _DIGITS):
        text = f"{value:.{digits}g}"
        if texts[digits][text] == 1 and (float(text) == value or float(text) not in numbers):
            return text
    return repr(value)


def _texts(numbers: Iterable[float], digits: int) -> dict[str, int]:
    counts: dict[str, int] = {}
    for number in numbers:
        text = f"{number:.{digits}g}"
        counts[text] = counts.get(text, 0) + 1
    return counts


def _significant(value: float) -> int:
    mantissa = repr(abs(value)).partition("e")[0].replace(".", "").strip("0")
    return len(mantissa)
