"""Where files lie that belong to no study: the cache that all homes share.

Stands below everything that keeps something for the next time.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

_VARIABLE = "GRIDSEARCH_CACHE"


def cache_root(home: Path | None = None) -> Path:
    """Return the folder shared by all homes: `$GRIDSEARCH_CACHE`, else the user's cache folder.

    A user without a folder of their own, as in a container, has neither: then it lies below the home, for all of this
    process and those that it starts.

    Args:
        home: where studies lie; None where the place is settled already.
    """
    given = os.environ.get(_VARIABLE)
    if given:
        return expanded(given)
    try:
        usual = Path(platformdirs.user_cache_dir("gridsearch", appauthor=False))
    except RuntimeError:  # no $HOME, and nobody of this number is known to the system
        usual = None
    if usual is not None and (home is None or os.path.isdir(usual) or can_be_made(usual)):  # noqa: PTH112
        return usual
    below = (home or Path("runs").absolute()) / ".cache"
    if home is not None:
        os.environ[_VARIABLE] = str(below)
    return below


def can_be_made(folder: Path) -> bool:
    """Return whether a folder is there and can be written, or can be made; nothing is written to find out."""
    return os.access(nearest_there(folder), os.W_OK | os.X_OK)


def nearest_there(folder: Path) -> Path:
    """Return the folder, or the nearest above it that is there and may be looked into."""
    # Not Path.exists, which raises where a folder above may not be looked into.
    return next(place for place in (folder, *folder.parents) if os.path.exists(place))  # noqa: PTH110


def expanded(path: str | Path) -> Path:
    """Return an absolute path, with a user's home put in for `~`; `~nobody` is taken as it stands."""
    return tilde(path).absolute()


def tilde(path: str | Path) -> Path:
    """Return a path with a user's home put in for `~`, as it stands where that user has none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
