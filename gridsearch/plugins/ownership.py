"""Whose code is whose: what lies in a user's own folders, and what is installed.

Own code changes from one run to the next, and so its content belongs to a trial's address.  What is installed
(the standard library, site-packages, this program) is named, and not read.
"""

from __future__ import annotations

import sys
import sysconfig
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

_INSTALLED_FOLDERS = frozenset({"site-packages", "dist-packages"})
_PROGRAM = str(Path(__file__).parent.parent)


def own_file(path: str | None) -> bool:
    """Whether a file (or a folder of a package) is a user's own."""
    if not path or path.startswith("<") or path in ("built-in", "frozen"):
        return False
    return _own(str(path))


def own_module(module: ModuleType) -> bool:
    """Whether a loaded module is a user's own: of a file of theirs, or made by hand.

    The main module and one that was made at run time have no file that would say what is in them.
    """
    top = name_of(module).partition(".")[0]
    path = file_of(module)
    if path is not None:
        outermost = file_of(sys.modules.get(top))
        return own_file(path) and (outermost is None or own_file(outermost))
    if top in sys.stdlib_module_names and top != "__main__":
        return False
    spec = getattr(module, "__spec__", None)
    places = getattr(spec, "submodule_search_locations", None)
    if places is not None:  # a package without a file of its own
        return any(own_file(place) for place in list(places))
    return spec is None or getattr(spec, "origin", None) not in ("built-in", "frozen")


def main_or_own(module: ModuleType) -> bool:
    """Whether a loaded module is the session's main module or a user's own."""
    return name_of(module) == "__main__" or own_module(module)


def file_of(module: object) -> str | None:
    """Return the file that a loaded module was made from; anything may stand in `sys.modules`, and say anything."""
    path = getattr(module, "__dict__", {}).get("__file__")
    return path if isinstance(path, str) else None


def name_of(module: object) -> str:
    """Return a module's name, "" of something that has none."""
    name = getattr(module, "__dict__", {}).get("__name__")
    return name if isinstance(name, str) else ""


@lru_cache(maxsize=4096)
def _own(path: str) -> bool:
    absolute = Path(path).absolute()
    if _INSTALLED_FOLDERS.intersection(absolute.parts) or absolute.is_relative_to(_PROGRAM):
        return False
    if any(absolute.is_relative_to(folder) for folder in _standard_library()):
        return False
    return not any(_holds_packages(str(parent)) for parent in (absolute.parent, absolute.parent.parent))


@lru_cache
def _standard_library() -> tuple[str, ...]:
    places = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    return tuple(p for p in places if p)


@lru_cache(maxsize=1024)
def _holds_packages(folder: str) -> bool:
    """Whether a folder was filled by an installer (`pip install --target`), wherever it lies."""
    try:
        return any(entry.name.endswith(".dist-info") for entry in Path(folder).iterdir())
    except OSError:
        return False
