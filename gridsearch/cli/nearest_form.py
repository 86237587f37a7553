"""What was probably meant by words that the parser does not take: the nearest option, the right form of a grid."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from gridsearch.errors import UsageError, nearest
from gridsearch.spec.axes import ALIASES, AXES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

_NAME = re.compile(r"[A-Za-z_]\w*")
_OPTION_OF_AXIS = re.compile(r"(model|data)\.\w+")


def unknown_option(
    word: str,
    known: Collection[str],
    *,
    prog: str,
    elsewhere: Mapping[str, Collection[str]] | None = None,
    value: str = "",
) -> UsageError:
    """Return the error of an option that a command does not have, with the nearest that it has.

    Args:
        word: as it was typed: ``--gird`` or ``--gird=lr=.1``.
        known: the options that the command has.
        prog: the command, as its usage names it.
        elsewhere: of the program itself: the options of its commands, by their names.
        value: the word behind it, "" where that is an option too.
    """
    name, equals, own = word.partition("=")
    value = own if equals else value
    hint = f"see `{prog} --help`"
    for command, options in (elsewhere or {}).items():
        if name in options:
            return UsageError(f"option {name} goes after a command: `{prog} {command} {name} ...`", hint=hint)
    axis = name.removeprefix("--").replace("-", "_")
    if axis == "seed" and "--seeds" in known:
        return UsageError(
            f"unknown option {name}; did you mean `--seeds`? It says how many seeds each point is trained with",
            hint=f"`--grid seed={shlex.quote(value or '0')}` names the seeds themselves",
        )
    if _is_axis(axis) and "--grid" in known:
        values = shlex.quote(value or "VALUE")
        return UsageError(
            f"unknown option {name}: {axis} is an axis; did you mean `--grid {axis}={values}`?",
            hint=f"or `--set {axis}={values}` for the same value at all points",
        )
    found = nearest(name, [option for option in known if option.startswith("--")])
    return UsageError(f"unknown option {name}{found if 'did you mean' in found else ''}", hint=hint)


def left_over(words: Sequence[str], known: Collection[str], *, prog: str) -> UsageError:
    """Return the error of words that no option takes, with the option that they may have been meant for.

    Args:
        words: as they were typed.
        known: the options that the command has.
        prog: the command, as its usage names it.
    """
    said = f"unrecognized arguments: {' '.join(words)}"
    option = next((o for o in ("--grid", "--where") if o in known), None)
    if option is not None and all("=" in word for word in words):
        every = ", with all axes after --grid" if option == "--grid" else ""
        said += f"; did you mean `{option} {' '.join(map(shlex.quote, words))}`{every}?"
    elif "--study" in known and not any("=" in word or word.startswith("-") for word in words):
        said += f"; did you mean `{' '.join(f'--study {shlex.quote(word)}' for word in words)}`?"
    return UsageError(said, hint=f"see `{prog} --help`")


def require_pairs(option: str, words: Sequence[str]) -> None:
    """Refuse words that are not AXIS=VALUES where it can be said what they should be.

    Args:
        option: what they follow: ``--grid``.
        words: as they were typed; where nothing can be said of them, whoever reads them complains.

    Raises:
        UsageError: with the words as they should be.
    """
    if all(re.search(r"[^=,]=[^=,]", word) and not word.endswith(",") for word in words):
        return
    meant = _as_pairs(words)
    if meant is None or meant == list(words):
        return
    raise UsageError(
        f"{option} {' '.join(words)}: did you mean `{option} {' '.join(map(shlex.quote, meant))}`?",
        hint="each axis and its values are one word: AXIS=VALUE,VALUE",
    )


def _as_pairs(words: Sequence[str]) -> list[str] | None:
    """Return `lr .1 .01 batch = 10` as ``lr=.1,.01 batch=10``; None where it cannot be made out."""
    text = re.sub(r"\s*(=|,)\s*", r"\1", " ".join(words)).replace(",,", ",")
    found: list[list[str]] = []
    for token in text.split():
        name, equals, values = token.partition("=")
        if not equals and _is_axis(name.partition(":")[0]) and ":" in name:
            name, equals, values = token.partition(":")
        if equals or _is_axis(name) or (not found and _NAME.fullmatch(name)):
            found.append([name, *([values.strip(",")] if values.strip(",") else [])])
        elif found:
            found[-1].append(token.strip(","))
        else:
            return None
    if not found or any(len(term) < 2 for term in found):
        return None
    return [f"{name}={','.join(values)}" for name, *values in found]


def _is_axis(name: str) -> bool:
    """Whether a word names an axis, or several that are paired."""
    return all(
        part in AXES or part in ALIASES or _OPTION_OF_AXIS.fullmatch(part) is not None
        for part in name.split(",")
    )
