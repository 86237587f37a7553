"""Turns the bytes of one image file into an array, below the folder of images.

Transparent pixels become white, the first frame stands for an animation, 16 bits become 8, the orientation
that a camera noted is honoured.  Only formats that Pillow decodes by itself are taken: none starts another
program.
"""

from __future__ import annotations

import io
import warnings
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
MOST_PIXELS = 50_000_000
MOST_BYTES = 256 * 1024**2

_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
_ALPHA = ("LA", "La", "RGBA", "RGBa", "PA")
_16_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")


class NotUsable(Exception):
    """A file that is not an image we take; says why in a few words."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Pillow's warnings to ourselves, and turn the one about decompression bombs into an error.

    Warnings are a matter of the whole process, so this is done once around many files, not in each thread.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def upright_size(content: bytes) -> tuple[int, int]:
    """Return (H, W) as the image is seen, from its header.

    Raises:
        NotUsable: not an image.
    """
    with _opened(content) as image:
        return _upright(image)


def decode(content: bytes, *, size: tuple[int, int], channels: int | None) -> tuple[np.ndarray, bool]:
    """Decode an image and resize it (bilinear, each output pixel over all input pixels that it covers).

    Args:
        content: the file's bytes.
        size: (H, W) to give; the aspect is not kept.
        channels: 1 or 3, or None for 1 if the image is grey throughout, else 3.

    Returns:
        uint8 [C, H, W], and whether the file holds more frames than this one.

    Raises:
        NotUsable: not an image, or not a whole one.
    """
    with _opened(content) as image:
        animated = _is_animated(image)
        try:
            turned = image.size != _upright(image)[::-1]
            width_height = size if turned else size[::-1]
            image.draft(
                None, (2 * width_height[0], 2 * width_height[1])
            )  # a JPEG of a camera decodes at a fraction
            image.load()
            colour = _eight_bit(_oriented(image))
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            raise NotUsable(_reason(error)) from error
    if channels is None:
        channels = 1 if _is_grey(colour) else 3
    colour = colour.convert("L" if channels == 1 else "RGB")
    if colour.size != size[::-1]:
        colour = colour.resize(size[::-1], Image.Resampling.BILINEAR)
    array = np.asarray(colour)
    return (array[None] if channels == 1 else array.transpose(2, 0, 1)), animated


def _opened(content: bytes) -> Image.Image:
    if not content:
        raise NotUsable("an empty file")
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise NotUsable("too many pixels") from error
    except UnidentifiedImageError as error:
        raise NotUsable("not an image") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise NotUsable(_reason(error)) from error
    if image.width * image.height > MOST_PIXELS:
        raise NotUsable(f"too many pixels ({image.width}x{image.height})")
    return image


def _upright(image: Image.Image) -> tuple[int, int]:
    orientation = 1
    with suppress(Exception):  # what is written there may be anything
        orientation = image.getexif().get(_ORIENTATION, 1)
    return (image.width, image.height) if orientation in _TURNED else (image.height, image.width)


def _is_animated(image: Image.Image) -> bool:
    if image.format == "MPO":  # the second picture that some cameras put into a JPEG
        return False
    with suppress(Exception):  # a file cut short, which decoding tells
        return bool(getattr(image, "is_animated", False))
    return False


def _oriented(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001  (a broken note of the camera spoils no picture)
        return image


def _eight_bit(image: Image.Image) -> Image.Image:
    """Return the image in mode L or RGB."""
    if image.mode in _16_BIT:
        return _from_16_bit(image)
    if image.mode == "F":
        raise NotUsable("its pixels are floating-point numbers")
    if image.mode in _ALPHA or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image)
    if pixels.min() < 0 or pixels.max() > 0xFFFF:
        raise NotUsable("its pixels have more than 16 bits")
    return Image.fromarray((pixels >> 8).astype(np.uint8))


def _is_grey(image: Image.Image) -> bool:
    if image.mode == "L":
        return True
    red, green, blue = (np.asarray(band) for band in image.split())
    return np.array_equal(red, green) and np.array_equal(green, blue)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:120] or type(error).__name__
