"""How well lanes did: totals over an epoch without a transfer per step, and scores from a confusion matrix.

Shapes: K lanes, L one column for all lanes or K, B batch, N images, S steps, Y classes.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.errors import Whole

if TYPE_CHECKING:
    from collections.abc import Sequence

_BLOCK = 64  # steps between two reads of what is on the device
_PATIENCE = 0.2  # seconds between two reads, where steps are slow


class Diverged(Whole, ArithmeticError):
    """A lane's loss, or its weights, became NaN or infinite.

    Args:
        what: "loss", "validation loss" or "weights".
        step: the optimizer step, counted from 1 over the whole trial.
        epoch: counted from 1.
        value: what the loss was.
    """

    def __init__(self, what: str, *, step: int, epoch: int, value: float) -> None:
        super().__init__(f"{what} {value:g} at step {step} (epoch {epoch})")
        self.step = step


@dataclass(frozen=True, slots=True)
class EpochTotals:
    """Running means over one epoch's training images, each as its batch saw it.

    Attributes:
        loss: the recipe's loss, in nats.
        accuracy: a fraction.
        images: how many were trained on.
    """

    loss: float
    accuracy: float
    images: int


class MetricLane(Protocol):
    """A lane that is trained.

    Attributes:
        epoch: epochs trained.
        step: optimizer steps taken.
        diverged: what ended it; set by whoever reads its losses.
    """

    epoch: int
    step: int
    diverged: Diverged | None


@dataclass(slots=True)
class LoneLane:
    """A lane that is trained alone; see `MetricLane`."""

    epoch: int
    step: int
    diverged: Diverged | None = None


class LossHistory:
    """The losses of an epoch, step by step, and which lane diverged in it.

    Args:
        lanes: before the epoch.
    """

    def __init__(self, lanes: Sequence[MetricLane]) -> None:
        self.all_diverged = False
        self._lanes = lanes
        self._first = [lane.step for lane in lanes]
        self._rows: list[list[float]] = []

    def add(self, losses: list[float]) -> None:
        """Add one step's mean losses [K]."""
        self._rows.append(losses)
        if math.isfinite(math.fsum(losses)):
            return
        for loss, lane, first in zip(losses, self._lanes, self._first, strict=True):
            if lane.diverged is None and not math.isfinite(loss):
                step = first + len(self._rows)
                lane.diverged = Diverged("loss", step=step, epoch=lane.epoch + 1, value=loss)
        self.all_diverged = all(lane.diverged is not None for lane in self._lanes)

    def results(self, sizes: Sequence[int], hits: Sequence[int]) -> list[EpochTotals | Diverged]:
        """Return each lane's means, or what ended it.

        Args:
            sizes: images of each step.
            hits: each lane's right guesses.
        """
        seen = sum(sizes)
        found: list[EpochTotals | Diverged] = []
        for k, lane in enumerate(self._lanes):
            if lane.diverged is not None:
                found.append(lane.diverged)
                continue
            weighted = math.fsum(row[k] * size for row, size in zip(self._rows, sizes, strict=True))
            found.append(EpochTotals(weighted / seen, hits[k] / seen, seen))
        return found


def epoch_results(
    lanes: Sequence[MetricLane], losses_KS: np.ndarray, sizes_S: np.ndarray, hits: Sequence[int]
) -> list[EpochTotals | Diverged]:
    """Return each lane's means over an epoch whose losses are all there, or what ended it.

    Args:
        lanes: before the epoch; one that diverged is marked in its `diverged`.
        losses_KS: mean losses of the steps, up to the first that is not finite.
        sizes_S: images of each step.
        hits: each lane's right guesses.
    """
    seen = int(sizes_S.sum())
    found: list[EpochTotals | Diverged] = []
    for lane, losses_S, own in zip(lanes, losses_KS, hits, strict=True):
        broken = np.flatnonzero(~np.isfinite(losses_S))
        if len(broken):
            at = int(broken[0])
            step, value = lane.step + at + 1, float(losses_S[at])
            lane.diverged = Diverged("loss", step=step, epoch=lane.epoch + 1, value=value)
            found.append(lane.diverged)
        else:
            found.append(EpochTotals(math.fsum((losses_S * sizes_S).tolist()) / seen, own / seen, seen))
    return found


class EpochMetrics:
    """Accumulates the losses and hits of one epoch of K lanes.

    On a CPU each loss is read at once (1 us), so that training ends at the step where the last lane diverges.
    Elsewhere a read waits for the device, so that it comes once in a block of steps; the step is named exactly all the
    same.  The result does not depend on when the reads come: hits are integers and the losses' sum is exact.

    Args:
        labels_NL: labels of the epoch's images in its order, one column for all lanes or one for each.
        lanes: before the epoch; one that diverges is marked in its `diverged`.
    """

    def __init__(self, labels_NL: torch.Tensor, lanes: Sequence[MetricLane]) -> None:
        self._labels_LN = labels_NL.t()
        self._immediate = labels_NL.device.type == "cpu"
        self._losses = LossHistory(lanes)
        self._sizes: list[int] = []
        self._pending_losses: list[torch.Tensor] = []
        self._pending_logits: list[torch.Tensor] = []
        self._seen = 0
        self._hits_K = torch.zeros(len(lanes), dtype=torch.int64, device=labels_NL.device)
        self._flushed = time.monotonic()

    @property
    def all_diverged(self) -> bool:
        """Whether, as far as losses were read, no lane has a finite one any more."""
        return self._losses.all_diverged

    def add(self, losses_K: torch.Tensor, logits_KBY: torch.Tensor) -> None:
        """Add one step's mean losses and its logits."""
        self._sizes.append(logits_KBY.shape[1])
        self._pending_logits.append(logits_KBY)
        if self._immediate:
            self._losses.add(losses_K.tolist())
        else:
            self._pending_losses.append(losses_K)
        if len(self._pending_logits) >= _BLOCK or time.monotonic() - self._flushed > _PATIENCE:
            self._flush()

    def results(self) -> list[EpochTotals | Diverged]:
        """Return each lane's means over all that was added, or what ended it."""
        self._flush()
        return self._losses.results(self._sizes, self._hits_K.tolist())

    def _flush(self) -> None:
        for losses in torch.stack(self._pending_losses).tolist() if self._pending_losses else ():
            self._losses.add(losses)
        self._pending_losses.clear()
        if self._pending_logits:
            guesses_KB = torch.cat(self._pending_logits, 1).argmax(2)
            count = guesses_KB.shape[1]
            self._hits_K += (guesses_KB == self._labels_LN[:, self._seen : self._seen + count]).sum(1)
            self._seen += count
            self._pending_logits.clear()
        self._flushed = time.monotonic()


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """A lane's logits of held-out images, and their scores.

    Attributes:
        logits: [N, Y] on the device.
        loss: mean cross-entropy whatever the recipe's loss, without weights or label smoothing, in nats.
        accuracy: a fraction.
    """

    logits: torch.Tensor
    loss: float
    accuracy: float

    @classmethod
    def of(cls, logits_NY: torch.Tensor, labels_N: torch.Tensor) -> Evaluation:
        """Score logits against labels."""
        loss = F.cross_entropy(logits_NY, labels_N)
        hits = (logits_NY.argmax(1) == labels_N).sum()
        return cls(logits_NY, float(loss), int(hits) / len(labels_N))


def confusion(guesses_N: torch.Tensor, labels_N: torch.Tensor, classes: int) -> torch.Tensor:
    """Return counts [Y, Y] by true class (row) and guessed class (column), int64."""
    flat = torch.bincount(labels_N * classes + guesses_N, minlength=classes * classes)
    return flat.view(classes, classes)


CLASS_SCORES: Final = ("balanced_accuracy", "macro_f1")
"""What `class_scores` returns."""


def class_scores(counts_YY: torch.Tensor) -> dict[str, float]:
    """Return balanced_accuracy and macro_f1 of a confusion matrix, as scikit-learn defines them.

    balanced_accuracy is the mean recall of the classes that occur; macro_f1 the mean F1 of the classes that
    occur or were guessed.
    """
    counts = counts_YY.to("cpu", torch.float64)
    hits, occur, guessed = counts.diagonal(), counts.sum(1), counts.sum(0)
    recall = (hits / occur)[occur > 0]
    f1 = (2 * hits / (occur + guessed))[occur + guessed > 0]
    return {"balanced_accuracy": recall.mean().item(), "macro_f1": f1.mean().item()}
