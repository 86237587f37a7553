"""Lets Python's garbage collector rest while much is made that stays, as where large packages are imported.

Below all layers.  The collector looks again and again at all that is there, and finds next to nothing: importing torch
takes a sixth longer with it (1.41 and 1.20 s of a core), drawing a small study's report a quarter (3.2 and 2.5 s).
"""

from __future__ import annotations

import gc
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Resting:
    """How many ask for it just now, and whether the collector goes on after the last of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0
        self.goes_on = False


_resting = _Resting()


@contextmanager
def resting(*, keep: bool = False) -> Iterator[None]:
    """Collect no garbage meanwhile, in no thread of this process.

    Args:
        keep: leave all that is there at the end out of every collection to come, since it lasts as long as the process.
    """
    with _resting.lock:
        if not _resting.count:
            _resting.goes_on = gc.isenabled()
            gc.disable()
        _resting.count += 1
    try:
        yield
    finally:
        if keep:
            gc.freeze()
        with _resting.lock:
            _resting.count -= 1
            if not _resting.count and _resting.goes_on:
                gc.enable()
