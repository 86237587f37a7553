"""The recipe's keys in words, as they are declared (`records.image_settings`): for help and for docs/recipe.md."""

from __future__ import annotations

import shutil
import textwrap
from typing import TYPE_CHECKING

from gridsearch.records.axis import LARGEST_INT, AxisKind, AxisScope, axes_of
from gridsearch.records.image_settings import KEYS, RecipeKeys
from gridsearch.spec.grammar import write_scalar

if TYPE_CHECKING:
    from gridsearch.records.axis import Axis


def help_text() -> str:
    """Return the keys of the recipe, a line or two each, as wide as the terminal."""
    width = max(shutil.get_terminal_size().columns - 2, 40)
    lines = (
        f"{_names(axis)}: {axis.help} ({_values(axis)}; default {write_scalar(axis, axis.default)})"
        for axis in axes_of(RecipeKeys)
    )
    wrapped = (textwrap.fill(line, width, initial_indent="  ", subsequent_indent=6 * " ") for line in lines)
    return "\n".join(
        ("keys of the recipe (for --set; all but split_seed are axes of --grid, too):", *wrapped)
    )


def markdown_table() -> str:
    """Return the table of the docs: every key that anybody may give."""
    head = ("key", "what it is", "values", "default", "given with", "may differ in a pack")
    rows = [
        (
            f"`{axis.name}`",
            axis.help,
            _values(axis),
            f"`{write_scalar(axis, axis.default)}`",
            ", ".join(_given_with(axis)),
            "yes" if axis.fusible else "",
        )
        for axis in KEYS
        if axis.scope is not AxisScope.DERIVED
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


def _given_with(axis: Axis) -> tuple[str, ...]:
    grid = ("`--grid`",) if axis.scope is AxisScope.GRID else ()
    return (*grid, "`--set`" if axis in axes_of(RecipeKeys) else f"`--{axis.name}`")


def _names(axis: Axis) -> str:
    return axis.name if axis.alias is None else f"{axis.name} or {axis.alias}"


def _values(axis: Axis) -> str:
    """Return what an axis takes: its words, or the range of its numbers."""
    if axis.kind is AxisKind.BOOL:
        return "true or false"
    if not axis.numeric:
        return (" ".join(axis.choices) or "a name") + (" or file.py:name" if axis.own else "")
    ends = [word for word in axis.bounds.words if word and str(LARGEST_INT) not in word]
    number = "integer, " if axis.kind is AxisKind.INT else ""
    return f"{number}{' and '.join(ends)}" + (", or none" if axis.nullable else "")
