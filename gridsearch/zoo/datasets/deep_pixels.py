"""Pixels of more than eight bits: taken out of a file whole, and scaled for a whole dataset alike.

No image's scale depends on itself: that would make a dark one and a bright one the same.  Black and white are
those of all images of a dataset together, see `levels`.

Pillow gives grey of 16 and 32 bits and floating-point numbers as they are, but of a colour's 16 bits the upper
eight alone; the lower are read a second time, as the upper ones of the other byte order.
"""

from __future__ import annotations

import io
import math
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Levels = tuple[float, float]
"""The values that are black (0) and white (1)."""


class Range(NamedTuple):
    """The lowest and the highest value of an image, and whether it holds floating-point numbers."""

    low: float
    high: float
    floats: bool


_GREY = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
_COLOUR = ("RGB", "RGBA")
_DARK = 1 / 16
_PHOTOMETRIC = 262
_ORDERS = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


def is_deep(image: Image.Image) -> bool:
    """Whether an opened image has more than eight bits a channel that can be read."""
    if image.mode in _GREY or (image.mode in _COLOUR and _other_half(image) is not None):
        return True
    return _ppm_top(image) > 255 and any(tile.codec_name == "ppm" for tile in _tiles(image))


def is_cut(image: Image.Image, content: bytes) -> bool:
    """Whether Pillow reads eight bits a channel where the file has more, and there is no way to the others."""
    if is_deep(image):
        return False
    if image.format == "JPEG2000":
        place = content.find(b"\xff\x51")  # SIZ: 38 bytes, then a byte for each component, its bits less one
        return 0 <= place < len(content) - 40 and (content[place + 40] & 0x7F) >= 8
    return any(";16" in _raw_mode(tile) for tile in _tiles(image)) or _ppm_top(image) > 255


def values(image: Image.Image, content: bytes, formats: tuple[str, ...]) -> np.ndarray:
    """Return the values of a deep image as float64 [H, W], or [H, W, 3], in the file's own unit.

    Args:
        image: opened and loaded.
        content: the file's bytes.
        formats: that Pillow may take it for.

    Raises:
        ValueError: they hold NaN or infinity.
    """
    if image.mode in _GREY:
        found = np.asarray(image).astype(np.float64)
        if not np.isfinite(found).all():
            raise ValueError("its pixels hold NaN or infinity")
        inverted = image.format == "TIFF" and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0
        return 65535 - found if inverted and image.mode != "F" else found
    low: Any = Image.open(io.BytesIO(content), formats=formats)
    if (top := _ppm_top(low)) > 255:
        count = low.width * low.height * 3
        flat = np.frombuffer(content, ">u2", count, offset=low.tile[0].offset)
        return flat.astype(np.float64).reshape(low.height, low.width, 3) * (65535 / top)
    tiles = _other_half(low)
    assert tiles is not None
    low.tile = tiles
    low.load()
    upper, lower = (np.asarray(half).astype(np.float64)[:, :, :3] for half in (image, low))
    if _raw_mode(tiles[0]) == "RGBA":  # the four bytes of grey and alpha
        return upper[:, :, 0] * 256 + lower[:, :, 1]
    whole: np.ndarray = upper * 256 + lower
    return whole


def range_of(pixels: np.ndarray, mode: str) -> Range:
    """Return the range of an image of this mode."""
    return Range(float(pixels.min()), float(pixels.max()), mode == "F")


def levels(ranges: Iterable[Range], *, beside_8_bits: bool = False) -> Levels:
    """Return which values become black (0) and white (1), for all images with these ranges.

    Black is 0.  White is the highest value of the fewest bits, 8 or more, that hold all values: 255, 1023, 4095,
    65535...; of floating-point numbers up to 1 it is 1.  Where values are negative, the range itself is taken.
    Beside images of 8 bits only all 8 or all 16 bits can be meant.
    """
    lows, highs, floats = zip(*ranges, strict=True)
    low, high = min(lows), max(highs)
    if low < 0:
        return low, high if high > low else low + 1
    if high <= 1 and all(floats):
        return 0.0, 1.0
    if beside_8_bits and 255 < high <= 65535:
        return 0.0, 65535.0
    return 0.0, 2.0 ** max(8, math.ceil(high).bit_length()) - 1


def dark_ones(pictures: Sequence[np.ndarray], levels: Levels | None) -> list[str]:
    """Say how many images of more than 8 bits (fractions) are black to the eye beside those of 8 bits."""
    count = sum(float(pixels.max()) < _DARK for pixels in pictures)
    if levels is None or not count:
        return []
    caution = (
        f"{count} of {len(pictures)} images of more than 8 bits {'is' if count == 1 else 'are'} nearly black: no value "
        f"is above {100 * _DARK:.3g} % of white, which is {levels[1]:g} as other images have 8 bits; if they should "
        "not be, save all images with 8 bits"
    )
    return [caution]


def _tiles(image: Image.Image) -> list[Any]:
    """Return how the pixels lie in the file of an image that was opened and not loaded."""
    return list(getattr(image, "tile", ()))


def _raw_mode(tile: Any) -> str:
    arguments = tile.args or ()
    first = arguments if isinstance(arguments, str) else arguments[0] if arguments else ""
    return first if isinstance(first, str) else ""


def _other_half(image: Image.Image) -> list[Any] | None:
    """Return the tiles of an image such that loading gives the lower bytes of 16; None where that cannot be."""
    tiles = _tiles(image)
    found = []
    for tile in tiles:
        mode = _raw_mode(tile)
        if mode == "LA;16B":
            other = "RGBA"
        elif mode.startswith(("RGB;16", "RGBA;16", "RGBX;16")):
            other = mode[:-1] + _ORDERS.get(mode[-1], "")
        else:
            return None
        rest = () if isinstance(tile.args, str) else tile.args[1:]
        found.append(tile._replace(args=other if isinstance(tile.args, str) else (other, *rest)))
    return found or None


def _ppm_top(image: Image.Image) -> int:
    """Return the highest value that a colour PPM declares, 0 for others."""
    if image.format != "PPM" or image.mode != "RGB":
        return 0
    numbers = [a for tile in _tiles(image) for a in (tile.args or ()) if isinstance(a, int)]
    return max(numbers, default=0)
