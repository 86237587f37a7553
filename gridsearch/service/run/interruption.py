"""Signals during a run: the first asks for an orderly end, the second ends at once."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gridsearch.errors import Ended

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_HANGUP = getattr(signal, "SIGHUP", None)
"""Its terminal was closed; some systems have none."""


class Interruption:
    """Whether somebody wants the run to end, and by which signal."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def __bool__(self) -> bool:
        return self.signum is not None

    def _handle(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the interpreter's signature
        if self.signum is None:
            self.signum = signum
        elif signum != _HANGUP:  # which the shell and the kernel both send
            raise Ended(self.signum)


@contextmanager
def listening() -> Iterator[Interruption]:
    """Take SIGINT, SIGTERM and SIGHUP over for a while, the last unless it is ignored, as `nohup` asks.

    Outside the main thread nothing is taken over.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if _HANGUP is not None and signal.getsignal(_HANGUP) is not signal.SIG_IGN:
        before[_HANGUP] = signal.getsignal(_HANGUP)
    for number in before:
        signal.signal(number, interruption._handle)
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
