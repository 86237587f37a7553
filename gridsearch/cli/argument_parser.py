"""The class of the command line's parsers: help that begins with an example, and errors of one line."""

from __future__ import annotations

import argparse
import os
import re
from typing import TYPE_CHECKING, Final, NoReturn

from gridsearch.errors import UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


COMMON: Final = "options of every command"
_LAST: Final = ("options", COMMON)
"""The groups that stand last in the help, in this order."""


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
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self._positionals.title = "arguments"
        self.example = example
        self._appendix = appendix
        self._within = False

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse; an option that this parser does not have is refused before what follows it is misread.

        Raises:
            UsageError: with the nearest option.
        """
        commands = self._commands()
        words = list(args or ())
        for word, behind in zip(words, (*words[1:], ""), strict=False):
            if word == "--" or word in commands:
                break
            if word.startswith("-") and word not in self._option_string_actions:
                self._refuse_file(word)
            if word.startswith("--") and " " not in word.partition("=")[0]:
                self._require_known(word, behind, commands)
        if self._within or not self._ends_with_a_name():
            return super().parse_known_args(args, namespace)
        self._within = True  # what follows calls this method
        try:
            return super().parse_known_intermixed_args(args, namespace)
        finally:
            self._within = False

    def _ends_with_a_name(self) -> bool:
        """Whether an optional argument follows another, and is lost to argparse where an option is between."""
        last = self._get_positional_actions()[1:]
        return bool(last) and last[-1].nargs == argparse.OPTIONAL

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse; words that are left over are refused with the option that they may have been meant for.

        Raises:
            UsageError: there are some.
        """
        found, left = self.parse_known_args(args, namespace)
        if left:
            from gridsearch.cli.nearest_form import left_over

            of = self._commands().get(getattr(found, "command", ""), self)
            raise left_over(left, tuple(of._option_string_actions), prog=of.prog)
        return found

    def _commands(self) -> Mapping[str, Parser]:
        found = (a for a in self._actions if isinstance(a, argparse._SubParsersAction))
        return next((action.choices for action in found), {})

    def _refuse_file(self, word: str) -> None:
        """Say how a file is named that would be taken for an option."""
        if os.path.lexists(word):  # a word may be too long for a path
            raise UsageError(
                f"{word} reads as an option; the file of that name is ./{word}",
                hint=f"see `{self.prog} --help`",
            )

    def _require_known(self, word: str, behind: str, commands: Mapping[str, Parser]) -> None:
        if word.partition("=")[0] in self._option_string_actions:
            return
        from gridsearch.cli.nearest_form import unknown_option

        elsewhere = {name: tuple(parser._option_string_actions) for name, parser in commands.items()}
        value = "" if behind.startswith("-") else behind
        raise unknown_option(
            word, tuple(self._option_string_actions), prog=self.prog, elsewhere=elsewhere, value=value
        )

    def format_help(self) -> str:
        """Return the help: example, usage, what is the command's own, the options of every command, appendix."""
        self.usage = self._short_usage()
        self._action_groups.sort(key=lambda group: _LAST.index(group.title) if group.title in _LAST else -1)
        text = super().format_help()
        if self._appendix is not None:
            text = f"{text}\n{self._appendix()}\n"
        if not self.example:
            return text
        lines = "\n".join(f"  {line}" for line in self.example.splitlines())
        return f"example:\n{lines}\n\n{text}"

    def _short_usage(self) -> str:
        """Return the usage without each single option, which would fill a screen before what they mean."""
        words = [self.prog.replace("%", "%%"), "[options]"]
        for action in self._get_positional_actions():
            choices = "" if action.choices is None else f"{{{','.join(map(str, action.choices))}}}"
            name = str(action.metavar or choices or action.dest)
            words.append(
                {"?": f"[{name}]", "+": f"{name} [{name} ...]", argparse.PARSER: f"{name} ..."}.get(
                    str(action.nargs), name
                )
            )
        return " ".join(words)

    def print_usage(self, file: object = None) -> None:
        """Print nothing: an error is one line, and `--help` is one word away."""

    def error(self, message: str) -> NoReturn:
        """Raise the one line.

        Raises:
            UsageError: always.
        """
        raise UsageError(_plainly(message), hint=f"see `{self.prog} --help`")


def _plainly(message: str) -> str:
    """Say argparse's complaint in our words."""
    if match := re.fullmatch(r"argument (.*?): invalid choice: '(.*)' \(choose from (.*)\)", message):
        name, word = match[1], match[2]
        known = [choice.strip(" '") for choice in match[3].split(",")]
        what = "unknown command" if name == "command" else f"{name}: unknown"
        return f"{what} {word!r}{nearest(word, known)}"
    message = re.sub(
        r"expected (one|at least one) argument$", "a value is missing", message.removeprefix("argument ")
    )
    return re.sub(r"^the following arguments are required", "missing", message)


def add_open(parser: argparse.ArgumentParser) -> None:
    """Add ``--open`` to a command that writes a report."""
    parser.add_argument("--open", action="store_true", help="open the report in the browser")
