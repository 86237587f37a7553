"""SIGTERM and SIGHUP end a command as Ctrl-C does: what is half done is cleared away; the exit code names the signal.

Commands with a way of their own to end (runs, servers) take the signals over for that time.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, NoReturn

from gridsearch.errors import Ended

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

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
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def end_silently() -> None:
    """Let Ctrl-C end this process at once and without a traceback: its command has ended, and said so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end(signum: int, _frame: FrameType | None) -> NoReturn:
    raise Ended(signum)
