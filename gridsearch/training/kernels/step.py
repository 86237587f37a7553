"""A step of an optimizer for all lanes as one compiled operation; see the C source beside this.

Shapes: K lanes, P elements of a lane's trained parameters.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING

from gridsearch.training.kernels.calling import (
    POINTER,
    REALS,
    SIZE,
    address,
    function,
    place_of,
    require_type,
)
from gridsearch.training.kernels.compiler import load
from gridsearch.training.lane_optimizer import OPTIMIZERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from gridsearch.records import ImageSettings

_SOURCE = Path(__file__).with_name("optimizer_step.c")


class _Lane(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_double) for name in ("lr", "decay", "momentum", "clip_norm", "clip_value")),
        *((name, ctypes.c_int64) for name in ("nesterov", "steps")),
        ("mu_product", ctypes.c_float),
    )


class OptimizerStep:
    """Moves the weights of K lanes, each by its own recipe.

    Its results are those of `torch.optim` up to rounding.  It computes in one thread, in a fixed order.

    Attributes:
        address: of its function, for plans.
    """

    def __init__(self, dtype: torch.dtype, library: ctypes.CDLL) -> None:
        self._dtype = dtype
        self._call = function(library.step, None, *[POINTER] * 4, *[SIZE] * 2, POINTER)
        self.address = place_of(library.step)
        self._lanes = (_Lane * 0)()

    @classmethod
    def build(cls, kind: str, dtype: torch.dtype) -> OptimizerStep | None:
        """Return the kernel of an optimizer, by its name in a recipe; None where it cannot be compiled."""
        if dtype not in REALS:
            return None
        library = load(_SOURCE, {"DOUBLE": REALS.index(dtype), "KIND": OPTIMIZERS.index(kind)})
        return None if library is None else cls(dtype, library)

    def set_lanes(
        self, settings: Sequence[ImageSettings], steps: Sequence[int], mu_products: Sequence[float]
    ) -> None:
        """Say who the lanes are, how many steps each has taken, and NAdam's products."""
        self._lanes = (_Lane * len(settings))(
            *(
                _Lane(
                    *(s.lr, s.weight_decay, s.momentum, s.clip_norm or 0.0, s.clip_value or 0.0),
                    *(int(s.nesterov and s.momentum > 0), n, product),
                )
                for s, n, product in zip(settings, steps, mu_products, strict=True)
            )
        )

    def __call__(
        self,
        weights: torch.Tensor,
        gradient: torch.Tensor,
        state: Sequence[torch.Tensor],
        rates: Sequence[float],
    ) -> None:
        """Take a step.

        Args:
            weights: [K, P], moved in place.
            gradient: [K, P]; clipped in place.
            state: the optimizer state, [K, P] each; changed in place.
            rates: each lane's learning rate.
        """
        for tensor in (weights, gradient, *state):
            if tensor.shape != (len(self._lanes), weights.shape[1]) or not tensor.is_contiguous():
                raise ValueError(f"{tuple(tensor.shape)} for {len(self._lanes)} lanes, or not in one block")
            require_type("an optimizer's tensor", tensor, self._dtype)
        for lane, rate in zip(self._lanes, rates, strict=True):
            lane.lr = rate
            lane.steps += 1
        first, second = (*state, None, None)[:2]
        self._call(
            *(address(weights), address(gradient), address(first), address(second)),
            *(*weights.shape, self._lanes),
        )

    def recipe(self, slot: int) -> tuple[int, int]:
        """Return where a lane's recipe is, which begins with its rate, and where in it its count of steps."""
        return ctypes.addressof(self._lanes[slot]), _Lane.steps.offset

    @property
    def steps(self) -> list[int]:
        """How many steps each lane has taken."""
        return [lane.steps for lane in self._lanes]

    @property
    def rates(self) -> list[float]:
        """The learning rates of the lanes' last steps."""
        return [lane.lr for lane in self._lanes]

    @property
    def mu_products(self) -> list[float]:
        """NAdam's products as they are now."""
        return [lane.mu_product for lane in self._lanes]
