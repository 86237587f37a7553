"""Brings one file from an address to a local path, below the mirrors: limited in time and in size.

Not torchvision's own helper: that has no time-out, no limit on the size, and writes under the final name.  Nor pooch:
its time-out is for each read, so that a server that trickles a byte at a time is waited for as long as it likes; it
writes whatever comes and looks at it afterwards (400 MB for a file of 10 kB); it has no lock and no next address.  A
downloader given to it would be this module as it is; what it would save is the comparison of a sum.
"""

from __future__ import annotations

import http.client
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from gridsearch._version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from gridsearch.zoo.datasets.cache import Beat

SLOWEST = 4096
"""Bytes per second below which a server counts as hanging."""

_CHUNK = 1 << 16


class Unavailable(Exception):
    """A source does not give its files; says why in one line."""


def download(url: str, target: Path, *, limit: int, timeout: float, beat: Beat) -> None:
    """Fetch an http or https address into a file.

    The transfer runs in a thread of its own that is left behind if it hangs: looking up a host's name, and a
    host with many addresses, know no time-out of ours.

    Args:
        url: the address.
        target: a private file; what is in it after a failure is of no use.
        limit: bytes; more are refused.
        timeout: seconds in which at least `timeout * SLOWEST` bytes must come, or the end.
        beat: called now and then while it goes on.

    Raises:
        Unavailable: the address does not answer, not in time, not with a whole file, or with too much.
    """
    if not url.startswith(("http://", "https://")):
        raise Unavailable(f"not an http address: {url}")
    transfer = _Transfer(url, target, limit=limit, timeout=timeout)
    transfer.start()
    since, mark = time.monotonic(), 0
    while transfer.is_alive():
        transfer.join(0.05)
        beat()
        if time.monotonic() - since >= timeout:
            if transfer.received - mark < timeout * SLOWEST and transfer.is_alive():
                transfer.abandoned = True
                kind = "too slow" if transfer.received else "no answer"
                raise Unavailable(f"{kind} within {timeout:g} s")
            since, mark = time.monotonic(), transfer.received
    if isinstance(transfer.error, Unavailable):
        raise transfer.error
    if isinstance(transfer.error, OSError | http.client.HTTPException | ValueError):
        raise Unavailable(_why(transfer.error)) from transfer.error
    if transfer.error is not None:
        raise transfer.error
    if transfer.disk is not None:
        raise transfer.disk


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error  # urllib wraps what the socket says
    text = getattr(reason, "strerror", None) or str(reason)
    return " ".join(text.split()) or type(reason).__name__


class _Transfer(threading.Thread):
    """Reads an address into a file; `received`, `error` and `disk` are read by the thread that watches it."""

    def __init__(self, url: str, target: Path, *, limit: int, timeout: float) -> None:
        super().__init__(daemon=True, name=f"download {url}")
        self.url, self.target, self.limit, self.timeout = url, target, limit, timeout
        self.received = 0
        self.abandoned = False
        self.error: Exception | None = None
        self.disk: OSError | None = None
        """A file that cannot be written is no fault of the address."""

    def run(self) -> None:
        """Transfer; whatever goes wrong is kept for the watching thread."""
        try:
            self._transfer()
        except urllib.error.HTTPError as error:
            error.close()  # it is the answer too, with a connection
            self.error = error
        except Exception as error:  # noqa: BLE001  (handed to the watching thread)
            self.error = error

    def _transfer(self) -> None:
        request = urllib.request.Request(self.url, headers={"User-Agent": f"gridsearch/{__version__}"})  # noqa: S310  (http only, see download)
        with urllib.request.urlopen(request, timeout=self.timeout) as answer:  # noqa: S310
            announced = answer.headers.get("Content-Length", "")
            if announced.isdigit() and int(announced) > self.limit:
                raise Unavailable(f"{announced} bytes, expected {self.limit} at most")
            if not self._copy(answer):
                return
        if announced.isdigit() and self.received != int(announced):
            raise Unavailable(f"cut short, expected {announced} bytes, found {self.received}")

    def _copy(self, answer: http.client.HTTPResponse) -> bool:
        try:
            file = self.target.open("wb", buffering=0)
        except OSError as error:
            self.disk = error
            return False
        with file:
            while chunk := answer.read1(_CHUNK):
                self.received += len(chunk)
                if self.abandoned:
                    return False
                if self.received > self.limit:
                    raise Unavailable(f"more than {self.limit} bytes")
                try:
                    file.write(chunk)
                except OSError as error:
                    self.disk = error
                    return False
        return True
