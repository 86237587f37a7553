"""What may vary: every axis and recipe key by name, as `ImageSettings` declares it; a spec is read by this table.

It serves the grid, the recipe, the study file, the store's columns (a kind per axis) and the planner
(which axes may differ inside a pack); `axis_values` reads words and numbers by it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from gridsearch.errors import SpecError, nearest
from gridsearch.records import DATA_PREFIX, MODEL_PREFIX, OPTIMIZER_PREFIX
from gridsearch.records.axis import WHOLE, Axis, AxisKind, AxisScope, identity
from gridsearch.records.image_settings import KEYS
from gridsearch.spec.collector import InvalidValue, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gridsearch.records import Settings

SEED = "seed"

RESERVED_PARAMS = ("objective", "objective_source", "objective_version", "code_version")
"""Names that describe a function beside its params; no param may have one of them."""

_OPTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


AXES: Mapping[str, Axis] = MappingProxyType(
    {
        axis.name: axis
        for axis in (
            *KEYS,
            Axis(name=SEED, kind=AxisKind.INT, default=0, help="replicate", bounds=WHOLE, fusible=True),
        )
    }
)
"""Every axis and recipe key by name; options (`model.NAME`, `data.NAME`, `optimizer.NAME`) are none, see `axis_of`."""

ALIASES: Mapping[str, str] = MappingProxyType({axis.alias: axis.name for axis in AXES.values() if axis.alias})

FUSIBLE = frozenset(name for name, axis in AXES.items() if axis.fusible)
"""What trials of one pack may differ in, seed included; the planner and the lanes both go by it."""

SHAPING = frozenset(AXES) - FUSIBLE
"""What trials of one pack share; the options of the model and of the dataset (`model.*`, `data.*`) too."""


def canonical(name: str, *, free: bool = False) -> str:
    """Return the name of an axis for any of its names; an unknown one, and a function's, is returned as it is."""
    return name if free else ALIASES.get(name, name)


def is_option(name: str) -> bool:
    """Whether this is an option of the model, the dataset or the optimizer ("model.width")."""
    return name.startswith((MODEL_PREFIX, DATA_PREFIX, OPTIMIZER_PREFIX))


def axis_of(name: str) -> Axis:
    """Return the axis of this name or alias; an option of a model or dataset gives a free-typed one.

    Raises:
        SpecError: there is no such axis; names the nearest.
    """
    try:
        return find_axis(name)
    except InvalidValue as wrong:
        raise SpecError([str(wrong)]) from None


@lru_cache(maxsize=4096)
def find_axis(name: str, *, noun: str = "axis", free: bool = False) -> Axis:
    """Do what `axis_of` does, but raise `InvalidValue`, to which the caller adds the place.

    Args:
        name: a name or alias.
        noun: what the message calls an unknown name, and so what it offers: an "axis" or a "key" of the
            recipe.
        free: whether it is a param of a function, which may bear any name.
    """
    if free and name != SEED:
        return _param(name)
    name = canonical(name)
    if name in AXES:
        return AXES[name]
    if is_option(name):
        owner, _, option = name.partition(".")
        if not _OPTION.fullmatch(option):
            raise InvalidValue(f"{shortened(name)!r} names no option: {owner}.NAME, with a Python name")
        return Axis(
            name=name,
            kind=AxisKind.CATEGORICAL,
            free=True,
            nullable=True,
            help=f"option of the {'dataset' if owner == 'data' else owner}",
        )
    scopes = (AxisScope.GRID,) if noun == "axis" else (AxisScope.GRID, AxisScope.RECIPE)
    known = [a.name for a in AXES.values() if a.scope in scopes and (noun == "axis" or a.name != SEED)]
    near = nearest(name, [*known, *ALIASES])
    if "known:" in near:
        near += "; an option of the model is model.NAME, a function's params need --objective FILE.py:NAME"
    raise InvalidValue(f"unknown {noun} {shortened(name)!r}{near}")


def _param(name: str) -> Axis:
    if not _OPTION.fullmatch(name):
        raise InvalidValue(
            f"{shortened(name)!r} names no param: unaccented Latin letters, digits and '_' alone"
        )
    if name in RESERVED_PARAMS:
        raise InvalidValue(f"{name!r} cannot be a param: the study itself is described by it")
    return Axis(name=name, kind=AxisKind.CATEGORICAL, free=True, nullable=True, help="param of the objective")


def varying(points: Iterable[Settings]) -> tuple[str, ...]:
    """Return the names of the settings that are not the same in all points, in the order of `Settings.flat`.

    An option that some points do not have varies.
    """
    flats = [settings.flat() for settings in points]
    names = dict.fromkeys(name for flat in flats for name in flat)
    missing = object()
    return tuple(
        name
        for name in names
        if len({identity(flat.get(name, missing)) for flat in flats}) > 1  # type: ignore[arg-type]
    )
