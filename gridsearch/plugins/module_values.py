"""Whether a table or a configuration object of a module still holds what its file gives it.

For `loaded_source`: what a session can change in place: `settings.RATES["lr"] = 3`, `settings.config.rate = 3`.
"""

from __future__ import annotations

import ast
import dataclasses
from types import SimpleNamespace
from typing import Any


def same_held(value: Any, node: ast.expr) -> bool:
    """Whether a list, dict, set, dataclass or namespace is what is written for it, where that is all literals.

    Args:
        value: what the module has.
        node: what its file gives to the name.
    """
    if isinstance(node, ast.Call):
        return _same_object(value, node)
    try:
        literal = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return True
    if not isinstance(literal, list | dict | set):
        return True
    return type(value) is type(literal) and _said(value) == _said(literal)


def _same_object(value: Any, node: ast.Call) -> bool:
    """Compare an object with one that is made anew, of a kind that making does nothing else for."""
    kind = type(value)
    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    plain = dataclasses.is_dataclass(kind) and not hasattr(kind, "__post_init__")
    if kind.__name__ != name or not (kind is SimpleNamespace or plain):
        return True
    try:
        args = [ast.literal_eval(arg) for arg in node.args]
        new = kind(*args, **{str(word.arg): ast.literal_eval(word.value) for word in node.keywords})
        return _said(vars(new)) == _said(vars(value))
    except Exception:  # noqa: BLE001 - what is no literal, or a class that is made in its own way, cannot be compared
        return True


def _said(value: Any) -> str:
    """Write a value: 1, 1.0 and True are three, and the order of a set is none."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_said(k)}: {_said(v)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({', '.join(map(_said, value))})"
    if isinstance(value, set | frozenset):
        return f"set({', '.join(sorted(map(_said, value)))})"
    if isinstance(value, int | float | complex | str | bytes | None):
        return repr(value)
    return f"{type(value).__name__} {type(value).__module__}"
