"""What another process could import as we have it, and what must not happen while something is imported.

Below the plug-ins: workers are processes of their own and import a user's module again.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

_IMPORTED: ContextVar[str | None] = ContextVar("gridsearch_imported", default=None)


MAIN = ("__main__", "__mp_main__")
"""The script's own module, here and in a process that multiprocessing has started."""


@contextmanager
def importing(what: str) -> Iterator[None]:
    """Note that the block imports a plug-in, whose module may hold a call of `gridsearch.run`."""
    token = _IMPORTED.set(what)
    try:
        yield
    finally:
        _IMPORTED.reset(token)


def imported_now() -> str | None:
    """Return which plug-in is being imported, None outside of `importing`."""
    return _IMPORTED.get()


def importable(name: str, found: dict[str, bool] | None = None) -> bool:
    """Whether a new process that imports a module by its name gets what this one has.

    It does not for `__main__`, for a module that was made by hand or loaded from a file under a name of its own,
    and for one that is still being imported: it may hold the very call that asks.

    Args:
        name: "package.module".
        found: remembers what was found of top-level names, for whoever asks of many modules.
    """
    module = sys.modules.get(name)
    if module is None or name in MAIN:
        return False
    spec = getattr(module, "__spec__", None)
    if spec is None or getattr(spec, "_initializing", False):
        return False
    top, known = name.partition(".")[0], {} if found is None else found
    if top not in known:
        there, spec = sys.modules.get(top), _found(top)
        known[top] = there is not None and spec is not None and _same_place(there, spec)
    return known[top]


def _found(top: str) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec = find(top, None) if find is not None else None
        if isinstance(spec, ModuleSpec):
            return spec
    return None


def _same_place(module: ModuleType, spec: ModuleSpec) -> bool:
    own = getattr(module, "__file__", None)
    if getattr(module, "__spec__", None) is None:
        return False
    if own is None:  # built in, or a package without a file
        return getattr(module.__spec__, "name", None) == spec.name
    return spec.origin in (own, getattr(module.__spec__, "origin", None))
