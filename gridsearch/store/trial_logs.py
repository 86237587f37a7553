"""The log of a trial: what its code printed, and how it failed; the first and the last megabyte of that.

Below `artifacts`, which knows where logs lie.  A model that prints for hours costs no more disk than that.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from gridsearch import files

if TYPE_CHECKING:
    from pathlib import Path

FIRST = 1 << 20
LAST = 1 << 20
"""Bytes that are kept of the end, at least; up to twice as many until the file is written anew."""

_LEFT_OUT = re.compile(rb"\n\[(\d+) bytes are left out here\]\n")
_MARK = 64  # bytes that such a line has at most


def append(path: Path, text: str) -> None:
    """Append text to a log; what lies between its first and its last megabyte goes.

    Args:
        path: the file; its folder is made.
        text: written as it is, but for halves of characters, which are written as escapes.

    Raises:
        OSError: it cannot be written, or is a link.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
    with open(descriptor, "ab") as file:  # noqa: PTH123 - a descriptor
        file.write(text.encode("utf-8", "backslashreplace"))
        size = file.tell()
    if size > FIRST + _MARK + 2 * LAST:
        files.write_whole(path, _shortened(path.read_bytes()))


def _shortened(content: bytes) -> bytes:
    """Return the first and the last megabyte, whole lines where there are such, and what was left out in between."""
    there = _LEFT_OUT.search(content, 0, FIRST + _MARK)
    if there is not None:
        first, left_out, rest = content[: there.start()], int(there[1]), content[there.end() :]
    else:
        end = content.rfind(b"\n", 0, FIRST)
        first, left_out = (content[:end] if end >= 0 else _whole(content[:FIRST])), 0
        rest = content[len(first) :].removeprefix(b"\n")
    last = rest[-LAST:]
    last = last[last.find(b"\n") + 1 :] if b"\n" in last[:-1] else _whole(last)
    left_out += len(rest) - len(last)
    return first + f"\n[{left_out} bytes are left out here]\n".encode() + last


def _whole(text: bytes) -> bytes:
    """Return text without the halves of characters at its ends."""
    return text.decode(errors="ignore").encode()
