"""What the parser is made of: its class, with errors of one line, and how a port is read."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, NoReturn

from gridsearch.errors import UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Parser(argparse.ArgumentParser):
    """An argument parser whose help begins with an example and whose errors are exceptions of one line.

    Args:
        example: command lines, one a line.
        appendix: makes what stands below the options; it is asked only where the help is shown.
    """

    def __init__(
        self, *args: object, example: str = "", appendix: Callable[[], str] | None = None, **options: object
    ) -> None:
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.example = example
        self._appendix = appendix

    def format_help(self) -> str:
        """Return the help: example, usage, options, appendix."""
        text = super().format_help()
        if self._appendix is not None:
            text = f"{text}\n{self._appendix()}\n"
        if not self.example:
            return text
        lines = "\n".join(f"  {line}" for line in self.example.splitlines())
        return f"example:\n{lines}\n\n{text}"

    def print_usage(self, file: object = None) -> None:
        """Print nothing: an error is one line, and `--help` is one word away."""

    def error(self, message: str) -> NoReturn:
        """Raise the one line.

        Raises:
            UsageError: always.
        """
        raise UsageError(_plainly(message), hint=f"see `{self.prog} --help`")


def _plainly(message: str) -> str:
    """Say argparse's complaint about an unknown command in our words."""
    match = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
    if match and "command" in message:
        word = match[1]
        known = [choice.strip(" '") for choice in match[2].split(",")]
        return f"unknown command {word!r}{nearest(word, known)}"
    return message


def port_number(text: str) -> int:
    """Read a port, 0 for any that is free.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isdigit() or not 0 <= int(text) <= 65535:
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
