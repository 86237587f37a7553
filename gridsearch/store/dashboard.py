"""Serves Optuna's dashboard on a store, in the foreground; the only module that knows optuna-dashboard.

The dashboard has no login: it is bound to the loopback interface unless another address is given, and it answers no
page of another site (see `web_guard`).
"""

from __future__ import annotations

import contextlib
import signal
import threading
import warnings
from socket import AF_INET6
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from gridsearch.errors import UsageError
from gridsearch.store.dashboard_changes import changing
from gridsearch.web_guard import guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from wsgiref.types import WSGIApplication

    from gridsearch.store.store import Store


def serve_dashboard(
    store: Store,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    ready: Callable[[str], None] = lambda _url: None,
    stop: threading.Event | None = None,
) -> int | None:
    """Serve the dashboard until SIGINT or SIGTERM comes, or `stop` is set.

    Args:
        store: the open store.
        host: address to bind; anything but loopback lets everybody who reaches it change the store.
        port: 0 takes a free one.
        ready: called with the dashboard's URL once it answers.
        stop: ends it from another thread.

    Returns:
        The number of the signal that ended it, None without one.

    Raises:
        UsageError: the address or the port cannot be bound.
    """
    app = guarded(changing(application(store), store), host=host)
    try:
        server = make_server(host, port, app, server_class=_server_class(host), handler_class=_QuietHandler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"dashboard cannot listen on {host}:{port}: {reason}", hint="name another --port"
        ) from error
    ended = stop or threading.Event()
    with server, _signals(ended) as received:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        shown = f"[{host}]" if ":" in host else host
        ready(f"http://{shown}:{server.server_port}/dashboard")
        while not ended.wait(0.2):  # with a timeout: a plain wait would hold up the signal on some systems
            pass
        server.shutdown()
        thread.join()
    return received[0] if received else None


def application(store: Store) -> WSGIApplication:
    """Return the dashboard as a WSGI application on a store."""
    from gridsearch.store.dashboard_copies import DashboardCopies
    from gridsearch.store.viewer_storage import ViewerStorage

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports warn of what they deprecated themselves
        from optuna_dashboard._app import wsgi

    app: WSGIApplication = wsgi(
        ViewerStorage(store._database.dialect),
        artifact_store=DashboardCopies(store.home),
    )
    return app


class _Server(ThreadingMixIn, WSGIServer):
    """Answers each request in a thread of its own, which does not outlive the server."""

    daemon_threads = True


class _Server6(_Server):
    address_family = AF_INET6


def _server_class(host: str) -> type[_Server]:
    return _Server6 if ":" in host else _Server


class _QuietHandler(WSGIRequestHandler):
    """Keeps the terminal for what the user should see."""

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
