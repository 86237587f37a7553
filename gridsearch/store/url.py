"""Reads `--store URL` before anything is opened, and keeps passwords out of every message."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gridsearch.errors import UsageError
from gridsearch.folders import expanded

if TYPE_CHECKING:
    from pathlib import Path

_SQLITE = "sqlite:///"
_CREDENTIALS = re.compile(r"(?P<before>[A-Za-z][\w+.-]*://[^/@:\s]*):(?P<password>[^\s]*)@")
_PASSWORD_OPTION = re.compile(r"(?P<before>[?&](?:password|passwd|pwd)=)[^&\s]*", re.IGNORECASE)


def masked(text: str) -> str:
    """Return the text with the password of every URL in it replaced by `***`."""
    return _PASSWORD_OPTION.sub(r"\g<before>***", _CREDENTIALS.sub(r"\g<before>:***@", text))


def require_no_password(url: str) -> None:
    """Refuse a store URL with a password in it, without repeating it.

    Raises:
        UsageError: there is one.
    """
    if masked(url) != url:
        raise UsageError(
            f"--store {masked(url)}: a password in a URL can be read by every user of this machine",
            hint="stores are SQLite files and take none: write sqlite:///PATH, or leave --store out",
        )


def sqlite_path(url: str) -> Path:
    """Return the absolute path of the file that a store URL names.

    Raises:
        UsageError: the URL holds a password, is of a kind that this version does not take, or names no file.
    """
    require_no_password(url)
    scheme = url.partition(":")[0]
    if scheme.partition("+")[0] in ("postgresql", "postgres"):
        raise UsageError(
            f"--store {url}: PostgreSQL comes later",
            hint="use sqlite:///PATH, or leave --store out for <home>/gridsearch.db",
        )
    name = url.removeprefix(_SQLITE)
    if name == url:
        raise UsageError(
            f"--store {url}: not a store URL", hint="write sqlite:///PATH (four slashes for an absolute path)"
        )
    if not name or name.startswith(":memory:") or name.endswith("/") or "\0" in name:
        raise UsageError(f"--store {url}: names no file", hint="write sqlite:///PATH/gridsearch.db")
    return expanded(name)


def sqlite_url(path: Path) -> str:
    """Return the store URL of a file."""
    return f"{_SQLITE}{path}"
