"""Tables on a terminal of any width: columns side by side where they can be read, else one line a field.

Below all that prints a table; one of rich's own squeezes its columns until nothing is left of them.  Off a terminal,
for files and other programs, a row is a line with a tab between its cells.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

_READABLE: Final = 16
"""A column whose text may be folded needs so many characters at most."""

_BETWEEN: Final = 2
"""Blanks between two columns of a table without an outer edge."""

_UNLIMITED: Final = 100_000


class WithCommand(Text):
    """A line that holds a command: a terminal may fold it, and nobody else, so that it can be copied whole."""


class Listing(Table):
    """A table without an outer edge, which becomes one line a field where its columns do not fit side by side.

    Args:
        spare: so many of the last columns may be left out before that, from the last on.
        how: as rich's own takes it.
    """

    def __init__(self, *, spare: int = 0, **how: Any) -> None:
        super().__init__(pad_edge=False, show_edge=False, **how)
        self.spare = spare

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table, or each of its rows as lines."""
        if not options.is_terminal:
            yield from self._plain()
            return
        for left_out in range(self.spare + 1):
            shown = copy.copy(self)
            shown.columns = self.columns[: len(self.columns) - left_out]
            if shown._needed(console, options) <= options.max_width:
                yield from Table.__rich_console__(shown, console, options)
                return
        yield from self._blocks()

    def _plain(self) -> RenderResult:
        columns = [[column.header, *column.cells] for column in self.columns]
        for cells in zip(*columns, strict=True):
            # a Text would expand tabs
            yield Segment("\t".join(" ".join(str(cell).split()) for cell in cells))
            yield Segment.line()
        if self.caption:
            yield Segment(str(self.caption))
            yield Segment.line()

    def _needed(self, console: Console, options: ConsoleOptions) -> int:
        """Return the least width in which all columns can be read."""
        unlimited = options.update(width=_UNLIMITED)
        line = 1 if self.box else 0
        needed = (_BETWEEN + line) * (len(self.columns) - 1)
        for column in self.columns:
            cells = (column.header, *column.cells)
            most = max(Measurement.get(console, unlimited, cell).maximum for cell in cells)
            needed += most if column.no_wrap else min(most, _READABLE)
        return needed

    def _blocks(self) -> RenderResult:
        """Give each row as a block: its fields below each other, those that are empty left out."""
        columns = [(column.header, list(column.cells)) for column in self.columns]
        for i, row in enumerate(self.rows):
            if i:
                yield Text()
            block = Table.grid(padding=(0, _BETWEEN, 0, 0))
            block.add_column(no_wrap=True)
            block.add_column(overflow="fold")
            for header, cells in columns:
                if str(cells[i]):
                    block.add_row(header, cells[i], style=row.style)
            yield block
        if self.caption:
            yield Text(str(self.caption))
