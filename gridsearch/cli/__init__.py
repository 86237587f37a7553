"""The command line: arguments, exit codes, errors of one line.  It decides nothing."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import traceback
from typing import TYPE_CHECKING

from gridsearch.cli import standard_streams
from gridsearch.cli.ending_signals import end_silently, exit_code, interrupting
from gridsearch.errors import RAISED, GridsearchError, UsageError, is_full_disk

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: the words after the program's name; None takes the process's own.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if "_ARGCOMPLETE" in os.environ:  # a shell asks how its line may go on
        from gridsearch.cli.completion import complete
        from gridsearch.cli.parser import build_parser

        complete(build_parser())
    if argv is None:
        standard_streams.open_closed_ones()
        # The last garbage collection would go through all that torch and others have loaded, for half a second or
        # more, in a process that ends anyway.  All that is open is closed by then.
        atexit.register(gc.freeze)
        # No window is opened here, by users' functions either.  The shell of a notebook may name a backend that this
        # environment lacks, and matplotlib would then refuse to be imported.
        os.environ["MPLBACKEND"] = "agg"
    verbose = any(word in ("-v", "--verbose") for word in words)
    try:
        here = os.getcwd()  # noqa: PTH109 - sys.path holds strings
    except OSError:
        here = ""
    if here and "" not in sys.path and here not in sys.path:
        # `module:Name` means the user's folder too, as it does with `python -m gridsearch`.
        sys.path.append(here)
    with standard_streams.harmless() as output, interrupting():
        if not here:  # neither paths nor the workers' imports would mean anything
            return _expected(
                UsageError("the working directory no longer exists", hint="cd to an existing folder")
            )
        code = _run(words, output, verbose=verbose, own_process=argv is None)
    if argv is None:
        end_silently()
        if (ray := sys.modules.get("gridsearch.executors.ray")) is not None and ray.abandoned():
            atexit._run_exitfuncs()  # its C++ would crash the interpreter that ends after them
            os._exit(code)
    return code


def _run(words: Sequence[str], output: standard_streams.Harmless, *, verbose: bool, own_process: bool) -> int:
    """Run one command; every error becomes a line and an exit code."""
    try:
        from gridsearch.cli.parser import build_parser  # here a signal is a line already

        try:
            arguments = build_parser().parse_args(words)
        except SystemExit as stop:  # argparse, after --help and --version
            output.require_written()
            return int(stop.code or 0)
        from gridsearch.cli import commands

        code = commands.dispatch(arguments, words, own_process=own_process)
        sys.stdout.flush()
    except GridsearchError as error:
        if verbose:
            traceback.print_exc()
        return _expected(error)
    except KeyboardInterrupt as interrupt:
        _complain("interrupted", None)
        return exit_code(interrupt)
    except RAISED as error:  # the last place where an error can become one line
        if verbose:
            traceback.print_exc()
        from gridsearch.cli.system_errors import explained

        if (known := explained(error)) is not None:
            if isinstance(error, OSError) and is_full_disk(error):
                standard_streams.let_go(sys.stdout)
            return _expected(known)
        text = " ".join(str(error).split())
        _complain(f"a bug in gridsearch: {type(error).__name__}: {text}", "-v shows where; please report it")
        return 1
    else:
        return code


def _expected(error: GridsearchError) -> int:
    _complain(error.message, error.hint)
    return error.exit_code


def _complain(message: str, hint: str | None) -> None:
    lines = [f"gridsearch: error: {' '.join(message.split())}"]
    if hint:
        lines.append(f"  {hint}")
    try:
        print("\n".join(lines), file=sys.stderr, flush=True)
    except OSError:  # it is full too: the exit code remains
        standard_streams.let_go(sys.stderr)
