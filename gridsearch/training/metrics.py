"""How well a lane did: totals over an epoch without a transfer per step, and scores from a confusion matrix.

Shapes: B batch, N images, Y classes.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

if TYPE_CHECKING:
    from collections.abc import Iterable

_BLOCK = 64  # steps between two looks at what is on the device
_PATIENCE = 0.2  # seconds between two looks, where steps are slow


class Diverged(ArithmeticError):
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
        loss: cross-entropy with the recipe's label smoothing, in nats.
        accuracy: a fraction.
        images: how many were trained on.
    """

    loss: float
    accuracy: float
    images: int


class EpochMetrics:
    """Gathers the losses and hits of one epoch.

    On a CPU each loss is read at once (1 us), so that a lane stops at the step where it diverges.  Elsewhere
    a look waits for the device, so that it comes once in a block of steps; the step is named exactly all the
    same. The result does not depend on when the looks come: hits are integers and the losses' sum is exact.

    Args:
        labels_N: labels of the epoch's images, in its order.
        epoch: counted from 1.
        first_step: steps before this epoch.
    """

    def __init__(self, labels_N: torch.Tensor, *, epoch: int, first_step: int) -> None:
        self._labels_N = labels_N
        self._epoch = epoch
        self._first_step = first_step
        self._immediate = labels_N.device.type == "cpu"
        self._losses: list[float] = []
        self._sizes: list[int] = []
        self._pending_losses: list[torch.Tensor] = []
        self._pending_logits: list[torch.Tensor] = []
        self._seen = 0
        self._hits = torch.zeros((), dtype=torch.int64, device=labels_N.device)
        self._flushed = time.monotonic()

    def add(self, loss: torch.Tensor, logits_BY: torch.Tensor) -> None:
        """Take in one step's mean loss and its logits.

        Raises:
            Diverged: this loss, or one since the last look, is not finite.
        """
        self._sizes.append(len(logits_BY))
        self._pending_logits.append(logits_BY.detach())
        if self._immediate:
            self._append((loss.item(),))
        else:
            self._pending_losses.append(loss.detach())
        if len(self._pending_logits) >= _BLOCK or time.monotonic() - self._flushed > _PATIENCE:
            self._flush()

    def totals(self) -> EpochTotals:
        """Return the means over all that was added.

        Raises:
            Diverged: a loss since the last look is not finite.
        """
        self._flush()
        weighted = math.fsum(loss * size for loss, size in zip(self._losses, self._sizes, strict=True))
        return EpochTotals(weighted / self._seen, int(self._hits) / self._seen, self._seen)

    def _flush(self) -> None:
        if self._pending_losses:
            self._append(torch.stack(self._pending_losses).tolist())
            self._pending_losses.clear()
        if self._pending_logits:
            guesses = torch.cat(self._pending_logits).argmax(1)
            self._hits += (guesses == self._labels_N[self._seen : self._seen + len(guesses)]).sum()
            self._seen += len(guesses)
            self._pending_logits.clear()
        self._flushed = time.monotonic()

    def _append(self, losses: Iterable[float]) -> None:
        for loss in losses:
            self._losses.append(loss)
            if not math.isfinite(loss):
                step = self._first_step + len(self._losses)
                raise Diverged("loss", step=step, epoch=self._epoch, value=loss)


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What a lane says of held-out images.

    Attributes:
        logits: [N, Y] on the device.
        loss: mean cross-entropy without label smoothing, in nats.
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
