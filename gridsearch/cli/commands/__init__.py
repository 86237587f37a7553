"""What each command does with its arguments: asks the service, prints the answer, returns the exit code."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from gridsearch import garbage

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

__all__ = ["dispatch"]

_OF_ONE_STUDY = ("report", "stop", "trial", "export", "best")
"""Commands about a study; where none is named, it is the only one."""


def dispatch(arguments: argparse.Namespace, words: Sequence[str], *, own_process: bool = False) -> int:
    """Execute a command.

    Args:
        arguments: what the parser read.
        words: the command line as it was typed, for the record.
        own_process: whether the process ends with the command.
    """
    if arguments.command in _OF_ONE_STUDY and not arguments.study:
        name = _only_study(arguments)
        arguments.study = [name] if arguments.command == "report" else name
    with garbage.resting(keep=own_process):
        execute = _imported(arguments, words)
    return execute()


def _imported(arguments: argparse.Namespace, words: Sequence[str]) -> Callable[[], int]:
    """Import what a command needs, and return what executes it."""
    match arguments.command:
        case "run" | "plan":
            from gridsearch.cli.commands.early_start import load_early

            only_plan = arguments.command == "plan" or arguments.dry_run
            if not only_plan:
                load_early(arguments)  # meanwhile this process imports what it needs
            from gridsearch.cli.commands import search

            return partial(search.plan, arguments) if only_plan else partial(search.run, arguments, words)
        case "add":
            from gridsearch.cli.commands import search

            return partial(search.add, arguments, words)
        case "worker":
            from gridsearch.cli.commands import search

            return partial(search.worker, arguments)
        case "status" | "stop":
            from gridsearch.cli.commands import status

            return partial(status.COMMANDS[arguments.command], arguments)
        case "report" | "export" | "trial" | "study":
            from gridsearch.cli.commands import queries

            return partial(queries.COMMANDS[arguments.command], arguments)
        case "completion":
            from gridsearch.cli import completion

            return partial(completion.show, arguments.shell)
        case "best" | "predict":
            from gridsearch.cli.commands import winner

            return partial(winner.COMMANDS[arguments.command], arguments)
        case _:
            from gridsearch.cli.commands import tools

            return partial(tools.COMMANDS[arguments.command], arguments)


def _only_study(arguments: argparse.Namespace) -> str:
    from gridsearch.service.prepare.options import Places
    from gridsearch.service.queries import studies

    return studies.only(Places.find(arguments.home, arguments.store))
