"""Tables stay readable on a terminal of any width."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from gridsearch.reporting.output.listing import Listing

WORDS = st.text("abcdefgh=[]. ", min_size=1, max_size=40).map(lambda text: " ".join(text.split()) or "a")


def printed(width: int, rows, *, no_wrap: bool = False) -> str:
    table = Listing(box=None)
    for i in range(len(rows[0])):
        table.add_column(f"name{i}", overflow="fold", no_wrap=no_wrap and i > 0, justify="right")
    for row in rows:
        table.add_row(*map(Text, row))
    out = io.StringIO()
    Console(file=out, width=width, no_color=True, markup=False, force_terminal=True, color_system=None).print(
        table
    )
    return out.getvalue()


@given(
    st.integers(20, 120),
    st.lists(st.tuples(WORDS, WORDS, WORDS, WORDS), min_size=1, max_size=4),
    st.booleans(),
)
def test_nothing_of_a_table_is_lost_and_no_line_is_too_long(width, rows, no_wrap):
    shown = printed(width, rows, no_wrap=no_wrap)
    assert max(map(len, shown.splitlines())) <= width
    for i in range(4):
        assert f"name{i}" in shown
    letters = sum(len("".join(cell.split())) for row in rows for cell in row)
    blocks = shown.splitlines()[0].split() != ["name0", "name1", "name2", "name3"]
    names = 4 * len("name0") * (len(rows) if blocks else 1)
    assert len("".join(shown.split())) == letters + names


@pytest.mark.parametrize(("width", "first"), [(60, "rank  params"), (20, "rank    1")])
def test_columns_stand_side_by_side_where_they_fit_and_below_each_other_elsewhere(width, first):
    table = Listing(box=None)
    for name in ("rank", "params", "value"):
        table.add_column(name, no_wrap=name != "params")
    table.add_row("1", "lr=0.1 batch=10", "90.00 %", style="bold")
    table.add_row("2", "", "80.00 %")
    out = io.StringIO()
    Console(file=out, width=width, no_color=True, force_terminal=True, color_system=None).print(table)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert lines[0].startswith(first)
    if width == 20:
        first = ["rank    1", "params  lr=0.1", "        batch=10", "value   90.00 %", ""]
        assert lines == [*first, "rank   2", "value  80.00 %"]


def test_columns_that_may_be_spared_go_first():
    for width, columns in (
        (40, ["rank", "value", "time", "where"]),
        (18, ["rank", "value", "time"]),
        (16, ["rank", "value"]),
    ):
        table = Listing(box=None, spare=2)
        for name in ("rank", "value", "time", "where"):
            table.add_column(name, no_wrap=True)
        table.add_row("1", "0.5", "1 s", "a long way")
        out = io.StringIO()
        Console(file=out, width=width, no_color=True, force_terminal=True, color_system=None).print(table)
        assert out.getvalue().splitlines()[0].split() == columns


def test_off_a_terminal_a_row_is_one_line_with_a_tab_between_its_cells():
    table = Listing(box=None, spare=1)
    for name in ("rank", "params", "value"):
        table.add_column(name, overflow="fold", justify="right")
    table.add_row("1", "lr=0.1  batch=10 " * 20, "1,234,567", style="bold")
    table.add_row("2", "", "80.00 %")
    out = io.StringIO()
    Console(file=out, width=20, soft_wrap=True).print(table)
    header, first, second = out.getvalue().splitlines()
    assert header == "rank\tparams\tvalue"
    assert first.split("\t") == ["1", " ".join(["lr=0.1 batch=10"] * 20), "1,234,567"]
    assert second == "2\t\t80.00 %"
