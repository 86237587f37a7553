"""What a class, a function or an object given from Python is: where a worker finds it, and its address.

One that a module of a user's own holds, as its file says, is what that file says, with all that the module imports.
Everything else (of a script, a notebook's cell, a prompt; made inside a function; of a module that was edited since
it was imported, or changed in the session) is addressed by its code and the values that this code can reach.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import secrets
import sys
import textwrap
from dataclasses import dataclass, field
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final

from gridsearch.importing import importable
from gridsearch.plugins import source_files
from gridsearch.plugins.asked import asked_by, looks_up
from gridsearch.plugins.bytecode import codes, compiled, names_imported, names_in_texts, names_read, parsed
from gridsearch.plugins.loaded_source import as_written, changed_in_session, defaults, functions_of
from gridsearch.plugins.ownership import file_of, own_module
from gridsearch.plugins.patched import patched, patched_everywhere
from gridsearch.plugins.value_address import code_digest, digest, named

if TYPE_CHECKING:
    from collections.abc import Mapping

_CUSTOMARY: Final = {
    "np": "numpy", "pd": "pandas", "plt": "matplotlib.pyplot", "F": "torch.nn.functional", "sns": "seaborn",
    "sp": "scipy", "nn": "torch.nn", "tv": "torchvision",
}  # fmt: skip
"""Short names that modules are imported under."""

_REPLACED: Final = "uses %s, which this session has replaced"

_BY_VERSION: Final = "version"
"""Written in place of what cannot be addressed, where the user gives a version that stands for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What something given from Python is.

    Attributes:
        locator: "module:attribute" where a worker can import the very same thing; empty where it can not.
        source: its address, SHA-256; None for something built in.
        parts: addresses of what it consists of, by name: files, or functions and values.
        missing: what could not be addressed, in words; unless a version stands for it, the address is then another
            each time.
        edited: a file that it comes from (its module's, or one imported there) which says something else by now.
        older: the address that earlier versions of this program gave it, where that says all of it.
        bound: why a copy in another process would compute otherwise, in words that follow a name.
    """

    locator: str
    source: str | None
    parts: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    edited: str = ""
    older: str = ""
    bound: tuple[str, ...] = ()


def identity(target: Any, *, version: str | None = None) -> Identity:
    """Return what a class, a function or an object that can be called is.

    Args:
        target: the object.
        version: stands for what cannot be addressed.
    """
    module = _home(target)
    edited = ""
    if module is not None:
        locator = f"{module.__name__}:{target.__name__}"
        path = getattr(module, "__file__", None)
        if not own_module(module):
            return Identity(locator=locator, source=source_files.sha256(Path(path)) if path else None)
        modules = _Modules()
        found = modules.address(module.__name__)
        if found is not None and not modules.patched(module):
            return Identity(locator=locator, source=found[0], parts=found[1])
        # A hook that changes code as it is imported (pytest's, say) and an archive are no edited files.
        others = [each for each in modules.stale or [module] if type(_loader(each)) is SourceFileLoader]
        others = [each for each in others if not changed_in_session(each)]
        edited = (file_of(others[0]) or "") if others else ""
    return _by_value(target, version, edited, plain=module is None)


def module_address(module: ModuleType) -> tuple[str, dict[str, str]] | None:
    """Return a loaded module's address and its parts, None where it is not what its file says."""
    if own_module(module):
        return _Modules().address(module.__name__)
    path = getattr(module, "__file__", None)
    digest_ = source_files.sha256(Path(path)) if path else ""
    return digest_, {}


def _loader(module: ModuleType) -> object:
    return getattr(getattr(module, "__spec__", None), "loader", None)


class _Modules:
    """Addresses of own modules by name, each found once.

    Attributes:
        stale: those of which something else is loaded than is written.
    """

    def __init__(self) -> None:
        self.stale: list[ModuleType] = []
        self._finder = source_files.Finder()
        self._found: dict[str, tuple[str, dict[str, str]] | None] = {}

    def digest(self, name: str) -> str | None:
        """Return the address alone."""
        found = self.address(name)
        return None if found is None else found[0]

    def address(self, name: str) -> tuple[str, dict[str, str]] | None:
        """Return an own module's address and its parts, None where what is loaded of it is not what is written."""
        if name not in self._found:
            self._found[name] = self._address(name)
        return self._found[name]

    def patched(self, module: ModuleType) -> bool:
        """Whether the session has replaced what an own module, or one that it imports, reaches of what is installed.

        What these modules replace themselves when they are imported, they replace in a worker, too.
        """
        source = self._finder.source(module.__name__)
        names = {module.__name__} if source is None else {*source_files.closure([source], self._finder)}
        loaded = [sys.modules[name] for name in sorted(names & sys.modules.keys())]
        found = patched_everywhere()
        for each in loaded:
            for function in functions_of(each):
                found |= patched(function)
        return any(_home_of(value) not in names for value in found.values())

    def _address(self, name: str) -> tuple[str, dict[str, str]] | None:
        module = sys.modules.get(name)
        path = file_of(module)
        source = self._finder.source(name)
        if module is not None and path is not None and (source is None or source.path != Path(path)):
            package = getattr(module, "__package__", None) or ""
            source = source_files.Source(name, Path(path), package)
        if source is None or name == "__main__" or not source.path.is_file():
            return None
        files = source_files.closure([source], self._finder)
        loaded = [sys.modules[each] for each in files if each in sys.modules]
        stale = [each for each in loaded if not as_written(each)]
        self.stale += stale
        return None if stale else source_files.address(source, files)


def _home_of(value: Any) -> str:
    """Return the name of the module that something which stands in an installed module comes from."""
    while isinstance(value, functools.partial):
        value = value.func
    made = isinstance(value, FunctionType | type)
    return str((value if made else type(value)).__module__)


def _home(target: Any) -> ModuleType | None:
    """Return the module from which a worker can import the very same object."""
    name, attribute = getattr(target, "__module__", None), getattr(target, "__name__", None)
    if not isinstance(name, str) or not isinstance(attribute, str) or not importable(name):
        return None
    module = sys.modules.get(name)
    return module if module is not None and getattr(module, attribute, None) is target else None


def _by_value(target: Any, version: str | None, edited: str, *, plain: bool) -> Identity:
    stand_in = secrets.token_hex(16) if version is None else _BY_VERSION
    modules = _Modules()
    walked = digest(target, module_address=modules.digest, stand_in=stand_in)
    everywhere = patched_everywhere()
    whole = [walked.digest, digest(everywhere, module_address=modules.digest).digest if everywhere else ""]
    parts = {
        name: digest(value, module_address=modules.digest).digest for name, value in _parts(target).items()
    }
    text = _plain_text(target) if plain and not walked.missing else None
    return Identity(
        locator="",
        source=hashlib.sha256(f"by value {' '.join(filter(None, whole))}".encode()).hexdigest(),
        parts=parts,
        missing=walked.missing,
        edited=edited,
        older="" if text is None or everywhere else hashlib.sha256(text.encode()).hexdigest(),
        bound=tuple(dict.fromkeys((*walked.bound, *(_REPLACED % name for name in everywhere)))),
    )


def _parts(target: Any) -> dict[str, Any]:
    """Return what something consists of, by names that its user knows."""
    if isinstance(target, functools.partial):
        given = {f"argument {i}": value for i, value in enumerate(target.args)} | target.keywords
        return {**_parts(target.func), **given}
    if isinstance(target, type):
        members = {name: value for name, value in vars(target).items() if not _set_by_python(name, value)}
        return {f"{target.__name__}.{name}": value for name, value in members.items()}
    function = getattr(target, "__func__", target)
    if not isinstance(function, FunctionType):
        return {type(target).__name__: target}
    inside = inspect.getclosurevars(function).nonlocals
    around = {n: function.__globals__[n] for n in names_read(function.__code__) if n in function.__globals__}
    own = {name: value for name, value in {**around, **inside}.items() if named(value) is None}
    own = {n: v for n, v in own.items() if not isinstance(v, ModuleType) or own_module(v)}
    return {f"{function.__name__}()": function.__code__, "its defaults": function.__defaults__, **own}


def _set_by_python(name: str, value: Any) -> bool:
    return name.startswith("__") and not isinstance(value, FunctionType)


def _plain_text(target: Any) -> str | None:
    """Return the text that says all of a function or class which reaches nothing of its user's own.

    It addressed every function of a script in earlier versions, so that trials of their stores keep their keys.  None
    where the text says less than what runs: `act` may be any function of torch, `relu` is the one of that name.
    """
    if not isinstance(target, FunctionType | type):
        return None
    try:
        text = inspect.getsource(target)
        around = "".join(inspect.findsource(target)[0])
    except (OSError, TypeError):
        return _typed_text(target) if isinstance(target, FunctionType) else None
    try:
        alone = compiled(textwrap.dedent(text))
        # imports above change how calls are compiled
        whole = compiled(around)
        node = parsed(textwrap.dedent(text)).body[0]
    except (SyntaxError, ValueError, IndexError):
        return None
    inside = [(each.co_name, code_digest(each)) for each in codes(whole)]
    if isinstance(target, type):
        return text if isinstance(node, ast.ClassDef) and _plain_class(target, node, inside) else None
    if sum(each.co_name == target.__code__.co_name for each in codes(alone)) != 1:
        return None
    return text if _plain_function(target, node, inside) else None


def _plain_class(cls: type, node: ast.ClassDef, inside: list[tuple[str, str]]) -> bool:
    """Whether a class has plain methods and constants, as written, and installed bases alone."""
    written: dict[str, ast.AST] = {n.name: n for n in node.body if isinstance(n, ast.FunctionDef)}
    for inner in node.body:
        if isinstance(inner, ast.Assign):
            written |= {target.id: inner.value for target in inner.targets if isinstance(target, ast.Name)}
    for name, value in vars(cls).items():
        there = written.get(name)
        function, by = _within(value)
        if function is not None:
            if there is None or not _plain_function(function, there, inside, by=by):
                return False
            continue
        if there is None and (name.startswith("__") or name == "_abc_impl"):
            continue
        if not isinstance(there, ast.expr) or not _is_literal(value, there):
            return False
    said = [ast.unparse(base).rpartition(".")[2] for base in node.bases] or ["object"]
    bases = all(map(named, (*cls.__bases__, type(cls)))) and said == [b.__name__ for b in cls.__bases__]
    return cls.__name__ == node.name and not node.decorator_list and bases


def _within(value: Any) -> tuple[FunctionType | None, tuple[str, ...]]:
    """Return the function that a member of a class is, with the decorator that made it a member of its kind."""
    if type(value) in (staticmethod, classmethod):
        return _within(value.__func__)[0], (type(value).__name__,)
    if type(value) is property and value.fset is None and value.fdel is None:
        return _within(value.fget)[0], ("property",)
    return (value if isinstance(value, FunctionType) else None), ()


def _plain_function(
    function: FunctionType, node: ast.AST, inside: list[tuple[str, str]], *, by: tuple[str, ...] = ()
) -> bool:
    """Whether a function is what is written, and reaches nothing but that and what is installed."""
    if (function.__code__.co_name, code_digest(function.__code__)) not in inside or not _alone(function):
        return False
    if function.__name__ == "<lambda>":
        return not (function.__defaults__ or function.__kwdefaults__)
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    if tuple(each.id if isinstance(each, ast.Name) else "" for each in node.decorator_list) != by:
        return False
    pairs = defaults(function, node)
    return pairs is not None and all(_is_literal(value, written) for value, written in pairs)


def _is_literal(value: Any, node: ast.expr) -> bool:
    if not isinstance(value, bool | int | float | str | bytes | None):
        return False
    try:
        return repr(ast.literal_eval(node)) == repr(value)
    except (ValueError, TypeError):
        return False


def _alone(function: FunctionType) -> bool:
    """Whether a function's code reaches nothing but what is installed."""
    around = function.__globals__
    if vars(function) or any(name != "__class__" for name in function.__code__.co_freevars):
        return False
    if any(_own_import(name) for name in names_imported(function.__code__, around)):
        return False
    if patched(function) or names_in_texts(function.__code__, around) or looks_up(function.__code__):
        return False
    if any(asked_by(code) for code in codes(function.__code__)):
        return False
    return all(_by_its_name(name, around[name]) for name in names_read(function.__code__) if name in around)


def _by_its_name(name: str, value: Any) -> bool:
    """Whether a name stands for something installed under its customary name."""
    if isinstance(value, ModuleType):
        full = value.__name__
        return not own_module(value) and (name in full.split(".") or _CUSTOMARY.get(name) == full)
    full = named(value) or ""
    return bool(full) and name == full.rpartition(".")[2]


def _own_import(name: str) -> bool:
    loaded = sys.modules.get(name)
    return source_files.Finder().spec(name) is not None or (loaded is not None and own_module(loaded))


def _typed_text(function: FunctionType) -> str | None:
    """Return the text of a function whose source is gone, where that says all of it."""
    every = list(codes(function.__code__))
    plain = all(
        isinstance(c, str | int | float | bytes | None | CodeType) for code in every for c in code.co_consts
    )
    kinds = all(not (c.co_exceptiontable or c.co_kwonlyargcount or c.co_posonlyargcount) for c in every)
    if not plain or not kinds or not _alone(function) or function.__defaults__:
        return None
    return f"{function.__module__}:{function.__name__}{_code_text(function.__code__)}"


def _code_text(code: CodeType) -> str:
    constants = [_code_text(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {code.co_freevars} {constants}"
