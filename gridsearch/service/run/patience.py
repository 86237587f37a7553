"""Waits for a store that is away while nothing trains: at the end of a run, and when a winner was tested.

Beside `store.run_store`, which does so while trials train.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from gridsearch.errors import StoreUnreachable
from gridsearch.store import may_return

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_AGAIN_SECONDS = 1.0


def patiently(call: Callable[[], T], *, patience: float, say: Callable[[str], None]) -> T:
    """Call what reads or writes the store, again and again while that is away.

    Args:
        call: may be called again after it failed.
        patience: seconds after which it is given up.
        say: takes a line when the wait begins, and one when it ends.

    Raises:
        StoreUnreachable: the store was away for too long.
    """
    since: float | None = None
    while True:
        try:
            found = call()
        except Exception as error:
            if not may_return(error):
                raise
            now = time.monotonic()
            if since is None:
                since = now
                say(f"{error.args[0]}; waiting for up to {patience:.0f} s")
            if now - since >= patience:
                raise StoreUnreachable(
                    f"{error.args[0]} (waited for {patience:.0f} s)",
                    hint="nothing is lost; run the same command again once it is back",
                ) from error
            time.sleep(min(_AGAIN_SECONDS, patience))
        else:
            if since is not None:
                say(f"the store is back after {time.monotonic() - since:.0f} s")
            return found
