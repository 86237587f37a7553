"""Serves Optuna's dashboard on a store, in the foreground; the only module that knows optuna-dashboard.

The dashboard has no login: it is bound to the loopback interface unless another address is given, and it answers no
page of another site (see `web_guard`).
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from gridsearch.store.dashboard_changes import changing
from gridsearch.web_server import serve_application

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
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
    return serve_application(
        changing(application(store), store),
        name="dashboard",
        host=host,
        port=port,
        ready=lambda address: ready(f"{address}/dashboard"),
        stop=stop,
    )


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
