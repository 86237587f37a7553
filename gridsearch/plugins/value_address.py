"""The address of code and values as they are in memory: the same in every process, another for other behaviour.

What is given from Python (a function, a class, an object that can be called) is walked from its code through all
that the code can reach: constants, defaults, closures, the globals that it reads, the state of objects, the bases
and members of classes, the functions that it calls.  Everything is written, tagged and measured, into one
SHA-256.  Names of files, line numbers and where an object lies in memory are not; members of sets are sorted.
Installed modules, classes and functions are named.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import struct
import sys
import threading
import types
import weakref
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gridsearch.importing import importable
from gridsearch.plugins import value_data, value_objects
from gridsearch.plugins.asked import answers, asked_by, looked_up
from gridsearch.plugins.bytecode import constants, names_imported, names_in_texts, names_read
from gridsearch.plugins.ownership import main_or_own, own_module
from gridsearch.plugins.patched import patched, patched_bases
from gridsearch.plugins.value_parts import BY_NAME, comes_from, dispatches, text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

_MOST: Final = 1_000_000
"""Objects that are walked; what reaches further is not addressed."""

_NOT_WRITTEN: Final = frozenset(
    {
        "__module__", "__qualname__", "__name__", "__doc__", "__dict__", "__weakref__", "__firstlineno__",
        "__static_attributes__", "__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__",
        "__abstractmethods__", "_abc_impl", "__orig_bases__", "__parameters__",
    }
)  # fmt: skip
"""Of a class: what says where it stands, and what Python makes of the rest."""

_LRU_CACHE = type(functools.lru_cache(lambda: None))
_OF_A_CACHE: Final = frozenset(functools.WRAPPER_ASSIGNMENTS) | {"__wrapped__", "cache_parameters"}
_WITHOUT_VALUE: Final = (type(threading.Lock()), type(threading.RLock()))
_FLAGS: Final = 0x1 | 0x2 | 0x4 | 0x8 | 0x20 | 0x80 | 0x100 | 0x200
"""Of a code's flags those that change what it does (inspect.CO_*): not where it is nested, nor its future imports."""

_PLAIN = (bool, int, float, str, type(None))
_SCALARS = (bool, int, float, complex, str, bytes, type(None), type(...), type(NotImplemented))


def digest(
    value: Any,
    *,
    module_address: Callable[[str], str | None],
    stand_in: str = "",
    asked: Collection[str] = (),
    above: Mapping[int, int] | None = None,
) -> Walked:
    """Return the address of a value.

    Args:
        value: anything.
        module_address: gives the address of a user's own module by its name; None where it is not theirs, or is not
            loaded as it is written, so that its values have to stand for it.
        stand_in: what is written in place of what cannot be addressed.
        asked: what code asks of all that is reached, see `asked`.
        above: places of objects, by their ids, that hold the value: it may hold them, too.
    """
    walk = _Walk(module_address, stand_in, asked, above)
    try:
        walk.value(value)
        walk.answer()
    except RecursionError:
        walk = _Walk(module_address, stand_in)
        walk.unknown(value, "nested too deeply")
    return Walked(walk.hash.hexdigest(), tuple(dict.fromkeys(walk.missing)), tuple(walk.bound))


class Walked(NamedTuple):
    """What a walk found.

    Attributes:
        digest: SHA-256 of all that was reached.
        missing: what could not be addressed, in words.
        bound: why a copy in another process would compute otherwise, in words that follow a name.
    """

    digest: str
    missing: tuple[str, ...]
    bound: tuple[str, ...]


def code_digest(code: types.CodeType) -> str:
    """Return the address of code alone: what it does, wherever it stands."""
    walk = _Walk(lambda _: None, "")
    walk.code(code)
    return walk.hash.hexdigest()


def named(value: Any) -> str | None:
    """Return the full name of something installed that can be found by it; None for all else."""
    try:
        module, name = value.__module__, value.__qualname__
    except Exception:  # noqa: BLE001 - an object may answer as it likes
        return None
    home = sys.modules.get(module) if isinstance(module, str) and isinstance(name, str) else None
    if home is None or main_or_own(home):
        return None
    found: Any = home
    for word in name.split("."):
        found = getattr(found, word, None)
    return f"{module}.{name}" if found is value else None


class _Walk:
    """Writes what it meets into a hash; what was met before is written as its number."""

    def __init__(
        self,
        module_address: Callable[[str], str | None],
        stand_in: str,
        asked: Collection[str] = (),
        above: Mapping[int, int] | None = None,
    ) -> None:
        self.hash = hashlib.sha256()
        self.missing: list[str] = []
        self.bound: dict[str, None] = {}
        self._module_address = module_address
        self._stand_in = stand_in
        self._met: dict[int, int] = {}
        self._kept: list[Any] = []  # an object that is gone could leave its id to another
        self._trail: list[str] = []
        self._count = 0
        self._asked = set(asked)
        self._above = dict(above or {})
        self._within: dict[int, int] = {}  # the places of the objects that hold what is being written
        self._sets: list[list[Any]] = []

    def put(self, tag: str, *parts: bytes) -> None:
        for part in (tag.encode(), *parts):
            self.hash.update(struct.pack("<Q", len(part)))
            self.hash.update(part)

    def value(self, value: Any, name: str | None = None) -> None:
        """Write anything; `name` says what it is called where it was met."""
        if name is not None:
            self.put("name", name.encode("utf-8", "surrogatepass"))
            self._trail.append(name)
        try:
            self._value(value)
        finally:
            if name is not None:
                self._trail.pop()

    def answer(self) -> None:
        """Write what the code that was met asks of all that was met, and of what this brings in."""
        written: set[tuple[str, int]] = set()
        while left := [(w, v) for v in self._kept for w in sorted(self._asked) if (w, id(v)) not in written]:
            for what, value in left:
                written.add((what, id(value)))
                found = answers(what, value) if named(value) is None else None
                if found is not None:
                    self.put("asked", what.encode(), str(self._met[id(value)]).encode())
                    self.state(what, found)
                    if found.get("subclasses") and not importable(value.__module__):
                        self.bind(f"asks for the subclasses of {value.__name__}")
        for members in [*self._sets] if self._asked else ():
            self.put("set", *self._addresses(members, self._asked))

    def code(self, code: types.CodeType) -> None:
        """Write what code does: without its file, its lines and its name."""
        numbers = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _FLAGS)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        self.put("code", repr(numbers).encode(), repr(names).encode(), code.co_code, code.co_exceptiontable)
        self._asked |= asked_by(code)
        self.several("consts", constants(code))

    def _value(self, value: Any) -> None:
        kind = type(value)
        if kind in _SCALARS:
            self._scalar(value)
        elif kind is tuple:
            self.several("tuple", value)
        elif kind is types.CodeType:
            self.code(value)
        elif kind in (set, frozenset):
            self._unordered(value)
        elif isinstance(value, types.ModuleType) and self._addressed(value):
            return
        elif id(value) in self._met:
            self.put("again", str(self._met[id(value)]).encode())
        elif id(value) in self._above:
            self.put("above", str(self._above[id(value)]).encode())
        else:
            self._count += 1
            if self._count > _MOST:
                self.unknown(value, "too much of it")
                return
            self._met[id(value)] = len(self._met)
            self._kept.append(value)
            self._within[id(value)] = len(self._above) + len(self._within)
            try:
                self._object(value)
            finally:
                del self._within[id(value)]

    def _scalar(self, value: Any) -> None:
        content = value if isinstance(value, bytes) else text(value).encode("utf-8", "surrogatepass")
        self.put(type(value).__name__, content)

    def several(self, tag: str, values: Iterable[Any]) -> None:
        values = list(values)
        self.put(tag, str(len(values)).encode())
        if all(type(each) in _PLAIN for each in values):
            with contextlib.suppress(ValueError):  # a whole number of thousands of digits has no text
                self.put("plain", repr(values).encode("utf-8", "surrogatepass"))
                return
        for each in values:
            self.value(each)

    def _unordered(self, values: Iterable[Any]) -> None:
        """Write members by their own addresses, sorted: their order is not the same in each process."""
        members = list(values)
        self._sets.append(members)
        self.put("set", *self._addresses(members, ()))

    def _addresses(self, members: list[Any], asked: Collection[str]) -> list[bytes]:
        address, word, above = self._module_address, self._stand_in, {**self._above, **self._within}
        found = [
            digest(each, module_address=address, stand_in=word, asked=asked, above=above) for each in members
        ]
        self.missing += [word for each in found for word in each.missing]
        self.bound |= {words: None for each in found for words in each.bound}
        return sorted(each.digest.encode() for each in found)

    def pairs(self, tag: str, values: Mapping[Any, Any]) -> None:
        self.put(tag, str(len(values)).encode())
        for key, each in values.items():
            self.value(key)
            self.value(each)

    def state(self, tag: str, values: Mapping[str, Any]) -> None:
        """Write attributes, in the order of their names."""
        self.put(tag, str(len(values)).encode())
        for name in sorted(values):
            self.value(values[name], name)

    def _object(self, value: Any) -> None:  # noqa: C901, PLR0912 - one line for each kind of thing
        kind = type(value)
        if kind is list:
            self.several("list", value)
        elif kind is dict:
            self.pairs("dict", value)
        elif (name := named(value)) is not None:
            self.put("named", name.encode())
        elif kind is types.FunctionType:
            self._function(value)
        elif isinstance(value, type):
            self._class(value)
        elif kind is types.MethodType:
            self.put("method")
            self.value(value.__func__)
            self.value(value.__self__)
        elif isinstance(value, types.ModuleType):
            self.state("module", {k: v for k, v in vars(value).items() if not (k[:2] == k[-2:] == "__")})
        elif kind in BY_NAME:
            self._builtin(value)
        elif kind is types.CellType:
            self._cell(value)
        elif isinstance(value, staticmethod | classmethod | property):
            value_objects.member(self, value)
        elif kind is functools.cached_property:
            self.put("cached_property")
            self.value(value.func)
        elif kind is types.MappingProxyType:
            self.pairs("mappingproxy", value)
        elif kind is _LRU_CACHE:
            self.put("lru_cache")
            self.value(value.__wrapped__)
            if added := {k: v for k, v in vars(value).items() if k not in _OF_A_CACHE}:
                self.state("attributes", added)
        elif kind in _WITHOUT_VALUE:
            self.put("without value", kind.__name__.encode())
        elif isinstance(value, weakref.ref | weakref.WeakKeyDictionary | weakref.WeakValueDictionary):
            value_objects.weak(self, value)
        elif isinstance(value, weakref.WeakSet):
            self._unordered(value)
            self.bind("uses a WeakSet")
        elif comes_from(kind, "pandas", "NDFrame", "Index"):
            value_data.table(self, value)
        elif comes_from(kind, "torch", "Tensor"):
            value_data.tensor(self, value)
        elif kind.__module__ == "numpy" and kind.__name__ in ("ndarray", "memmap"):
            value_data.array(self, value)
        else:
            value_objects.reduced(self, value)

    def _function(self, function: types.FunctionType) -> None:
        inner = vars(function).get("_torchdynamo_orig_callable")
        if inner is not None:  # what torch.compile returns holds its compiler, and addresses of memory
            self.put("compiled")
            self.value(inner)
            return
        if dispatches(function):  # it holds what it has found before by weak references
            self.put("singledispatch")
            self.pairs("registry", vars(function)["registry"])
            return
        self.put("function")
        self.code(function.__code__)
        self.value(function.__defaults__, "its defaults")
        self.value(function.__kwdefaults__, "its defaults by name")
        self.put("closure", str(len(function.__closure__ or ())).encode())
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            self.value(cell, name)
        self.state("attributes", {k: v for k, v in vars(function).items() if k != "__wrapped__"})
        home = sys.modules.get(str(function.__globals__.get("__name__", "")))
        if home is None or vars(home) is not function.__globals__ or main_or_own(home):
            self._globals(function)

    def _globals(self, function: types.FunctionType) -> None:
        around = function.__globals__
        code = function.__code__
        texts = (*names_in_texts(code, around), *looked_up(code, around))
        if texts and not importable(str(function.__module__)):
            self.bind(f"looks {texts[0]!r} up by a text")
        for name in (*names_read(code), *texts):
            if name in around:
                self.value(around[name], name)
        self._replaced(patched(function))
        for name in names_imported(code, around):
            module = sys.modules.get(name)
            if module is not None and own_module(module):
                self.value(module, name)
                if not importable(name):
                    self.bind(f"imports {name}, which no other process can")
            elif module is None and (found := self._module_address(name)) is not None:
                self.put("name", name.encode())
                self.put("own module", found.encode())

    def _class(self, cls: type) -> None:
        self.put("class")
        self.several("bases", cls.__bases__)
        self.value(type(cls))
        self.state("members", {k: v for k, v in vars(cls).items() if k not in _NOT_WRITTEN})
        self._replaced(patched_bases(cls))

    def _replaced(self, found: Mapping[str, Any]) -> None:
        for name, mine in found.items():
            self.value(mine, name)
            self.bind(f"uses {name}, which this session has replaced")

    def _addressed(self, module: types.ModuleType) -> bool:
        """Write a module's name, or the address of a user's own; return whether it has one."""
        name = module.__name__
        if name != "__main__" and not own_module(module):
            self.put("module", name.encode())
            return True
        found = None if name == "__main__" else self._module_address(name)
        if found is not None:
            self.put("own module", found.encode())
        return found is not None

    def _builtin(self, value: Any) -> None:
        owner, cls = getattr(value, "__self__", None), getattr(value, "__objclass__", None)
        name = getattr(value, "__qualname__", None) or getattr(value, "__name__", "")
        home = getattr(value, "__module__", None) or getattr(cls, "__qualname__", "")
        self.put("builtin", f"{home}.{name}".encode())
        if owner is not None and not isinstance(owner, types.ModuleType):
            self.value(owner)

    def _cell(self, cell: types.CellType) -> None:
        try:
            content = cell.cell_contents
        except ValueError:  # not set yet
            self.put("empty cell")
            return
        self.put("cell")
        self.value(content)

    def bind(self, words: str) -> None:
        """Note why a copy in another process would compute otherwise."""
        self.bound[words] = None

    def unknown(self, value: Any, what: str | None = None) -> None:
        kind = type(value)
        shown = what or f"a {kind.__module__}.{kind.__qualname__}".replace("builtins.", "")
        trail = [word for word in self._trail if not word.startswith("its ")]
        self.missing.append(f"{'.'.join(trail[-2:])} ({shown})" if trail else shown)
        self.put("unknown", self._stand_in.encode())
