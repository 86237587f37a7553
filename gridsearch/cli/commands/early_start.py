"""Whether ``run`` starts to load what workers need before anything else: where its words say what it trains here."""

from __future__ import annotations

import tomllib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from gridsearch.records.study_kinds import StudyKind


def load_early(arguments: argparse.Namespace) -> None:
    """Start the process that loads what workers need and then forks them; it ends with this one.

    For a function that is little, and not torch.  Nothing is started for a study of which the store alone knows what it
    is.
    """
    if arguments.executor not in (None, "local") or (kind := _kind(arguments)) is None:
        return
    from gridsearch.executors.local import worker_environment
    from gridsearch.executors.warm_parent import WarmParent

    with suppress(OSError):  # one that is needed is started later, and says what is wrong
        WarmParent.start(kind.name, worker_environment(threads=1))


def _kind(arguments: argparse.Namespace) -> StudyKind | None:
    """Return what the words are about; None where they are not sound enough to be likely to train anything."""
    from gridsearch.records.study_kinds import kind_of

    if arguments.file is None:
        return kind_of(vars(arguments)) if arguments.grid else None
    try:
        return kind_of(tomllib.loads(Path(arguments.file).read_text()))
    except (OSError, ValueError):  # the command itself says so, later
        return None
