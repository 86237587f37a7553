"""Writes what the session has as bytes, by value: as cloudpickle does, and what this leaves to its name in a module.

Below `shipping`.  A function that keeps its results (`functools.cache`), one that is chosen by type
(`functools.singledispatch`) and a property that is kept are made again around their functions.
"""

from __future__ import annotations

import functools
import io
import sys
from types import FunctionType
from typing import TYPE_CHECKING, Any

from gridsearch.importing import importable
from gridsearch.plugins.value_parts import dispatches

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

_LRU_CACHE = type(functools.lru_cache(lambda: None))


def dumped(value: Any, *, by_value: Collection[str]) -> bytes:
    """Return a value as bytes, from which `pickle` makes it again in another process.

    Args:
        value: anything.
        by_value: names of modules that the other process has not, or has otherwise.

    Raises:
        Exception: whatever an object raises that cannot be written.
    """
    file = io.BytesIO()
    _pickler()(file, by_value).dump(value)
    return file.getvalue()


@functools.cache
def _pickler() -> Any:
    import cloudpickle

    class Pickler(cloudpickle.Pickler):
        def __init__(self, file: io.BytesIO, by_value: Collection[str]) -> None:
            super().__init__(file)  # type: ignore[no-untyped-call]
            self._by_value = by_value

        def reducer_override(self, obj: Any) -> Any:
            kept = type(obj) is _LRU_CACHE
            if (kept or _chosen_by_type(obj)) and not _by_its_name(obj, self._by_value):
                return _kept(obj) if kept else _chosen(obj)
            if type(obj) is functools.cached_property:  # Python 3.11's has a lock
                state = {"func": obj.func, "attrname": obj.attrname, "__doc__": obj.__doc__}
                return functools.cached_property, (len,), state
            return super().reducer_override(obj)  # type: ignore[no-untyped-call]

    return Pickler


def _chosen_by_type(value: Any) -> bool:
    return isinstance(value, FunctionType) and dispatches(value)


def _by_its_name(value: Any, by_value: Collection[str]) -> bool:
    """Whether another process finds the very same thing in a module that it can import."""
    name = getattr(value, "__module__", None)
    if not isinstance(name, str) or name in by_value or not importable(name):
        return False
    found: Any = sys.modules[name]
    for word in value.__qualname__.split("."):
        found = getattr(found, word, None)
    return found is value


def _kept(value: Any) -> tuple[Any, ...]:
    how = value.cache_parameters()
    added = {k: v for k, v in vars(value).items() if k not in ("__wrapped__", "cache_parameters")}
    return _new_kept, (how["maxsize"], how["typed"]), (value.__wrapped__, added), None, None, _fill_kept


def _chosen(value: Any) -> tuple[Any, ...]:
    return _new_chosen, (), (value.__wrapped__, list(value.registry.items())), None, None, _fill_chosen


def _later() -> Callable[..., Any]:
    """Return a function that calls another, which it is given later: it may refer to what is made of this one."""

    def call(*args: Any, **named: Any) -> Any:
        return call.function(*args, **named)  # type: ignore[attr-defined]

    return call


def _new_kept(maxsize: int | None, typed: bool) -> Any:
    return functools.lru_cache(maxsize, typed)(_later())


def _fill_kept(kept: Any, state: tuple[Callable[..., Any], dict[str, Any]]) -> None:
    function, added = state
    kept.__wrapped__.function = function
    functools.update_wrapper(kept, function)
    vars(kept).update(added)


def _new_chosen() -> Any:
    return functools.singledispatch(_later())


def _fill_chosen(
    chosen: Any, state: tuple[Callable[..., Any], Iterable[tuple[type, Callable[..., Any]]]]
) -> None:
    function, registry = state
    for kind, implementation in registry:
        chosen.register(kind, implementation)
    functools.update_wrapper(chosen, function)
