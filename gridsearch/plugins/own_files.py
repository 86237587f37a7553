"""The files of a user's own plug-in, for a machine that has none of them: all that its address covers.

Stands beside `source_files`, which finds them.  Their places relative to each other decide what imports what, so they
travel by their absolute paths, with the packages' own files above them.
"""

from __future__ import annotations

import importlib.metadata
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gridsearch.importing import importable
from gridsearch.plugins import source_files
from gridsearch.plugins.file_loader import load_file
from gridsearch.plugins.loaded_source import as_written
from gridsearch.plugins.ownership import own_module

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from gridsearch.plugins.lookup import Plugin


@dataclass(frozen=True, slots=True)
class OwnFiles:
    """Files, and the folders from which modules among them are imported.

    Attributes:
        paths: absolute.
        roots: absolute folders, in the order of a search.
    """

    paths: frozenset[Path] = field(default_factory=frozenset)
    roots: tuple[Path, ...] = ()


def own_files(found: Iterable[Plugin], group: str) -> OwnFiles:
    """Return the files of plug-ins' own code; none of what is installed.

    A plug-in of the session alone travels by value: with it go the files of all own modules that it may refer to by
    their names, which are those that the session has imported.

    Args:
        found: models, or a function.
        group: their entry points' group.
    """
    paths: set[Path] = set()
    roots: dict[Path, None] = {}
    for plugin in found:
        where, colon, _ = importable_locator(plugin, group).rpartition(":")
        if not plugin.locator:
            modules = dict(_loaded())
        elif where.endswith(".py"):
            modules = load_file(Path(where)).files
        elif colon:
            finder = source_files.Finder()
            source = finder.source(where)
            modules = {} if source is None else source_files.closure([source], finder)
        else:
            continue
        paths |= {path.absolute() for path in modules.values()}
        own_folder = Path(where).parent.absolute() if where.endswith(".py") else None
        roots |= {root: None for root in _roots(modules) if root != own_folder or str(root) in sys.path}
    paths |= {init for path in paths for init in _packages(path)}
    return OwnFiles(frozenset(paths), tuple(sorted(roots, key=_order)))


def importable_locator(plugin: Plugin, group: str) -> str:
    """Return the locator by which a machine that has the files finds a plug-in: of an own entry point, its module."""
    if plugin.source is None or ":" in plugin.locator or not plugin.locator:
        return plugin.locator
    for entry in importlib.metadata.entry_points(group=group):
        if entry.name == plugin.locator:
            return f"{entry.module}:{entry.attr}"
    return plugin.locator


def located_in(locators: Mapping[str, str], place: Path) -> dict[str, str]:
    """Return locators of files by the places that these have below another folder; others as they are."""
    return {name: located(locator, place) for name, locator in locators.items()}


def located(locator: str, place: Path) -> str:
    """Return the locator of a file by its place below another folder, if it is there; else the locator."""
    where, colon, attribute = locator.rpartition(":")
    if not where.endswith(".py") or not (there := below(place, Path(where))).is_file():
        return locator
    return f"{there}{colon}{attribute}"


def below(place: Path, path: Path) -> Path:
    """Return where a file with an absolute path lies below another folder."""
    return place.joinpath(*path.parts[1:])


def _loaded() -> Iterator[tuple[str, Path]]:
    """Yield the own modules of this session that a worker imports by name, with their files."""
    known: dict[str, bool] = {}
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if path and own_module(module) and importable(name, known) and as_written(module):
            yield name, Path(path)


def _roots(modules: Mapping[str, Path]) -> Iterator[Path]:
    """Yield the folders from which an import of each module's name finds its file."""
    for name, path in modules.items():
        words = name.split(".")
        place = path.absolute().parent if path.name == "__init__.py" else path.absolute().with_suffix("")
        inside = [part.partition(".")[0] for part in place.parts[-len(words) :]]
        if inside == words:
            yield place.parents[len(words) - 1]


def _packages(path: Path) -> Iterator[Path]:
    """Yield the own files of the packages that a file lies in."""
    for folder in path.parents:
        init = folder / "__init__.py"
        if not init.is_file():
            break
        yield init


def _order(root: Path) -> int:
    return sys.path.index(str(root)) if str(root) in sys.path else len(sys.path)
