"""What all steps of an epoch read, on the lanes' device, in buffers that stay where they are.

Stands between the host, which draws an epoch's order and knows its learning rates ahead, and steps that run
without the host: a step finds its images, its coefficients and its position in the epoch here, and advances it.

Shapes: K lanes, L one column for all lanes or K, B batch, N images of an epoch, M coefficients of a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from gridsearch.training.augment import Augmentation
    from gridsearch.training.mixing import EpochMix


@dataclass(frozen=True, slots=True, eq=False)
class BatchPosition:
    """Where a step is in its epoch.

    Attributes:
        images: positions of its images in the epoch's order: a slice, or int64 [B] on the device.
        step: its number, int64 [1] on the device; None where the host counts.
    """

    images: slice | torch.Tensor
    step: torch.Tensor | None = None

    @property
    def start(self) -> int | torch.Tensor:
        """Position of its first image, or of each."""
        return int(self.images.start) if isinstance(self.images, slice) else self.images


@dataclass(frozen=True, slots=True, eq=False)
class EpochImages:
    """The images of an epoch in their order.

    Attributes:
        order: their indices, int64 [N, L].
        labels: their labels, int64 [N, L].
        drawn: their augmentation, for each of L.
        mix: how they are mixed, likewise; None where they are not.
        others: with `mix`, the labels of the images that are mixed in, int64 [N, L].
        guessed: the labels that count as right guesses, int64 [N, L].
    """

    order: torch.Tensor
    labels: torch.Tensor
    drawn: Sequence[Augmentation | None]
    mix: EpochMix | None
    others: torch.Tensor | None
    guessed: torch.Tensor

    @classmethod
    def of(
        cls,
        order: torch.Tensor,
        labels: torch.Tensor,
        drawn: Sequence[Augmentation | None],
        mix: EpochMix | None,
    ) -> EpochImages:
        """Return an epoch's images with what follows from their mixtures."""
        others, guessed = (None, labels) if mix is None else mix.labels(labels)
        return cls(order, labels, drawn, mix, others, guessed)

    @property
    def shared(self) -> bool:
        """Whether all lanes see the same images."""
        return self.order.shape[1] == 1

    @property
    def form(self) -> Hashable:
        """What makes the images: those of one form can be copied, and are made by the same operations."""
        return self.shared, tuple(d and d.sizes for d in self.drawn), self.mix is None

    def copy_(self, other: EpochImages) -> None:
        """Copy another epoch's images, of the same sizes, into the same buffers."""
        self.order.copy_(other.order)
        self.labels.copy_(other.labels)
        for mine, theirs in zip(self.drawn, other.drawn, strict=True):
            if mine is not None and theirs is not None:
                mine.copy_(theirs)
        self.guessed.copy_(other.guessed)
        if self.mix is not None and other.mix is not None:
            self.mix.copy_(other.mix)
        if self.others is not None and other.others is not None:
            self.others.copy_(other.others)


class EpochFeed:
    """The images, coefficients and counters of an epoch.

    Args:
        batch: B.
        device: the lanes'.

    Attributes:
        images: of this epoch.
        state: what a step changes.
    """

    images: EpochImages

    def __init__(self, batch: int, device: torch.device) -> None:
        self._range_B = torch.arange(batch, device=device)
        self._start_1 = torch.zeros(1, dtype=torch.int64, device=device)
        self._step_1 = torch.zeros(1, dtype=torch.int64, device=device)
        self._buffers: dict[Hashable, EpochImages] = {}
        self._coefficients = torch.empty(0)
        self.state = [self._start_1, self._step_1]

    def load(self, images: EpochImages, coefficients: torch.Tensor) -> None:
        """Start an epoch.

        Args:
            images: of it.
            coefficients: coefficients [steps, M, K, 1].
        """
        self.images = self._buffers.setdefault(images.form, images)
        if self.images is not images:
            self.images.copy_(images)
        if self._coefficients.shape == coefficients.shape:
            self._coefficients.copy_(coefficients)
        else:
            self._coefficients = coefficients
        for counter in self.state:
            counter.zero_()

    def position(self, count: int) -> BatchPosition:
        """Return the place of the step to take now, which has so many images."""
        return BatchPosition(self._start_1 + self._range_B[:count], self._step_1)

    def coefficients(self) -> torch.Tensor:
        """Return the coefficients [M, K, 1] of the step to take now."""
        return self._coefficients.index_select(0, self._step_1).squeeze(0)

    def advance(self, count: int) -> None:
        """Move on, past a step of so many images."""
        self._start_1.add_(count)
        self._step_1.add_(1)
