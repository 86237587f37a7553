"""Where files lie that belong to no study: the cache that all homes share.

Stands below everything that keeps something for the next time.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_root() -> Path:
    """Return the folder shared by all homes: `$GRIDSEARCH_CACHE`, else the user's cache folder."""
    given = os.environ.get("GRIDSEARCH_CACHE")
    if given:
        return expanded(given)
    return Path(platformdirs.user_cache_dir("gridsearch", appauthor=False))


def expanded(path: str) -> Path:
    """Return an absolute path, with a user's home put in for `~`; `~nobody` is taken as it stands."""
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        return Path(path).absolute()
