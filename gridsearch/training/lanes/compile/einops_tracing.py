"""einops while a model is traced: it asks what kind a tensor is, and knows none of torch.fx's.

Stands below `tracer`.  Its functions then call those of torch with what stands for tensors, and become part of the
graph; its layers need no help.  einops is not imported here: a model that uses it has run before it is traced.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_BACKENDS = "einops._backends"
_KINDS = "_type2backend"
"""The table in which einops notes, kind by kind, what knows tensors of that kind; since its first version."""


class _Backend:
    """What einops knows of torch, with shapes as lists.

    einops keeps the shapes of tuples that it can hash, and would keep whole graphs with what stands for their sizes.
    """

    def __init__(self, torchs: Any, number: Callable[[Any], Any]) -> None:
        self._torchs, self._number = torchs, number

    def shape(self, x: Any) -> list[Any]:
        """Return the sides of what stands for a tensor, as numbers where they do not depend on the batch."""
        return [self._number(side) for side in x.shape]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._torchs, name)


@contextmanager
def einops_knows(kinds: tuple[type, ...], number: Callable[[Any], Any]) -> Iterator[None]:
    """Let einops take, for the length of a block, what stands for tensors.

    Args:
        kinds: classes of what stands for them.
        number: gives of a side that it gets the number, or the side again.
    """
    backends = sys.modules.get(_BACKENDS)
    table = getattr(backends, _KINDS, None)
    if not isinstance(table, dict):
        yield
        return
    torchs = backends.get_backend(torch.empty(0))  # type: ignore[union-attr]
    known = dict.fromkeys(kinds, _Backend(torchs, number))
    table.update(known)
    try:
        yield
    finally:
        for kind in known:
            del table[kind]


__all__ = ["einops_knows"]
