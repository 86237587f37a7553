"""Reads a study file (TOML) into what it says: options, recipe and grid, typed, and all its problems at once.

A study file may leave out anything; `study.build` lays the command line over it.
"""

from __future__ import annotations

import codecs
import re
import tomllib
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gridsearch import locators
from gridsearch.errors import UsageError
from gridsearch.folders import tilde
from gridsearch.records import CODE_KEYS
from gridsearch.records.study_kinds import kind_of
from gridsearch.spec.collector import ErrorCollector, InvalidValue, shortened
from gridsearch.spec.conditions import Condition, Exclusion, Term
from gridsearch.spec.grid_builder import Entry, Written, assemble
from gridsearch.spec.grid_parts import Group, Parts
from gridsearch.spec.recipe import OPTION_TABLES, read_settings
from gridsearch.spec.study_options import OPTIONS, misplaced, read_option, refusal

if TYPE_CHECKING:
    from gridsearch.records import Value

PLUGINS = ("dataset", "model", "objective")
"""Keys whose values may name a file of the user's own."""

_NONE: Mapping[str, Any] = MappingProxyType({})
_TABLES = ("grid", "recipe")
_RULES = ("exclude", "when")
_KNOWN = (*OPTIONS, *_RULES, *_TABLES)
_OTHER_ENCODINGS = (  # UTF-32's mark begins with that of UTF-16
    ((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), "UTF-32"),
    ((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "UTF-16"),
)
_POSITION = re.compile(r"\s*\(at (line (\d+), column \d+|end of document)\)$")
_NO_DIGIT = re.compile(r"(?<![\w.])[+-]?\.\d|\d\.(?![\d.])")
_UNQUOTED = re.compile(r"\d\.\.|(?<![\w.\"'+-])(?!(?:true|false|inf|nan)\b)[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFile:
    """What a study file says.

    Attributes:
        options: the options it gives (study, dataset, model, objective, seeds, val, ...), typed.
        recipe: the recipe's keys that it gives, typed, options of plug-ins as "model.NAME"; or a function's params.
        grid: its grid with its rules; empty if it has none.
    """

    path: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Value] = field(default_factory=dict)
    grid: Parts = field(default_factory=Parts)

    @property
    def says_something(self) -> bool:
        """Whether it names anything at all."""
        return bool(self.options or self.recipe) or self.grid != Parts()


def load_toml(
    path: Path | str, *, options: Mapping[str, Any] = _NONE, problems: ErrorCollector | None = None
) -> StudyFile:
    """Read a study file.

    Models, datasets and folders that lie beside the file may be named relative to it.

    Args:
        path: the file.
        options: those of the command line, which go before the file's.
        problems: where to gather problems; then they are not raised, and what is right comes back.

    Raises:
        UsageError: the file cannot be read.
        SpecError: everything that is wrong in it, with its place, unless `problems` is given.
    """
    path = Path(path)
    found = ErrorCollector() if problems is None else problems
    content = _parse(path, found)
    said: dict[str, Any] = {}
    together = content | {name: value for name, value in options.items() if value is not None}
    free = kind_of(together).free_axes
    for key, value in content.items():
        place = f"{path}: {shortened(key)}"
        if key in OPTIONS:
            with found.at(place):
                said[key] = read_option(key, value)
                if (why := misplaced(key, together)) is not None:
                    raise InvalidValue(why)
        elif key not in _KNOWN:
            found.add(str(path), refusal(key, _KNOWN))
    recipe = read_settings(
        _table(content, "recipe", path, found),
        place=lambda key: f"{path}: [recipe] {key}",
        free=free,
        as_given=False,
        problems=found,
    )
    grid = _read_grid(content, path, found, free=free)
    if grid.seeds is not None and "seeds" in said:
        found.add(f"{path}: seeds", "the seeds are given in [grid] as well")
    if problems is None:
        found.check()
    for name in PLUGINS:
        if name in said:
            said[name] = _beside(path, said[name])
    if not free:
        grid = _with_code(grid, lambda m: _beside(path, m))
        recipe |= {name: _beside(path, str(recipe[name])) for name in CODE_KEYS if name in recipe}
    return StudyFile(path=path, options=said, recipe=recipe, grid=grid)


def _parse(path: Path, problems: ErrorCollector) -> dict[str, Any]:
    content = ""
    try:
        content = _text(path.read_bytes())
        return tomllib.loads(content)
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or str(error))
        raise UsageError(f"study file {str(path)!r}: {reason}") from None
    except UnicodeDecodeError as error:
        problems.add(str(path), f"not a text in UTF-8 (byte {error.start}); save it as UTF-8")
    except InvalidValue as wrong:
        problems.add(str(path), str(wrong))
    except tomllib.TOMLDecodeError as error:
        text = str(error)
        position = _POSITION.search(text)
        where = f"{path}: {position[1]}" if position else str(path)
        line = content.splitlines()[int(position[2]) - 1] if position and position[2] else ""
        problems.add(where, f"{_POSITION.sub('', text)}{_meant(line)}")
    except RecursionError:
        problems.add(str(path), "nested too deeply")
    return {}


def _meant(line: str) -> str:
    """Say how TOML writes what the command line takes as it stands: numbers without a digit, words and ranges."""
    values = re.sub(r"\"[^\"]*\"|'[^']*'|#.*", "", line.partition("=")[2])
    if _NO_DIGIT.search(values):
        return "; a number needs a digit on both sides of its dot: 0.1, not .1"
    if _UNQUOTED.search(values):
        return '; words and ranges stand in quotes: "none", "10..50:10"'
    return ""


def _text(content: bytes) -> str:
    """Decode a file as editors write it: UTF-8 with or without a byte-order mark, line ends of any system.

    Raises:
        InvalidValue: it is text in UTF-16 or UTF-32.
        UnicodeDecodeError: it is no text in UTF-8.
    """
    for marks, name in _OTHER_ENCODINGS:
        if content.startswith(marks):
            raise InvalidValue(f"the file is in {name}; save it as UTF-8")
    zeros = 10 * content[:400].count(0)  # without a mark: of plain letters every other byte, or three of four
    if zeros > 2 * len(content[:400]):
        raise InvalidValue(
            f"the file is in {'UTF-32' if zeros > 6 * len(content[:400]) else 'UTF-16'}; save it as UTF-8"
        )
    text = content.decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_grid(content: Mapping[str, Any], path: Path, problems: ErrorCollector, *, free: bool) -> Parts:
    table = _table(content, "grid", path, problems)
    if content.get("grid") == {}:
        problems.add(f"{path}: [grid]", "names no axis; leave the table out for a single point")
    axes = table.items() if free else _axes(table)
    entries = [Entry(name, values, f"{path}: [grid] {shortened(name)}") for name, values in axes]
    return assemble(
        entries,
        exclude=_rules(content, "exclude", path),
        when=_rules(content, "when", path),
        free=free,
        problems=problems,
    )


def _axes(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Give the axes of [grid]; `model.width = [1, 2]` without quotes is a table in TOML."""
    for name, values in table.items():
        if name in OPTION_TABLES and isinstance(values, Mapping):
            yield from ((f"{name}.{option}", v) for option, v in values.items())
        else:
            yield name, values


def _table(content: Mapping[str, Any], name: str, path: Path, problems: ErrorCollector) -> Mapping[str, Any]:
    table = content.get(name, {})
    if isinstance(table, Mapping):
        return table
    problems.add(f"{path}: {name}", f"must be a table ([{name}])")
    return {}


def _rules(content: Mapping[str, Any], name: str, path: Path) -> list[Written]:
    texts = content.get(name, [])
    several = texts if isinstance(texts, list) else [texts]
    return [Written(text, f"{path}: {name} {shortened(repr(text))}") for text in several]


def _beside(path: Path, locator: str) -> str:
    """Return a locator with the study file's folder before it, if what it names lies there."""
    place = locators.placed(locator)
    if place is not None:
        there = path.parent / tilde(place[1])
        return f"{place[0]}:{there}" if there.exists() else locator
    where, _, attribute = locator.rpartition(":")
    there = path.parent / tilde(where)
    return f"{there}:{attribute}" if where.endswith(".py") and there.is_file() else locator


def missing_files(said: StudyFile, *, but: Container[str]) -> Iterator[tuple[str, str]]:
    """Give the place of each plug-in of a study file whose own file is not there, and what is wrong.

    Args:
        said: the file, read.
        but: keys that something else goes before.
    """
    for name in PLUGINS:
        locator = said.options.get(name, "")
        where = locator.rpartition(":")[0]
        if name not in but and where.endswith(".py") and not tilde(where).is_file():
            yield (
                f"{said.path}: {name}",
                f"{shortened(repr(locator))}: no such file, neither beside the study file nor in the current folder",
            )


def _with_code(parts: Parts, locate: Callable[[str], str]) -> Parts:
    """Return a grid with its models, optimizers and augmentations located."""

    def value_of(name: str, value: Value) -> Value:
        return locate(value) if name in CODE_KEYS and isinstance(value, str) else value

    def terms_of(terms: tuple[Term, ...]) -> tuple[Term, ...]:
        return tuple(Term(t.axis, tuple(value_of(t.axis, v) for v in t.values)) for t in terms)

    groups = (
        Group(g.names, tuple(tuple(map(value_of, g.names, row)) for row in g.rows))
        if set(CODE_KEYS) & set(g.names)
        else g
        for g in parts.groups
    )
    return replace(
        parts,
        groups=tuple(groups),
        exclusions=tuple(Exclusion(terms_of(rule.terms)) for rule in parts.exclusions),
        conditions=tuple(Condition(rule.axis, terms_of(rule.terms)) for rule in parts.conditions),
    )
