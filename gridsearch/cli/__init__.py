"""The command line: arguments, exit codes, errors of one line.  It decides nothing."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from typing import TYPE_CHECKING

from gridsearch.cli.parser import build_parser
from gridsearch.errors import GridsearchError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: the words after the program's name; None takes the process's own.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    verbose = any(word in ("-v", "--verbose") for word in words)
    if "" not in sys.path and os.getcwd() not in sys.path:  # noqa: PTH109 - sys.path holds strings
        # `module:Name` means the user's folder too, as it does with `python -m gridsearch`.
        sys.path.append(os.getcwd())  # noqa: PTH109
    try:
        arguments = build_parser().parse_args(words)
        from gridsearch.cli import commands

        return commands.dispatch(arguments, words)
    except GridsearchError as error:
        if verbose:
            traceback.print_exc()
        _complain(error.message, error.hint)
        return error.exit_code
    except KeyboardInterrupt:
        _complain("interrupted", None)
        return 130
    except BrokenPipeError:
        # Whoever read our output has enough; what is left in the buffer must not raise again at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as stop:  # argparse, after --help and --version
        return int(stop.code or 0)
    except Exception as error:  # noqa: BLE001 - the last place where an error can become one line
        if verbose:
            traceback.print_exc()
        text = " ".join(str(error).split())
        _complain(f"a bug in gridsearch: {type(error).__name__}: {text}", "-v shows where; please report it")
        return 1


def _complain(message: str, hint: str | None) -> None:
    lines = [f"gridsearch: error: {' '.join(message.split())}"]
    if hint:
        lines.append(f"  {hint}")
    print("\n".join(lines), file=sys.stderr)
