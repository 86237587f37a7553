"""What a user's code shares with the session that defines it, for which its trials run in the session's own process.

`given` asks it of functions that no worker can import.
"""

from __future__ import annotations

import dis
import io
import sys
from collections import deque
from enum import Enum
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from gridsearch.plugins.bytecode import names_read
from gridsearch.plugins.lookup import of_object
from gridsearch.plugins.ownership import own_module
from gridsearch.plugins.value_parts import dispatches

if TYPE_CHECKING:
    from collections.abc import Iterator

_HELD = (list, dict, set, bytearray, deque, io.IOBase)
"""What a function may fill for its caller to see, where it runs in the caller's process."""


def held_by(target: Any) -> str | None:
    """Return what a function of this session can change for the session to see, in words; None where there is nothing.

    A list that it appends to, a name that it sets, an object of the session's own class: in a worker process it would
    change a copy.
    """
    if of_object(target).locator:
        return None
    for name, value in _reached(target, set()):
        if value is None:
            return f"{_name(target)} sets {name!r} of this session"
        if isinstance(value, _HELD):
            return f"{_name(target)} uses {name!r}, a {type(value).__name__} of this session"
        if not isinstance(value, type) and _of_the_session(type(value)):
            return f"{_name(target)} uses {name!r}, an object of this session"
    return None


def _reached(target: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Give what a callable's code names outside of itself with its value; None for a name that it sets."""
    if id(target) in seen:
        return
    seen.add(id(target))
    if isinstance(target, partial):
        for name, value in (*enumerate(target.args), *target.keywords.items()):
            yield str(name), value
        yield from _reached(target.func, seen)
    elif isinstance(target, MethodType):
        yield from _of_instance(target.__self__, target.__func__, seen)
    elif isinstance(target, FunctionType):
        yield from _of_function(target, seen)
    elif not isinstance(target, type) and callable(target):
        yield from _of_instance(target, type(target).__call__, seen)


def _of_instance(instance: Any, method: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if not isinstance(instance, type):
        yield from ((n, v) for n, v in getattr(instance, "__dict__", {}).items() if v is not None)
    if isinstance(method, FunctionType):
        if any(
            op.opname == "STORE_ATTR" for code in _codes(method.__code__) for op in dis.get_instructions(code)
        ):
            yield "self", None
        yield from _of_function(method, seen)


def _of_function(function: FunctionType, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if dispatches(function):
        for each in vars(function)["registry"].values():
            yield from _reached(each, seen)
        return
    outside = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    for name, cell in outside.items():
        try:
            value = cell.cell_contents
        except ValueError:  # not set yet
            continue
        if value is not None:
            yield name, value
        yield from _reached(value, seen)
    for code in _codes(function.__code__):
        for op in dis.get_instructions(code):
            set_outside = op.opname == "STORE_GLOBAL" or (op.opname == "STORE_DEREF" and op.argval in outside)
            if set_outside:
                yield op.argval, None
        for name in names_read(code):
            value = function.__globals__.get(name)
            if value is not None and not name.startswith("__"):
                yield name, value
                if isinstance(value, FunctionType) and not of_object(value).locator:
                    yield from _reached(value, seen)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _of_the_session(kind: type) -> bool:
    module = sys.modules.get(kind.__module__)
    return not _unchanging(kind) and (module is None or own_module(module))


def _unchanging(kind: type) -> bool:
    frozen = getattr(getattr(kind, "__dataclass_params__", None), "frozen", False)
    return frozen or issubclass(kind, tuple | int | str | float | Enum)


def _name(target: Any) -> str:
    return getattr(target, "__name__", type(target).__name__)
