"""What the parser is made of: its class, with errors of one line, and how single words are read."""

from __future__ import annotations

import argparse
import re
from typing import NoReturn

from gridsearch.errors import UsageError, nearest

_LATER = {
    "worker": "a worker of its own",
}
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")


class Parser(argparse.ArgumentParser):
    """An argument parser whose help begins with an example and whose errors are exceptions of one line.

    Args:
        example: command lines, one a line.
    """

    def __init__(self, *args: object, example: str = "", **options: object) -> None:
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.example = example

    def format_help(self) -> str:
        """Return the help: example, usage, options."""
        text = super().format_help()
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
        if word in _LATER:
            return f"{word!r} ({_LATER[word]}) is not part of this version"
        known = [choice.strip(" '") for choice in match[2].split(",")]
        return f"unknown command {word!r}{nearest(word, known)}"
    return message


def duration(text: str) -> float:
    """Read a time such as ``90s``, ``30m``, ``2h``, ``1h30m`` as seconds.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    match = _DURATION.fullmatch(text.strip())
    if not match or not any(match.groups()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90s, 30m, 2h or 1h30m")
    days, hours, minutes, seconds = (int(group or 0) for group in match.groups())
    total = float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    if total <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time at all")
    return total


def count(text: str) -> int:
    """Read a whole number of at least 1.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def natural(text: str) -> int:
    """Read a whole number of at least 0.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def count_or_auto(text: str) -> int | None:
    """Read a whole number of at least 1, or "auto" as None.

    Raises:
        argparse.ArgumentTypeError: it is neither.
    """
    return None if text == "auto" else count(text)


def port_number(text: str) -> int:
    """Read a port, 0 for any that is free.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isdigit() or not 0 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")
    return int(text)
