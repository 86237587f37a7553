"""Settings that vary in a study though no grid asked for it: its runs had several recipes; beside the ranking.

A study may hold points of 2 and of 10 epochs.  They are kept in one ranking, which says so, and in panels of their own.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from gridsearch.spec.axes import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


IMAGES: Final = ("val", "split_seed", "folds", "group")
"""Settings with which the validation images are others: values do not compare, whoever asked for it."""
_GRID: Final = ("--grid", "-g")


def mixed_settings(varying: Sequence[str], commands: Iterable[str]) -> tuple[str, ...]:
    """Return the axes that vary because runs had other recipes, as far as their command lines show.

    Args:
        varying: the axes of which there is more than one value.
        commands: the command lines that made the study; what is in study files and calls from Python is not known, but
            one that asked for another recipe the second time is there twice.
    """
    commands = tuple(commands)
    asked: set[str] = set()
    given: set[str] = set(IMAGES)
    for line in commands:
        grid, options, whole = _read(line)
        asked |= grid
        given |= options if whole or len(commands) == 1 else {*options, "epochs"}
    return tuple(axis for axis in varying if axis in given and axis not in asked)


def _read(line: str) -> tuple[set[str], set[str], bool]:
    """Return the axes of a command's grid, the settings that its options give, and whether that is all it says."""
    try:
        words = shlex.split(line)
    except ValueError:
        return set(), set(), False
    grid: set[str] = set()
    options: set[str] = set()
    whole, option = "run" in words[:3], ""
    for each in words:
        word = each
        if each.startswith("-"):
            option, _, word = each.partition("=")
            options |= {option.strip("-").replace("-", "_")} - {"set", "grid"}
        if option in _GRID and "=" in word:
            grid |= {canonical(name) for name in word.partition("=")[0].split(",")}
        elif option == "--set" and "=" in word:
            options.add(canonical(word.partition("=")[0]))
        whole = whole and not word.endswith(".toml")
    return grid, options, whole
