"""What may vary: every axis and recipe key with its type, range and default; a spec is read by this table.

It serves the grid, the recipe, the study file, the store's columns (a kind per axis) and the planner
(which axes may differ inside a pack); `values` reads words and numbers by it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gridsearch.errors import SpecError, nearest
from gridsearch.records import DATA_PREFIX, MODEL_PREFIX, Settings, Value
from gridsearch.spec.collector import InvalidValue, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import TypeAlias

    Shape: TypeAlias = tuple[tuple[str, tuple[bool, Value]], ...]

LARGEST_INT = 2**63 - 1
"""Whole numbers are stored in 64 bits."""

SEED = "seed"

RESERVED_PARAMS = ("objective", "objective_source", "objective_version", "code_version")
"""What is told of a function beside its params; no param may bear such a name."""

_OPTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class AxisKind(StrEnum):
    """How the values of an axis are typed and stored."""

    FLOAT = "float"
    INT = "int"
    BOOL = "bool"
    CATEGORICAL = "categorical"


class AxisScope(StrEnum):
    """Where an axis may be given."""

    GRID = "grid"
    """In the grid, or fixed in the recipe."""
    RECIPE = "recipe"
    """In the recipe alone: one value for the whole study."""
    STUDY = "study"
    """As an option of its own, or at the top of a study file."""
    DERIVED = "derived"
    """By nobody: found out from the plug-ins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis or recipe key.

    Attributes:
        low: smallest value, or (if `low_open`) the bound that must be exceeded; likewise `high`.
        choices: the words of a categorical axis; empty where any word will do.
        nullable: whether `none` is a value.
        free: an option of a model or dataset, or a param of a function: any number, word, true, false or none.
        fusible: whether trials of one pack may differ in it.
    """

    name: str
    kind: AxisKind
    help: str
    default: Value = None
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    choices: tuple[str, ...] = ()
    nullable: bool = False
    free: bool = False
    fusible: bool = False
    scope: AxisScope = AxisScope.GRID

    @property
    def numeric(self) -> bool:
        """Whether its values are numbers."""
        return self.kind in (AxisKind.FLOAT, AxisKind.INT)


def _float(name: str, default: float | None, text: str, **more: Any) -> Axis:
    return Axis(name=name, kind=AxisKind.FLOAT, default=default, help=text, **{"low": 0.0} | more)


def _int(name: str, default: int | None, text: str, **more: Any) -> Axis:
    return Axis(
        name=name, kind=AxisKind.INT, default=default, help=text, **{"low": 1, "high": LARGEST_INT} | more
    )


def _bool(name: str, text: str, **more: Any) -> Axis:
    return Axis(name=name, kind=AxisKind.BOOL, default=False, help=text, **more)


def _word(name: str, choices: str, text: str, **more: Any) -> Axis:
    words = tuple(choices.split())
    return Axis(
        name=name,
        kind=AxisKind.CATEGORICAL,
        help=text,
        **{"default": words[0] if words else None, "choices": words} | more,
    )


_TABLE = (
    _float("lr", 0.001, "learning rate", low_open=True, fusible=True),
    _int("batch", 64, "images per step"),
    _word("norm", "none standard", "normalization of the input", default="standard", fusible=True),
    _word("optimizer", "sgd adam adamw nadam rmsprop", "optimizer", default="adam"),
    _float("weight_decay", 0.0, "weight decay", fusible=True),
    _float("momentum", 0.0, "momentum of sgd", high=1.0, high_open=True, fusible=True),
    _bool("nesterov", "Nesterov's form of sgd's momentum", fusible=True),
    _word("schedule", "constant step cosine onecycle", "course of the learning rate", fusible=True),
    _float("warmup", 0.0, "epochs of linear warm-up", fusible=True),
    _float(
        "dropout",
        None,
        "rate of every dropout layer; none leaves the model's own",
        high=1.0,
        high_open=True,
        nullable=True,
        fusible=True,
    ),
    _float("label_smoothing", 0.0, "label smoothing", high=1.0, high_open=True, fusible=True),
    _word("augment", "none flip shift flip+shift erase", "augmentation, on the device"),
    _word("model", "", "model, by name or as file.py:Name", default="lenet"),
    _int("epochs", 10, "passes over the training split", fusible=True),
    _bool("drop_last", "leave out an epoch's last, smaller batch"),
    _float(
        "ema",
        0.0,
        "decay of the moving average of the weights that is evaluated; 0: the last weights",
        high=1.0,
        high_open=True,
        fusible=True,
    ),
    _word("select", "last best", "the epoch that counts", fusible=True),
    _word("dtype", "float32 float64 bfloat16 tf32", "arithmetic"),
    _int("split_seed", 0, "seed of the test, validation and subset splits", low=0, scope=AxisScope.RECIPE),
    _int(SEED, 0, "replicate", low=0, fusible=True),
    _float(
        "val",
        1 / 6,
        "fraction of train held out for validation",
        high=1.0,
        high_open=True,
        scope=AxisScope.STUDY,
    ),
    _int(
        "subset",
        None,
        "train on that many images of the training split",
        nullable=True,
        scope=AxisScope.STUDY,
    ),
    _word(
        "dataset",
        "",
        "dataset, by name, folder:PATH or file.py:Name",
        default="fmnist",
        scope=AxisScope.STUDY,
    ),
    _word("data_fingerprint", "", "SHA-256 of the data", default="", scope=AxisScope.DERIVED),
    _word("model_source", "", "SHA-256 of the model's file", nullable=True, scope=AxisScope.DERIVED),
    _word("code_version", "", "version of the user's own code", nullable=True, scope=AxisScope.DERIVED),
)

AXES: Mapping[str, Axis] = MappingProxyType({axis.name: axis for axis in _TABLE})
"""Every axis and recipe key by name; options (`model.NAME`, `data.NAME`) come besides, see `axis_of`."""

ALIASES: Mapping[str, str] = MappingProxyType(
    {"learning_rate": "lr", "batch_size": "batch", "normalization": "norm"}
)

FUSIBLE = frozenset(name for name, axis in AXES.items() if axis.fusible)
"""What trials of one pack may differ in, seed included; the planner and the lanes both go by it."""

SHAPING = frozenset(AXES) - FUSIBLE
"""What trials of one pack share; the options of the model and of the dataset (`model.*`, `data.*`) too."""


def canonical(name: str, *, free: bool = False) -> str:
    """Return the name of an axis for any of its names; an unknown one, and a function's, is returned as it is."""
    return name if free else ALIASES.get(name, name)


def is_option(name: str) -> bool:
    """Whether this is an option of the model or the dataset ("model.width")."""
    return name.startswith((MODEL_PREFIX, DATA_PREFIX))


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
            help=f"option of the {'model' if owner == 'model' else 'dataset'}",
        )
    scopes = (AxisScope.GRID,) if noun == "axis" else (AxisScope.GRID, AxisScope.RECIPE)
    known = [a.name for a in _TABLE if a.scope in scopes and (noun == "axis" or a.name != SEED)]
    near = nearest(name, [*known, *ALIASES])
    if "known:" in near:
        near += "; an option of the model is model.NAME, a function's params need --objective FILE.py:NAME"
    raise InvalidValue(f"unknown {noun} {shortened(name)!r}{near}")


def _param(name: str) -> Axis:
    if not _OPTION.fullmatch(name):
        raise InvalidValue(f"{shortened(name)!r} names no param: letters, digits and '_' alone")
    if name in RESERVED_PARAMS:
        raise InvalidValue(f"{name!r} cannot be a param: the study itself is described by it")
    return Axis(name=name, kind=AxisKind.CATEGORICAL, free=True, nullable=True, help="param of the objective")


def same(one: Value, other: Value) -> bool:
    """Whether two values are the same value: 1 and 1.0 are, 1 and True are not."""
    return identity(one) == identity(other)


def identity(value: Value) -> tuple[bool, Value]:
    """Return what tells values apart in sets and mappings, where True would pass for 1."""
    return isinstance(value, bool), value


def differing(one: Settings, other: Settings) -> tuple[str, ...]:
    """Return the names of the settings in which two points differ, in the order of `Settings.flat`."""
    return varying((one, other))


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


def shape_of(settings: Settings) -> Shape:
    """Return all shaping settings: trials may share a pack where these are equal, and nowhere else.

    Trials of a function run one after another in a pack, whatever they differ in.
    """
    if settings.objective is not None:
        return (("objective", (False, settings.objective)),)
    flat = sorted(settings.flat().items())
    return tuple((name, identity(value)) for name, value in flat if name not in FUSIBLE)
