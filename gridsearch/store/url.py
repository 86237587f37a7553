"""Reads `--store URL` before anything is opened, and keeps passwords out of every message."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from gridsearch.errors import UsageError
from gridsearch.folders import expanded

if TYPE_CHECKING:
    from pathlib import Path

_SQLITE = "sqlite:///"
_POSTGRESQL = re.compile(r"(postgresql|postgres)(\+psycopg)?://", re.IGNORECASE)
_GIVEN_BY = "$PGPASSWORD, a passfile or the file that $GRIDSEARCH_STORE_PASSWORD_FILE names gives it"
_SECRETS = ("password", "sslpassword", "oauth_client_secret")
_CREDENTIALS = re.compile(r"(?P<before>[A-Za-z][\w+.-]*://[^/@:\s]*):(?P<password>[^\s]*)@")
_PASSWORD_OPTION = re.compile(r"(?P<before>[?&](?:ssl)?(?:password|passwd|pwd)=)[^&\s]*", re.IGNORECASE)


def masked(text: str) -> str:
    """Return the text with the password of every URL in it replaced by `***`."""
    return _PASSWORD_OPTION.sub(r"\g<before>***", _CREDENTIALS.sub(r"\g<before>:***@", text))


def require_no_password(url: str, *, option: str = "--store") -> None:
    """Refuse a URL with a password in it, without repeating it.

    Args:
        url: of a store, or of a home.
        option: what gave it.

    Raises:
        UsageError: there is one.
    """
    if masked(url) != url:
        raise UsageError(
            f"{option} {masked(url)}: a password in a URL can be read by every user of this machine",
            hint=_without_password(url)
            if option == "--store"
            else "leave it out: its client's own variables hold it",
        )


def _without_password(url: str) -> str:
    if _POSTGRESQL.match(url):
        return f"leave it out: {_GIVEN_BY}"
    return "SQLite files take none: write sqlite:///PATH, or leave --store out"


def postgresql_parameters(url: str) -> dict[str, str] | None:
    """Return what a store URL says of a PostgreSQL database, as libpq names it; None where it is of another kind.

    Raises:
        UsageError: the URL holds a password, names no database, or has options that libpq does not take.
    """
    require_no_password(url)
    scheme = _POSTGRESQL.match(url)
    if scheme is None:
        return None
    try:
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict
    except ImportError as error:
        raise UsageError(
            f"--store {url}: PostgreSQL needs psycopg ({error})", hint="pip install 'gridsearch[postgresql]'"
        ) from error
    try:
        found = conninfo_to_dict(f"postgresql://{url[scheme.end() :]}")
    except ProgrammingError as error:
        raise UsageError(
            f"--store {url}: {' '.join(str(error).split())}",
            hint="write postgresql://USER@HOST:PORT/DATABASE",
        ) from error
    parameters = {name: str(value) for name, value in found.items()}
    if not parameters.keys().isdisjoint(_SECRETS):  # with its name written in another way
        raise UsageError(
            "--store: a password in a URL can be read by every user of this machine",
            hint=_without_password(url),
        )
    if "dbname" not in parameters and "service" not in parameters and "PGDATABASE" not in os.environ:
        raise UsageError(f"{url}: names no database", hint="write postgresql://USER@HOST:PORT/DATABASE")
    return parameters


def postgresql_url(url: str) -> str:
    """Return the URL of a PostgreSQL store as libpq and all messages spell it."""
    return _POSTGRESQL.sub("postgresql://", url, count=1)


def sqlite_path(url: str) -> Path:
    """Return the absolute path of the file that a store URL names.

    Raises:
        UsageError: the URL holds a password, is of a kind that this version does not take, or names no file.
    """
    require_no_password(url)
    name = url.removeprefix(_SQLITE)
    if name == url:
        raise UsageError(
            f"{url}: not a store URL",
            hint="write sqlite:///PATH (four slashes for an absolute path) or postgresql://USER@HOST/DATABASE",
        )
    if not name or name.startswith(":memory:") or name.endswith("/") or "\0" in name:
        raise UsageError(f"{url}: names no file", hint="write sqlite:///PATH/gridsearch.db")
    return expanded(name)


def sqlite_url(path: Path) -> str:
    """Return the store URL of a file."""
    return f"{_SQLITE}{path}"
