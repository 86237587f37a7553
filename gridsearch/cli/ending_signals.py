"""SIGTERM and SIGHUP end a command as Ctrl-C does: what is half done is cleared away; the exit code names the signal.

Commands with a way of their own to end (runs, servers) take the signals over for that time.
"""

from __future__ import annotations

import _thread
import contextlib
import functools
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, NoReturn

from gridsearch.errors import Ended

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_SOON = 0.01  # seconds: the callback has ended by then
_NUMBERS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """Return the exit code of a command that was interrupted: 128 and the signal's number."""
    return 128 + (interrupt.signum if isinstance(interrupt, Ended) else signal.SIGINT)


@contextlib.contextmanager
def interrupting() -> Iterator[None]:
    """Let the signals interrupt the block, but for those that somebody handles or, like `nohup`, ignores."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = [number for number in _NUMBERS if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _end)
    others = sys.unraisablehook
    sys.unraisablehook = functools.partial(_send_again, others)
    try:
        yield
    finally:
        sys.unraisablehook = others
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _send_again(others: Callable[[sys.UnraisableHookArgs], object], found: sys.UnraisableHookArgs) -> None:
    """Send a signal once more that came within a callback of Python's, of which no exception gets out.

    Python would print its traceback, and the command would go on as if there had been no signal.
    """
    if isinstance(found.exc_value, KeyboardInterrupt):
        busy = threading.Lock()
        busy.acquire()  # a signal within this function would be lost as well
        _thread.start_new_thread(_send, (exit_code(found.exc_value) - 128, busy))
        busy.release()
    else:
        others(found)


def _send(number: int, busy: threading.Lock) -> None:
    with busy:
        time.sleep(_SOON)
    os.kill(os.getpid(), number)


def end_silently() -> None:
    """Let Ctrl-C end this process at once and without a traceback: its command has ended, and said so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end(signum: int, _frame: FrameType | None) -> NoReturn:
    raise Ended(signum)
