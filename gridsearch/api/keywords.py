"""The keywords of the Python functions: each means what the command line's option of its name means.

Both are read by the same code: it stands between the caller's arguments and the spec and options of a run.  Classes,
functions and datasets are handled by `given`.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from gridsearch.api.arguments import SearchArguments
from gridsearch.errors import SpecError, UsageError, nearest
from gridsearch.records.axis import AxisScope
from gridsearch.records.study_kinds import StudyKind, kind_of
from gridsearch.service.prepare.options import DEFAULTS, RUN_OPTIONS, Places, RunOptions
from gridsearch.spec import Grid, Recipe, StudySpec, build
from gridsearch.spec.axes import ALIASES, canonical, find_axis, is_option
from gridsearch.spec.study_file import PLUGINS
from gridsearch.spec.study_options import OPTIONS, changes

T = TypeVar("T")

_RECIPE = frozenset(f.name for f in dataclasses.fields(Recipe)) - {"model", "data", "optimizer_options"}
CHANGING = frozenset(OPTIONS) - {"study", "order", "ignore", *PLUGINS} | {
    "exclude",
    "when",
    "epochs",
    "recipe",
}
"""Arguments that say what is searched, so that they have no place beside the name of a stored study alone."""

_RENAMED = {"set": "recipe", "no_report": "report"}
"""Options of the command line whose argument has another name."""


def as_words(grid: Any) -> Any:
    """Return a text of axes ("lr=.1,.01 batch=32") as the words that it consists of, anything else as it is."""
    return grid.split() if isinstance(grid, str) and "=" in grid and not grid.endswith(".toml") else grid


def settings_of(
    recipe: Any, settings: Mapping[str, Any], *, known: Sequence[str], kind: StudyKind
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the recipe, and the axes among the settings that were given as arguments of their own.

    Args:
        recipe: a mapping, or None.
        settings: arguments that `run` has no parameter for.
        known: the parameters of `run`.
        kind: what the study is of; where its axes have any names, a misspelt argument would pass for one.

    Raises:
        UsageError: an argument that nobody knows, or a setting given twice.
    """
    if recipe is not None and not isinstance(recipe, Mapping):
        raise UsageError(
            f"recipe takes a mapping, not {type(recipe).__name__}", hint='recipe={"optimizer": "sgd", ...}'
        )
    made: dict[str, Any] = dict(recipe or {})
    axes: dict[str, Any] = {}
    there = {canonical(str(name), free=kind.free_axes) for name in made}
    for name, value in settings.items():
        if kind.free_axes:
            hint = f"a param of the {kind.name} stands in recipe={{{name!r}: ...}}, or in the grid"
            raise UsageError(_unknown(name, known), hint=hint)
        if canonical(name) not in _RECIPE and not is_option(name):
            hint = "help(gridsearch.run) lists all arguments"
            raise UsageError(_unknown(name, [*known, *_RECIPE, *ALIASES]), hint=hint)
        if canonical(name) in there:
            raise UsageError(f"{name} is given twice: by itself and in recipe")
        there.add(canonical(name))
        (axes if find_axis(name).scope is AxisScope.GRID else made)[name] = value
    return made, axes


def with_axes(grid: Any, axes: Mapping[str, Any]) -> Any:
    """Return a grid with more axes, as `run` takes one.

    Raises:
        UsageError: an axis that the grid has, or a grid that takes none.
    """
    if not axes:
        return grid
    if grid is None or isinstance(grid, Mapping):
        names = [part.strip() for key in grid or {} for part in str(key).split(",")]
        _refuse_twice(axes, names)
        return {**(grid or {}), **axes}
    if isinstance(grid, Grid):
        _refuse_twice(axes, grid.axes)
        return grid.merged(Grid(axes))
    if isinstance(grid, StudySpec | str | os.PathLike):
        what = "a StudySpec" if isinstance(grid, StudySpec) else "a study file"
        raise UsageError(f"{', '.join(axes)}: given beside {what}", hint="put it there")
    if not isinstance(grid, Sequence) or isinstance(grid, bytes):
        raise _no_grid(grid)
    return [*grid, *Grid(axes).words()]


def _refuse_twice(axes: Mapping[str, Any], names: Sequence[str]) -> None:
    there = {canonical(name) for name in names}
    if twice := [name for name in axes if canonical(name) in there]:
        raise SpecError([f"{name} is given with the grid as well; give only one of them" for name in twice])


def _unknown(name: str, known: Sequence[str]) -> str:
    close = nearest(_RENAMED.get(name, name), known)
    return f"gridsearch.run takes no argument {name!r}" + ("" if close.startswith("; known") else close)


def run_options(given: Mapping[str, Any]) -> RunOptions:
    """Return how to run, of the arguments that say it.

    Args:
        given: arguments by name; None for one that was not given.

    Raises:
        UsageError: a value that the option of that name does not take either.
    """
    values = {n: read(n, given[n]) for n in RUN_OPTIONS if given.get(n) is not None}
    changed = changes({name: given.get(name) for name in ("order", "ignore")})
    command = "gridsearch.run(...) from Python"
    return RunOptions(places=places(given), command=command, changed=changed, **values)


def places(given: Mapping[str, Any]) -> Places:
    """Return where things lie.

    Raises:
        UsageError: `home` is no path, or `store` is no URL.
    """
    home, store = given.get("home"), given.get("store")
    if home is not None and not isinstance(home, str | os.PathLike):
        raise UsageError(f"home must be a path, not {type(home).__name__}")
    if store is not None and not isinstance(store, str):
        raise UsageError(
            f"store must be a URL, not {type(store).__name__}", hint='store="sqlite:////absolute/path.db"'
        )
    return Places.find(None if home is None else os.fspath(home), store)


def read(name: str, value: Any) -> Any:
    """Return what the option of this name makes of a value: of a text, of a number, of a torch.device.

    Raises:
        UsageError: the option does not take it.
    """
    declared = RUN_OPTIONS[name]
    if isinstance(DEFAULTS[name], bool):
        return flag(name, value)
    if declared.many:
        return _words(name, value)
    if declared.time and not isinstance(value, str):
        return _seconds(name, value)
    found = read_word(name, value, declared.read) if declared.read else _word(name, value)
    if declared.choices and found not in declared.choices:
        raise UsageError(f"{name}: unknown {found!r}{nearest(found, declared.choices)}")
    return found


def read_word(name: str, value: Any, reader: Callable[[str], T]) -> T:
    """Return what a reader of the command line's words makes of a value.

    Raises:
        UsageError: the reader does not take it.
    """
    try:
        return reader(_word(name, value))
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"{name}: {error}") from None


def flag(name: str, value: Any, *, default: bool = False) -> bool:
    """Return True or False, the default for None, or raise UsageError."""
    if value is None:
        return default
    if not isinstance(value, bool):
        raise UsageError(f"{name} must be True or False, not {value!r:.60}")
    return value


def study_name(name: Any) -> str:
    """Return the name of a stored study.

    Raises:
        UsageError: it is no text.
    """
    if not isinstance(name, str):
        several = isinstance(name, list | tuple)
        raise UsageError(
            f"study must be a name, not {type(name).__name__}",
            hint='one name; compare takes several: gridsearch.compare("a", "b")' if several else None,
        )
    return name


def where_of(where: Any) -> Mapping[str, Any] | None:
    """Return the values that select trials.

    Raises:
        UsageError: it is no mapping.
    """
    if where is not None and not isinstance(where, Mapping):
        raise UsageError(f"where takes a mapping, not {type(where).__name__}", hint='where={"epochs": 10}')
    return where


def _word(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if type(value).__module__ == "torch" and type(value).__name__ == "device":
        return str(value)
    try:
        if not isinstance(value, bool):
            return str(operator.index(value))
    except TypeError:
        pass
    raise UsageError(
        f"{name}: {value!r:.60} is a {type(value).__name__}, and neither a text nor a whole number"
    )


def _words(name: str, value: Any) -> tuple[str, ...]:
    """Return the words that an option was given, of a mapping "KEY=VALUE" each."""
    if isinstance(value, Mapping):
        return tuple(
            str(key) if given is True else f"{key}={_word(name, given)}" for key, given in value.items()
        )
    return tuple(_several(name, value))


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise UsageError(
            f"{name} must be a time above 0, not {value!r:.60}", hint='a number of seconds, or "1h30m"'
        )
    return number


def spec_of(grid: Any, asked: Mapping[str, Any], recipe: Mapping[str, Any]) -> StudySpec:
    """Return the study that the arguments describe.

    Args:
        grid: a Grid, a mapping, words, a StudySpec, or a study file's path; None for a single point.
        asked: the arguments of `run` that were given, classes and functions by their names.
        recipe: settings by name.

    Raises:
        UsageError: everything that is wrong with them.
    """
    if isinstance(grid, StudySpec):
        given = sorted((set(asked) & set(SearchArguments.__annotations__)) | set(recipe))
        if given:
            raise UsageError(
                f"{', '.join(given)}: given beside a StudySpec", hint="put it into the StudySpec"
            )
        return grid
    options = {name: asked[name] for name in OPTIONS if name in asked}
    rules: dict[str, Any] = {name: _several(name, asked.get(name, ())) for name in ("exclude", "when")}
    kind = kind_of(options)
    if kind.free_axes and "epochs" in asked:
        raise UsageError(f"epochs: {kind.noun} has its own params", hint='recipe={"epochs": ...} sets one')
    epochs = {"epochs": asked["epochs"]} if "epochs" in asked else {}
    if "epochs" in recipe and epochs:
        raise UsageError("epochs is given twice: by itself and in recipe")
    if isinstance(grid, Sequence | os.PathLike) and not isinstance(grid, bytes):
        return _of_words(grid, options, epochs, recipe, rules)
    if isinstance(grid, Grid):
        if any(rules.values()):
            raise UsageError("exclude, when: given beside a Grid", hint="give them to Grid(...)")
        made = grid
    elif grid is None or isinstance(grid, Mapping):
        made = (Grid.of_params if kind.free_axes else Grid)(grid or {}, **rules)
    else:
        raise _no_grid(grid)
    fixed = {**recipe, **epochs}
    _once(made, fixed | {n: asked[n] for n in ("model",) if n in asked}, free=kind.free_axes)
    return StudySpec(**options, grid=made, recipe=fixed)


def _of_words(
    grid: Any,
    options: Mapping[str, Any],
    epochs: Mapping[str, Any],
    recipe: Mapping[str, Any],
    rules: Mapping[str, Any],
) -> StudySpec:
    """Return the study of a file, or of words as on the command line."""
    if isinstance(grid, str | os.PathLike):
        if recipe:
            raise UsageError(
                f"{', '.join(recipe)}: given beside a study file", hint="put it into the file's [recipe]"
            )
        return build(file=os.fspath(grid), options={**options, **epochs}, **rules)
    if not all(isinstance(word, str) for word in grid):
        raise _no_grid(grid)
    if options.get("objective") is not None:
        words = [f"{name}={value}" for name, value in recipe.items()]
        return build(words=grid, options=options, settings=words, **rules)
    return build(words=grid, options={**options, **epochs, **recipe}, **rules)


def _once(grid: Grid, given: Mapping[str, Any], *, free: bool) -> None:
    """Refuse what is given beside the grid and in it, as the command line does."""
    both = set(grid.axes) - {condition.axis for condition in grid.parts.conditions}
    twice = [name for name in given if canonical(str(name), free=free) in both]
    if twice:
        raise SpecError([f"{name} is given with the grid as well; give only one of them" for name in twice])


def _no_grid(grid: Any) -> UsageError:
    return UsageError(
        f"grid takes a mapping of axes to values, not {type(grid).__name__}",
        hint='grid={"lr": [.01, .001]}, or a Grid, words as on the command line, a StudySpec, a study file\'s path',
    )


def _several(name: str, texts: Any) -> Sequence[str]:
    if isinstance(texts, str):
        return [texts]
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise UsageError(f"{name} takes one text or several, not {texts!r:.60}")
    return list(texts)
