"""Imports matplotlib: it loads whatever the user's environment says, and draws in our style alone.

Below every figure.  Matplotlib reads MPLBACKEND when it is imported and refuses to load where that names a backend
that is not installed (the shell of a notebook names its kernel's).  Figures here go to files, so no backend matters.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import warnings
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from gridsearch.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_BACKEND: Final = "MPLBACKEND"
_ONE_AT_A_TIME: Final = threading.RLock()
"""Matplotlib's settings belong to the whole process: two threads that draw would leave each other's behind."""
_styles: Final[list[Mapping[str, Any]]] = []
"""Those that are set, by the thread that draws."""


def backend_is_usable() -> bool:
    """Whether matplotlib takes what the environment says of its backend, wherever it is imported."""
    return os.environ.get(_BACKEND, "agg") == "agg"


@functools.cache
def load() -> None:
    """Import matplotlib, without the variables and the chatter of the user's setup in the way.

    The user's own backend is what it would have been, where it is there.

    Raises:
        ArtifactError: the user's matplotlibrc cannot be read.
    """
    with _ONE_AT_A_TIME, _quiet():
        # Without need it stays: another thread may give the environment to a process.
        asked = None if backend_is_usable() else os.environ.pop(_BACKEND)
        try:
            import matplotlib as mpl
            import matplotlib.style
            from matplotlib import font_manager  # noqa: F401  (says which folder it cannot write to)
        except UnicodeDecodeError as error:
            raise ArtifactError(
                "no figures: a file matplotlibrc, here or where MATPLOTLIBRC points to, is not UTF-8",
                hint="move it away, or save it as UTF-8",
            ) from error
        finally:
            if asked is not None:
                os.environ[_BACKEND] = asked
        if asked:
            with suppress(ValueError):  # not installed: the user's own figures need it, ours do not
                mpl.rcParams["backend"] = asked


@contextmanager
def our_style(ours: Mapping[str, Any]) -> Iterator[None]:
    """Draw under matplotlib's default style and ours on top, restore the user's own afterwards.

    Within a block of the same style there is nothing to do: to set one takes a millisecond.
    """
    load()
    import matplotlib.style

    with _ONE_AT_A_TIME:
        if _styles and _styles[-1] == ours:
            yield
            return
        _styles.append(ours)
        try:
            with matplotlib.style.context(["default", dict(ours)]), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
                yield
        finally:
            _styles.pop()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what matplotlib says of a home that it cannot write to and of lines it does not know."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
