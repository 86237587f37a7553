"""Losses and hits of an epoch of all lanes on a device that works ahead of the host; on a CPU see `training.metrics`.

Stands between a program's counted steps and the totals that the engine reports.

Shapes: K lanes, L one column for all lanes or K, B batch, Y classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gridsearch.training.metrics import LossHistory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.training.metrics import Diverged, EpochTotals, MetricLane


class DeviceMetrics:
    """Accumulates on the lanes' device; the host reads nothing before the epoch's end.

    Args:
        steps: of an epoch.
        lanes: K.
        dtype: of the losses.
        device: the lanes'.

    Attributes:
        state: what a step changes.
    """

    def __init__(self, steps: int, lanes: int, dtype: torch.dtype, device: torch.device) -> None:
        self._losses_SK = torch.zeros(steps, lanes, dtype=dtype, device=device)
        self._hits_K = torch.zeros(lanes, dtype=dtype, device=device)  # whole numbers; exact up to 2**24
        self.state = [self._losses_SK, self._hits_K]

    def start(self) -> None:
        """Forget the last epoch."""
        self._hits_K.zero_()

    def add(
        self, losses_K: torch.Tensor, logits_KBY: torch.Tensor, labels_LB: torch.Tensor, step_1: torch.Tensor
    ) -> None:
        """Add one step.

        Args:
            losses_K: its mean losses.
            logits_KBY: its logits.
            labels_LB: its labels.
            step_1: its number in the epoch, int64 [1].
        """
        self._losses_SK.index_copy_(0, step_1, losses_K.unsqueeze(0))
        self._hits_K.add_((logits_KBY.argmax(2) == labels_LB).sum(1))

    def results(self, lanes: Sequence[MetricLane], sizes: Sequence[int]) -> list[EpochTotals | Diverged]:
        """Return each lane's means over the epoch, or what ended it; waits for the device.

        Args:
            lanes: before the epoch.
            sizes: images of each step.
        """
        losses = LossHistory(lanes)
        for row in self._losses_SK.tolist():
            losses.add(row)
        return losses.results(sizes, [round(h) for h in self._hits_K.tolist()])
