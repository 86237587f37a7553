"""Makes a study of what was written: the command line's words and options, laid over a study file.

Stands between the parsers, or the Python functions, and `study.StudySpec`, which checks the whole.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gridsearch.records.study_kinds import kind_of
from gridsearch.spec.axes import SEED, canonical, find_axis
from gridsearch.spec.collector import ErrorCollector, InvalidValue, shortened
from gridsearch.spec.grammar import read_scalar, write_values
from gridsearch.spec.grid import Grid, rule_texts, word_entries
from gridsearch.spec.grid_builder import Entry, assemble
from gridsearch.spec.recipe import Params, Recipe, read_setting
from gridsearch.spec.study import StudySpec
from gridsearch.spec.study_file import StudyFile, load_toml, missing_files
from gridsearch.spec.study_options import OPTIONS, misplaced, read_option

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from gridsearch.records import Value


def build(
    *,
    file: Path | str | None = None,
    words: Sequence[str] = (),
    exclude: Sequence[str] = (),
    when: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
) -> StudySpec:
    """Make a study of what the command line says, laid over what a study file says.

    Args:
        file: a study file.
        words: what follows `--grid`; an axis replaces the file's.
        exclude: texts of `--exclude`; they come to the file's.
        when: texts of `--when`, likewise.
        options: options by name (study, dataset, model, seeds, val, subset, or a key of the recipe such as
            epochs), typed or as text; None is an option that was not given.  With an `objective`, axes and
            settings are its params.
        settings: "KEY=VALUE" of `--set`.

    Raises:
        UsageError: the study file cannot be read.
        SpecError: everything that is wrong, each with its place.
    """
    problems = ErrorCollector()
    own = {name: value for name, value in (options or {}).items() if value is not None}
    said = StudyFile(path=Path()) if file is None else load_toml(file, options=own, problems=problems)
    if file is not None and not (problems or said.says_something or words or settings):
        problems.add(str(file), "is empty; a study file has a [grid] of axes, and options such as dataset")
    together = {**said.options, **own}
    free = kind_of(together).free_axes
    given, recipe, places = _given(own, settings, problems, together=together)
    entries = word_entries(words, problems)
    gridded = {canonical(name.strip(), free=free) for entry in entries for name in entry.names.split(",")}
    # An option goes before the study file, so it also stands in place of an axis of the file's grid.
    there = said.grid.values()
    fixed = recipe | {k: v for k, v in given.items() if k == "model"}
    entries += [
        Entry(name, write_values(find_axis(name, free=free), [value]), places[name])
        for name, value in fixed.items()
        if name in there and name not in gridded
    ]
    parts = assemble(
        entries,
        exclude=rule_texts("--exclude", exclude),
        when=rule_texts("--when", when),
        base=said.grid,
        free=free,
        problems=problems,
    )
    # Where a condition takes an axis away, the recipe's value holds: there, giving both makes sense.
    _check_given_once(places, gridded - {condition.axis for condition in parts.conditions}, problems)
    for place, wrong in missing_files(said, but={*given, *gridded}):
        problems.add(place, wrong)
    problems.check()
    if "seeds" in given:  # they go before those of the file's grid
        parts = dataclasses.replace(parts, seeds=None)
    merged = {**said.options, **given}
    if parts.seeds is not None:
        merged.pop("seeds", None)
    made = {**said.recipe, **recipe}
    return StudySpec(**merged, grid=Grid.of(parts), recipe=Params(made) if free else Recipe.of(made))


def _check_given_once(places: Mapping[str, str], gridded: Container[str], problems: ErrorCollector) -> None:
    """Note what is given by an option and with `--grid` as well."""
    for name, place in places.items():
        if (SEED if name == "seeds" else name) in gridded:
            problems.add(place, f"{name} is given with --grid as well; give only one of them")


def _given(
    options: Mapping[str, Any],
    settings: Sequence[str],
    problems: ErrorCollector,
    *,
    together: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Value], dict[str, str]]:
    """Read the command line's options and `--set`; returns options, recipe, and the place of each.

    Args:
        options: the command line's that were given.
        settings: what follows `--set`.
        problems: where to gather problems.
        together: the options of the command line and of the study file.
    """
    kind = kind_of(together)
    free = kind.free_axes
    given: dict[str, Any] = {}
    recipe: dict[str, Value] = {}
    places: dict[str, str] = {}

    def place_of(name: str, place: str) -> str:
        if name in places:
            problems.add(place, f"{name} is given with {places[name]} as well; give only one of them")
        places[name] = place
        return place

    for key, value in options.items():
        name = canonical(key)
        # A function's param may bear an option's name: that is then no second place of the same thing.
        taken = f"--{name}" if free and name != "seeds" else name
        with problems.at(place_of(taken, f"--{key.replace('_', '-')} {shortened(str(value))}")):
            if (why := misplaced(name, together)) is not None:
                raise InvalidValue(why)
            if name in OPTIONS:
                given[name] = read_option(name, value)
            elif free:
                raise InvalidValue(
                    f"{together[kind.subject]} is a plain function; its own params are set with --set {name}=..."
                )
            else:
                recipe[name] = read_setting(name, value)
    for text in settings:
        key, equals, word = text.partition("=")
        name = canonical(key.strip(), free=free)
        with problems.at(place_of(name, f"--set {shortened(text)}")):
            if not equals:
                raise InvalidValue("is not KEY=VALUE")
            if name in OPTIONS and not free:
                raise InvalidValue(f"{name} is an option of its own: --{name} {shortened(word)}")
            axis = find_axis(name, noun="key", free=free)
            recipe[name] = read_setting(name, read_scalar(axis, word.strip()), free=free)
    return given, recipe, places
