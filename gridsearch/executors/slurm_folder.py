"""The folder that a run and its allocations share: under home, this user's alone, there as long as the run.

Stands below `slurm_transport`.  It holds where the runner is and the key that proves that somebody is of its run,
plug-ins of the runner's session, and submitit's own files.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
from typing import TYPE_CHECKING

import psutil

from gridsearch import files
from gridsearch.errors import unwritable
from gridsearch.executors.allocation import RUNNER
from gridsearch.executors.slurm import cancel_all

if TYPE_CHECKING:
    from pathlib import Path

NAME = "gridsearch-"
"""Begins the name of a run's jobs; the name of its folder follows."""


def make_folder(home: Path, token: str) -> Path:
    """Make the folder of a run, and clear away those of runners of this machine that were killed.

    Raises:
        StoreError: it cannot be made.
    """
    root = home.absolute() / files.SLURM
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for other in root.iterdir():
            if _is_left(other):
                cancel_all(NAME + other.name)
                shutil.rmtree(other, ignore_errors=True)
        folder = root / token
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise unwritable(root, error) from error
    return folder


def remove_folder(folder: Path) -> None:
    """Remove the folder of a run, and the one that holds it if no other run has its own there."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


def _is_left(folder: Path) -> bool:
    """Whether the runner of this folder ran on this machine, and is gone."""
    try:
        run = json.loads((folder / RUNNER).read_text())
        if run["machine"] != socket.gethostname():
            return False
        return bool(psutil.Process(run["pid"]).create_time() != run["began"])
    except psutil.NoSuchProcess:
        return True
    except (OSError, ValueError, KeyError, psutil.Error):
        return False


def this_process() -> dict[str, str | int | float]:
    """Return what `make_folder` of a later run recognizes this process by."""
    return {"machine": socket.gethostname(), "pid": os.getpid(), "began": psutil.Process().create_time()}


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only this user can read.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        path.touch(mode=0o600, exist_ok=False)
        path.write_bytes(content)
    except OSError as error:
        raise unwritable(path, error) from error
