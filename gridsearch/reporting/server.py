"""TensorBoard on the runs that trials wrote; beside the report, for looking further."""

from __future__ import annotations

import logging
import signal
import threading
from typing import TYPE_CHECKING

from gridsearch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def serve_tensorboard(logdir: Path, *, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve TensorBoard until SIGINT or SIGTERM.

    Args:
        logdir: folder of the runs; it may still be empty.
        host: address to listen on.
        port: port, 0 for any free one.
        say: is told the address.

    Raises:
        UsageError: the address cannot be listened on.
    """
    from tensorboard import program

    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    board = program.TensorBoard()
    board.configure(
        argv=["tensorboard", f"--logdir={logdir}", f"--host={host}", f"--port={port}", "--reload_interval=5"]
    )
    try:
        url = board.launch()
    except program.TensorBoardServerException as error:
        raise UsageError(
            f"TensorBoard cannot listen on {host}:{port}: {' '.join(str(error).split())}",
            hint="choose another --port, or end what listens there",
        ) from error
    say(f"TensorBoard on {url} (Ctrl-C ends it)")
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()
