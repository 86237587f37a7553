"""What the fonts of this machine can draw and how wide it is; names that they cannot draw become numbers with a key.

Between names (`labels`) and every figure.
"""

from __future__ import annotations

import functools
import re
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from gridsearch.errors import ArtifactError
from gridsearch.reporting.figures.matplotlib_setup import load
from gridsearch.reporting.stats.predictions import class_labels
from gridsearch.reporting.words.labels import distinct_labels, level_labels
from gridsearch.reporting.words.text import printable, show_params

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gridsearch.records import Value

Key = tuple[tuple[str, str], ...]
"""What the numbers in a figure stand for: number and name."""

POINTS_PER_INCH: Final = 72.0
LONGEST_AXIS: Final = 40
_SHORTEST: Final = 16
_DPI: Final = 110
_UNDRAWN: Final = 1.05
"""Width of a letter that no font here has, in its size: a browser shows it as wide as a Chinese one at most."""
_BREAKS: Final = re.compile(r"(?<=[\s_./:,=-])|(?<=[a-z])(?=[A-Z])")

_SCRIPTS: Final = (
    *(
        "Noto Sans",
        "Noto Sans CJK JP",
        "Noto Sans CJK SC",
        "Noto Sans CJK TC",
        "Noto Sans CJK KR",
        "Noto Sans JP",
    ),
    *(
        "Noto Sans SC",
        "Noto Sans TC",
        "Noto Sans KR",
        "Source Han Sans",
        "Source Han Sans SC",
        "Source Han Sans CN",
    ),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "AR PL UMing CN", "AR PL UKai CN"),
    *("IPAexGothic", "IPAGothic", "TakaoGothic", "VL Gothic", "NanumGothic", "UnDotum", "Baekmuk Gulim"),
    *("Noto Serif CJK JP", "Noto Serif CJK SC", "Noto Serif CJK TC", "Noto Serif CJK KR"),
    *("Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil"),
    *("Noto Sans Thai", "Noto Sans Ethiopic", "Noto Sans Symbols2", "Noto Emoji", "Symbola"),
    *("Hiragino Sans", "Hiragino Sans GB", "PingFang SC", "PingFang TC", "Heiti SC", "Heiti TC", "STHeiti"),
    *("Apple SD Gothic Neo", "AppleGothic", "Microsoft YaHei", "Microsoft JhengHei", "SimHei", "SimSun"),
    *("Yu Gothic", "Meiryo", "MS Gothic", "Malgun Gothic", "Arial Unicode MS", "Unifont", "GNU Unifont"),
)
_asked: ContextVar[dict[str, str] | None] = ContextVar("_asked", default=None)


@contextmanager
def keyed() -> Iterator[dict[str, str]]:
    """Collect what the numbers stand for that are drawn in place of names meanwhile: name by number."""
    outer = _asked.get()
    if outer is not None:
        yield outer
        return
    key: dict[str, str] = {}
    token = _asked.set(key)
    try:
        yield key
    finally:
        _asked.reset(token)


def legible(text: str, mark: str) -> str:
    """Return a name if a font here can draw it, else a number in its place, which the figure's key explains."""
    if _drawable(text):
        return text
    key = _asked.get()
    if key is not None:
        key[mark] = printable(text, 200)
    return mark


def legible_names(names: Sequence[str], marks: Sequence[str]) -> list[str]:
    """Return names that are no two alike, marks in place of those that cannot be drawn; no mark is a name."""
    taken = set(names)
    return [legible(n, f"({m})" if m in taken else m) for n, m in zip(names, marks, strict=True)]


def legible_words(text: str) -> str:
    """Return a sentence in which each word that cannot be drawn is a number."""
    if _drawable(text):
        return text
    return " ".join(legible(word, f"name {i}") for i, word in enumerate(text.split(), start=1))


def axis_names(axes: Sequence[str], limit: int = LONGEST_AXIS) -> dict[str, str]:
    """Return each axis's name for a figure, no two alike; one that cannot be drawn is "axis 2", say."""
    marks = [f"axis {i}" for i in range(1, len(axes) + 1)]
    return dict(zip(axes, legible_names(distinct_labels(axes, limit), marks), strict=True))


def level_names(axis: str, values: Sequence[Value], limit: int = 24) -> list[str]:
    """Return a label for each of an axis's values, no two alike; one that cannot be drawn is "x 2", say."""
    head = printable(axis, 12) if _drawable(axis) else "value"
    return legible_names(level_labels(values, limit), [f"{head} {i}" for i in range(1, len(values) + 1)])


def readable_names(class_names: Sequence[str], classes: int, *, limit: int) -> list[str]:
    """Return a label for each of Y classes, no two alike; its number where no font here can draw its name."""
    numbers = [str(i) for i in range(classes)]
    names = distinct_labels(class_labels(class_names, classes), limit, marks=numbers)
    return legible_names(names, [f"class {i}" for i in numbers])


def point_names(
    params: Sequence[Mapping[str, Value]], axes: Sequence[str], marks: Sequence[str], inches: float
) -> list[str]:
    """Return the params of points in words, no two alike, for a legend; `marks` where they cannot be drawn."""
    return distinct_lines([show_params(p, axes) for p in params], marks, inches, 8.5)


def distinct_lines(texts: Sequence[str], marks: Sequence[str], inches: float, size: float) -> list[str]:
    """Return each text on one line of at most so many inches, no two alike; its mark where it cannot be drawn.

    Args:
        texts: what to show.
        marks: what stands for each of them where no font here has its letters.
        inches: the width.
        size: of the font, in points.
    """
    limit = 120
    while True:
        words = legible_names(distinct_labels(texts, limit, marks=marks), marks)
        if limit <= _SHORTEST or max((text_width(w, size) for w in words), default=0.0) <= inches:
            return words
        limit = max(_SHORTEST, limit * 9 // 10)


def text_width(text: str, size: float) -> float:
    """Return how many inches a line of text takes at a font size in points."""
    return _em_width(text) * size / POINTS_PER_INCH


@functools.lru_cache(maxsize=8192)
def _em_width(text: str) -> float:
    """Return a line's width in font sizes, measured with the fonts that it is drawn with; hinting adds up to 4 %."""
    from matplotlib import font_manager

    drawn = "".join(c for c in text if c.isascii() or ord(c) in _glyphs())
    font = font_manager.get_font([*_charmaps()])
    font.set_size(10.0, _DPI)
    font.set_text(drawn, 0.0)
    wide = font.get_width_height()[0] / 64 / _DPI * POINTS_PER_INCH / 10.0
    return 1.05 * float(wide) + 0.08 + _UNDRAWN * (len(text) - len(drawn))


def fitted(text: str, inches: float, size: float, *, lines: int = 3) -> str:
    """Return a text broken into lines of at most so many inches, cut in its middle where they would be too many.

    Args:
        text: what to show.
        inches: the width of a line.
        size: of the font, in points.
        lines: how many at most.
    """
    broken = _broken(text, inches, size)
    if len(broken) > lines:
        fits, over = 1, len(text)  # letters
        while over - fits > 1:
            middle = (fits + over) // 2
            short = _broken(printable(text, middle), inches, size)
            fits, over = (middle, over) if len(short) <= lines else (fits, middle)
        broken = _broken(printable(text, fits), inches, size)
    return "\n".join(broken)


def _broken(text: str, inches: float, size: float) -> list[str]:
    """Break a text behind a space or sign where it can, in a word where it must."""
    found = [""]
    for piece in _BREAKS.split(text):
        if found[-1] and text_width((found[-1] + piece).rstrip(), size) > inches:
            found.append("")
        for letter in piece if text_width(piece.rstrip(), size) > inches else [piece]:
            if found[-1] and text_width((found[-1] + letter).rstrip(), size) > inches:
                found.append("")
            found[-1] += letter
    return [line.strip() for line in found if line.strip()]


def _drawable(text: str) -> bool:
    return text.isascii() or all(ord(c) in _glyphs() for c in text)


def font_with(text: str) -> str | None:
    """Return the file of the first of our fonts that has every letter of a text, None if none has."""
    return next((file for file, glyphs in _charmaps().items() if all(ord(c) in glyphs for c in text)), None)


@functools.lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    """Return the characters that our fonts have."""
    return frozenset().union(*_charmaps().values())


@functools.lru_cache(maxsize=1)
def _charmaps() -> dict[str, frozenset[int]]:
    """Return the characters of each of our fonts, by its file; none where matplotlib does not load."""
    try:
        load()
    except ArtifactError:
        return {}
    from matplotlib import font_manager

    files = [font_manager.findfont(family) for family in font_family()]
    return {str(file): frozenset(font_manager.get_font(file).get_charmap()) for file in files}


@functools.lru_cache(maxsize=1)
def font_family() -> tuple[str, ...]:
    """Return DejaVu Sans, which comes with matplotlib, then the installed fonts for further scripts."""
    load()
    from matplotlib import font_manager

    there = set(font_manager.get_font_names())
    return ("DejaVu Sans", *(f for f in _SCRIPTS if f in there))
