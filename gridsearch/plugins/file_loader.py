"""Loads a plug-in's file with modules of its own: two files may each have their `blocks.py` in one process.

A file is loaded as a module of a package that exists for it alone, and what it imports from its user's own folders
becomes a part of that package.  The import statements of this code, wherever they stand, ask that package first,
through a builtin `__import__` that no other code sees.  Installed modules are shared, as ever.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import importlib.util
import re
import sys
import threading
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from gridsearch.errors import PluginError
from gridsearch.plugins import source_files
from gridsearch.plugins.arithmetic import computing, set_here
from gridsearch.plugins.fresh_state import FreshState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NO_NAME = re.compile(r"\W")
_LOCK = threading.RLock()
_LOADED: dict[tuple[str, str], OwnModules] = {}
_PACKAGES: dict[str, OwnModules] = {}


def load_file(path: Path) -> OwnModules:
    """Load a file, once as long as nothing that it imports has changed.

    Raises:
        FileNotFoundError: there is no such file.
        BaseException: whatever its code raises.
    """
    return _load(path, *_place(path))


def load_module(name: str, path: Path) -> OwnModules:
    """Load a module of `sys.path` anew, beside the one of that name that the session has imported."""
    return _load(path, name, source_files.Finder())


def renew(target: Any) -> None:
    """Let the modules of a plug-in's file hold what they held when they had been imported, see `fresh_state`."""
    package = str(getattr(target, "__module__", "")).partition(".")[0]
    if (own := _PACKAGES.get(package)) is not None:
        for each in own.fresh:
            each.restore()


def _load(path: Path, name: str, finder: source_files.Finder) -> OwnModules:
    with _LOCK:
        seen = _LOADED.get((name, str(path)))
        if seen is not None and seen.unchanged():
            return seen
        package = f"gridsearch_plugin_{name.replace('.', '_')}_{_digest(path)}_{len(_PACKAGES)}"
        loaded = OwnModules(package=package, name=name, path=path, finder=finder)
        loaded.load()
        _LOADED[name, str(path)] = loaded
        return loaded


def _place(path: Path) -> tuple[str, source_files.Finder]:
    """Return the name of a file's module, and what finds its imports; its own folder comes first."""
    stem = _NO_NAME.sub("_", path.stem)
    level = source_files.relative_level(path)
    finder = source_files.Finder(path=[str(path.parent)], fixed={} if level else {stem: path})
    if not level:
        return stem, finder
    above = path.parents
    packages = next((i for i, each in enumerate(above) if not (each / "__init__.py").is_file()), 0)
    outermost = above[min(max(level, packages), len(above)) - 1]
    top = _NO_NAME.sub("_", outermost.name) or "_"
    finder.fixed[top] = outermost
    finder.path.append(str(outermost.parent))
    name = ".".join([top, *path.relative_to(outermost).parts[:-1], stem])
    finder.fixed[name] = path
    return name, finder


def _digest(path: Path) -> str:
    return hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:8]


@dataclass(slots=True, kw_only=True, eq=False)
class OwnModules:
    """The modules of one plug-in's file.

    Attributes:
        package: name of the package that they are loaded into.
        name: the file's module as its siblings would import it.
        path: the file.
        finder: finds what it imports.
        source: the address: of the file, or of it and all that it imports from own folders.
        parts: SHA-256 of each file, by its name.
        arithmetic: how it set the process to compute, see `arithmetic`.
        fresh: what its modules held when they had been imported.
    """

    package: str
    name: str
    path: Path
    finder: source_files.Finder
    source: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    arithmetic: Mapping[str, Any] = field(default_factory=dict)
    fresh: list[FreshState] = field(default_factory=list)
    _files: dict[str, Path] = field(default_factory=dict)
    _run: dict[str, str] = field(default_factory=dict)
    _foreign: set[tuple[str, ...]] = field(default_factory=set)
    _settled: bool = False

    @property
    def module(self) -> ModuleType:
        """The file's module."""
        return sys.modules[f"{self.package}.{self.name}"]

    @property
    def files(self) -> dict[str, Path]:
        """The files of all its modules that were run or are imported later, by the modules' names."""
        return dict(self._files)

    def load(self) -> None:
        """Run the file; what it adds to `sys.path` becomes its own, and the session's stays as it was."""
        root = ModuleType(self.package)
        root.__path__ = []
        root.__spec__ = ModuleSpec(self.package, None, is_package=True)
        sys.modules[self.package] = root
        _PACKAGES[self.package] = self
        if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
            sys.meta_path.insert(0, _Finder())
        before = list(sys.path)
        try:
            with computing():
                importlib.import_module(f"{self.package}.{self.name}")
                self.arithmetic = set_here()
        except BaseException:
            self._forget()
            raise
        finally:
            self.finder.path += [entry for entry in sys.path if entry not in before]
            sys.path[:] = before
        self._settle()

    def owns(self, name: str) -> bool:
        """Whether a name, as an import statement has it, is one of these modules."""
        top = name.partition(".")[0]
        if f"{self.package}.{top}" in sys.modules:
            return True
        question = (top, *sys.path)
        if question not in self._foreign and self.finder.spec(top) is None:
            self._foreign.add(question)
        return question not in self._foreign

    def spec(self, full: str, path: Sequence[str] | None) -> ModuleSpec | None:
        """Return the spec of one of these modules by the name under which it is loaded."""
        name = full.removeprefix(f"{self.package}.")
        if "." not in name or path is None:
            found = self.finder.spec(name)
        else:
            found = PathFinder.find_spec(full, path)
        if found is None:
            return None
        if found.origin is None:
            spec = ModuleSpec(full, None, is_package=True)
            spec.submodule_search_locations = list(found.submodule_search_locations or ())
            return spec
        if not found.origin.endswith(".py"):
            return importlib.util.spec_from_file_location(full, found.origin)
        return importlib.util.spec_from_file_location(
            full,
            found.origin,
            loader=_Loader(full, found.origin, self),
            submodule_search_locations=found.submodule_search_locations,
        )

    def note(self, full: str, path: str, content: bytes) -> None:
        """Take note of what a module's code is when it is run.

        Raises:
            PluginError: it is imported late, and is not what the address says.
        """
        name, digest = full.removeprefix(f"{self.package}."), hashlib.sha256(content).hexdigest()
        if self._settled:
            if name in self._files and self._run.get(name) not in (None, digest):
                raise PluginError(f"{path} has changed since the run began", hint="run again")
            if name not in self._files and not source_files.idle(Path(path)):
                raise PluginError(
                    f"{self.path.name} imports {path} in a way that cannot be foreseen, so its results have no address",
                    hint=f"write `import {name}` at the top of {self.path.name}",
                )
        self._run[name] = digest
        self._files.setdefault(name, Path(path))

    def unchanged(self) -> bool:
        """Whether all files are still what was loaded, and the file would import the same ones."""
        try:
            source, _, _ = self._address()
        except OSError:
            return False
        return source == self.source

    def imported(self, name: str, given: tuple[Any, Any], fromlist: Sequence[str]) -> Any:
        """Import one of these modules; see `__import__` for what is returned."""
        try:
            found = _import(f"{self.package}.{name}", *given, fromlist or (), 0)
        except ModuleNotFoundError as error:
            error.msg = error.msg.replace(f"{self.package}.", "")
            error.name = (error.name or "").replace(f"{self.package}.", "")
            error.args = (error.msg,)
            raise
        return found if fromlist else sys.modules[f"{self.package}.{name.partition('.')[0]}"]

    def code_builtins(self) -> dict[str, Any]:
        """Return the builtins of this code: the usual ones, with an import that asks these modules first."""

        def own_import(
            name: str,
            globals: Any = None,  # noqa: A002 - the names that `__import__` has
            locals: Any = None,  # noqa: A002
            fromlist: Any = (),
            level: int = 0,
        ) -> Any:
            if level == 0 and self.owns(name):
                return self.imported(name, (globals, locals), fromlist)
            found = _import(name, globals, locals, fromlist, level)
            if level == 0 and name.partition(".")[0] == "importlib":
                return self._importlib(found)
            return found

        return {**vars(builtins), "__import__": own_import}

    def _importlib(self, found: ModuleType) -> ModuleType:
        """Return importlib with an `import_module` that asks these modules first."""
        if found is not importlib:
            return found
        shown = ModuleType("importlib", importlib.__doc__)
        vars(shown).update(vars(importlib))

        def import_module(name: str, package: str | None = None) -> ModuleType:
            if not name.startswith(".") and self.owns(name):
                self.imported(name, (None, None), ())
                return sys.modules[f"{self.package}.{name}"]
            return importlib.import_module(name, package)

        vars(shown)["import_module"] = import_module
        return shown

    def _settle(self) -> None:
        """Fix the address: the files that were run, and those that are imported later."""
        self.source, self.parts, files = self._address()
        for name, path in files.items():
            digest = source_files.sha256(path)
            if self._run.setdefault(name, digest) != digest:
                raise PluginError(f"{path} has changed while it was loaded", hint="run again")
        self._files |= files
        self._settled = True

    def _address(self) -> tuple[str, dict[str, str], dict[str, Path]]:
        start = [self.finder.source(self.name) or source_files.Source(self.name, self.path, "")]
        start += [
            source
            for name, path in self._files.items()
            if name != self.name
            and not source_files.idle(path)
            and (source := self.finder.source(name)) is not None
        ]
        files = source_files.closure(start, self.finder)
        return *source_files.address(start[0], files), files

    def _forget(self) -> None:
        _PACKAGES.pop(self.package, None)
        for name in [n for n in sys.modules if n == self.package or n.startswith(f"{self.package}.")]:
            del sys.modules[name]


_import = builtins.__import__


class _Finder:
    """Finds the modules of plug-ins' packages, and no others."""

    @staticmethod
    def find_spec(full: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:  # noqa: ARG004
        package, dot, _ = full.partition(".")
        own = _PACKAGES.get(package)
        return own.spec(full, path if full.count(".") > 1 else None) if own is not None and dot else None


class _Loader(SourceFileLoader):
    """Runs a file's bytes as they are now: compiled code that was kept may be of an earlier second's."""

    def __init__(self, fullname: str, path: str, own: OwnModules) -> None:
        super().__init__(fullname, path)
        self._own = own

    def get_code(self, fullname: str) -> CodeType:
        """Return the code of what the file holds, which is noted."""
        content = self.get_data(self.path)
        self._own.note(fullname, self.path, content)
        code: CodeType = self.source_to_code(content, self.path)
        return code

    def exec_module(self, module: ModuleType) -> None:
        """Run the file, with its own import."""
        vars(module)["__builtins__"] = self._own.code_builtins()
        super().exec_module(module)
        self._own.fresh.append(FreshState(module))
