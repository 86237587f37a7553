"""Losses and hits of an epoch of all lanes: read at once on a CPU, once an epoch elsewhere.

Stands between a program's steps and the totals that the engine tells.  Both tallies give what
`metrics.EpochMetrics` gives each lane alone.

Shapes: K lanes, L one column for all lanes or K, B batch, N images of an epoch, Y classes.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Protocol

import torch

from gridsearch.training.metrics import Diverged, EpochTotals

if TYPE_CHECKING:
    from collections.abc import Sequence

_BLOCK = 64  # steps between two looks at the logits
_PATIENCE = 0.2  # seconds between two looks, where steps are slow


class MetricLane(Protocol):
    """A lane that may break: how far it was trained, and what broke it."""

    epoch: int
    step: int
    diverged: Diverged | None


class _Losses:
    """The losses of an epoch, step by step, and which lane one of them broke.

    Args:
        members: the lanes, before the epoch.

    Attributes:
        all_diverged: whether no lane has a finite loss any more.
    """

    def __init__(self, members: Sequence[MetricLane]) -> None:
        self.all_diverged = False
        self._members = members
        self._first = [m.step for m in members]
        self._rows: list[list[float]] = []

    def add(self, losses: list[float]) -> None:
        """Take in one step's mean losses [K]."""
        self._rows.append(losses)
        if math.isfinite(math.fsum(losses)):
            return
        for lane, (loss, member) in enumerate(zip(losses, self._members, strict=True)):
            if member.diverged is None and not math.isfinite(loss):
                step = self._first[lane] + len(self._rows)
                member.diverged = Diverged("loss", step=step, epoch=member.epoch + 1, value=loss)
        self.all_diverged = all(m.diverged is not None for m in self._members)

    def totals(self, sizes: Sequence[int], hits: Sequence[int]) -> list[EpochTotals | Diverged]:
        """Return each lane's means, or what broke it.

        Args:
            sizes: images of each step.
            hits: each lane's.
        """
        seen = sum(sizes)
        found: list[EpochTotals | Diverged] = []
        for lane, member in enumerate(self._members):
            if member.diverged is not None:
                found.append(member.diverged)
                continue
            weighted = math.fsum(row[lane] * size for row, size in zip(self._rows, sizes, strict=True))
            found.append(EpochTotals(weighted / seen, hits[lane] / seen, seen))
        return found


class PackMetrics:
    """Gathers on a CPU, where a loss costs nothing to read, so that a pack of broken lanes ends at once.

    Args:
        labels_NL: labels of the epoch's images in its order.
        members: the lanes, before the epoch.
    """

    def __init__(self, labels_NL: torch.Tensor, members: Sequence[MetricLane]) -> None:
        self._labels_LN = labels_NL.t()
        self._losses = _Losses(members)
        self._sizes: list[int] = []
        self._pending: list[torch.Tensor] = []
        self._seen = 0
        self._hits = torch.zeros(len(members), dtype=torch.int64, device=labels_NL.device)
        self._flushed = time.monotonic()

    @property
    def all_diverged(self) -> bool:
        """Whether no lane has a finite loss any more."""
        return self._losses.all_diverged

    def add(self, losses_K: torch.Tensor, logits_KBY: torch.Tensor) -> None:
        """Take in one step's mean losses and its logits."""
        self._sizes.append(logits_KBY.shape[1])
        self._pending.append(logits_KBY)
        self._losses.add(losses_K.tolist())
        if len(self._pending) >= _BLOCK or time.monotonic() - self._flushed > _PATIENCE:
            self._flush()

    def results(self) -> list[EpochTotals | Diverged]:
        """Return each lane's means over all that was added, or what broke it."""
        self._flush()
        return self._losses.totals(self._sizes, self._hits.tolist())

    def _flush(self) -> None:
        if self._pending:
            guesses_KB = torch.cat(self._pending, 1).argmax(2)
            count = guesses_KB.shape[1]
            self._hits += (guesses_KB == self._labels_LN[:, self._seen : self._seen + count]).sum(1)
            self._seen += count
            self._pending.clear()
        self._flushed = time.monotonic()


class DeviceMetrics:
    """Gathers on the lanes' device, without a word to the host before the epoch's end.

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
        """Take in one step.

        Args:
            losses_K: its mean losses.
            logits_KBY: its logits.
            labels_LB: its labels.
            step_1: its number in the epoch, int64 [1].
        """
        self._losses_SK.index_copy_(0, step_1, losses_K.unsqueeze(0))
        self._hits_K.add_((logits_KBY.argmax(2) == labels_LB).sum(1))

    def results(self, members: Sequence[MetricLane], sizes: Sequence[int]) -> list[EpochTotals | Diverged]:
        """Return each lane's means over the epoch, or what broke it; waits for the device.

        Args:
            members: the lanes, before the epoch.
            sizes: images of each step.
        """
        losses = _Losses(members)
        for row in self._losses_SK.tolist():
            losses.add(row)
        return losses.totals(sizes, [round(h) for h in self._hits_K.tolist()])
