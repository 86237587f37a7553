"""The lanes of a pack, and what each trains on next: an epoch's images in their order, and its learning rates.

Stands between the lanes' recipes and the program that takes their steps.  All of it follows from what is a lane's own:
its recipe, its seed, its epoch and its step.  Where all lanes are at the same epoch of the same seed, and sample alike,
they see the same images in the same order, and share one batch.

Shapes: K lanes, L one column for all lanes or K, N images of an epoch, S steps of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from gridsearch.training import augment, mixing
from gridsearch.training.epoch_order import epoch_order
from gridsearch.training.lanes.runtime.feed import EpochImages
from gridsearch.training.lanes.runtime.planned_steps import LaneEpoch
from gridsearch.training.schedules import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.records import ImageSettings
    from gridsearch.training.batches import BatchPlan
    from gridsearch.training.metrics import Diverged
    from gridsearch.training.resident_data import ResidentData


@dataclass(slots=True, eq=False)
class Member:
    """A lane of a program.

    Attributes:
        settings: its recipe.
        seed: of all its streams.
        split: the images that it trains and is evaluated on: of those of the program, which is what None stands for,
            but split in another way.
        epoch: epochs trained.
        step: optimizer steps taken.
        schedule: of its learning rate; set by the program.
        diverged: what ended it.
    """

    settings: ImageSettings
    seed: int
    split: ResidentData | None = None
    epoch: int = 0
    step: int = 0
    schedule: Schedule = field(default_factory=lambda: Schedule(total=1))
    diverged: Diverged | None = None


class _Epoch(NamedTuple):
    """What decides the images of a lane's epoch, and their order."""

    split: ResidentData
    settings: ImageSettings
    seed: int
    number: int


class MemberEpochs:
    """Draws what lanes train on in their next epoch.

    Args:
        data: the images of a lane that has no split of its own.
        plan: the batches of an epoch.
        dtype: of the weights.
        own_augment: the user's augmentation, where the recipe names one.
    """

    def __init__(
        self, data: ResidentData, plan: BatchPlan, dtype: torch.dtype, own_augment: Callable[..., Any] | None
    ) -> None:
        self._data, self._plan, self._dtype, self._own_augment = data, plan, dtype, own_augment

    def splits(self, members: Sequence[Member]) -> list[ResidentData]:
        """Return the images that each lane trains and is evaluated on."""
        return [self._data if m.split is None else m.split for m in members]

    def set_schedule(self, member: Member) -> None:
        """Give a lane the schedule of its recipe, which is as long as its steps."""
        s, steps = member.settings, self._plan.steps
        member.schedule = Schedule.of(s.schedule, epochs=s.epochs, steps_per_epoch=steps, warmup=s.warmup)

    def images(self, members: Sequence[Member]) -> EpochImages:
        """Return the images of the lanes' next epoch in their order, in one column where all lanes see the same."""
        epochs = self._epochs(members)
        if len({_sees(e) for e in epochs}) == 1:
            epochs = epochs[:1]
        order_NL = torch.stack([self._order(e) for e in epochs], 1)
        mix = mixing.draw(
            [(e.settings, e.seed, e.number) for e in epochs],
            self._plan,
            image_size=self._data.image_size,
            device=self._data.device,
            dtype=self._dtype,
        )
        drawn = [self._augment(e) for e in epochs]
        return EpochImages.of(order_NL, self._data.labels[order_NL], drawn, mix)

    def lane_by_lane(self, members: Sequence[Member]) -> list[LaneEpoch]:
        """Return the lanes' next epoch as compiled calls take it; lanes that see the same share their tensors."""
        orders: dict[tuple[object, ...], tuple[torch.Tensor, augment.EpochAugment | None]] = {}
        found = []
        for m, e in zip(members, self._epochs(members), strict=True):
            key = e.split, e.seed, e.number, m.settings.sampling
            if key not in orders:
                drawn = self._augment(e)
                assert drawn is None or isinstance(drawn, augment.EpochAugment)
                orders[key] = self._order(e).contiguous(), drawn
            found.append(LaneEpoch(*orders[key], self._lane_rates(m)))
        return found

    def rates(self, members: Sequence[Member]) -> list[list[float]]:
        """Return the learning rates of the next epoch's steps, [S, K]."""
        known: dict[tuple[Schedule, int], list[float]] = {}
        columns = []
        for m in members:
            key = m.schedule, m.step
            if key not in known:
                known[key] = [m.schedule.factor(m.step + i) for i in range(self._plan.steps)]
            columns.append([m.settings.lr * factor for factor in known[key]])
        return [list(row) for row in zip(*columns, strict=True)]

    def _epochs(self, members: Sequence[Member]) -> list[_Epoch]:
        pairs = zip(self.splits(members), members, strict=True)
        return [_Epoch(split, m.settings, m.seed, m.epoch + 1) for split, m in pairs]

    def _lane_rates(self, m: Member) -> np.ndarray:
        """Return the learning rates of a lane's next epoch's steps, [S]."""
        steps = self._plan.steps
        if not m.schedule.moves:
            return np.full(steps, m.settings.lr)
        return np.array([m.settings.lr * m.schedule.factor(m.step + i) for i in range(steps)])

    def _order(self, e: _Epoch) -> torch.Tensor:
        """Return the indices of the images of a lane's next epoch."""
        sampling = e.settings.sampling
        return epoch_order(e.split, sampling, seed=e.seed, epoch=e.number, images=self._plan.images)

    def _augment(self, e: _Epoch) -> augment.Augmentation | None:
        """Return the augmentation of a lane's next epoch."""
        return augment.draw_for(
            e.settings,
            e.seed,
            e.number,
            count=self._plan.images,
            data=e.split,
            dtype=self._dtype,
            own=self._own_augment,
        )


def _sees(e: _Epoch) -> tuple[object, ...]:
    """Return what decides which images a lane sees in its next epoch, beside what all lanes have in common."""
    s = e.settings
    return e.split, e.seed, e.number, s.sampling, s.operations, s.magnitude, s.mixup, s.cutmix
