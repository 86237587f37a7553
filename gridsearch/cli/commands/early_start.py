"""Whether ``run`` starts to load torch before anything else: where its words say that it trains networks here."""

from __future__ import annotations

import tomllib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def load_early(arguments: argparse.Namespace) -> None:
    """Start the process that loads what networks need and then forks the workers; it ends with this one.

    Nothing is started for a function, whose workers need no torch, and for a study of which the store alone knows what
    it is.
    """
    if arguments.executor not in (None, "local") or not _networks(arguments):
        return
    from gridsearch.executors.local import worker_environment
    from gridsearch.executors.warm_parent import WarmParent
    from gridsearch.records.study_kinds import IMAGES

    with suppress(OSError):  # one that is needed is started later, and says what is wrong
        WarmParent.start(IMAGES.name, worker_environment(threads=1))


def _networks(arguments: argparse.Namespace) -> bool:
    """Whether the words are about networks, and sound enough to be likely to train any."""
    if arguments.file is None:
        return bool(arguments.grid) and not arguments.objective
    try:
        return "objective" not in tomllib.loads(Path(arguments.file).read_text())
    except (OSError, ValueError):  # which is told in words, later
        return False
