"""What a session has put into installed modules and classes: `np.sqrt = mine`, `nn.ReLU = nn.GELU`.

Installed things are named, not read, in an address, and a worker imports them as they were installed; so what code
reaches of such a kind is looked for here.  Found is what is the user's own, wherever code names it and in the modules
that networks are made of; and, where code names it, a function, class or constant that its module's file does not say.
"""

from __future__ import annotations

import ast
import builtins
import re
import sys
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final

from gridsearch.plugins.bytecode import codes, parsed
from gridsearch.plugins.ownership import file_of, name_of, own_module

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_DEEPEST = 4
"""So many names behind a module's are followed: `torch.nn.functional.relu` has three."""

_OF_NETWORKS: Final = (
    "torch.nn", "torch.nn.functional", "torch.nn.init", "torch", "torch.optim", "torch.optim.lr_scheduler", "numpy",
    "math", "random", "builtins",
)  # fmt: skip
"""Modules that installed code, too, looks for its parts in while it runs."""

_CONSTANTS: Final = (bool, int, float, complex, str, bytes)


def patched(function: FunctionType) -> dict[str, Any]:
    """Return what code finds in installed modules and classes that a session has put there, by full names."""
    names = {name for code in codes(function.__code__) for name in code.co_names}
    around = {name: function.__globals__[name] for name in sorted(names & function.__globals__.keys())}
    found: dict[str, Any] = {}
    for value in (*around.values(), *_enclosed(function)):
        found |= _within(value, names, _DEEPEST)
    for name in sorted(names & vars(builtins).keys() - function.__globals__.keys()):
        value = vars(builtins)[name]
        if of_the_user(value) or (type(value) in _CONSTANTS and name[:2] != "__"):
            found[f"builtins.{name}"] = value
    return found


def patched_everywhere() -> dict[str, Any]:
    """Return what is the user's own in the modules that networks are made of, and in their classes, by full names."""
    found: dict[str, Any] = {}
    for module in (sys.modules[name] for name in _OF_NETWORKS if name in sys.modules):
        for name, member in list(vars(module).items()):
            if of_the_user(member):
                found[f"{module.__name__}.{name}"] = member
            elif isinstance(member, type) and member.__module__.startswith("torch.nn."):
                found |= _in_class(member, written=False)
    return found


def patched_bases(cls: type) -> dict[str, Any]:
    """Return the methods that a session has put into installed classes that a class derives from, by full names."""
    bases = (base for base in cls.__mro__[1:] if _installed(sys.modules.get(base.__module__)))
    return {name: member for base in bases for name, member in _in_class(base).items()}


def of_the_user(value: Any) -> bool:
    """Whether this is a function, a class or an object of a module of the user's own, or of the session."""
    while type(value) is partial:
        value = value.func
    if type(value) is FunctionType:
        home = sys.modules.get(value.__module__ or "")
        return home is not None and vars(home) is value.__globals__ and not _installed(home)
    kind = value if issubclass(type(value), type) else type(value)
    home = sys.modules.get(str(kind.__module__))
    if issubclass(type(value), ModuleType) or home is None:
        return False
    return name_of(home) == "__main__" or (file_of(home) is not None and own_module(home))


def _enclosed(function: FunctionType) -> Iterator[Any]:
    """Give what a function has from the one that it was defined in: a module that was imported there, say."""
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # not set yet
            yield cell.cell_contents


def _within(value: Any, names: Collection[str], depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if isinstance(value, type) and _installed(sys.modules.get(value.__module__)):
        found |= _in_class(value)
    elif isinstance(value, ModuleType) and depth and _installed(value):
        for name, member in _named(value, names):
            if of_the_user(member) or _replaced(value, name, member):
                found[f"{value.__name__}.{name}"] = member
            else:
                found |= _within(member, names, depth - 1)
    return found


def _in_class(cls: type, *, written: bool = True) -> dict[str, Any]:
    return {
        f"{cls.__module__}.{cls.__qualname__}.{name}": member
        for name, member in sorted(vars(cls).items())
        if isinstance(member, FunctionType)
        and (of_the_user(member) or (written and _replaced_method(cls, name, member)))
    }


def _named(module: ModuleType, names: Collection[str]) -> Iterator[tuple[str, Any]]:
    inside = vars(module)
    return ((name, inside[name]) for name in sorted(names) if name in inside)


def _installed(module: ModuleType | None) -> bool:
    return module is not None and module.__name__ != "__main__" and not own_module(module)


def _replaced(module: ModuleType, name: str, value: Any) -> bool:
    """Whether an installed thing stands where its module has another: `nn.ReLU = nn.GELU`."""
    path = file_of(module) or ""
    written = path.endswith(".py")
    if type(value) in _CONSTANTS:
        there = _constant(path, name) if written else None
        return there is not None and there != repr(value)
    if isinstance(value, partial):
        alike = getattr(value.func, "__name__", "") == name
        return (alike or not _mentioned(path, name)) and not (written and _given(path, name))
    if not isinstance(value, FunctionType | BuiltinFunctionType | type) or value.__name__ == name:
        return False
    if written and _given(path, name):
        return False
    home = sys.modules.get(value.__module__ or "")
    other = vars(home).get(name) if isinstance(home, ModuleType) else None
    if other is not None and other is not value and getattr(other, "__name__", None) == name:
        return True
    return written and _defined(path, name)


def _replaced_method(cls: type, name: str, method: FunctionType) -> bool:
    if name[:2] == "__" or method.__qualname__ in (name, f"{cls.__qualname__}.{name}"):
        return False
    path = file_of(sys.modules.get(cls.__module__)) or ""
    return path.endswith(".py") and name in _methods(path, cls.__qualname__)


@lru_cache(maxsize=64)
def _text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except (OSError, ValueError):
        return ""


@lru_cache(maxsize=512)
def _defined(path: str, name: str) -> bool:
    """Whether a module's file defines a function or class of a name at its top."""
    made = rf"^(?:async )?(?:def|class) {re.escape(name)}\b"
    return re.search(made, _text(path), re.MULTILINE) is not None


@lru_cache(maxsize=512)
def _given(path: str, name: str) -> bool:
    """Whether a module's file gives a name to a value, or to what has another name elsewhere."""
    word = re.escape(name)
    return re.search(rf"^ *{word} *(?::[^=\n]+)?=[^=]|\bas {word}\b", _text(path), re.MULTILINE) is not None


def _mentioned(path: str, name: str) -> bool:
    text = _text(path) if path.endswith(".py") else ""
    return "import *" in text or not text or re.search(rf"\b{re.escape(name)}\b", text) is not None


@lru_cache(maxsize=512)
def _constant(path: str, name: str) -> str | None:
    """Return the constant that a module's file gives to a name once, at its top, as `repr` writes it."""
    found = re.findall(rf"\b{re.escape(name)} *(?::[^=\n]+)?=([^=\n][^\n]*)", text := _text(path))
    if len(found) != 1 or not re.search(rf"^{re.escape(name)}\b", text, re.MULTILINE):
        return None
    try:
        return repr(ast.literal_eval(found[0].partition("#")[0].strip()))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


@lru_cache(maxsize=64)
def _methods(path: str, qualname: str) -> frozenset[str]:
    """Return the methods that a module's file defines in a class, and which it gives to nothing else there."""
    try:
        body: list[ast.stmt] = parsed(_text(path)).body
    except (SyntaxError, ValueError):
        return frozenset()
    for word in qualname.split("."):
        body = next((n.body for n in body if isinstance(n, ast.ClassDef) and n.name == word), [])
    given = {t.id for n in body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    return frozenset({n.name for n in body if isinstance(n, ast.FunctionDef)} - given)
