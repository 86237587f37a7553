"""Hugging Face's hub, for datasets and weights: what is here needs no network, and where none is, that is seen at once.

The hub's own client tries again for most of a minute where no address answers.
"""

from __future__ import annotations

import socket
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def offline_if_unreachable(*, local: bool = False) -> Iterator[None]:
    """Look at what is here alone where the hub has no address, or where nothing of it is wanted.

    Args:
        local: whether nothing of the hub is wanted.
    """
    import huggingface_hub.constants as hub

    unreachable = local or not _has_address(str(hub.ENDPOINT))
    before = hub.HF_HUB_OFFLINE
    if unreachable:
        hub.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before


def fetched(repository: str, name: str) -> Path:
    """Return a file of the hub, fetched if it is not here.

    Raises:
        Exception: whatever the hub's client raises.
    """
    import huggingface_hub

    with offline_if_unreachable():
        return Path(huggingface_hub.hf_hub_download(repository, name))


def _has_address(endpoint: str) -> bool:
    """Whether a host can be found; one behind a proxy need not be."""
    if urllib.request.getproxies():
        return True
    try:
        socket.getaddrinfo(urllib.parse.urlsplit(endpoint).hostname, 443)
    except OSError:
        return False
    return True
