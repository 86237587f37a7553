"""What users' modules held when they had been imported, which shows what a session has changed since.

A file says what a module is made of, and a session may change all of it afterwards: `net.WIDTH = 3`,
`net.TABLE[0] = 7`, `net.configure(rate=2)`, `net.Net.forward = mine`.  So each module of a user's own is pictured as
its import ends, those that were there before this program as it is imported.  Containers are pictured by what is in
them, arrays by hashes, objects of the user's own classes by their attributes, all else by its identity.
"""

from __future__ import annotations

import os
import sys
import weakref
from contextlib import suppress
from functools import lru_cache
from importlib.abc import MetaPathFinder
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from importlib.machinery import ModuleSpec

_PLAIN: Final = (bool, int, float, complex, str, bytes, type(None))
_MOST: Final = 20_000
"""Values of a module that are pictured; further ones count by their identity."""

_DEEPEST: Final = 8
"""So many containers within each other are looked into."""

_BYTES: Final = 64 * 2**20
"""Bytes of a module's arrays that are hashed; further ones count by their identity."""

_noted: dict[str, Picture] = {}


def watch() -> None:
    """Picture users' modules as they are imported from here on, and those that are there."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Finder())
    for module in list(sys.modules.values()):
        spec = getattr(module, "__spec__", None)
        if isinstance(module, ModuleType) and _of_a_user(spec) and not getattr(spec, "_initializing", False):
            _note(module)


def _note(module: ModuleType) -> None:
    """Picture a module; an object in it that does not let itself be looked at is no reason to fail an import."""
    with suppress(Exception):
        _noted[module.__name__] = Picture(module)


def changed(module: ModuleType, own: OwnChanges) -> bool:
    """Whether a session has changed a module since its import; False where that was not seen.

    Args:
        module: loaded.
        own: what the module's own code changes.
    """
    before = _noted.get(module.__name__)
    if before is None or before.module() is not module:
        return False
    try:
        return before.differs(Picture(module), own)
    except Exception:  # noqa: BLE001 - an object that does not let itself be looked at, as in `_note`
        return True


def same_file(module: ModuleType) -> bool:
    """Whether a module's file is the one that was imported; False where that was not seen."""
    before = _noted.get(module.__name__)
    return before is not None and before.module() is module and before.file == _file(module)


def _file(module: ModuleType) -> tuple[int, int] | None:
    try:
        found = Path(str(module.__file__)).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


class OwnChanges(NamedTuple):
    """What a module's own code changes: a cache, a counter, a registry; its session has changed it only in parts.

    Attributes:
        names: of globals and attributes that it sets, fills or changes in place.
        read: of globals and attributes that functions read which do not set them.
        adds: whether it may add globals of any name.
        asks: whether it looks for the subclasses of its classes.
    """

    names: Collection[str]
    read: Collection[str]
    adds: bool
    asks: bool


class Picture:
    """A module's globals, and the attributes of its classes, as they are now."""

    def __init__(self, module: ModuleType) -> None:
        self.module = weakref.ref(module)
        self.file = _file(module)
        self._name, self._values, self._bytes = module.__name__, 0, 0
        self.owners: dict[str, dict[str, Any]] = {}
        self.bases: dict[str, Any] = {}
        self.below: dict[str, int] = {}
        inside = {k: v for k, v in vars(module).items() if not _special(k)}
        self.owners[""] = {name: self._of(value, 0) for name, value in inside.items()}
        for cls in self._classes(inside.values(), set()):
            self._class(cls)

    def _classes(self, values: Collection[Any], seen: set[type]) -> Iterator[type]:
        for value in list(values):
            if issubclass(type(value), type) and value.__module__ == self._name and value not in seen:
                seen.add(value)
                yield value
                yield from self._classes(vars(value).values(), seen)

    def _class(self, cls: type) -> None:
        held = {k: v for k, v in vars(cls).items() if not _special(k) or isinstance(v, FunctionType)}
        held = {k: v for k, v in held.items() if k != "_abc_impl" and not k.startswith("_value2member")}
        key = cls.__qualname__
        self.owners[key] = {name: self._of(value, 0) for name, value in held.items()}
        self.bases[key] = tuple(_Same(base) for base in cls.__bases__)
        below: list[type] = type.__subclasses__(cls)
        self.below[key] = sum(each.__module__ == "__main__" for each in below)

    def differs(self, now: Picture, own: OwnChanges) -> bool:
        """Whether a later picture shows more than what the module's own code changes."""
        if not own.adds and any(
            name not in own.names and not (isinstance(value, _Same) and isinstance(value.held(), ModuleType))
            for name, value in now.owners[""].items()
            if name not in self.owners[""]
        ):
            return True
        if any(now.bases.get(key) != bases for key, bases in self.bases.items()):
            return True
        if own.asks and any(now.below.get(key) != count for key, count in self.below.items()):
            return True
        for key, before in self.owners.items():
            after = now.owners.get(key)
            if after is None:
                return True
            if key and any(name not in before and name not in own.names for name in after):
                return True
            if any(_differs(value, after.get(name, _GONE), name, own) for name, value in before.items()):
                return True
        return False

    def _of(self, value: Any, depth: int) -> Any:
        """Return what a value is to be compared by."""
        kind = type(value)
        self._values += 1
        if kind in _PLAIN:
            return _Pictured("plain", value)
        if depth > _DEEPEST or self._values > _MOST:
            return _Same(value)
        if kind in (list, tuple):
            return _Pictured("items", [self._of(each, depth + 1) for each in list(value)])
        if kind in (set, frozenset):
            return _Pictured("keys", {_text(each): self._of(each, depth + 1) for each in list(value)})
        if kind is dict:
            return _Pictured("keys", {_text(k): self._of(v, depth + 1) for k, v in list(value.items())})
        return self._object(value, depth)

    def _object(self, value: Any, depth: int) -> Any:
        kind = type(value)
        own = kind.__module__ == self._name and not issubclass(kind, type)
        if kind is FunctionType:
            return self._function(value, depth)
        if kind in (staticmethod, classmethod):
            return _Pictured("items", [self._of(value.__func__, depth + 1)])
        if hasattr(kind, "dtype") and hasattr(
            kind, "shape"
        ):  # a stand-in's own attributes may raise anything
            return self._array(value)
        if own or kind is SimpleNamespace or hasattr(kind, "__dataclass_fields__"):
            held = {k: self._of(v, depth + 1) for k, v in _attributes(value).items()}
            return _Pictured("attributes", held, _Same(value), own=own)
        return _Same(value)

    def _function(self, function: FunctionType, depth: int) -> Any:
        parts = {
            "code": _Same(function.__code__),
            "defaults": self._of(function.__defaults__, depth + 1),
            "by name": self._of(function.__kwdefaults__, depth + 1),
        }
        registry = vars(function).get("registry")
        if registry is not None and "dispatch" in vars(function):
            parts |= {_text(kind): _Same(each) for kind, each in registry.items()}
        return _Pictured("function", parts, _Same(function))

    def _array(self, value: Any) -> Any:
        size = getattr(value, "nbytes", None)
        if not isinstance(size, int) or self._bytes + size > _BYTES:
            return _Same(value)
        self._bytes += size
        import hashlib  # only users' arrays need it

        try:
            plain = value.detach().cpu().numpy() if hasattr(value, "detach") else value
            content = hashlib.blake2b(plain.tobytes()).hexdigest()
        except Exception:  # noqa: BLE001 - an object dtype, a sparse tensor, a class of somebody's
            return _Same(value)
        return _Pictured("array", f"{value.dtype} {tuple(value.shape)} {content}", _Same(value))


class _Same:
    """Something that is compared by its identity; it may be collected."""

    __slots__ = ("_ref", "_strong")

    def __init__(self, value: Any) -> None:
        self._strong: Any = None
        self._ref: Any = None
        try:
            self._ref = weakref.ref(value)
        except TypeError:
            if not isinstance(value, list | dict | set | tuple):  # what is in them is pictured
                self._strong = value

    def held(self) -> Any:
        return self._strong if self._ref is None else self._ref()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.held() is other.held()

    __hash__ = None  # type: ignore[assignment]


class _Pictured:
    """What is in a value.

    Args:
        kind: "plain", "items", "keys", "function", "attributes" or "array".
        inside: the value, the pictures of what is in it, or what an array's content is.
        same: the value's identity, where that counts too.
        own: it is of a class of the module's.
    """

    __slots__ = ("inside", "kind", "own", "same")

    def __init__(self, kind: str, inside: Any, same: _Same | None = None, *, own: bool = False) -> None:
        self.kind, self.inside, self.same, self.own = kind, inside, same, own


def _attributes(value: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for cls in reversed(type(value).__mro__):  # what the object has unless it is given another
        found |= {k: v for k, v in vars(cls).items() if type(v) in _PLAIN and not _special(k)}
    found |= getattr(value, "__dict__", None) or {}
    for cls in type(value).__mro__:
        slots = vars(cls).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                found[name] = getattr(value, name)
    return found


_GONE: Final = _Same(object())


def _differs(before: Any, now: Any, name: str, own: OwnChanges, *, within: bool = False) -> bool:
    """Whether a value has changed other than as the module's own code changes it.

    Args:
        before: its picture.
        now: its picture now.
        name: of the global or attribute.
        own: what the module's own code changes.
        within: it is in something that this code changes.
    """
    lenient = within or name in own.names
    kinds = getattr(before, "kind", ""), getattr(now, "kind", "")
    if name in own.names and name not in own.read:
        return False  # a counter: what reads it sets it
    if kinds[0] == "plain" and before.inside is None and lenient:
        return False  # it waits to be filled
    if kinds[0] != kinds[1]:
        return kinds[0] == "plain" or not lenient
    if kinds[0] == "":
        return before != now and not (lenient and not callable(now.held()))
    return _inside_differs(before, now, own, lenient=lenient)


def _inside_differs(before: _Pictured, now: _Pictured, own: OwnChanges, *, lenient: bool) -> bool:
    """Compare two values of a kind by what is in them."""
    one, two = before.inside, now.inside
    if before.kind == "plain":
        return type(one) is not type(two) or repr(one) != repr(two)
    if before.kind == "array":
        return not lenient and (before.same != now.same or one != two)
    if before.kind == "items":
        if len(two) < len(one) or (len(two) > len(one) and not lenient):
            return not lenient
        new = any(map(_of_the_session, two[len(one) :]))
        return new or any(_differs(a, b, "", own, within=lenient) for a, b in zip(one, two, strict=False))
    if before.kind == "function":
        gone = before.same != now.same or one.keys() != two.keys()
        return gone or any(_differs(part, two[key], "", own) for key, part in one.items())
    lenient = lenient or before.own
    if any(_of_the_session(two[key]) for key in two.keys() - one.keys()):
        return True
    if not lenient and list(one) != list(two):
        return True
    return any(_differs(one[key], two[key], key, own, within=lenient) for key in one.keys() & two.keys())


def _of_the_session(picture: Any) -> bool:
    """Whether this is a class or function that only the session defines."""
    same = picture if isinstance(picture, _Same) else picture.same
    value = None if same is None else same.held()
    return issubclass(type(value), type | FunctionType) and value.__module__ == "__main__"


def _text(key: Any) -> str:
    """Return a key of a dict as text, where that says it; else its kind and place in memory."""
    if type(key) in _PLAIN or (type(key) is tuple and all(type(each) in _PLAIN for each in key)):
        return f"{type(key).__name__} {key!r}"
    return f"{type(key).__name__} {id(key)}"


def _special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _of_a_user(spec: Any) -> bool:
    return type(getattr(spec, "loader", None)) is SourceFileLoader and _own_path(str(spec.origin))


@lru_cache(maxsize=4096)
def _own_path(path: str) -> bool:
    installed = {"site-packages", "dist-packages"}.intersection(Path(path).parts)
    folders = (Path(os.__file__).parent, Path(__file__).parent)  # the standard library's, and this program's
    return not installed and not any(Path(path).is_relative_to(folder) for folder in folders)


class _Finder(MetaPathFinder):
    """Finds what the finders behind it find, and has users' modules pictured when their code has run."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return the spec of a user's module; None for all else, which is found without this."""
        place = sys.meta_path.index(self)
        for finder in sys.meta_path[place + 1 :]:
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if find is None else find(fullname, path, target)
            if spec is None:
                continue
            if not _of_a_user(spec):
                return spec
            run = spec.loader.exec_module  # type: ignore[union-attr]

            def pictured(module: ModuleType, run: Any = run, loader: Any = spec.loader) -> None:
                vars(loader).pop("exec_module", None)
                _noted.pop(module.__name__, None)
                run(module)
                _note(module)

            spec.loader.exec_module = pictured  # type: ignore[union-attr,method-assign]
            return spec
        return None
