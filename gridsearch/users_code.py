"""What a user's code does to the process of a command, and what is kept from it: the command's answer, and its folder.

Below everything that runs such code in a command's own process.  What a module prints as it is imported, or a dataset
as it is read, goes to the standard error: `--json` gives JSON, and a table can be piped.  Where such code changes the
working directory, it finds itself there when it runs again, and the paths that were given mean what they meant.
Workers keep what is printed in their trials' logs.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_OUTPUT, _ERRORS = 1, 2
_folders: list[list[str]] = []
"""For each command that runs in this process: where its user's code has gone to, if anywhere."""


@contextmanager
def answering() -> Iterator[None]:
    """Note that the block is a command: the standard output has its answer, and nothing else."""
    _folders.append([])
    try:
        yield
    finally:
        _folders.pop()


@contextmanager
def kept_apart() -> Iterator[None]:
    """Keep what the block prints, and programs that it starts, and the folder that it goes to, from a command."""
    if not _folders:
        yield
        return
    with _printing_aside(), _in_its_folder(_folders[-1]):
        yield


@contextmanager
def _printing_aside() -> Iterator[None]:
    before = sys.stdout
    with suppress(OSError, ValueError):
        before.flush()
    descriptor = None
    with suppress(OSError):
        descriptor = os.dup(_OUTPUT)
        os.dup2(_ERRORS, _OUTPUT)
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        sys.stdout = before
        if descriptor is not None:
            os.dup2(descriptor, _OUTPUT)
            os.close(descriptor)


@contextmanager
def _in_its_folder(theirs: list[str]) -> Iterator[None]:
    try:
        before = os.getcwd()  # noqa: PTH109 - as os.chdir takes it
    except OSError:  # it is gone, and no path means anything
        yield
        return
    for folder in theirs:
        with suppress(OSError):  # it is gone
            os.chdir(folder)
    try:
        yield
    finally:
        with suppress(OSError):
            now = os.getcwd()  # noqa: PTH109
            theirs[:] = [now] if now != before else []
        with suppress(OSError):
            os.chdir(before)
