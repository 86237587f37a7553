"""TensorBoard on the runs that trials wrote; beside the report, for looking further."""

from __future__ import annotations

import contextlib
import io
import logging
import signal
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

from gridsearch.errors import GridsearchError, UsageError
from gridsearch.web_guard import guarded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType
    from wsgiref.types import WSGIApplication


_REFRESH_SECONDS = 5.0


def serve_tensorboard(
    logdir: Path, *, host: str, port: int, say: Callable[[str], None], refresh: Callable[[], None]
) -> int:
    """Serve TensorBoard until SIGINT or SIGTERM, and return that signal's number.

    Args:
        logdir: folder of the runs; it may still be empty.
        host: address to listen on.
        port: port, 0 for any free one.
        say: called with the address.
        refresh: called every few seconds, to bring the runs of trials that have begun since into the folder.

    Raises:
        UsageError: the address cannot be listened on.
    """
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    # Its plug-ins warn of what their dependencies deprecated, and its loader prints a note to developers.
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        url = _launch(logdir, host, port)
    say(f"TensorBoard on {url} (Ctrl-C ends it)")
    received: list[int] = []
    ended = threading.Event()

    def end(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        ended.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    due = time.monotonic() + _REFRESH_SECONDS
    while not ended.wait(0.5):  # with a time-out: a plain wait would hold up the signal on some systems
        if time.monotonic() > due:
            with contextlib.suppress(GridsearchError, OSError):  # a store that is away comes back
                refresh()
            due = time.monotonic() + _REFRESH_SECONDS
    return received[0]


def _launch(logdir: Path, host: str, port: int) -> str:
    """Start TensorBoard in threads of this process and return its address."""
    from tensorboard import program

    def server(app: WSGIApplication, flags: Any) -> Any:
        return program.WerkzeugServer(guarded(app, host=host), flags)

    board = program.TensorBoard(server_class=server)
    board.configure(
        argv=["tensorboard", f"--logdir={logdir}", f"--host={host}", f"--port={port}", "--reload_interval=5"]
    )
    try:
        return str(board.launch())
    except program.TensorBoardServerException as error:
        raise UsageError(
            f"TensorBoard cannot listen on {host}:{port}: {' '.join(str(error).split())}",
            hint="choose another --port, or end what listens there",
        ) from error
