"""Axis values as words that are typed and read: what is one value, and what a typed word means among several.

Below ranking (levels, selection) and the labels of figures.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Final

from gridsearch.records.axis import identity
from gridsearch.reporting.words.text import show_value
from gridsearch.spec.grammar import quoted_word
from gridsearch.spec.words import spelled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.records import Value

ABSENT: Final = "\0absent"
"""The level of a point that lacks an axis, because a condition takes it away."""
ABSENT_WORDS: Final = ("absent", "(not set)", "\u2013")
"""How a point that lacks an axis is asked for: by the first; the others are what figures and tables show."""
FEWEST_DIGITS: Final = 4
"""A number of so many significant digits or more finds the one value that it is rounded from."""


def matching(asked: Value, held: Sequence[Value]) -> list[Value]:
    """Return those of some distinct values that are meant: one as a rule, several where a rounded number fits more.

    Args:
        asked: typed, or text: then a number, true, false, none or absent before a word that is written so.
        held: the values that there are; `ABSENT` where there is none.
    """
    if not isinstance(asked, str) or asked == ABSENT:
        return [v for v in held if identity(v) == identity(asked)] or _numbers_near(asked, held)
    text = asked.strip()
    if text.startswith('"'):
        try:
            word = json.loads(text)
        except ValueError:
            word = text
        return [v for v in held if v == word and isinstance(v, str)]
    special: list[Value] = [v for v in held if isinstance(v, bool | None) and text.lower() == show_value(v)]
    if text.lower() in ABSENT_WORDS:
        special += [v for v in held if v == ABSENT]
    number = _number(text)
    if number is not None:
        special += [v for v in held if _is_number(v) and v == number] or _numbers_near(number, held)
    return special or [v for v in held if isinstance(v, str) and v in (asked, text) and v != ABSENT]


def _number(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if math.isfinite(value) else None
    return None


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers_near(asked: Value, held: Sequence[Value]) -> list[Value]:
    """Return the numbers that are the asked one but for rounding: in the last bits, or to the digits shown."""
    if not _is_number(asked):
        return []
    assert isinstance(asked, int | float)
    if asked in (words := spelled(held)):
        return [words[asked]]
    numbers = [v for v in held if isinstance(v, float)]
    near: list[Value] = [v for v in numbers if math.isclose(v, asked, rel_tol=1e-12, abs_tol=0.0)]
    rounded: list[Value] = [
        v for v in numbers if any(float(f"{v:.{n}g}") == asked for n in range(FEWEST_DIGITS, 13))
    ]
    return near or rounded


def as_typed(value: Value, held: Sequence[Value] | None = None) -> str:
    """Return a value as it is typed after --where, so that it means that one and no other.

    Args:
        value: one of those held.
        held: the distinct values that there are, so that no more is said than distinguishes them; default: any.
    """
    plain = ABSENT_WORDS[0] if value == ABSENT else value if isinstance(value, str) else show_value(value)
    odd = plain != plain.strip() or not plain or plain.startswith('"') or not plain.isprintable()
    if held is not None and not odd and [identity(v) for v in matching(plain, held)] == [identity(value)]:
        return plain
    if isinstance(value, float):
        return plain if _number(plain) == value else repr(value)
    if not isinstance(value, str) or value == ABSENT:
        return plain
    special = value.lower() in ("true", "false", "none", *ABSENT_WORDS) or _number(value) is not None
    return quoted_word(value) if special or odd else value
