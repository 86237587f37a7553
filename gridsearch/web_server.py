"""Serves a WSGI application in the foreground until it is interrupted: Optuna's dashboard, and the live pages.

Below both, beside `web_guard`, through which every request goes: no such server has a login.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from socket import AF_INET6
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from gridsearch.errors import UsageError
from gridsearch.web_guard import guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from wsgiref.types import WSGIApplication

SILENT_SECONDS: Final = 60.0
"""A client that says nothing for so long is let go, so that its thread ends."""


def serve_application(
    app: WSGIApplication,
    *,
    name: str,
    host: str,
    port: int,
    ready: Callable[[str], None],
    stop: threading.Event | None = None,
) -> int | None:
    """Serve an application until SIGINT or SIGTERM comes, or `stop` is set.

    Args:
        app: what answers; pages of other sites are refused before it (see `web_guard`).
        name: what the user calls it, for an error.
        host: address to bind; anything but loopback lets everybody who reaches it in.
        port: 0 takes a free one.
        ready: called with the address, "http://127.0.0.1:8080", once it answers.
        stop: ends it from another thread.

    Returns:
        The number of the signal that ended it, None without one.

    Raises:
        UsageError: the address or the port cannot be bound.
    """
    try:
        server = make_server(
            host, port, guarded(app, host=host), server_class=_server_class(host), handler_class=_QuietHandler
        )
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"{name} cannot listen on {host}:{port}: {reason}", hint="name another --port"
        ) from error
    ended = stop or threading.Event()
    with server, _signals(ended) as received:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        shown = f"[{host}]" if ":" in host else host
        ready(f"http://{shown}:{server.server_port}")
        while not ended.wait(0.2):  # with a timeout: a plain wait would hold up the signal on some systems
            pass
        server.shutdown()
        thread.join()
    return received[0] if received else None


class _Server(ThreadingMixIn, WSGIServer):
    """Answers each request in a thread of its own, which does not outlive the server."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Leave the terminal alone where a client went away, or never said what it wanted."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Server6(_Server):
    address_family = AF_INET6


def _server_class(host: str) -> type[_Server]:
    return _Server6 if ":" in host else _Server


class _QuietHandler(WSGIRequestHandler):
    """Keeps the terminal for what the user should see."""

    timeout = SILENT_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base class names it so
        """Say nothing of a request."""


@contextlib.contextmanager
def _signals(ended: threading.Event) -> Iterator[list[int]]:
    """Set the event at SIGINT and SIGTERM, where signals can be handled; give the list of those received."""
    received: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        ended.set()

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
