"""Augmentation on the device: an epoch's draws at once, applied batch by batch to raw pixels.

Draws come from the CPU whatever the device, and from the trial's stream of that epoch, so that a lane sees
the same images wherever it trains.  Pixels are changed before they are normalized: lanes that differ in
`norm` alone share the augmented batch, and what is shifted in or erased is black.

    flip        left to right with probability 1/2
    shift       by up to 1/8 of the height and of the width (4 pixels of 32: He et al. 2016, section 4.2), at
                least 1, each shift equally likely
    flip+shift  both
    erase       with probability 1/2 a rectangle of .02 to 1/3 of the image, sides at .3 to 3.3 (Zhong et al.
                2020, section 4); its sides are cut to the image's, its place is uniform
    randaugment a few operations drawn at random, after all else (Cubuk et al. 2020; see `randaugment`)

Shapes: N images of an epoch in their order, B batch, R operations of randaugment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch

from gridsearch.training import seeds
from gridsearch.training.own_code import OwnAugment
from gridsearch.training.randaugment import RandAugment, draw_operations, rand_augment

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from gridsearch.records import ImageSettings
    from gridsearch.training.resident_data import ResidentData

AUGMENTATIONS = (
    *("none", "flip", "shift", "flip+shift", "erase"),
    *("randaugment", "flip+randaugment", "flip+shift+randaugment"),
)
COMPILED = ("none", "flip", "shift", "flip+shift", "erase")
"""Those that step plans know."""

_ERASE_AREA = (0.02, 1 / 3)
_ERASE_RATIO = (0.3, 3.3)


class Augmentation(Protocol):
    """What changes the images of an epoch."""

    @property
    def sizes(self) -> Hashable:
        """What has the same can be copied."""
        ...

    def apply(self, raw_BHWC: torch.Tensor, start: int | torch.Tensor) -> torch.Tensor:
        """Return a batch's pixels, changed; see `EpochAugment`."""
        ...

    def copy_(self, other: Self) -> None:
        """Become that of another epoch, in the same memory."""
        ...


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class EpochAugment:
    """One epoch's draws, by position in the epoch's order; what is not drawn is None.

    Attributes:
        flips: bool [N].
        shifts: int64 [N, 2], (down, right) in pixels.
        boxes: int64 [N, 4], (top, bottom, left, right), bottom and right exclusive; empty for no erasing.
        operations: int64 [N, R], of randaugment.
        strengths: float64 [N, R], of each.
    """

    flips: torch.Tensor | None = None
    shifts: torch.Tensor | None = None
    boxes: torch.Tensor | None = None
    operations: torch.Tensor | None = None
    strengths: torch.Tensor | None = None

    def apply(self, raw_BHWC: torch.Tensor, start: int | torch.Tensor) -> torch.Tensor:
        """Return a batch's pixels, changed.

        Args:
            raw_BHWC: pixels.
            start: position of the batch's first image in the epoch's order, or of each image, int64 [B].
        """
        part = slice(start, start + len(raw_BHWC)) if isinstance(start, int) else start
        if self.flips is not None:
            raw_BHWC = flip(raw_BHWC, self.flips[part])
        if self.shifts is not None:
            raw_BHWC = shift(raw_BHWC, self.shifts[part])
        if self.boxes is not None:
            raw_BHWC = erase(raw_BHWC, self.boxes[part])
        if self.operations is not None and self.strengths is not None:
            raw_BHWC = rand_augment(raw_BHWC, self.operations[part], self.strengths[part])
        return raw_BHWC

    @property
    def sizes(self) -> Hashable:
        """The sizes of what is drawn: what has the same can be copied."""
        return tuple(None if t is None else t.shape for t in self._all())

    def copy_(self, other: EpochAugment) -> None:
        """Take another epoch's draws, of the same kind and size, into the same memory."""
        for mine, theirs in zip(self._all(), other._all(), strict=True):
            if mine is not None and theirs is not None:
                mine.copy_(theirs)

    def _all(self) -> tuple[torch.Tensor | None, ...]:
        return self.flips, self.shifts, self.boxes, self.operations, self.strengths


def draw(
    kind: str,
    *,
    seed: int,
    epoch: int,
    count: int,
    image_size: tuple[int, int],
    device: torch.device,
    rand: RandAugment = RandAugment(),  # noqa: B008  (a tuple)
) -> EpochAugment | None:
    """Draw one epoch's augmentation; None if there is none.

    Args:
        kind: one of `AUGMENTATIONS`.
        seed: the trial's seed.
        epoch: counted from 1.
        count: images in the epoch.
        image_size: (H, W).
        device: where to put the draws.
        rand: how much randaugment.
    """
    assert kind in AUGMENTATIONS, kind
    if kind == "none":
        return None
    generator = seeds.generator(seed, seeds.AUGMENT, epoch)
    words = kind.split("+")
    flips = torch.rand(count, generator=generator) < 0.5 if "flip" in words else None
    shifts = _draw_shifts(count, image_size, generator) if "shift" in words else None
    boxes = _draw_boxes(count, image_size, generator) if "erase" in words else None
    drawn = draw_operations(count, rand, image_size, generator) if "randaugment" in words else (None, None)
    every = (flips, shifts, boxes, *drawn)
    names = ("flips", "shifts", "boxes", "operations", "strengths")
    return EpochAugment(**{n: t.to(device) for n, t in zip(names, every, strict=True) if t is not None})


def draw_for(
    settings: ImageSettings,
    seed: int,
    epoch: int,
    *,
    count: int,
    data: ResidentData,
    dtype: torch.dtype,
    own: Callable[..., Any] | None = None,
) -> Augmentation | None:
    """Draw the augmentation of a trial's epoch; see `draw`.

    Args:
        settings: the recipe.
        seed: the trial's.
        epoch: counted from 1.
        count: images in the epoch.
        data: has them.
        dtype: of the weights.
        own: the user's own function, whose draws come later.
    """
    if own is not None:
        top = 255.0 if data.pixels.dtype == torch.uint8 else 1.0
        return OwnAugment(settings.augment, own, seed=seed, epoch=epoch, top=top, dtype=dtype)
    return draw(
        settings.augment,
        seed=seed,
        epoch=epoch,
        count=count,
        image_size=data.image_size,
        device=data.device,
        rand=RandAugment(settings.operations, settings.magnitude),
    )


def flip(raw_BHWC: torch.Tensor, flips_B: torch.Tensor) -> torch.Tensor:
    """Mirror the chosen images left to right."""
    return torch.where(flips_B.view(-1, 1, 1, 1), raw_BHWC.flip(2), raw_BHWC)


def shift(raw_BHWC: torch.Tensor, shifts_B2: torch.Tensor) -> torch.Tensor:
    """Move each image down and right by its shifts; black comes in."""
    batch, height, width, _ = raw_BHWC.shape
    device = raw_BHWC.device
    rows_BH = torch.arange(height, device=device) - shifts_B2[:, :1]
    columns_BW = torch.arange(width, device=device) - shifts_B2[:, 1:]
    inside_BH = (rows_BH >= 0) & (rows_BH < height)
    inside_BW = (columns_BW >= 0) & (columns_BW < width)
    image_B = torch.arange(batch, device=device).view(-1, 1, 1)
    moved = raw_BHWC[
        image_B, rows_BH.clamp_(0, height - 1).unsqueeze(2), columns_BW.clamp_(0, width - 1).unsqueeze(1)
    ]
    inside_BHW1 = (inside_BH.unsqueeze(2) & inside_BW.unsqueeze(1)).unsqueeze(3)
    return moved.masked_fill_(~inside_BHW1, 0)


def erase(raw_BHWC: torch.Tensor, boxes_B4: torch.Tensor) -> torch.Tensor:
    """Blacken each image's rectangle."""
    _, height, width, _ = raw_BHWC.shape
    rows_H = torch.arange(height, device=raw_BHWC.device)
    columns_W = torch.arange(width, device=raw_BHWC.device)
    top, bottom, left, right = boxes_B4.unsqueeze(2).unbind(1)
    inside_BH = (rows_H >= top) & (rows_H < bottom)
    inside_BW = (columns_W >= left) & (columns_W < right)
    inside_BHW1 = (inside_BH.unsqueeze(2) & inside_BW.unsqueeze(1)).unsqueeze(3)
    return raw_BHWC.masked_fill(inside_BHW1, 0)


def _draw_shifts(count: int, image_size: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    reach = [max(1, side // 8) for side in image_size]
    drawn = [torch.randint(-r, r + 1, (count,), generator=generator) for r in reach]
    return torch.stack(drawn, dim=1)


def _draw_boxes(count: int, image_size: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    height, width = image_size
    chance, area, ratio, down, along = torch.rand(5, count, generator=generator, dtype=torch.float64)
    area = height * width * (_ERASE_AREA[0] + area * (_ERASE_AREA[1] - _ERASE_AREA[0]))
    low, high = (torch.tensor(r, dtype=torch.float64).log() for r in _ERASE_RATIO)
    ratio = torch.exp(low + ratio * (high - low))
    tall = (area * ratio).sqrt().round().clamp_(1, height)
    wide = (area / ratio).sqrt().round().clamp_(1, width)
    top = (down * (height - tall + 1)).floor()
    left = (along * (width - wide + 1)).floor()
    boxes = torch.stack((top, top + tall, left, left + wide), dim=1).to(torch.int64)
    boxes[chance >= 0.5] = 0
    return boxes
