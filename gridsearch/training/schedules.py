"""How the learning rate moves over a trial: a factor of the recipe's `lr`, for each optimizer step.

A schedule knows only its own length, so that a lane's position is a number (its step) and nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SCHEDULES = ("constant", "step", "cosine", "onecycle")

_ONECYCLE_RISE = 0.3  # the defaults of torch.optim.lr_scheduler.OneCycleLR
_ONECYCLE_START = 1 / 25
_ONECYCLE_END = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The learning rate's factor over `total` steps, of which the first `warm` rise linearly.

    - constant: 1.
    - step: 1, then .1 from half of all steps, then .01 from three quarters (He et al. 2016, section 4.2, and
      Huang et al. 2017, section 4.2, for CIFAR).
    - cosine: half a cosine from 1 to 0 over the steps after the warm-up (Loshchilov and Hutter 2017, equation
      5, without restarts).
    - onecycle: half a cosine from 1/25 up to 1, then one down to 1e-4 of the start (Smith and Topin 2018,
      with the defaults of `torch.optim.lr_scheduler.OneCycleLR`; momentum stays).  Its rise is its warm-up:
      it takes the first `warm` steps if there are any, else 30 % of all.

    Warm-up is linear (Goyal et al. 2017, section 2.2): step t of `warm` has (t + 1) / warm, times what the
    schedule says.
    """

    kind: str = "constant"
    total: int
    warm: int = 0

    @classmethod
    def of(cls, kind: str, *, epochs: int, steps_per_epoch: int, warmup: float) -> Schedule:
        """Return the schedule of a recipe; `warmup` is in epochs and may be fractional."""
        assert kind in SCHEDULES, kind
        total = epochs * steps_per_epoch
        return cls(kind=kind, total=total, warm=min(total, round(warmup * steps_per_epoch)))

    @property
    def moves(self) -> bool:
        """Whether the factor is not the same at all steps."""
        return self.kind != "constant" or self.warm > 0

    def factor(self, step: int) -> float:
        """Return the factor at a step, counted from 0."""
        if self.kind == "onecycle":
            return self._onecycle(step)
        rise = (step + 1) / self.warm if step < self.warm else 1.0
        if self.kind == "step":
            return (
                rise * (0.1 if 2 * step >= self.total else 1.0) * (0.1 if 4 * step >= 3 * self.total else 1.0)
            )
        if self.kind == "cosine" and step >= self.warm:
            return _half_cosine(1.0, 0.0, (step - self.warm) / (self.total - self.warm))
        return rise

    def _onecycle(self, step: int) -> float:
        top = max(0.0, (self.warm if self.warm else _ONECYCLE_RISE * self.total) - 1)
        if step < top:
            return _half_cosine(_ONECYCLE_START, 1.0, step / top)
        down = max(1.0, self.total - 1 - top)
        return _half_cosine(1.0, _ONECYCLE_START * _ONECYCLE_END, (step - top) / down)


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
