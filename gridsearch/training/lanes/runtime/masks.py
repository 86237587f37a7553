"""Dropout masks from a counter: a lane's mask follows from its seed, its step and the layer, by arithmetic alone.

Used by the dropout layers where steps run without the host.  A generator's state is on the host; a counter is on the
device beside the weights, so that a recorded step draws new masks each time it is replayed, and a lane draws the same
masks whatever its slot, its neighbours and the number of lanes.

An element's number is hashed with the lane's two keys of the step and the layer.  The hash is a 32-bit finalizer of
three multiplications, Wellons' "triple32" (https://nullprogram.com/blog/2018/07/31/), in int64 since torch has no
unsigned shifts.  With his of two, "lowbias32", two masks of 16,384 values were seen to agree by five standard
deviations too little.

Shapes: K lanes, n elements of one lane's mask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gridsearch.training import seeds

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOW = 0xFFFFFFFF
_LAYER = 0x9E3779B9  # 2**32 over the golden ratio: keeps the layers' numbers far apart


class CounterMasks:
    """What lanes draw on their device.

    Attributes:
        keys: int64 [2, K], two words of each lane's seed.
        steps: int64 [K], the step that each lane takes now; the program counts it up.
        rates: float64 [K], each lane's dropout rate; NaN where it is the model's own.
    """

    def __init__(self, lanes: int, device: torch.device) -> None:
        self.keys = torch.zeros(2, lanes, dtype=torch.int64, device=device)
        self.steps = torch.zeros(lanes, dtype=torch.int64, device=device)
        wide = torch.float32 if device.type == "mps" else torch.float64
        self.rates = torch.zeros(lanes, dtype=wide, device=device)
        self._layer = 0

    def set_lanes(self, lanes: Sequence[int], steps: Sequence[int], rates: Sequence[float | None]) -> None:
        """Say who the lanes are.

        Args:
            lanes: their seeds.
            steps: optimizer steps that each has taken.
            rates: their dropout rates, None where it is the model's own.
        """
        words = [seeds.stream(seed, seeds.STEP) for seed in lanes]
        self.keys.copy_(torch.tensor([[w & _LOW for w in words], [w >> 31 for w in words]]))
        self.steps.copy_(torch.tensor(list(steps)))
        known = [float("nan") if r is None else r for r in rates]
        self.rates.copy_(torch.tensor(known, dtype=self.rates.dtype))

    def begin_step(self) -> None:
        """Start over with the first layer."""
        self._layer = 0

    def noise(
        self, shape: Sequence[int], rate: float, *, from_recipe: bool, dtype: torch.dtype
    ) -> torch.Tensor:
        """Return the next layer's masks [K, ...]: 0 for what is dropped, else 1 / (1 - rate).

        Args:
            shape: of the result.
            rate: the layer's own.
            from_recipe: a lane's rate goes before the layer's own.
            dtype: of the result.
        """
        self._layer += 1
        # no torch.where with a number: it would send the number from the host
        rate_K = self.rates.nan_to_num(rate) if from_recipe else torch.full_like(self.rates, rate)
        sides = (len(rate_K), *(1,) * (len(shape) - 1))
        drawn = self._draw(shape)
        kept = drawn >= (rate_K * 2**32).round().to(torch.int64).view(sides)
        scale_K = (1 - rate_K).reciprocal_().masked_fill_(rate_K >= 1, 0)
        return kept.to(dtype).mul_(scale_K.to(dtype).view(sides))

    def _draw(self, shape: Sequence[int]) -> torch.Tensor:
        """Return uniform numbers below 2**32, int64 [K, ...]."""
        count = 1
        for side in shape[1:]:
            count *= side
        sides = (len(self.steps), *(1,) * (len(shape) - 1))
        place = _mix((self.steps + self._layer * _LAYER) & _LOW)
        first, second = (_mix((key ^ place) & _LOW) for key in self.keys.unbind(0))
        numbers = torch.arange(count, device=self.steps.device).view(1, *shape[1:])
        return _mix((_mix(numbers ^ first.view(sides)) + second.view(sides)) & _LOW)


def _mix(x: torch.Tensor) -> torch.Tensor:
    """Return a hash of numbers below 2**32, of which each bit depends on all of them; one to one."""
    x = (x ^ (x >> 17)).mul_(0xED5AD4BB).bitwise_and_(_LOW)
    x = x.bitwise_xor_(x >> 11).mul_(0xAC4C1B51).bitwise_and_(_LOW)
    x = x.bitwise_xor_(x >> 15).mul_(0x31848BAB).bitwise_and_(_LOW)
    return x.bitwise_xor_(x >> 14)
