"""Gathers what is wrong with a grid, a recipe or a study file, so that all of it is reported at once.

Below every other module of the spec: readers raise `InvalidValue` where they find a mistake, and whoever knows the
place collects it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from gridsearch.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHOWN = 20
_LONGEST = 80


class InvalidValue(ValueError):
    """What is wrong with one value, in one line and without its place; never leaves this package."""


class ErrorCollector:
    """What is wrong, in the order in which they were found; the same line is kept once."""

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}

    def __bool__(self) -> bool:
        return bool(self._lines)

    def add(self, place: str, text: str) -> None:
        """Note what is wrong at a place."""
        self._lines[f"{place}: {text}" if place else text] = None

    @contextmanager
    def at(self, place: str) -> Iterator[None]:
        """Note what the block raises as a `InvalidValue`, with this place, and go on after the block."""
        try:
            yield
        except InvalidValue as wrong:
            self.add(place, str(wrong))

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Take over the problems of a SpecError that the block raises, and go on after the block."""
        try:
            yield
        except SpecError as error:
            self._lines |= dict.fromkeys(error.problems)

    def check(self) -> None:
        """Raise all problems at once, if there are any.

        Raises:
            SpecError: the first twenty, and how many more there are.
        """
        if not self._lines:
            return
        lines = list(self._lines)
        more = len(lines) - _SHOWN
        raise SpecError([*lines[:_SHOWN], *([f"and {more:,} more"] if more > 0 else [])])


def shortened(text: str) -> str:
    """Return a text that fits into a message of one line."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."
