"""Keeps the pages of other sites away from the servers that a user starts, none of which has a login.

Below both: Optuna's dashboard in the store and TensorBoard in reporting.  A page of another site may have pointed a
name of its own to this machine (DNS rebinding), or may let the browser of its reader send a request here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


def guarded(app: WSGIApplication, *, host: str) -> WSGIApplication:
    """Return an application that refuses the requests of other sites' pages.

    Args:
        app: the application.
        host: the address that it listens on; on the loopback interface only its own names are answered.
    """

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        named = environ.get("HTTP_HOST", "")
        if _is_foreign(environ, named) or (host in LOOPBACK and _name(named) not in LOOPBACK):
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [
                b"This server answers only its own pages, and on the loopback interface only its own names.\n"
            ]
        return app(environ, start_response)

    return answer


def _is_foreign(environ: WSGIEnvironment, host: str) -> bool:
    """Whether another site's page sends a request; that a reader follows a link of it is no harm.

    Browsers say so in Sec-Fetch-Site (https://www.w3.org/TR/fetch-metadata/); those of before 2023 name the page's
    origin at least where a request could change something.
    """
    site, origin = environ.get("HTTP_SEC_FETCH_SITE", "none"), environ.get("HTTP_ORIGIN")
    if site == "none":
        return origin is not None and origin.partition("://")[2] != host
    link = environ["REQUEST_METHOD"] == "GET" and environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
    return site != "same-origin" and not link


def _name(address: str) -> str:
    """Return the name in `name:port`."""
    name, _, port = address.rpartition(":")
    return (name if port.isdigit() else address).strip("[]").lower()
