"""Reads the values of an axis: from a word of the command line or a plain Python value to what the axis holds.

Serves the grammar, the recipe and the options; the axes say what is right (`axes`).
"""

from __future__ import annotations

import math
import os
import re
import unicodedata
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any

from gridsearch.errors import nearest, valid_text
from gridsearch.records.axis import LARGEST_INT, AxisKind, scalar
from gridsearch.spec.collector import InvalidValue, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gridsearch.records import Value
    from gridsearch.records.axis import Axis

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_LARGEST_EXPONENT, _SMALLEST_EXPONENT = 300, -324
_LOOK_ALIKE = str.maketrans("−–—‒﹣－，、．", "------,,.")  # noqa: RUF001  (they are meant)
"""Signs that word processors and other keyboards give for those of a number or a list."""
_WORDS: Mapping[str, bool | None] = {"true": True, "false": False, "none": None}


def typed(axis: Axis, value: Any) -> Value:
    """Return a value in the axis's type.

    A string is read as a word of the command line is ("1e-3", "true", "none"); other values are taken as
    they are.  1, 1.0 and "1e0" give the same.

    Args:
        axis: what the value is for.
        value: a number, word, True, False or None.

    Raises:
        InvalidValue: not a value of this axis: wrong type, not finite, out of range, unknown word.
    """
    value = _plain(axis, value)
    if isinstance(value, str):
        return _read(axis, require_text(axis.name, value))
    if isinstance(value, int) and abs(value) >= 10**_LARGEST_EXPONENT:
        raise InvalidValue(f"{axis.name} is out of the range of a number")
    if axis.free:
        return value if value is None or isinstance(value, bool) else plain_number(value)
    if value is None:
        if axis.nullable:
            return None
        if "none" in axis.choices:
            return "none"  # as Python says it
        raise InvalidValue(f"{axis.name} must be {_wanted(axis)}, not none")
    if axis.kind is AxisKind.BOOL:
        if isinstance(value, bool):
            return value
    elif axis.numeric and not isinstance(value, bool):
        return _in_range(axis, value, str(value))
    raise InvalidValue(f"{axis.name} must be {_wanted(axis)}, not {str(value).lower()}")


def given(axis: Axis, value: Any) -> Value:
    """Return a value from Python in the axis's type: as `typed`, but a str where any value goes stays that str.

    Raises:
        InvalidValue: not a value of this axis.
    """
    value = _plain(axis, value)
    if not (isinstance(value, str) and axis.free):
        return typed(axis, value)
    return require_text(axis.name, value)


def require_text(name: str, value: str) -> str:
    """Return what is given for a name, if it is text that a store can keep.

    Raises:
        InvalidValue: its bytes are no text in UTF-8, or not in the character set of this locale.
    """
    if value != valid_text(value):
        raise InvalidValue(
            f"{name}: {value!r:.60} is no valid text; a path needs a name in UTF-8 (`ln -s` gives it one), "
            "other letters than ASCII need such a locale (LC_ALL=C.UTF-8)"
        )
    return value


def read_number(text: str) -> Decimal | None:
    """Return the number that a word spells, exactly, or None if it is not a number.

    Raises:
        InvalidValue: it spells a number that is not finite, or beyond what a 64-bit float holds.
    """
    if _NOT_FINITE.fullmatch(text):
        raise InvalidValue(f"a number must be finite, not {text}")
    if not _NUMBER.fullmatch(text):
        return None
    number = Decimal(text)
    # Exact arithmetic on 1e999999999 would fill the memory: refuse by the exponent, before any of it.
    if number and not _SMALLEST_EXPONENT <= number.adjusted() <= _LARGEST_EXPONENT:
        raise InvalidValue(f"{shortened(text)} is out of the range of a number")
    return number


def plain_number(value: float | Decimal) -> int | float:
    """Return a free-typed number: whole ones as int (1.0 is 1), others as float.

    What is whole by its type, or by its digits, stays whole at any size; 1e30 is a float.

    Raises:
        InvalidValue: not finite.
    """
    if not math.isfinite(value):
        raise InvalidValue(f"a number must be finite, not {value}")
    whole = int(value)
    by_digits = isinstance(value, int) or (isinstance(value, Decimal) and value.as_tuple().exponent == 0)
    return whole if by_digits or (whole == value and abs(whole) <= LARGEST_INT) else float(value)


def plain_option(value: Value) -> Value:
    """Return an option as a grid would hold it, so that a default of 1.0 and a given 1 are the same point."""
    return plain_number(value) if isinstance(value, float) else value


def read_plain(word: str) -> Value:
    """Return what an unquoted word means for a free-typed axis: true, false, none, a number, or itself."""
    lower = word.lower()
    if lower in _WORDS:
        return _WORDS[lower]
    number = read_number(word)
    if number is not None:
        return plain_number(number)
    typed_so = unicodedata.normalize("NFKC", word).translate(_LOOK_ALIKE)
    if typed_so != word and all(read_number(part.strip()) is not None for part in typed_so.split(",")):
        raise InvalidValue(
            f"{shortened(word)!r} is no number; did you mean {typed_so}? In quotes it is a word"
        )
    return word


def _read(axis: Axis, word: str) -> Value:
    """Read an unquoted word for an axis."""
    if axis.free:
        return read_plain(word)
    if not word:
        raise InvalidValue("no value")
    if axis.kind is AxisKind.CATEGORICAL:
        if axis.choices and word not in axis.choices and not (axis.own and ":" in word):
            own = "; one of your own is named as file.py:name" if axis.own and word.endswith(".py") else ""
            raise InvalidValue(f"unknown {axis.name} {shortened(word)!r}{own or nearest(word, axis.choices)}")
        return word
    lower = word.lower()
    if lower == "none" and axis.nullable:
        return None
    if axis.kind is AxisKind.BOOL:
        value = _WORDS.get(lower)
        if value is None:
            raise InvalidValue(f"{axis.name} must be true or false, not {shortened(word)!r}")
        return value
    if _NOT_FINITE.fullmatch(word):
        raise InvalidValue(f"{axis.name} must be finite, not {word}")
    number = read_number(word)
    if number is None:
        raise InvalidValue(f"{axis.name} must be {_wanted(axis)}, not {shortened(word)!r}")
    return _in_range(axis, number, word)


def _in_range(axis: Axis, number: float | Decimal, text: str) -> int | float:
    """Type a number and check its bounds; `text` is how it was written."""
    if not math.isfinite(number):
        raise InvalidValue(f"{axis.name} must be finite, not {text}")
    value: int | float
    if axis.kind is AxisKind.INT:
        value = int(number)
        if value != number:
            raise InvalidValue(f"{axis.name} must be a whole number, not {shortened(text)}")
    else:
        value = float(number) + 0.0  # -0.0 is 0.0
    if (beyond := axis.bounds.refusal(value)) is not None:
        raise InvalidValue(f"{axis.name} must be {beyond}, not {shortened(text)}")
    return value


def _wanted(axis: Axis) -> str:
    if axis.kind is AxisKind.BOOL:
        return "true or false"
    if axis.numeric:
        return "a whole number" if axis.kind is AxisKind.INT else "a number"
    return f"one of {', '.join(axis.choices)}" if axis.choices else "a name"


def _plain(axis: Axis, value: Any) -> bool | int | float | str | None:
    """Return what Python gave as one of the plain types, without importing numpy or torch.

    A number of numpy, of torch or a `Decimal` is the nearest int or float, a path is its text, and what derives from
    str, int or float (a `StrEnum`, a `numpy.float64`) is what it derives from.

    Raises:
        InvalidValue: it is nothing of this.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value  # type: ignore[no-any-return]
    if isinstance(value, str):
        return str.__str__(value)  # of a StrEnum too its text, whatever its own `__str__` says
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, Enum):
        raise InvalidValue(f"{axis.name} takes no {value}; give its value ({value.value!r:.40}) or its name")
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise InvalidValue(f"{axis.name} must be finite, not {value}")
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, os.PathLike) and isinstance(path := os.fspath(value), str):
        return path
    if (found := scalar(value)) is not None:
        return found
    raise InvalidValue(
        f"{axis.name} must be {'a plain value' if axis.free else _wanted(axis)}, not {type(value).__name__}"
    )
