"""Whether what a session has loaded of a module is what its file says now.

A file may be edited and its module not reloaded; a session may set `module.RATE = 3`.  Then the file's content says
nothing about what runs.  Compared are the code of functions and classes, their defaults, constants, names that
come from other modules, and the compiled file that the import left.
"""

from __future__ import annotations

import ast
import importlib.util
import marshal
import sys
import weakref
from collections import Counter
from pathlib import Path
from types import CodeType, FunctionType, MemberDescriptorType, ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from gridsearch.as_imported import OwnChanges, changed, same_file
from gridsearch.plugins.bytecode import codes, compiled, names_set, parsed, read_elsewhere
from gridsearch.plugins.module_values import same_held
from gridsearch.plugins.ownership import file_of, own_module
from gridsearch.plugins.value_address import code_digest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_PLAIN = (bool, int, float, complex, str, bytes, type(None), tuple)
_CHANGING = frozenset(
    {
        "append", "extend", "insert", "add", "update", "setdefault", "pop", "popitem", "clear", "remove", "discard",
        "sort", "reverse",
    }
)  # fmt: skip
_Written: TypeAlias = "dict[str, set[str]]"
"""Addresses of the code that a file holds, by qualified name."""

_HEADER = 16
"""Bytes before the code in a compiled file (PEP 552)."""

_seen: dict[str, tuple[str, weakref.ref[FunctionType]]] = {}
"""By module: what its file held when it was compared, and a function that it had then."""


def as_written(module: ModuleType) -> bool:
    """Whether nothing shows that a loaded module is another than its file."""
    path = file_of(module)
    if path is None or not path.endswith(".py"):
        return path is not None
    try:
        content = Path(path).read_bytes()
        code = compiled(content, path)
        tree = parsed(content)
    except (OSError, SyntaxError, ValueError):
        return False
    written: _Written = {}
    for each in codes(code):
        written.setdefault(each.co_qualname, set()).add(code_digest(each))
    return (
        _same_objects(module, tree, written)
        and _same_constants(module, tree, code)
        and _same_imports(module, tree)
        and _same_compiled(path, code)
        and not _edited_since(module, code)
        and not changed(module, _own_changes(tree, code))
    )


def changed_in_session(module: ModuleType) -> bool:
    """Whether a session has changed a loaded module whose file is the one that was imported."""
    path = file_of(module)
    if path is None or not same_file(module):
        return False
    content = Path(path).read_bytes()
    return changed(module, _own_changes(parsed(content), compiled(content, path)))


def _own_changes(tree: ast.Module, code: CodeType) -> OwnChanges:
    named = {name for each in codes(code) for name in each.co_names}
    return OwnChanges(
        names=names_set(code) | {*_changed_in_place(tree)} | _attributes_set(tree, of_self=True),
        read=read_elsewhere(code),
        adds=not named.isdisjoint(("globals", "setattr")) or "__getattr__" in named,
        asks="__subclasses__" in named,
    )


def _same_objects(module: ModuleType, tree: ast.Module, written: _Written) -> bool:
    """Whether functions and classes have the code and the defaults that the file gives them."""
    once, state = _written_once(tree), _attributes_set(tree)
    for name, node in once.items():
        value = vars(module).get(name)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.decorator_list:
            if not isinstance(value, FunctionType) or not _same_function(value, node, written):
                return False
            if not _same_attributes(value, name, tree):
                return False
        elif isinstance(node, ast.ClassDef) and not (
            (isinstance(value, type) and _same_class(value, node, written, state))
            or (node.decorator_list and not isinstance(value, type))
        ):
            return False
    return all(
        code_digest(function.__code__) in written.get(function.__code__.co_qualname, ())
        for function in functions_of(module)
    )


def _same_class(cls: type, node: ast.ClassDef, written: _Written, state: Collection[str]) -> bool:
    """Whether a class has what is written; one that a metaclass, a base or a decorator makes has more, and otherwise.

    Args:
        cls: as it is loaded.
        node: as it is written.
        written: addresses of the file's code.
        state: attributes that the file's own code sets.
    """
    if cls.__qualname__ != node.name:
        return False
    made = (
        type(cls) is not type
        or bool(node.decorator_list)
        or hasattr(cls, "_fields")
        or any("__init_subclass__" in vars(base) for base in cls.__mro__[1:-1])
    )
    names = {name for inner in node.body for name in stored(inner)} | {*state}
    if not made and any(not _special(k) and k not in names for k, v in vars(cls).items() if not _slot(v)):
        return False
    for name, inner in _written_once(node).items():
        value = vars(cls).get(name)
        value = getattr(value, "__func__", value)  # `__new__` and `__init_subclass__` are wrapped unasked
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and not inner.decorator_list:
            if not isinstance(value, FunctionType) or not _same_function(value, inner, written):
                return False
        elif not isinstance(inner, ast.expr) or name in state or (made and type(value) not in _PLAIN):
            continue
        elif not _same_constant(value, inner):
            return False
    return True


def _slot(value: Any) -> bool:
    return isinstance(value, MemberDescriptorType)


def _attributes_set(tree: ast.Module, *, of_self: bool = False) -> set[str]:
    """Return the names of attributes that a module's code sets, also those of `self` or without them."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load)
        if of_self or not (isinstance(node.value, ast.Name) and node.value.id == "self")
    }


def _special(name: str) -> bool:
    return (name.startswith("__") and name.endswith("__")) or name == "_abc_impl"


def _same_function(
    function: FunctionType, node: ast.FunctionDef | ast.AsyncFunctionDef, written: _Written
) -> bool:
    if code_digest(function.__code__) not in written.get(function.__code__.co_qualname, ()):
        return False
    pairs = defaults(function, node)
    return pairs is not None and all(_same_constant(value, written) for value, written in pairs)


def defaults(
    function: FunctionType, node: ast.FunctionDef | ast.AsyncFunctionDef
) -> list[tuple[Any, ast.expr]] | None:
    """Return a function's defaults with what is written for each; None where there are more or fewer."""
    given, named = function.__defaults__ or (), function.__kwdefaults__ or {}
    by_name = {
        a.arg: d for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if d is not None
    }
    if len(given) != len(node.args.defaults) or named.keys() != by_name.keys():
        return None
    return [*zip(given, node.args.defaults, strict=True), *((named[name], by_name[name]) for name in by_name)]


def _same_attributes(function: FunctionType, name: str, tree: ast.Module) -> bool:
    """Whether the attributes of a function are those that the file gives it."""
    given = {
        target.attr: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Attribute)
        and isinstance(target.value, ast.Name)
        and target.value.id == name
    }
    return all(key in given and _same_constant(value, given[key]) for key, value in vars(function).items())


def _same_constants(module: ModuleType, tree: ast.Module, code: CodeType) -> bool:
    """Whether constants have the file's values; those that the module's own functions set are its state."""
    state = names_set(code)
    changing = {*state, *_changed_in_place(tree)}
    return all(
        _same_constant(vars(module).get(name), node)
        and (name in changing or same_held(vars(module).get(name), node))
        for name, node in _written_once(tree).items()
        if isinstance(node, ast.expr) and name not in state
    )


def _changed_in_place(tree: ast.Module) -> Iterator[str]:
    """Yield the names of what a module's own code fills or changes: a cache, a registry, a table made in steps."""
    for node in ast.walk(tree):
        inner: ast.expr | None = None
        if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            inner = node.value
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in _CHANGING
        ):
            inner = node.func.value
        while isinstance(inner, ast.Subscript | ast.Attribute):
            if isinstance(inner, ast.Attribute):
                yield inner.attr
            inner = inner.value
        if isinstance(inner, ast.Name):
            yield inner.id
    for statement in tree.body:  # given to a function that may fill it
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            yield from (n.id for a in statement.value.args for n in ast.walk(a) if isinstance(n, ast.Name))


def _same_constant(value: Any, node: ast.expr) -> bool:
    """Whether a value is what a literal says; what is no literal of plain values cannot be compared."""
    try:
        literal = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return True
    if not isinstance(literal, _PLAIN):
        return True
    return type(value) is type(literal) and repr(value) == repr(literal)


def _same_imports(module: ModuleType, tree: ast.Module) -> bool:
    """Whether names that come from other own modules are what these hold now."""
    for node in tree.body:
        if not isinstance(node, ast.ImportFrom) or (node.module or "") == "__future__":
            continue
        base = _resolved(node, module)
        other = sys.modules.get(base)
        if other is None or not own_module(other):
            continue
        for alias in node.names:
            here, there = (alias.asname or alias.name), alias.name
            if there == "*" or there not in vars(other) or here not in vars(module):
                continue
            one, two = vars(module)[here], vars(other)[there]
            if one is not two and not (type(one) is type(two) and isinstance(one, _PLAIN) and one == two):
                return False
    return True


def _resolved(node: ast.ImportFrom, module: ModuleType) -> str:
    name = "." * node.level + (node.module or "")
    try:
        return importlib.util.resolve_name(name, getattr(module, "__package__", None) or "")
    except ImportError:
        return ""


def _same_compiled(path: str, code: CodeType) -> bool:
    """Whether the compiled file that the last import left is of this source; True where there is none."""
    try:
        kept = Path(importlib.util.cache_from_source(path)).read_bytes()
        found = marshal.loads(kept[_HEADER:])  # noqa: S302 - Python itself runs this file at the next import
    except (OSError, ValueError, EOFError, TypeError, NotImplementedError):
        return True
    if kept[:4] != importlib.util.MAGIC_NUMBER or not isinstance(found, CodeType):
        return True
    return code_digest(found) == code_digest(code)


def _edited_since(module: ModuleType, code: CodeType) -> bool:
    """Whether the file's code has changed since it was compared, while the module's functions stayed the same."""
    digest = code_digest(code)
    first = next(functions_of(module), None)
    if first is None:
        return False
    seen = _seen.get(module.__name__)
    if seen is None or seen[1]() is not first:
        _seen[module.__name__] = (digest, weakref.ref(first))
        return False
    return seen[0] != digest


def functions_of(module: ModuleType) -> Iterator[FunctionType]:
    """Yield the functions and methods whose code stands in a module's file."""
    path = str(module.__file__)
    for value in list(vars(module).values()):
        made = issubclass(type(value), type | FunctionType)  # a stand-in's own attributes may raise anything
        if not made or value.__module__ != module.__name__:
            continue
        for each in list(vars(value).values()) if isinstance(value, type) else [value]:
            function = getattr(each, "__func__", each)
            if isinstance(function, FunctionType) and function.__code__.co_filename == path:
                yield function


def _written_once(tree: ast.Module | ast.ClassDef) -> dict[str, ast.stmt | ast.expr]:
    """Return what names are given at the top of a module or class, for those that are given once."""
    times = Counter(name for node in tree.body for name in stored(node))
    found: dict[str, ast.stmt | ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id: node.value for target in targets if isinstance(target, ast.Name)}
    return {name: node for name, node in found.items() if times[name] == 1}


def stored(node: ast.AST) -> Iterator[str]:
    """Yield the names that a statement gives in its own scope."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
        return
    if isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        return
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id
    if isinstance(node, ast.alias):
        yield (node.asname or node.name).partition(".")[0]
    for child in ast.iter_child_nodes(node):
        yield from stored(child)
