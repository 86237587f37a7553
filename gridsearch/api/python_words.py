"""From what the command line says to what a Python user reads: arguments in place of options, the remedy in the text.

Errors and warnings are made by layers that serve both doors and name options (`--lanes 1`).  Commands to be typed, in
backticks, stay as they are.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from gridsearch.errors import GridsearchError

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

_FLAGS: Final = {"no-report": "report=False", "again": "again=True", "keep-going": "keep_going=True"}
_NAMES: Final = frozenset((
    "again", "budget", "by", "checkpoint", "code", "dataset", "device", "direction", "epochs", "exclude",
    "executor", "folds", "grid", "group", "home", "ignore", "keep-going", "lanes", "lease", "metric",
    "model", "more-seeds", "no-report", "notify", "objective", "open", "order", "pareto", "prune",
    "retries", "sample", "seeds", "set", "slurm", "store", "store-patience", "study", "subset", "to", "top",
    "trial-limit", "val", "version", "when", "where", "workers",
))  # fmt: skip
"""Options that are arguments of a Python function too."""
_CHOSEN: Final = frozenset(
    ("auto", "cpu", "cuda", "mps", "inline", "local", "ray", "slurm", "none", "median", "asha", "hyperband")
)
_OPTION: Final = re.compile(
    r"`[^`]*`"  # a command
    r"|(?<![\w-])--set (?P<key>[\w.]+)=(?P<setting>[^\s,;:)]+)"
    r"|(?<![\w-])--(?P<name>[a-z][a-z-]*)(?:[ =](?P<value>[^\s,;()]*[^\s,;:().]))?"
)


def in_python_words(text: str) -> str:
    """Return a text that names arguments where it named options: "--lanes 1" is "lanes=1", "--lanes" is "`lanes`"."""
    return _OPTION.sub(_argument, text)


def _argument(found: re.Match[str]) -> str:
    key, name, value = found["key"], found["name"], found["value"]
    if key is not None:
        return f'recipe={{"{key}": {_literal(found["setting"])}}}'
    if name not in _NAMES:
        return found[0]
    if name in _FLAGS:
        return _FLAGS[name] + found[0].removeprefix(f"--{name}")
    argument = "recipe" if name == "set" else name.replace("-", "_")
    if value is None or not _is_value(name, value):
        return f"`{argument}`" + found[0].removeprefix(f"--{name}")
    return f"{argument}={_literal(value)}"


def _is_value(name: str, word: str) -> bool:
    """Whether the word after an option is its value, and not the next one of a sentence."""
    if "=" in word or word.startswith("-"):
        return False
    return bool(word in _CHOSEN or re.search(r"[\d:/]|^[A-Z]+$", word)) or (name == "group" and word != "out")


def _literal(word: str) -> str:
    """Return a word as Python has it: numbers and placeholders (K, TIME) as they are, a text in quotes."""
    return word if re.fullmatch(r"[A-Z]+|-?[\d.]+(?:e-?\d+)?", word) else f'"{word}"'


def speaking_python(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function's errors name arguments, and say the remedy too: a traceback shows nothing but the text."""

    @functools.wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except GridsearchError as error:
            _translate(error)
            raise

    return inner


def _translate(error: GridsearchError) -> None:
    text, error.message = str(error), in_python_words(error.message)
    if error.hint is None:
        error.args = (in_python_words(text),)
        return
    error.hint = in_python_words(error.hint)
    if not text.endswith(f" ({error.hint})"):  # a call within another one has done it
        error.args = (f"{in_python_words(text)} ({error.hint})",)
