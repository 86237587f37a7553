"""What compiled code reads: names of globals, and of modules that its import statements name."""

from __future__ import annotations

import ast
import dis
import inspect
import warnings
from types import CodeType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_READING = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")

_LOADS_CONSTANT = frozenset(dis.hasconst)

_BY_TEXT = {"eval", "exec", "globals", "vars"}

_PLACE = frozenset(
    {
        "__name__", "__file__", "__builtins__", "__spec__", "__loader__", "__package__", "__doc__", "__cached__",
        "__path__", "__annotations__",
    }
)  # fmt: skip
"""Globals that say where a module stands."""


def compiled(content: str | bytes, file: str = "<text>") -> CodeType:
    """Compile a module's text once more, without what Python has warned of the first time.

    Raises:
        SyntaxError: it is no Python; or ValueError.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code: CodeType = compile(content, file, "exec", dont_inherit=True)
    return code


def parsed(content: str | bytes) -> ast.Module:
    """Parse a module's text as `compiled` compiles it; raises as that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(content)


def codes(code: CodeType) -> Iterator[CodeType]:
    """Yield code and all code within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def names_read(code: CodeType) -> list[str]:
    """Return the globals that code and the code within it read, sorted.

    Those that it sets itself (`global n; n += 1`) are its state rather than what it was given.
    """
    read = {step.argval for step in _steps(code) if step.opname in _READING}
    return sorted(read - names_set(code) - _PLACE)


def names_set(code: CodeType) -> set[str]:
    """Return the globals that code and the code within it set by a `global` statement."""
    return {str(step.argval) for step in _steps(code) if step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL")}


def read_elsewhere(code: CodeType) -> set[str]:
    """Return the globals and attributes that functions within code read and do not set themselves."""
    found: set[str] = set()
    for each in codes(code):
        if not each.co_flags & inspect.CO_OPTIMIZED:  # of a module or a class
            continue
        steps = list(dis.get_instructions(each))
        read = {step.argval for step in steps if step.opname in (*_READING, "LOAD_ATTR", "LOAD_METHOD")}
        found |= read - {step.argval for step in steps if step.opname in ("STORE_GLOBAL", "STORE_ATTR")}
    return found


def names_in_texts(code: CodeType, around: Mapping[str, Any]) -> list[str]:
    """Return the globals that are named in texts which code gives to `eval`, `exec` or `globals()[...]`, sorted.

    Args:
        code: the code.
        around: its globals, among them texts that it reads.
    """
    read = {step.argval for step in _steps(code) if step.opname in _READING}
    if not read & _BY_TEXT:
        return []
    texts = {c for each in codes(code) for c in each.co_consts if isinstance(c, str)}
    texts |= {text for name in read if isinstance(text := around.get(name), str)}
    found: set[str] = set()
    for text in texts:
        try:
            inside = compiled(text)
        except (SyntaxError, ValueError):
            continue
        found |= {name for each in codes(inside) for name in each.co_names}
    return sorted(found & around.keys() - read - _PLACE)


def names_imported(code: CodeType, around: Mapping[str, Any]) -> list[str]:
    """Return the full names of modules that import statements within code may mean, sorted.

    Args:
        code: the code.
        around: its globals, which say what a relative import starts from.
    """
    found: set[str] = set()
    package = str(around.get("__package__") or "")
    for each in codes(code):
        steps = [step for step in dis.get_instructions(each) if step.opname != "EXTENDED_ARG"]
        for level, names, step in zip(steps, steps[1:], steps[2:], strict=False):
            if step.opname != "IMPORT_NAME":
                continue
            base = absolute(str(step.argval), level.argval or 0, package)
            found |= {base, *(f"{base}.{name}" for name in names.argval or () if name != "*")}
    computed = {"import_module", "__import__"} & {n for each in codes(code) for n in each.co_names}
    if computed:  # its name is most likely among the constants
        found |= {c for each in codes(code) for c in each.co_consts if isinstance(c, str) and _is_name(c)}
    return sorted(found - {""})


def absolute(name: str, level: int, package: str) -> str:
    """Return the full name of a module that an import statement names.

    Args:
        name: as written, "" in `from . import x`.
        level: the number of dots before it.
        package: the package of the module where it is written.
    """
    if not level:
        return name
    base = package.split(".") if package else []
    kept = base[: len(base) - level + 1] if level <= len(base) else []
    return ".".join([*kept, *([name] if name else [])])


def constants(code: CodeType) -> tuple[Any, ...]:
    """Return the constants of code without its docstring, which is among them and which nothing loads."""
    found = code.co_consts
    if not found or not isinstance(found[0], str):
        return found
    loaded = any(step.arg == 0 for step in dis.get_instructions(code) if step.opcode in _LOADS_CONSTANT)
    return found if loaded else (None, *found[1:])


def _steps(code: CodeType) -> Iterator[dis.Instruction]:
    for each in codes(code):
        yield from dis.get_instructions(each)


def _is_name(text: str) -> bool:
    return text.replace(".", "").isidentifier() and not text.startswith(".")
