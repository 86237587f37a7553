"""Reads and writes the values of an axis as they stand on the command line: lists, ranges, pairs, quotes.

Second step of reading a grid, after the word was cut at its `=`:

    values  = item {"," item}              lr=.01,.001
    item    = range | word | quoted
    range   = number ".." number ":" step  batch=10..50:10      both ends in
            | number ".." number ":" n "log"  lr=1e-4..1e-1:4log   n values, evenly spaced in log
    row     = word {"/" word}              lr,batch=.01/100,.001/20
    quoted  = a JSON string                model.tag="a,b"      a word that is never a number

A range stays unbuilt (a `Span`) until somebody has looked at how many values it would have.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from gridsearch.records.axis import Axis, AxisKind
from gridsearch.spec.axis_values import plain_number, read_number, read_plain, typed
from gridsearch.spec.collector import InvalidValue, shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.records import Value

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
# Without a dot at the end, so that "1...5:.1" is 1 to .5.
_N = r"[+-]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_RANGE = re.compile(rf"({_N})\.\.({_N})(?::(.*))?")
_LOG = re.compile(r"([0-9]{1,18})log")
_TERM = re.compile(r'\s*([^\s=]+)=((?:"(?:[^"\\]|\\.)*"|[^\s"])*)(?=\s|$)')
_SIGNIFICANT = 12
_SHORTEST_PROGRESSION = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A range that is not built yet.

    Attributes:
        count: how many values it has.
        step: the distance of neighbours; None where they are evenly spaced in log.
    """

    axis: Axis
    text: str
    count: int
    first: Fraction
    last: Fraction
    step: Fraction | None

    def values(self) -> tuple[Value, ...]:
        """Build the values, both ends in; those between are rounded to 12 significant digits where these differ.

        What a step gives is exact: it has no more digits than the ends and the step together.

        Raises:
            InvalidValue: a value in log spacing is not whole, on an axis of whole numbers.
        """
        exact = [self._at(i) for i in range(self.count)]
        if self.step is None:
            short = [exact[0], *map(_rounded, exact[1:-1]), exact[-1]]
            up = self.last > self.first
            if all((b > a) is up and a != b for a, b in itertools.pairwise(short)):
                exact = short
        return tuple(self._typed(number, i) for i, number in enumerate(exact))

    def _at(self, i: int) -> Fraction | float:
        if i in (0, self.count - 1):
            return self.first if i == 0 else self.last
        if self.step is not None:
            return self.first + i * self.step
        low, high = math.log(self.first), math.log(self.last)
        return math.exp(low + (high - low) * (i / (self.count - 1)))

    def _typed(self, number: Fraction | float, i: int) -> Value:
        if isinstance(number, Fraction) and number.denominator == 1 and self.axis.kind is not AxisKind.FLOAT:
            return typed(self.axis, int(number))
        try:
            return typed(self.axis, float(number))
        except InvalidValue as wrong:
            raise InvalidValue(f"{wrong} (value {i + 1} of {self.text})") from None


def _rounded(number: Fraction | float) -> float:
    return float(f"{float(number):.{_SIGNIFICANT}g}")


def read_values(axis: Axis, text: str) -> list[Value | Span]:
    """Read a list of words, quoted words and ranges.

    Raises:
        InvalidValue: the first item that is not right.
    """
    if not text.strip():
        raise InvalidValue("no value")
    return [_read_item(axis, item.strip()) for item in split(text, ",")]


def read_row(axes: Sequence[Axis], text: str) -> tuple[Value, ...]:
    """Read one row of paired axes (".01/100").

    Raises:
        InvalidValue: too few or too many values, or one that is not right.
    """
    words = [word.strip() for word in split(text, "/")]
    if len(words) != len(axes):
        names = ",".join(axis.name for axis in axes)
        raise InvalidValue(
            f"{shortened(text)!r} has {len(words)} of the {len(axes)} values of {names} (a/b for a pair)"
        )
    return tuple(read_scalar(axis, word) for axis, word in zip(axes, words, strict=True))


def read_scalar(axis: Axis, word: str) -> Value:
    """Read one word, quoted or not, that is not a range.

    Raises:
        InvalidValue: it is not a value of this axis.
    """
    if not word:
        raise InvalidValue("no value")
    if word.startswith('"'):
        text = _unquote(word)
        return text if axis.free else typed(axis, text)
    if _may_be_range(axis) and _RANGE.fullmatch(word):
        raise InvalidValue(f"a range ({shortened(word)}) cannot stand here")
    return typed(axis, word)


def read_terms(text: str) -> list[tuple[str, str]]:
    """Cut `lr=.01 batch=10,20` into names and values.

    Raises:
        InvalidValue: empty, or a part that is not axis=value.
    """
    terms = []
    position = 0
    while text[position:].strip():
        match = _TERM.match(text, position)
        if match is None:
            raise InvalidValue(f"{shortened(text[position:].strip())!r} is not axis=value")
        terms.append((match[1], match[2]))
        position = match.end()
    if not terms:
        raise InvalidValue("names no axis=value")
    return terms


def split(text: str, separator: str) -> list[str]:
    """Split at a separator, but not inside a quoted word (one that begins a value, be it of a list or a row)."""
    parts, start, position = [], 0, 0
    while position < len(text):
        if text[position] == '"' and (not text[start:position].strip() or text[position - 1] in ",/"):
            quoted = _QUOTED.match(text, position)
            if quoted is not None:
                position = quoted.end()
                continue
        if text[position] == separator:
            parts.append(text[start:position])
            start = position + 1
        position += 1
    return [*parts, text[start:]]


def write_values(axis: Axis, values: Sequence[Value]) -> str:
    """Return the canonical text of a list of values, which `read_values` reads back.

    Whole numbers in even steps become a range.
    """
    if len(values) >= _SHORTEST_PROGRESSION and all(type(v) is int for v in values):
        whole = [v for v in values if isinstance(v, int)]
        step = whole[1] - whole[0]
        if step and all(b - a == step for a, b in itertools.pairwise(whole)):
            return f"{whole[0]}..{whole[-1]}:{step}"
    return ",".join(write_scalar(axis, value, special=",") for value in values)


def write_row(axes: Sequence[Axis], row: Sequence[Value]) -> str:
    """Return the canonical text of one row of paired axes."""
    return "/".join(write_scalar(axis, value, special=",/") for axis, value in zip(axes, row, strict=True))


def write_scalar(axis: Axis, value: Value, *, special: str = ",/ ") -> str:
    """Return the canonical text of one value, quoted where it would otherwise be read as something else.

    Args:
        axis: what the value is for.
        value: the value, typed.
        special: characters that mean something where the text will stand.
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        short = f"{value:.{_SIGNIFICANT}g}"
        return short if float(short) == value else repr(value)
    if isinstance(value, int):
        return str(value)
    return quoted_word(value) if _needs_quotes(axis, value, special) else value


def quoted_word(word: str) -> str:
    """Return a word in quotes, as it is read back; letters of any script stay, what cannot be seen is escaped."""
    return json.dumps(word, ensure_ascii=not word.isprintable())


def _needs_quotes(axis: Axis, word: str, special: str) -> bool:
    if not word or '"' in word or word != word.strip() or not word.isprintable():
        return True
    if any(c in word for c in special) or not word.isascii():
        return True
    return axis.free and reads_as_other(word)


def reads_as_other(word: str) -> bool:
    """Whether an unquoted word would be read as a number, a range, true, false or none, or as nothing."""
    if not word.strip() or _RANGE.fullmatch(word):
        return True
    try:
        return not isinstance(read_plain(word), str)
    except InvalidValue:
        return True


def _unquote(word: str) -> str:
    try:
        text = json.loads(word)
    except ValueError:
        raise InvalidValue(
            f'{shortened(word)} is not a quoted word: "...", with \\" for a quote inside'
        ) from None
    assert isinstance(text, str)  # it began with a quote
    return text


def _may_be_range(axis: Axis) -> bool:
    return axis.numeric or axis.free


def _read_item(axis: Axis, item: str) -> Value | Span:
    match = _RANGE.fullmatch(item) if _may_be_range(axis) else None
    if match is None:
        if axis.numeric and ".." in item:
            raise InvalidValue(
                f"{shortened(item)!r} is not a range; write FIRST..LAST:STEP or FIRST..LAST:COUNTlog"
            )
        return read_scalar(axis, item)
    span = _read_span(axis, item, match)
    for i, end in ((0, match[1]), (span.count - 1, match[2])):
        if axis.numeric:
            typed(axis, end)  # the ends first: with them, all between lies in the axis's range
        span._typed(span._at(i), i)
    return span


def _read_span(axis: Axis, item: str, match: re.Match[str]) -> Span:
    text = shortened(item)
    first, last, step_text = _fraction(match[1]), _fraction(match[2]), match[3]
    if not step_text:
        raise InvalidValue(f"the range {text} has no step; write {match[1]}..{match[2]}:STEP")
    log = _LOG.fullmatch(step_text)
    if log is not None:
        return _log_span(axis, text, first, last, int(log[1]))
    if read_number(step_text) is None:
        raise InvalidValue(
            f"the step {shortened(step_text)!r} of the range {text} is neither a number nor COUNTlog"
        )
    step = _fraction(step_text)
    if step == 0:
        raise InvalidValue(f"the step of the range {text} is 0")
    if (last - first) * step < 0:
        raise InvalidValue(f"the range {text} steps away from its end")
    if axis.kind is AxisKind.INT and step.denominator != 1:
        raise InvalidValue(f"{axis.name} must be a whole number, not in steps of {shortened(step_text)}")
    steps = (last - first) / step
    if steps.denominator != 1:
        hit = plain_number(float(first + math.floor(steps) * step))
        beyond = plain_number(float(first + math.ceil(steps) * step))
        raise InvalidValue(
            f"the range {text} misses its end {match[2]}; steps of {step_text} hit {hit} and {beyond}"
        )
    return Span(axis=axis, text=text, count=int(steps) + 1, first=first, last=last, step=step)


def _log_span(axis: Axis, text: str, first: Fraction, last: Fraction, count: int) -> Span:
    if float(first) <= 0 or float(last) <= 0:
        raise InvalidValue(f"the range {text} is in log: both its ends must be above 0")
    if count < 2 or first == last:
        raise InvalidValue(f"the range {text} is in log: it needs two different ends and 2 values or more")
    return Span(axis=axis, text=text, count=count, first=first, last=last, step=None)


def _fraction(text: str) -> Fraction:
    number = read_number(text)
    assert number is not None  # the range's pattern is that of a number
    return Fraction(number)
