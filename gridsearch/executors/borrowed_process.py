"""The process of an inline run is the session's own: it is borrowed for a trial's code and given back as it was.

Around the user's code in `function_trainer` and `worker`.  What no library can give back (threads that were left
running, objects that were changed) is why trials run in worker processes unless inline is asked for.
"""

from __future__ import annotations

import codecs
import gc
import io
import locale
import logging
import operator
import os
import signal
import socket
import sys
import threading
import time
import warnings
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TextIO

from gridsearch.plugins.arithmetic import computing
from gridsearch.random_streams import TURN, restore, states

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from typing_extensions import Buffer

    from gridsearch.executors.logs import LogStream


@contextmanager
def borrowed(*arithmetic: Mapping[str, Any]) -> Iterator[None]:
    """Compute under Python's and torch's own defaults, and leave the process as it was; threads take turns.

    Kept are the random streams, logging's handlers and levels, warning filters, `sys.path` and `sys.argv`, the
    environment, the working folder, the umask, the locale, handlers of signals and an alarm, hooks, standard input,
    how `multiprocessing` starts processes, how numpy and `decimal` compute and print, and torch's default dtype and
    device, gradients, autocast, anomaly detection, determinism and threads.

    Args:
        arithmetic: in what the trial's own code computes otherwise, see `plugins.arithmetic`.
    """
    with TURN, ExitStack() as stack:
        stack.callback(restore, states())
        stack.callback(_restore_process, _process())
        stack.callback(_restore_logging, _logging())
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(computing(*arithmetic))
        if (numpy := sys.modules.get("numpy")) is not None:
            stack.enter_context(numpy.printoptions())
        if "torch" in sys.modules:
            stack.enter_context(_torch_defaults())
        yield


def from_keyboard(error: BaseException) -> bool:
    """Whether an error may be a Ctrl-C, of which a worker hears nothing, and not what code has raised itself."""
    return isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


class Printing:
    """Sends to a log what a thread prints, and threads that it starts; what others print goes where it went.

    Args:
        log: the trial's.
    """

    def __init__(self, log: LogStream) -> None:
        # One pair for all steps of a trial: a logging handler made in the first keeps what it found there.
        self._streams = {name: _Divided(log, getattr(sys, name)) for name in ("stdout", "stderr")}

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Have what the block prints."""
        with TURN:
            before = {name: getattr(sys, name) for name in self._streams}
            others = {*threading.enumerate()} - {threading.current_thread()}
            for name, stream in self._streams.items():
                stream.divide(others)
                setattr(sys, name, stream)
            try:
                yield
            finally:
                for name, stream in self._streams.items():
                    stream.divide(None)
                    setattr(sys, name, before[name])


class _Divided(io.TextIOWrapper):
    """A standard stream with a different target for some threads; outside of `inside` it is the session's.

    It has all that Python's own streams have, `buffer` and `reconfigure` too, but cannot be closed: the session and
    the steps to come write to it.
    """

    def __init__(self, log: LogStream, session: TextIO | None) -> None:
        self._way = _Way(log, session)
        super().__init__(self._way, encoding="utf-8", errors="replace", newline="\n", write_through=True)

    def divide(self, others: set[threading.Thread] | None) -> None:
        """Send all but these threads to the log, or everybody to the session."""
        self._way.others = others

    def close(self) -> None:
        """Flush alone."""
        self.flush()

    def detach(self) -> Any:
        """Return the stream of bytes, which this one goes on to write to."""
        return self._way


class _Way(io.BufferedIOBase):
    """Takes a divided stream's bytes to where those of the thread that writes them belong."""

    name = "<log>"

    def __init__(self, log: LogStream, session: TextIO | None) -> None:
        self.others: set[threading.Thread] | None = None
        self._log = log
        self._session = session
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def _target(self) -> Any:
        if self.others is None or threading.current_thread() in self.others:
            return self._session
        return self._log

    def write(self, content: Buffer) -> int:
        """Write to where this thread's text belongs; a session without a stream has none."""
        target, whole = self._target(), bytes(content)
        if target is self._log:
            target.write(self._decoder.decode(whole))
        elif target is not None:
            target.write(whole.decode("utf-8", "replace"))
        return len(whole)

    def flush(self) -> None:
        """Flush where this thread's text belongs."""
        if (target := self._target()) is not None:
            target.flush()

    def close(self) -> None:
        """Flush alone."""
        self.flush()

    def writable(self) -> bool:
        """Say yes."""
        return True

    def fileno(self) -> int:
        """Return the session's descriptor, for a child process or `faulthandler`; a worker's leads to the log."""
        return super().fileno() if self._session is None else self._session.fileno()


def _process() -> list[tuple[_Keep, Any]]:
    return [(keep, keep.get()) for keep in _KEPT]


def _restore_process(before: list[tuple[_Keep, Any]]) -> None:
    for keep, value in before:
        if keep.get() != value:
            keep.put(value)


class _Keep(NamedTuple):
    """Something of the process: how it is looked at, and set."""

    get: Callable[[], Any]
    put: Callable[[Any], object]


def _set_environment(before: Mapping[str, str]) -> None:
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)
    time.tzset()


def _set_folder(before: str | None) -> None:
    if before is not None:
        os.chdir(before)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _handlers() -> dict[signal.Signals, Any]:
    """Return the handlers of signals; none outside of the main thread, which alone may set them."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.getsignal(number) for number in signal.Signals}


def _set_handlers(before: Mapping[signal.Signals, Any]) -> None:
    for number, handler in before.items():
        if handler is not None and signal.getsignal(number) != handler:
            signal.signal(number, handler)


def _end_alarm(before: bool) -> None:
    """End a timer that was not there before: its signal would reach the next trial."""
    if not before:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _hooks() -> tuple[Any, ...]:
    return sys.excepthook, sys.displayhook, threading.excepthook, sys.stdin


def _set_hooks(before: tuple[Any, ...]) -> None:
    sys.excepthook, sys.displayhook, threading.excepthook, sys.stdin = before


def _start_method() -> str | None:
    """Return how `multiprocessing` starts processes, None while nobody has chosen: torch.fx chooses, by tqdm's lock."""
    multiprocessing = sys.modules.get("multiprocessing")
    return None if multiprocessing is None else multiprocessing.get_start_method(allow_none=True)


def _set_start_method(before: str | None) -> None:
    sys.modules["multiprocessing"].set_start_method(before, force=True)


def _folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - a text to go back to
    except OSError:
        return None


_KEPT: Final = (
    _Keep(lambda: list(sys.path), lambda before: operator.setitem(sys.path, slice(None), before)),
    _Keep(lambda: list(sys.argv), lambda before: operator.setitem(sys.argv, slice(None), before)),
    _Keep(sys.getrecursionlimit, sys.setrecursionlimit),
    _Keep(sys.getswitchinterval, sys.setswitchinterval),
    _Keep(sys.get_int_max_str_digits, sys.set_int_max_str_digits),
    _Keep(lambda: logging.root.manager.disable, logging.disable),
    _Keep(lambda: dict(os.environ), _set_environment),
    _Keep(_folder, _set_folder),
    _Keep(_umask, os.umask),
    _Keep(lambda: locale.setlocale(locale.LC_ALL), lambda before: locale.setlocale(locale.LC_ALL, before)),
    _Keep(gc.isenabled, lambda before: gc.enable() if before else gc.disable()),
    _Keep(socket.getdefaulttimeout, socket.setdefaulttimeout),
    _Keep(lambda: signal.getitimer(signal.ITIMER_REAL)[0] > 0, _end_alarm),
    _Keep(_start_method, _set_start_method),
    _Keep(_handlers, _set_handlers),
    _Keep(_hooks, _set_hooks),
)


def _logging() -> dict[logging.Logger, tuple[list[logging.Handler], int]]:
    known = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    return {logger: (list(logger.handlers), logger.level) for logger in (logging.root, *known)}


def _restore_logging(before: dict[logging.Logger, tuple[list[logging.Handler], int]]) -> None:
    """Put handlers and levels back; loggers that are new keep none that writes to a trial's log."""
    for logger in _logging():
        if logger in before:
            handlers, level = before[logger]
            if logger.handlers != handlers:
                logger.handlers[:] = handlers
            if logger.level != level:
                logger.setLevel(level)
        else:
            logger.handlers[:] = [
                h for h in logger.handlers if not isinstance(getattr(h, "stream", None), _Divided)
            ]


@contextmanager
def _torch_defaults() -> Iterator[None]:
    import torch

    device = torch.get_default_device()
    deterministic = _determinism()
    tuned = torch.backends.cudnn.benchmark
    precision, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    with ExitStack() as stack:
        stack.enter_context(_outside_autocast())
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(torch.enable_grad())
        # it raises where a loss is NaN, and such a trial has diverged
        stack.enter_context(torch.autograd.set_detect_anomaly(False))
        if device.type != "cpu":
            torch.set_default_device("cpu")
        try:
            yield
        finally:
            if torch.get_default_device() != device:
                torch.set_default_device(device)
            if _determinism() != deterministic:  # the call loads torch's compiler, a second's work
                torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
            torch.set_float32_matmul_precision(precision)
            torch.backends.cudnn.benchmark = tuned
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)


@contextmanager
def _outside_autocast() -> Iterator[None]:
    """Compute as outside of any block of `torch.autocast`.

    `torch.autocast(enabled=False)` would itself be a block around those of the trial, and torch keeps weights that it
    has rounded, whatever becomes of them, until the outermost block ends.
    """
    import torch

    enabled = [kind for kind in _AUTOCAST if torch.is_autocast_enabled(kind)]
    depth = torch.autocast_increment_nesting()
    for _ in range(depth):
        torch.autocast_decrement_nesting()
    for kind in enabled:
        torch.set_autocast_enabled(kind, False)
    torch.clear_autocast_cache()
    try:
        yield
    finally:
        for _ in range(depth - 1):
            torch.autocast_increment_nesting()
        for kind in enabled:
            torch.set_autocast_enabled(kind, True)


_AUTOCAST = ("cpu", "cuda", "mps", "xpu")
"""The kinds of devices that a user may have computed on under autocast before."""


def _determinism() -> tuple[bool, bool]:
    import torch

    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
