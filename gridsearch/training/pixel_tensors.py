"""A dataset's images as one tensor: resized where a model asks for it, and what normalizes them.

Below `resident_data`, which keeps such tensors on a device, and the export, which does the same to new images.

Shapes: N images, C/H/W channels, height, width.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

_CHUNK = 1024  # images at a time for resizing, and for statistics of fractions, whose sums depend on it
_CHUNK_PIXELS = 1 << 20  # at a time for statistics of bytes: each takes 16 bytes there


def resident_pixels(images: np.ndarray, *, size: tuple[int, int]) -> torch.Tensor:
    """Return images [N, C, H, W] as a tensor [N, H', W', C] of the same type, resized where `size` differs.

    Resizing is bilinear with half-pixel centres; bytes are rounded back to bytes.  What predicts on new
    images must resize them with this function too.

    Args:
        images: uint8 or float32.
        size: (H', W').
    """
    if tuple(images.shape[2:]) == size:
        rows = images.transpose(0, 2, 3, 1)
        # whoever may write to an array may do so while others train on it; mapped images nobody can
        return tensor_of(np.array(rows, order="C") if images.flags.writeable else np.ascontiguousarray(rows))
    resized = [_resize(images[i : i + _CHUNK], size) for i in range(0, len(images), _CHUNK)]
    return torch.cat(resized).permute(0, 2, 3, 1).contiguous()


def tensor_of(array: np.ndarray) -> torch.Tensor:
    """Return an array's memory as a tensor; nothing writes to it where it is mapped."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


def _resize(images: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    chunk = torch.from_numpy(images.astype(np.float32))
    resized = F.interpolate(chunk, size=size, mode="bilinear", align_corners=False)
    return resized.round_().clamp_(0, 255).to(torch.uint8) if images.dtype == np.uint8 else resized


def channel_statistics(
    pixels: torch.Tensor, chosen: torch.Tensor
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and population standard deviation per channel, of pixels scaled to 0..1.

    Bytes are summed as integers, so that the result does not depend on the order or the machine.

    Args:
        pixels: [N, H, W, C] on the CPU, uint8 or float32.
        chosen: int64 indices of the images to count.
    """
    exact = pixels.dtype == torch.uint8
    wide = torch.int64 if exact else torch.float64
    total = torch.zeros(pixels.shape[3], dtype=wide)
    squares = torch.zeros(pixels.shape[3], dtype=wide)
    images = max(1, _CHUNK_PIXELS // pixels[0].numel()) if exact else _CHUNK
    for part in torch.split(chosen, images):
        values = pixels[part].to(wide)
        total += values.sum(dim=(0, 1, 2))
        squares += (values * values).sum(dim=(0, 1, 2))
    count = len(chosen) * pixels.shape[1] * pixels.shape[2]
    top = 255.0 if exact else 1.0
    means, stds = [], []
    for s, q in zip(total.tolist(), squares.tolist(), strict=True):
        # n * q - s^2 is exact in Python's integers; for floats it loses at most half the digits of float64
        variance = (count * q - s * s) / (count * count)
        means.append(s / count / top)
        stds.append(max(variance, 0.0) ** 0.5 / top)
    return tuple(means), tuple(stds)
