"""RandAugment on a batch of tensors: a few operations on each image, each drawn at random, all of one strength.

Cubuk et al. 2020, "RandAugment: Practical automated data augmentation with a reduced search space", with the fourteen
operations and the ranges of `torchvision.transforms.RandAugment` (31 strengths, nearest pixel, black comes in):

    identity
    shear_x, shear_y          by up to .3, either way
    translate_x, translate_y  by up to 150/331 of the width or height, either way
    rotate                    by up to 30 degrees, either way
    brightness, color, contrast, sharpness   by a factor of 1 - .9 to 1 + .9
    posterize                 to 8 - 4 bits
    solarize                  inverts all from 255 down to 0
    auto_contrast, equalize   have no strength

Every operation of torchvision is computed on bytes and cut to bytes, and so it is here; images that rest as fractions
are not cut.  An image's result does not depend on those beside it.

Shapes: N images of an epoch, B batch, C/H/W channels, height, width, R operations on each image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

if TYPE_CHECKING:
    from collections.abc import Callable

OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast",
    "sharpness", "posterize", "solarize", "auto_contrast", "equalize",
)  # fmt: skip
STRONGEST = 30

_SIGNED = OPERATIONS[1:10]
_GRAY = (0.2989, 0.587, 0.114)  # of ITU-R BT.601, as torchvision has them
_TOP = 255.0
_LEVELS = 256


class RandAugment(NamedTuple):
    """How much of it.

    Attributes:
        operations: R.
        magnitude: how strong they are, 0 to `STRONGEST`.
    """

    operations: int = 2
    magnitude: int = 9


def draw_operations(
    count: int, how: RandAugment, image_size: tuple[int, int], generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw an epoch's operations: their numbers, int64 [N, R], and their strengths, float64 [N, R].

    Lanes that differ in how much they want draw the same first operations.
    """
    most = len(OPERATIONS)
    numbers = torch.randint(most, (most, count), generator=generator)[: how.operations].T.contiguous()
    signs = torch.randint(2, (most, count), generator=generator)[: how.operations].T
    strengths = torch.tensor(
        [_strength(name, how.magnitude, image_size) for name in OPERATIONS], dtype=torch.float64
    )
    signed = torch.tensor([name in _SIGNED for name in OPERATIONS])
    values = strengths[numbers]
    return numbers, torch.where(signed[numbers] & (signs == 1), -values, values)


def _strength(name: str, magnitude: int, image_size: tuple[int, int]) -> float:
    """Return an operation's strength in its own unit; see the module."""
    share, (height, width) = magnitude / STRONGEST, image_size
    match name:
        case "shear_x" | "shear_y":
            return 0.3 * share
        case "translate_x" | "translate_y":
            return float(int(150 / 331 * (width if name == "translate_x" else height) * share))
        case "rotate":
            return 30 * share
        case "brightness" | "color" | "contrast" | "sharpness":
            return 0.9 * share
        case "posterize":
            return 8.0 - round(4 * share)
        case "solarize":
            return _TOP * (1 - share)
    return 0.0


def rand_augment(
    raw_BHWC: torch.Tensor, numbers_BR: torch.Tensor, strengths_BR: torch.Tensor
) -> torch.Tensor:
    """Return images after their operations.

    Args:
        raw_BHWC: uint8 of 0..255, or fractions of 1.
        numbers_BR: the places of each image's operations in `OPERATIONS`.
        strengths_BR: of each.
    """
    whole = raw_BHWC.dtype == torch.uint8
    pixels = raw_BHWC if whole else raw_BHWC * _TOP
    for number_B, strength_B in zip(numbers_BR.unbind(1), strengths_BR.unbind(1), strict=True):
        pixels = _one_each(pixels, number_B, strength_B)
    return pixels if whole else pixels / _TOP


def _one_each(pixels: torch.Tensor, number_B: torch.Tensor, strength_B: torch.Tensor) -> torch.Tensor:
    """Return images after one operation each.

    On a CPU each image is only in its own operation's batch.  Elsewhere all go through all and the right result is
    taken: that needs no number from the device, which a recorded step cannot wait for.
    """
    result = pixels.clone()
    for names, change in _CHANGES:
        wanted = [OPERATIONS.index(name) for name in names]
        chosen_B = (number_B >= wanted[0]) & (number_B <= wanted[-1])
        if pixels.device.type == "cpu":
            place = chosen_B.nonzero().squeeze(1)
            if len(place):
                result[place] = change(pixels[place], number_B[place], strength_B[place]).to(pixels.dtype)
        else:
            changed = change(pixels, number_B, strength_B).to(pixels.dtype)
            result = torch.where(chosen_B.view(-1, 1, 1, 1), changed, result)
    return result


# Each takes pixels [B, H, W, C], the operations' numbers [B] and their strengths [B], and returns pixels of that scale.


def _move(pixels: torch.Tensor, number_B: torch.Tensor, strength_B: torch.Tensor) -> torch.Tensor:
    """Shear, translate or rotate: each pixel is that of the place where it came from, black where there is none."""
    batch, height, width, _ = pixels.shape
    device = pixels.device
    s = strength_B.float().view(-1, 1, 1)
    y, x = (torch.arange(n, device=device, dtype=torch.float32) for n in (height, width))
    y, x = y.view(1, -1, 1), x.view(1, 1, -1)
    shear_x, shear_y, right, down, turn = (
        (number_B == OPERATIONS.index(name)).view(-1, 1, 1) * s
        for name in ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
    )
    radians = torch.deg2rad(turn)
    cos, sin = radians.cos(), radians.sin()
    from_y, from_x = y - (height - 1) / 2, x - (width - 1) / 2
    rows = cos * from_y + sin * from_x + (height - 1) / 2
    columns = cos * from_x - sin * from_y + (width - 1) / 2
    rows = torch.round(rows + shear_y * (x + 0.5) - down).long()
    columns = torch.round(columns + shear_x * (y + 0.5) - right).long()
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    image_B = torch.arange(batch, device=device).view(-1, 1, 1)
    moved = pixels[image_B, rows.clamp_(0, height - 1), columns.clamp_(0, width - 1)]
    return moved.masked_fill_(~inside.unsqueeze(3), 0)


def _blend(pixels: torch.Tensor, number_B: torch.Tensor, strength_B: torch.Tensor) -> torch.Tensor:
    """Move an image away from black, its gray, its mean gray or its blur, or towards that."""
    x = pixels.float()
    if pixels.shape[3] != len(_GRAY):  # gray already
        strength_B = strength_B.masked_fill(number_B == OPERATIONS.index("color"), 0)
    gray = _gray(pixels)
    mean = gray.mean((1, 2, 3), keepdim=True)
    which = {"color": gray, "contrast": mean, "sharpness": _blurred(x, cut=pixels.dtype == torch.uint8)}
    other = torch.zeros_like(x)
    for name, value in which.items():
        other = torch.where((number_B == OPERATIONS.index(name)).view(-1, 1, 1, 1), value, other)
    own, rest = ((1 + strength_B).to(x.dtype), (-strength_B).to(x.dtype))
    return (own.view(-1, 1, 1, 1) * x + rest.view(-1, 1, 1, 1) * other).clamp_(0, _TOP)


def _gray(pixels: torch.Tensor) -> torch.Tensor:
    """Return the gray of images, [B, H, W, 1]; images that are no RGB are gray as they are, channel by channel."""
    x = pixels.float()
    if pixels.shape[3] != len(_GRAY):
        return x
    red, green, blue = x.unbind(3)
    gray = (_GRAY[0] * red + _GRAY[1] * green + _GRAY[2] * blue).unsqueeze(3)
    return gray.trunc() if pixels.dtype == torch.uint8 else gray


def _blurred(x: torch.Tensor, *, cut: bool) -> torch.Tensor:
    """Return images smoothed by 3x3 with weight 5 in the middle, their edges as they are."""
    channels = x.shape[3]
    if min(x.shape[1:3]) <= 2:
        return x
    kernel = torch.ones(channels, 1, 3, 3, dtype=x.dtype, device=x.device)
    kernel[:, :, 1, 1] = 5
    smooth = F.conv2d(x.permute(0, 3, 1, 2), kernel / 13, groups=channels).permute(0, 2, 3, 1)
    blurred = x.clone()
    blurred[:, 1:-1, 1:-1] = smooth.round() if cut else smooth
    return blurred


def _levels(pixels: torch.Tensor) -> torch.Tensor:
    """Return pixels as whole numbers: fractions have lost a little on the way to 0..255."""
    return pixels.float().round()


def _posterize(pixels: torch.Tensor, _: torch.Tensor, strength_B: torch.Tensor) -> torch.Tensor:
    """Keep the highest bits."""
    steps = torch.exp2(8 - strength_B).view(-1, 1, 1, 1).to(torch.float32)
    return (_levels(pixels) / steps).floor() * steps


def _solarize(pixels: torch.Tensor, _: torch.Tensor, strength_B: torch.Tensor) -> torch.Tensor:
    """Invert what is as bright as the threshold."""
    x = pixels.float()
    return torch.where(_levels(pixels) >= strength_B.view(-1, 1, 1, 1).to(x.dtype), _TOP - x, x)


def _auto_contrast(pixels: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
    """Stretch each channel to the whole range."""
    x = pixels.float()
    low, high = x.amin((1, 2), keepdim=True), x.amax((1, 2), keepdim=True)
    scale = _TOP / (high - low)
    flat = ~scale.isfinite()
    low, scale = low.masked_fill(flat, 0), scale.masked_fill(flat, 1)
    return ((x - low) * scale).clamp_(0, _TOP)


def _equalize(pixels: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
    """Give each level of a channel its share of the pixels below it."""
    batch, height, width, channels = pixels.shape
    levels = _levels(pixels).permute(0, 3, 1, 2).reshape(batch * channels, height * width).long()
    counts = torch.zeros(len(levels), _LEVELS, dtype=torch.int64, device=pixels.device)
    counts.scatter_add_(1, levels, torch.ones_like(levels))
    last = counts.gather(1, levels.amax(1, keepdim=True))
    step = (height * width - last) // 255
    below = counts.cumsum(1) - counts  # of the darker levels
    table = ((below + step // 2) // step.clamp(min=1)).clamp_(0, 255)
    table[:, 0] = 0
    found = torch.where(step == 0, levels, table.gather(1, levels))
    return found.view(batch, channels, height, width).permute(0, 2, 3, 1)


_CHANGES: tuple[
    tuple[tuple[str, ...], Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]], ...
] = (
    (OPERATIONS[1:6], _move),
    (OPERATIONS[6:10], _blend),
    (("posterize",), _posterize),
    (("solarize",), _solarize),
    (("auto_contrast",), _auto_contrast),
    (("equalize",), _equalize),
)
"""Operations that lie side by side in `OPERATIONS`, with what computes them."""
