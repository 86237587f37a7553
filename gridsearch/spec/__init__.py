"""First stage of the flow: what was written becomes a checked `StudySpec`, and that becomes trials.

The names are lazy (PEP 562): the axes' table and the grid need no pydantic, and `--help` needs neither.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gridsearch.spec.axes import (
        ALIASES as ALIASES,
    )
    from gridsearch.spec.axes import (
        AXES as AXES,
    )
    from gridsearch.spec.axes import (
        FUSIBLE as FUSIBLE,
    )
    from gridsearch.spec.axes import (
        SHAPING as SHAPING,
    )
    from gridsearch.spec.axes import (
        axis_of as axis_of,
    )
    from gridsearch.spec.axes import (
        canonical as canonical,
    )
    from gridsearch.spec.axes import (
        differing as differing,
    )
    from gridsearch.spec.axes import (
        varying as varying,
    )
    from gridsearch.spec.axis_values import coerce as coerce
    from gridsearch.spec.expand import Expansion as Expansion
    from gridsearch.spec.expand import Resolver as Resolver
    from gridsearch.spec.expand import expand_study as expand_study
    from gridsearch.spec.grid import Grid as Grid
    from gridsearch.spec.grid import GridPoint as GridPoint
    from gridsearch.spec.recipe import Recipe as Recipe
    from gridsearch.spec.study import StudySpec as StudySpec
    from gridsearch.spec.study import build as build
    from gridsearch.spec.study_file import StudyFile as StudyFile
    from gridsearch.spec.study_file import load_toml as load_toml
    from gridsearch.spec.study_names import check_study_name as check_study_name
    from gridsearch.spec.study_names import default_name as default_name

_HOMES = {
    "axes": "ALIASES AXES FUSIBLE SHAPING axis_of canonical differing varying",
    "expand": "Expansion Resolver expand_study",
    "study_file": "StudyFile load_toml",
    "grid": "Grid GridPoint",
    "study_names": "check_study_name default_name",
    "recipe": "Recipe",
    "study": "StudySpec build",
    "axis_values": "coerce",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605  (made from the same table as the look-up)


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
