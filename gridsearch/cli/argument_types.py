"""What the parser is made of: its class, with errors of one line, and how a port is read."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Final, NoReturn

from gridsearch.errors import UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


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

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse; an option that this parser does not have is refused before what follows it is misread.

        Raises:
            UsageError: with the nearest option.
        """
        commands = self._commands()
        for word in args or ():
            if word == "--" or word in commands:
                break
            if word.startswith("--") and " " not in word.partition("=")[0]:
                self._require_known(word, commands)
        return super().parse_known_args(args, namespace)

    def _commands(self) -> Mapping[str, Parser]:
        found = (a for a in self._actions if isinstance(a, argparse._SubParsersAction))
        return next((action.choices for action in found), {})

    def _require_known(self, word: str, commands: Mapping[str, Parser]) -> None:
        if word.partition("=")[0] in self._option_string_actions:
            return
        from gridsearch.cli.nearest_form import unknown_option

        elsewhere = {name: tuple(parser._option_string_actions) for name, parser in commands.items()}
        raise unknown_option(word, tuple(self._option_string_actions), prog=self.prog, elsewhere=elsewhere)

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
    left = message.removeprefix("unrecognized arguments: ")
    if left != message and "=" in left:
        return f"{message}; did you mean `--grid {left}`, with all axes after --grid?"
    message = re.sub(
        r"expected (one|at least one) argument$", "a value is missing", message.removeprefix("argument ")
    )
    return re.sub(r"^the following arguments are required", "missing", message)


def add_open(parser: argparse.ArgumentParser) -> None:
    """Add ``--open`` to a command that writes a report."""
    parser.add_argument("--open", action="store_true", help="open the report in the browser")


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
