"""What a session has put into installed modules and classes: `np.sqrt = mine`, `nn.Linear.forward = mine`.

Installed things are named, not read, in an address, and a worker imports them as they were installed; so what code
reaches of such a kind is looked for here.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from gridsearch.plugins.bytecode import codes
from gridsearch.plugins.ownership import own_module

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_DEEPEST = 4
"""So many names behind a module's are followed: `torch.nn.functional.relu` has three."""


def patched(function: FunctionType) -> dict[str, FunctionType]:
    """Return the session's own functions that code finds in installed modules and classes, by their full names."""
    names = {name for code in codes(function.__code__) for name in code.co_names}
    around = {name: function.__globals__[name] for name in sorted(names & function.__globals__.keys())}
    found: dict[str, FunctionType] = {}
    for value in (*around.values(), *_enclosed(function)):
        found |= _within(value, names, _DEEPEST)
    return found


def _enclosed(function: FunctionType) -> Iterator[Any]:
    """Give what a function has from the one that it was defined in: a module that was imported there, say."""
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # not set yet
            yield cell.cell_contents


def _within(value: Any, names: Collection[str], depth: int) -> dict[str, FunctionType]:
    found: dict[str, FunctionType] = {}
    if isinstance(value, type) and _installed(sys.modules.get(value.__module__)):
        for name, member in sorted(vars(value).items()):
            if _of_the_user(member):
                found[f"{value.__module__}.{value.__qualname__}.{name}"] = member
    elif isinstance(value, ModuleType) and depth and _installed(value):
        for name, member in _named(value, names):
            if _of_the_user(member):
                found[f"{value.__name__}.{name}"] = member
            else:
                found |= _within(member, names, depth - 1)
    return found


def _named(module: ModuleType, names: Collection[str]) -> Iterator[tuple[str, Any]]:
    inside = vars(module)
    return ((name, inside[name]) for name in sorted(names) if name in inside)


def _installed(module: ModuleType | None) -> bool:
    return module is not None and module.__name__ != "__main__" and not own_module(module)


def _of_the_user(value: Any) -> bool:
    """Whether this is a function of a module of the user's own, or of the session."""
    if not isinstance(value, FunctionType):
        return False
    home = sys.modules.get(value.__module__ or "")
    return home is not None and vars(home) is value.__globals__ and not _installed(home)
