"""How an epoch's images are cut into batches; part of what decides a trial's result."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The batches of every epoch of a trial.

    Attributes:
        batch: images in a batch; the last may hold fewer.
        images: images of an epoch that are trained on.
        steps: batches in an epoch, at least one.
    """

    batch: int
    images: int
    steps: int

    @property
    def sizes(self) -> list[int]:
        """How many images a batch may hold, each number once."""
        rest = self.images % self.batch
        return [self.batch, rest] if rest else [self.batch]


def batch_plan(images: int, batch: int, *, drop_last: bool, drop_single: bool) -> BatchPlan:
    """Cut `images` into batches.

    A batch larger than the split is the whole split, also under `drop_last`, which would leave nothing.

    Args:
        images: in the training split.
        batch: the recipe's batch.
        drop_last: leave a last, partial batch away.
        drop_single: leave a last batch of one image away: batch norm has no variance there, and torch refuses
            it where a feature has one value per image.  Which image it hits differs between epochs.
    """
    batch = min(batch, images)
    rest = images % batch
    if rest and (drop_last or (rest == 1 and drop_single)):
        images -= rest
    return BatchPlan(batch=batch, images=images, steps=-(-images // batch))


def for_evaluation(order_N: torch.Tensor, at_a_time: int) -> list[torch.Tensor]:
    """Cut images into parts to evaluate, none of one image where there are more.

    How many go at a time is this program's choice, and a model whose `squeeze()` takes a batch of one away runs on all
    other batches.
    """
    at_a_time = max(2, at_a_time)
    parts = list(torch.split(order_N, at_a_time))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [order_N[-at_a_time - 1 :]]
    return parts
