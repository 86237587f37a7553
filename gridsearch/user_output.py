"""Where what a user's code prints goes while a command runs: to the standard error, since the other has the answer.

Below everything that runs such code in the process of a command: `--json` gives JSON, and a table can be piped,
whatever a module prints as it is imported, or a dataset as it is read.  Workers keep it in their trials' logs.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_OUTPUT, _ERRORS = 1, 2
_answering: list[None] = []


@contextmanager
def answering() -> Iterator[None]:
    """Note that the standard output has a command's answer, and nothing else, during the block."""
    _answering.append(None)
    try:
        yield
    finally:
        _answering.pop()


@contextmanager
def kept_apart() -> Iterator[None]:
    """Send what the block prints, and programs that it starts, to the standard error, if a command answers."""
    if not _answering:
        yield
        return
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
