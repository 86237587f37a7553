"""Whether ``run`` starts its workers before anything else: where its words say that it trains networks here."""

from __future__ import annotations

import os
import sys
import tomllib
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def workers_early(arguments: argparse.Namespace) -> AbstractContextManager[None]:
    """Return a block in which worker processes load what networks need, as many as the run may use.

    Nothing is started for a function, whose workers need no torch, and for a study of which the store alone knows what
    it is.
    """
    if sys.platform != "linux" or arguments.executor not in (None, "local") or not _networks(arguments):
        return nullcontext()
    from gridsearch.executors.early import early_workers

    cores = len(os.sched_getaffinity(0))
    return early_workers(min(arguments.workers or cores, cores))  # more would only wait for each other


def _networks(arguments: argparse.Namespace) -> bool:
    """Whether the words are about networks, and sound enough to be likely to train any."""
    if arguments.file is None:
        return bool(arguments.grid) and not arguments.objective
    try:
        return "objective" not in tomllib.loads(Path(arguments.file).read_text())
    except (OSError, ValueError):  # which is told in words, later
        return False
