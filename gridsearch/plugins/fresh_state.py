"""What a user's module holds when it has been imported: trials find that again, whichever were built before them.

Below `file_loader`.  A class that counts its instances, a list that grows, a generator of the module's own: in a new
process each trial would find them as the import leaves them, and a worker trains many.  Given back are plain values and
containers of them, and the states of generators.  What is larger stays, such as data or weights that a module keeps for
the next call; then the plain values stay too, for they may belong to it (the number of its images, a flag that it has
been read).
"""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

_PLAIN: Final = (bool, int, float, complex, str, bytes, type(None))
_CONTAINERS: Final = (list, tuple, set, frozenset, dict)
_MOST: Final = 1000
"""Values in a container, with those in containers within it; a larger one is a table and no state."""

_GENERATORS: Final = {
    ("random", "Random"): ("getstate", "setstate"),
    ("numpy", "RandomState"): ("get_state", "set_state"),
    ("torch", "Generator"): ("get_state", "set_state"),
}


class FreshState:
    """The state of a module and of the classes that it defines, as it is now.

    Args:
        module: has just been imported.
    """

    def __init__(self, module: ModuleType) -> None:
        classes = [
            v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__
        ]
        self._owners: list[Any] = [module, *classes]
        self._plain = [
            {name: copy.deepcopy(value) for name, value in _held(owner) if _is_plain(value)}
            for owner in self._owners
        ]
        self._objects = [dict(_held(owner)) for owner in self._owners]
        held = (value for owner in self._owners for _, value in _held(owner))
        self._generators = [(value, state) for value in held if (state := _state_of(value)) is not None]

    def restore(self) -> None:
        """Give back what has changed since."""
        for generator, state in self._generators:
            _set_state(generator, state)
        if self._keeps_something():
            return
        for owner, fresh, objects in zip(self._owners, self._plain, self._objects, strict=True):
            now = dict(_held(owner))
            for name, value in fresh.items():
                if name not in now or (_is_plain(now[name]) and now[name] != value):
                    _put(owner, name, now.get(name), copy.deepcopy(value))
            for name in now.keys() - objects.keys():
                with suppress(AttributeError, TypeError):
                    delattr(owner, name)

    def _keeps_something(self) -> bool:
        """Whether there is something larger that the import has not left."""
        return any(
            not _is_plain(value) and (name in fresh or objects.get(name) is not value)
            for owner, fresh, objects in zip(self._owners, self._plain, self._objects, strict=True)
            for name, value in _held(owner)
        )


def _held(owner: Any) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in list(vars(owner).items()) if not name.startswith("__"))


def _is_plain(value: Any) -> bool:
    """Whether a value is a number, a text or the like, or a small container of such."""
    left, there = _MOST, [value]
    while there:
        each = there.pop()
        left -= 1
        if type(each) in _PLAIN:
            continue
        if type(each) not in _CONTAINERS or len(each) > left:
            return False
        there += [*each, *each.values()] if isinstance(each, dict) else each
    return True


def _put(owner: Any, name: str, now: Any, fresh: Any) -> None:
    """Give a name its value again; a container that others may hold as well is filled and not replaced."""
    if type(now) is type(fresh) and isinstance(now, list | set | dict):
        now.clear()
        now.extend(fresh) if isinstance(now, list) else now.update(fresh)
        return
    with suppress(AttributeError, TypeError):  # a class may refuse it
        setattr(owner, name, fresh)


def _methods(value: Any) -> tuple[str, str] | None:
    kind = type(value)
    return _GENERATORS.get((kind.__module__.partition(".")[0], kind.__name__))


def _state_of(value: Any) -> Any:
    """Return the state of a generator of random numbers; None for all else."""
    if type(value).__module__.startswith("numpy.") and hasattr(value, "bit_generator"):
        return copy.deepcopy(value.bit_generator.state)
    methods = _methods(value)
    return None if methods is None else getattr(value, methods[0])()


def _set_state(generator: Any, state: Any) -> None:
    methods = _methods(generator)
    if methods is None:
        generator.bit_generator.state = copy.deepcopy(state)
    else:
        getattr(generator, methods[1])(state)
