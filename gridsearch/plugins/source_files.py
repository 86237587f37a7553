"""Which own files a module needs, found from its source: what a file's or a module's address is made of.

Every import statement counts, those inside functions too, and so do `import_module("name")` with a name that is
written out, and a file beside it that a text names ("parts.py", for `runpy` or `exec`).  Where the name is computed,
every module beside the file that computes it counts.  Imports for type checkers alone do not.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from gridsearch.plugins.bytecode import absolute, parsed
from gridsearch.plugins.ownership import own_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
_DYNAMIC = ("import_module", "__import__")

_FILE = re.compile(r"[\w.-]+(/[\w.-]+)*\.py")

_DEEPEST = 4
"""So many folders down a module is looked for whose name is computed."""


@dataclass(frozen=True, slots=True)
class Source:
    """A module's file.

    Attributes:
        name: as its importers call it ("parts", "pkg.sub"), wherever it lies.
        path: the file.
        package: what a relative import in it starts from.
    """

    name: str
    path: Path
    package: str


@dataclass(slots=True)
class Finder:
    """Finds modules as an import statement would, without importing any.

    Attributes:
        path: folders that are searched before `sys.path`.
        fixed: modules whose file is known, by name.
    """

    path: list[str] = field(default_factory=list)
    fixed: dict[str, Path] = field(default_factory=dict)

    def spec(self, name: str) -> ModuleSpec | None:
        """Return the spec of a module in a user's own folder; None where it is not there or not theirs."""
        if name in self.fixed:
            return _spec_of(name, self.fixed[name])
        parent, _, last = name.rpartition(".")
        if not parent:
            return self._top(name)
        above = self.spec(parent)
        if above is None or above.submodule_search_locations is None or not last:
            return None
        found = _in_folders(last, list(above.submodule_search_locations))
        return found if found is not None and _own_spec(found) else None

    def source(self, name: str) -> Source | None:
        """Return an own module's file; None for a folder without a file, and where `spec` is None."""
        spec = self.spec(name)
        if spec is None or spec.origin is None:
            return None
        within = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
        return Source(name, Path(spec.origin), within)

    def _top(self, name: str) -> ModuleSpec | None:
        if name in sys.builtin_module_names or name == "gridsearch":
            return None
        places = [*self.path, *sys.path]
        if name in sys.stdlib_module_names:  # as for a script, a file of that name beside it comes first
            places = self.path
        found = _in_folders(name, places)
        if found is None and name not in sys.stdlib_module_names:
            found = _by_other_finders(name)
        return found if found is not None and _own_spec(found) else None


def _spec_of(name: str, path: Path) -> ModuleSpec | None:
    if not path.is_dir():
        return importlib.util.spec_from_file_location(name, path)
    own, places = path / "__init__.py", [str(path)]
    if own.is_file():
        return importlib.util.spec_from_file_location(name, own, submodule_search_locations=places)
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = places
    return spec


def _in_folders(name: str, folders: list[str]) -> ModuleSpec | None:
    found = PathFinder.find_spec(name, folders)
    if found is not None and found.origin is None and found.submodule_search_locations is not None:
        # a list: it would be looked up again
        found.submodule_search_locations = list(found.submodule_search_locations)
    return found


def _by_other_finders(name: str) -> ModuleSpec | None:
    """Ask the finders that an editable install puts in."""
    for finder in sys.meta_path:
        if finder is PathFinder or not hasattr(finder, "find_spec"):
            continue
        try:
            found = finder.find_spec(name, None)
        except Exception:  # noqa: BLE001, S112 - somebody's finder; the import itself fails later
            continue
        if found is not None:
            return found
    return None


def _own_spec(spec: ModuleSpec) -> bool:
    if spec.origin is not None:
        return spec.has_location and own_file(spec.origin)
    return any(own_file(place) for place in spec.submodule_search_locations or ())


def closure(start: Iterable[Source], finder: Finder) -> dict[str, Path]:
    """Return the files of all own modules that some modules import, directly or not, by name; they included.

    A package's own file that holds nothing is left out: it does nothing.
    """
    found: dict[str, Path] = {}
    todo = list(start)
    first = {source.name for source in todo}
    while todo:
        source = todo.pop()
        if source.name in found:
            continue
        found[source.name] = source.path
        others = (finder.source(name) for name in _names(source, finder) if name not in found)
        todo += [other for other in others if other is not None]
        todo += _named_files(source)
    return {name: path for name, path in found.items() if name in first or not idle(path)}


def address(main: Source, files: Mapping[str, Path]) -> tuple[str, dict[str, str]]:
    """Return a module's address and its parts: the SHA-256 of each file, by name.

    A module that imports nothing of the user's own has the hash of its file's bytes as its address.
    """
    top, dot, _ = main.name.partition(".")
    parts = {name: sha256(path) for name, path in files.items()}
    lines, shown = [], {main.path.name: parts[main.name]}
    for name in sorted(set(parts) - {main.name}):
        inside = dot and (name == top or name.startswith(f"{top}."))
        said = f".{name.removeprefix(top)}" if inside else name  # the folder of a package may have any name
        lines.append(f"{said} {parts[name]}")
        shown[_shown(name, files[name])] = parts[name]
    whole = hashlib.sha256("\n".join([parts[main.name], *lines]).encode()).hexdigest()
    return whole if lines else parts[main.name], shown


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def relative_level(path: Path) -> int:
    """Return how many folders up the relative imports of a file reach: 0 where it has none."""
    return max(
        (node.level for node in _imports(_content(path)) if isinstance(node, ast.ImportFrom)), default=0
    )


def _shown(name: str, path: Path) -> str:
    words = name.replace(".", "/")
    return f"{words}/{path.name}" if path.name == "__init__.py" else f"{words}{path.suffix}"


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.suffix == ".py" else b""


def idle(path: Path) -> bool:
    """Whether a file is a package's own and does nothing: empty, or a docstring."""
    if path.name != "__init__.py":
        return False
    tree = _parsed(_content(path))
    return tree is not None and all(
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in tree.body
    )


def _names(source: Source, finder: Finder) -> Iterator[str]:
    """Yield the full names of all modules that a file may import, their packages first."""
    yield from _above(source.name)
    for node in _imports(_content(source.path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_above(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node.module or "", node.level, source.package)
            if base:
                yield from _with_above(base)
            yield from (f"{base}.{alias.name}".lstrip(".") for alias in node.names)
        else:
            yield from _called(node, source, finder)


def _named_files(source: Source) -> list[Source]:
    """Return the files that a text in a file names, as "parts.py" for `runpy` or `exec`, where they are beside it."""
    found = []
    for text in _texts(_content(source.path)):
        path = source.path.parent / text
        if path.is_file() and path != source.path and own_file(str(path)):
            found.append(Source(text.removesuffix(".py").replace(".", "_"), path, ""))
    return found


@lru_cache(maxsize=512)
def _texts(content: bytes) -> tuple[str, ...]:
    tree = _parsed(content)
    constants = () if tree is None else (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant))
    return tuple(sorted({c for c in constants if isinstance(c, str) and _FILE.fullmatch(c)}))


def _called(call: ast.Call, source: Source, finder: Finder) -> Iterator[str]:
    """Yield what `import_module(...)` or `__import__(...)` may import."""
    given = call.args[0] if call.args else None
    if isinstance(given, ast.Constant) and isinstance(given.value, str):
        name = given.value
        level = len(name) - len(name.lstrip("."))
        yield from _with_above(absolute(name.lstrip("."), level, source.package))
        return
    yield from _beside(source, finder)


def _beside(source: Source, finder: Finder) -> Iterator[str]:
    """Yield all modules of a file's folder, by the names that an import would use."""
    for path in sorted(source.path.parent.rglob("*.py")):
        below = path.relative_to(source.path.parent).with_suffix("").parts
        if len(below) > _DEEPEST or any(part.startswith(".") for part in below):
            continue
        name = ".".join(below[:-1] if below[-1] == "__init__" else below)
        for each in (name, f"{source.package}.{name}"):
            if name and (found := finder.source(each)) is not None and found.path == path:
                yield each
                break


def _with_above(name: str) -> Iterator[str]:
    yield from _above(name)
    yield name


def _above(name: str) -> Iterator[str]:
    words = name.split(".")
    return (".".join(words[:i]) for i in range(1, len(words)))


@lru_cache(maxsize=512)
def _parsed(content: bytes) -> ast.Module | None:
    try:
        return parsed(content)
    except (SyntaxError, ValueError):  # importing it says so, later
        return None


@lru_cache(maxsize=512)
def _imports(content: bytes) -> Sequence[ast.Import | ast.ImportFrom | ast.Call]:
    tree = _parsed(content)
    return () if tree is None else tuple(_walk(tree, frozenset(_importers(tree))))


def _importers(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a file has for the functions which import: `from importlib import import_module as load`."""
    yield from _DYNAMIC
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from (alias.asname for alias in node.names if alias.name in _DYNAMIC and alias.asname)
        elif isinstance(node, ast.Assign) and _callee(node.value) in _DYNAMIC:
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def _walk(node: ast.AST, importers: frozenset[str]) -> Iterator[ast.Import | ast.ImportFrom | ast.Call]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and _for_type_checkers(child.test):
            for other in child.orelse:
                yield from _walk(ast.Module([other], []), importers)
            continue
        if isinstance(child, ast.Import | ast.ImportFrom) or (
            isinstance(child, ast.Call) and _callee(child.func) in importers
        ):
            yield child
        yield from _walk(child, importers)


def _for_type_checkers(test: ast.expr) -> bool:
    return _callee(test) == "TYPE_CHECKING"


def _callee(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
