"""Losses and their gradients as one compiled operation; see the C source beside this.

Shapes: K lanes, L one column for all lanes or K, B batch, Y classes.
"""

from __future__ import annotations

import ctypes
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
    from collections.abc import Sequence

    from gridsearch.training.lane_loss import LossRecipe

_SOURCE = Path(__file__).with_name("cross_entropy.c")


def _loss_struct(real: type) -> type[ctypes.Structure]:
    """Return `struct loss_recipe` with numbers of the logits' type."""

    class LossStruct(ctypes.Structure):
        _fields_ = (("smoothing", real), ("gamma", real), ("weights", POINTER))

    return LossStruct


LOSS_STRUCTS = (_loss_struct(ctypes.c_float), _loss_struct(ctypes.c_double))
"""`struct loss_recipe` for each of `REALS`."""


class LaneLosses:
    """How the losses of K lanes are computed, as compiled code reads it.

    Args:
        recipes: each lane's.
        dtype: of the logits.

    Attributes:
        structs: K `struct loss_recipe`; what they refer to lives as long as this does.
    """

    def __init__(self, recipes: Sequence[LossRecipe], dtype: torch.dtype) -> None:
        self._weights = [None if r.weights is None else r.weights.to(dtype).contiguous() for r in recipes]
        struct = LOSS_STRUCTS[REALS.index(dtype)]
        self.structs = (struct * len(recipes))(
            *(struct(r.smoothing, r.gamma, address(w)) for r, w in zip(recipes, self._weights, strict=True))
        )

    def require(self, lanes: int, classes: int, dtype: torch.dtype) -> None:
        """Check that these are so many lanes with weights of so many classes.

        Raises:
            ValueError: they are not.
        """
        if len(self.structs) != lanes or not isinstance(self.structs[0], LOSS_STRUCTS[REALS.index(dtype)]):
            raise ValueError(f"losses of {len(self.structs)} lanes, where a kernel needs {lanes} of {dtype}")
        for weights_Y in self._weights:
            if weights_Y is not None:
                require("class weights", weights_Y.unsqueeze(0), (1, classes), dtype)


class CrossEntropy:
    """Mean cross-entropies or focal losses of K lanes.

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
        self, logits_KBY: torch.Tensor, labels_LB: torch.Tensor, recipes: LaneLosses
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return each lane's loss [K] and its gradient with respect to the logits [K, B, Y].

        Args:
            logits_KBY: of the network.
            labels_LB: int64, of the images.
            recipes: how each lane's loss is computed.

        Raises:
            IndexError: a label is that of no class.
        """
        lanes, images, classes = logits_KBY.shape
        logits_KBY = logits_KBY.contiguous()
        labels_KB = labels_LB.expand(lanes, images)
        require_type("logits", logits_KBY, self._dtype)
        require_type("labels", labels_KB, torch.int64)
        recipes.require(lanes, classes, self._dtype)
        losses_K, gradient_KBY = logits_KBY.new_empty(lanes), torch.empty_like(logits_KBY)
        wrong = self._call(
            *(address(logits_KBY), address(labels_KB), strides(labels_KB), recipes.structs),
            *(address(losses_K), address(gradient_KBY), lanes, images, classes),
        )
        if wrong:
            label = int(labels_KB.flatten()[wrong - 1])
            raise IndexError(f"a label is {label}, where there are {classes} classes, counted from 0")
        return losses_K, gradient_KBY
