"""Cross-entropies and their gradients as one compiled operation; see the C source beside this.

Shapes: K lanes, L one column for all lanes or K, B batch, Y classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gridsearch.training.kernels.calling import (
    POINTER,
    REALS,
    SIZE,
    address,
    function,
    place_of,
    require,
    require_type,
    strides,
)
from gridsearch.training.kernels.compiler import load

if TYPE_CHECKING:
    import ctypes

_SOURCE = Path(__file__).with_name("cross_entropy.c")


class CrossEntropy:
    """Mean cross-entropies of K lanes.

    Its results are torch's up to rounding, NaN included.  It computes in one thread, in a fixed order.

    Attributes:
        address: of its function, for plans.
    """

    def __init__(self, dtype: torch.dtype, library: ctypes.CDLL) -> None:
        self._dtype = dtype
        self._call = function(library.cross_entropy, SIZE, *[POINTER] * 6, *[SIZE] * 3)
        self.address = place_of(library.cross_entropy)

    @classmethod
    def build(cls, dtype: torch.dtype) -> CrossEntropy | None:
        """Return the kernel; None where it cannot be compiled."""
        library = load(_SOURCE, {"DOUBLE": REALS.index(dtype)}) if dtype in REALS else None
        return None if library is None else cls(dtype, library)

    def __call__(
        self, logits_KBY: torch.Tensor, labels_LB: torch.Tensor, smoothing_K: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return each lane's loss [K] and its gradient with respect to the logits [K, B, Y].

        Args:
            logits_KBY: of the network.
            labels_LB: int64, of the images.
            smoothing_K: each lane's label smoothing.

        Raises:
            IndexError: a label is that of no class.
        """
        lanes, images, classes = logits_KBY.shape
        logits_KBY, smoothing_K = logits_KBY.contiguous(), smoothing_K.contiguous()
        labels_KB = labels_LB.expand(lanes, images)
        require_type("logits", logits_KBY, self._dtype)
        require_type("labels", labels_KB, torch.int64)
        require("label smoothing", smoothing_K, (lanes,), self._dtype)
        losses_K, gradient_KBY = logits_KBY.new_empty(lanes), torch.empty_like(logits_KBY)
        wrong = self._call(
            *(address(logits_KBY), address(labels_KB), strides(labels_KB), address(smoothing_K)),
            *(address(losses_K), address(gradient_KBY), lanes, images, classes),
        )
        if wrong:
            label = int(labels_KB.flatten()[wrong - 1])
            raise IndexError(f"a label is {label}, where there are {classes} classes, counted from 0")
        return losses_K, gradient_KBY
