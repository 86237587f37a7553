"""A model's buffers, kept as they are while parts of it run on samples: batch norm moves them.

Stands below `sample_values`, which runs a model in parts while it is traced, as often as its code asks for a size.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


class KeptBuffers:
    """Copies each buffer once, and gives all back after each change.

    Args:
        model: whose buffers they are.
    """

    def __init__(self, model: nn.Module) -> None:
        self._buffers = list(model.buffers())
        self._copies = [buffer.detach().clone() for buffer in self._buffers]
        self._versions = [buffer._version for buffer in self._buffers]

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Leave them as they were before."""
        for i, buffer in enumerate(self._buffers):
            if self._versions[i] != buffer._version:  # by code that is traced
                self._copies[i] = buffer.detach().clone()
        try:
            yield
        finally:
            if self._buffers:  # of running statistics that batch norm moves torch counts no versions
                with torch.no_grad():
                    torch._foreach_copy_(self._buffers, self._copies)
            self._versions = [buffer._version for buffer in self._buffers]
