"""Mixup and CutMix: each image of a batch and its label become a mixture with those of the image before it.

    mixup    image and label are s of their own and 1 - s of the other's, with s of a Beta(alpha, alpha) for each batch
             (Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization")
    cutmix   a box of the other image is pasted; its sides are sqrt(1 - s) of the image's before it is cut to the image,
             and the label has the share of its pixels (Yun et al. 2019, "CutMix")

With both, each batch has one of the two, either as likely.  As in torchvision the other image is the one before it in
the batch, the first one's is the last: an epoch's order is random already.  A batch of one image is what it was.

Images are mixed after they are augmented and normalized; normalization is linear, so that it does not matter which of
the two comes first.  The loss of a mixture is the same mixture of the losses of both labels, as in the authors' own
code.  A guess counts as right if it is the label with the larger share.

Draws come from the CPU, from the trial's stream of that epoch.

Shapes: N images of an epoch in their order, S steps of it, B batch, G images side by side (1, or one for each lane),
C/H/W channels, height, width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from gridsearch.training import seeds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.records import ImageSettings
    from gridsearch.training.batches import BatchPlan


@dataclass(frozen=True, slots=True, eq=False)
class EpochMix:
    """One epoch's mixtures, by position in the epoch's order; the same for all images of a batch.

    Attributes:
        shares: float [N, G], of an image's own label.
        blends: float [N, G], of the own image outside of the box.
        boxes: int64 [N, G, 4], (top, bottom, left, right) of the other image, bottom and right exclusive.
        partners: int64 [N], positions of the other images.
    """

    shares: torch.Tensor
    blends: torch.Tensor
    boxes: torch.Tensor
    partners: torch.Tensor

    def images(self, x: torch.Tensor, part: slice | torch.Tensor) -> torch.Tensor:
        """Mix a batch in place, and return it.

        Args:
            x: [B, G*C, H, W].
            part: the positions of its images in the epoch's order.
        """
        blends_BG, boxes_BG4 = self.blends[part], self.boxes[part]
        height, width = x.shape[2:]
        rows, columns = (torch.arange(n, device=x.device) for n in (height, width))
        top, bottom, left, right = boxes_BG4.unsqueeze(3).unbind(2)
        inside_BGH = (rows >= top) & (rows < bottom)
        inside_BGW = (columns >= left) & (columns < right)
        inside_BGHW = inside_BGH.unsqueeze(3) & inside_BGW.unsqueeze(2)
        other_BGHW = (1 - blends_BG).view(*blends_BG.shape, 1, 1).expand(inside_BGHW.shape)
        weight = other_BGHW.masked_fill(inside_BGHW, 1).unsqueeze(2)
        grouped = x.view(len(x), blends_BG.shape[1], -1, height, width)
        grouped.lerp_(grouped.roll(1, 0), weight.to(x.dtype))
        return x

    def shares_of(self, part: slice | torch.Tensor) -> torch.Tensor:
        """Return the shares [G] of the own labels in a batch."""
        return self.shares[part][0]

    def labels(self, labels_NG: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the labels of the other images, and those with the larger share, int64 [N, G] both."""
        others_NG = labels_NG[self.partners]
        return others_NG, torch.where(self.shares >= 0.5, labels_NG, others_NG)

    def copy_(self, other: EpochMix) -> None:
        """Take another epoch's mixtures, of the same size, into the same memory."""
        self.shares.copy_(other.shares)
        self.blends.copy_(other.blends)
        self.boxes.copy_(other.boxes)


def mixes(settings: ImageSettings) -> bool:
    """Whether a recipe mixes images."""
    return settings.mixup > 0 or settings.cutmix > 0


def draw(
    lanes: Sequence[tuple[ImageSettings, int, int]],
    plan: BatchPlan,
    *,
    image_size: tuple[int, int],
    device: torch.device,
    dtype: torch.dtype,
) -> EpochMix | None:
    """Draw an epoch's mixtures of G lanes; None if none of them mixes.

    Args:
        lanes: recipe, seed and epoch (counted from 1) of each.
        plan: the batches.
        image_size: (H, W).
        device: where to put the draws.
        dtype: of the shares.
    """
    if not any(mixes(settings) for settings, _, _ in lanes):
        return None
    drawn = [_draw(*lane, plan.steps, image_size) for lane in lanes]
    step_N = torch.arange(plan.images) // plan.batch
    shares, blends, boxes = (
        torch.from_numpy(np.stack([each[i] for each in drawn], 1))[step_N] for i in range(3)
    )
    return EpochMix(
        shares.to(device, dtype), blends.to(device, dtype), boxes.to(device), partners(plan).to(device)
    )


def partners(plan: BatchPlan) -> torch.Tensor:
    """Return the position of each image's other image, int64 [N]."""
    return torch.cat([part.roll(1) for part in torch.split(torch.arange(plan.images), plan.batch)])


def _draw(
    settings: ImageSettings, seed: int, epoch: int, steps: int, image_size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw shares [S], blends [S] and boxes [S, 4] of one lane."""
    shares, blends, boxes = np.ones(steps), np.ones(steps), np.zeros((steps, 4), dtype=np.int64)
    if not mixes(settings):
        return shares, blends, boxes
    draws = np.random.default_rng(seeds.stream(seed, seeds.MIX, epoch))
    cuts = (
        draws.random(steps) < 0.5
        if settings.mixup and settings.cutmix
        else np.full(steps, settings.cutmix > 0)
    )
    alphas = np.where(cuts, settings.cutmix, settings.mixup)
    own = draws.beta(alphas, alphas)
    places = draws.random((steps, 2))
    shares[~cuts] = blends[~cuts] = own[~cuts]
    size = np.array(image_size)
    middle = (places * size).astype(np.int64)
    half = (0.5 * np.sqrt(1 - own)[:, None] * size).astype(np.int64)
    low, high = np.maximum(middle - half, 0), np.minimum(middle + half, size)
    boxes[cuts] = np.stack((low[:, 0], high[:, 0], low[:, 1], high[:, 1]), 1)[cuts]
    shares[cuts] = (1 - (high - low).prod(1) / size.prod())[cuts]
    return shares, blends, boxes
