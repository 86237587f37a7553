"""Which images an epoch takes, in which order: the recipe's `sampling`.

Stands between a trial's stream "order" and the steps, of a lane by itself and of those of a pack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gridsearch.training import seeds

if TYPE_CHECKING:
    from gridsearch.training.resident_data import ResidentData


def epoch_order(data: ResidentData, sampling: str, *, seed: int, epoch: int, images: int) -> torch.Tensor:
    """Return the indices of an epoch's images in their order, drawn on the CPU whatever the device.

    "none" takes each image of the training split once.  "balanced" draws as many with replacement, those of each class
    as often as those of any other: `torch.utils.data.WeightedRandomSampler` with one over the images of its class as
    the weight of each.

    Args:
        data: what is trained on.
        sampling: "none" or "balanced".
        seed: the trial's.
        epoch: counted from 1.
        images: how many are taken; of more than there are to train on, as in the smaller of uneven folds, some come
            twice.

    Returns:
        int64 [images] on the data's device.
    """
    train, generator = data.train, seeds.generator(seed, seeds.ORDER, epoch)
    if sampling == "balanced":
        weights = (1 / data.class_counts().double())[data.labels.index_select(0, train).cpu()]
        count = max(images, len(train))
        drawn = torch.multinomial(weights, count, replacement=True, generator=generator)
    else:
        drawn = torch.randperm(len(train), generator=generator)
        while len(drawn) < images:
            drawn = torch.cat([drawn, torch.randperm(len(train), generator=generator)])
    return train.index_select(0, drawn[:images].to(train.device))
