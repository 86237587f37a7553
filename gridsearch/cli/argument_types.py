"""How single arguments of the command line are read: ports, `--where`, `--ignore`, and options given several times."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from gridsearch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def port_number(text: str) -> int:
    """Read a port, 0 for any that is free.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isdecimal() or not 0 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")
    return int(text)


def conditions(words: Iterable[str]) -> dict[str, str]:
    """Read the words after `--where`.

    Raises:
        UsageError: one is not AXIS=VALUE, or a name comes twice.
    """
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name or not value:
            raise UsageError(f"--where {word}: write it as AXIS=VALUE")
        if name in found:
            raise UsageError(f"--where {word}: {name} is given twice; a trial has one value of it")
        found[name] = value
    return found


def joined(texts: Sequence[str] | None) -> str | None:
    """Return the texts of a repeatable option as one, None where it was not given."""
    return None if texts is None else ",".join(texts)


def ignored(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return the codes of findings that `--ignore` names.

    Raises:
        SpecError: there is no such finding.
    """
    from gridsearch.spec.study_options import changes

    codes: tuple[str, ...] = changes({"ignore": joined(arguments.ignore)}).get("ignore", ())
    return codes
