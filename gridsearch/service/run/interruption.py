"""Signals during a run: the first asks for an orderly end, the second ends at once."""

from __future__ import annotations

import _thread
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gridsearch.errors import Ended

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_HANGUP = getattr(signal, "SIGHUP", None)
"""Its terminal was closed; some systems have none."""

UNHEARD_SECONDS = 1.0
"""Whoever asks whether there was a signal does so several times a second; code that runs for longer does not ask."""


class Interruption:
    """Whether somebody wants the run to end, and by which signal.

    Args:
        say: takes a line, in another thread, if nobody has asked for a second after the first signal.
    """

    def __init__(self, say: Callable[[str], None] = lambda _: None) -> None:
        self.signum: int | None = None
        self._say = say
        self._heard = False

    def __bool__(self) -> bool:
        self._heard = self._heard or self.signum is not None
        return self.signum is not None

    def _handle(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the interpreter's signature
        if self.signum is None:
            self.signum = signum
            # `threading` takes locks to start a thread, which the code that the signal interrupts may hold
            _thread.start_new_thread(self._say_if_unheard, ())
        elif signum != _HANGUP:  # which the shell and the kernel both send
            raise Ended(self.signum)

    def _say_if_unheard(self) -> None:
        time.sleep(UNHEARD_SECONDS)
        if not self._heard:
            self._say("interrupted: waiting for the code that runs now to return; Ctrl-C again stops at once")


@contextmanager
def listening(say: Callable[[str], None]) -> Iterator[Interruption]:
    """Take SIGINT, SIGTERM and SIGHUP over for a while, the last unless it is ignored, as `nohup` asks.

    Outside the main thread nothing is taken over.

    Args:
        say: takes a line, in another thread, where code that does not return keeps the first signal from having any
            effect.
    """
    interruption = Interruption(say)
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
        interruption._heard = True  # it has ended
        for number, handler in before.items():
            signal.signal(number, handler)
