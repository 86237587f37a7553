"""Writes objects into an address: as pickle and copy see them, members of classes, and what weak references lead to.

Stands beside `value_address`, whose walk it writes with.
"""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, Any

from gridsearch.plugins.ownership import main_or_own
from gridsearch.plugins.value_data import attached
from gridsearch.plugins.value_parts import comes_from, left_out
from gridsearch.plugins.value_parts import reduced as parts_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gridsearch.plugins.value_data import Writer


def member(walk: Writer, value: Any) -> None:
    """Write a property, a static or a class method, of a class of one's own, too."""
    if isinstance(value, property):
        walk.several("property", (value.fget, value.fset, value.fdel))
    else:
        walk.put("staticmethod" if isinstance(value, staticmethod) else "classmethod")
        walk.value(value.__func__)
    if type(value).__module__ != "builtins":
        walk.value(type(value))
        walk.state("state", {k: v for k, v in getattr(value, "__dict__", {}).items() if k[:2] != "__"})


def weak(walk: Writer, value: Any) -> None:
    """Write what a weak reference leads to, or a mapping of such."""
    walk.put(type(value).__name__)
    if isinstance(value, weakref.ref):
        walk.value(value())
    else:
        walk.pairs("pairs", dict(value.items()))
        walk.bind(f"uses a {type(value).__name__}")


def reduced(walk: Writer, value: Any) -> None:
    """Write an object as pickle and copy see it: what makes it, and its state."""
    try:
        parts = parts_of(value)
    except Exception:  # noqa: BLE001 - anything may refuse, in any way
        walk.unknown(value)
        return
    if isinstance(parts, str):
        walk.put("global", type(value).__qualname__.encode(), parts.encode())
        _left_out(walk, value, {}, ())
        return
    make, arguments, *rest = parts
    state, items, pairs = (*rest, None, None, None)[:3]
    walk.put("object")
    walk.value(make)
    walk.several("made of", arguments)
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):  # with slots
        state = {**(state[0] or {}), **state[1]}
    if isinstance(state, dict) and all(isinstance(name, str) for name in state):
        walk.state("state", state)
    else:
        walk.value(state)
    _left_out(walk, value, state if isinstance(state, dict) else {}, arguments)
    walk.several("items", () if items is None else items)
    walk.several("pairs", () if pairs is None else pairs)
    if comes_from(type(value), "numpy", "ndarray") and type(value).__module__.partition(".")[0] != "numpy":
        attached(walk, value)  # numpy's pickles leave out what a class of one's own adds


def _left_out(walk: Writer, value: Any, state: Mapping[str, Any], arguments: tuple[Any, ...]) -> None:
    """Write what a class of the user's own keeps out of its pickles: an object that is not pickled has it."""
    home = sys.modules.get(type(value).__module__)
    if (home is None or main_or_own(home)) and (found := left_out(value, state, arguments)):
        walk.state("left out", found)
        walk.bind(f"uses a {type(value).__name__} whose pickles leave out {next(iter(found))!r}")
