"""Turns the bytes of one image file into an array, below the folder of images.

Transparent pixels become white, the first frame stands for an animation and the first page for a document, the
orientation that a camera noted is honoured; what was done is said.  Images of more than 8 bits become fractions,
see `deep`.  Only formats that Pillow decodes by itself are taken: none starts another program.
"""

from __future__ import annotations

import io
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from gridsearch.zoo.datasets import deep_pixels, kinds

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMATS = (
    *("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"),
    *(("AVIF",) if features.check("avif") else ()),
)
MOST_PIXELS = 50_000_000
MOST_BYTES = 256 * 1024**2

NO_IMAGE = "not an image"

_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ALPHA = ("LA", "La", "RGBA", "RGBa", "PA")
_OTHER_COLOURS = ("CMYK", "LAB", "YCbCr", "HSV")
_LUMA = np.array([0.299, 0.587, 0.114])


class Change(StrEnum):
    """What was done to an image beyond reading and resizing it; the value is how it is counted in one line."""

    ROTATED = "rotated"
    FLATTENED = "flattened"
    FIRST_FRAME = "taken as first frame"
    COLOURS = "of other colours"
    DEEP = "of more than 8 bits"
    CUT = "cut to 8 bits"


def described(change: Change, count: int, levels: deep_pixels.Levels | None) -> str:
    """Say what was done to so many images."""
    images, verb, their = ("image", "was", "its") if count == 1 else ("images", "were", "their")
    black, white = levels or (0.0, 255.0)
    return {
        Change.ROTATED: f"{count} {images} {verb} turned as {their} camera noted (EXIF)",
        Change.FLATTENED: f"{count} {images} with transparency {verb} laid on white",
        Change.FIRST_FRAME: f"{count} {images} hold{'s' * (count == 1)} several frames; the first is used",
        Change.COLOURS: f"{count} {images} {verb} converted to RGB (from CMYK, YCbCr or LAB)",
        Change.DEEP: f"{count} {images} of more than 8 bits (16 bits, 32 bits or floating-point numbers) became "
        f"fractions: {black:g} is black, {white:g} white, in all of them alike",
        Change.CUT: f"{count} {images} of 16 bits in colour {verb} cut to 8: the lower bits cannot be read",
    }[change]


class NotUsable(Exception):
    """A file that is not an image we take; says why in a few words."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A decoded image.

    Attributes:
        pixels: [C, H, W]; uint8, or float32 of 0..1 for an image of more than 8 bits.
        changes: what was done to it.
    """

    pixels: np.ndarray
    changes: frozenset[Change]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Pillow's warnings to ourselves, and turn the one about decompression bombs into an error.

    Warnings are a matter of the whole process, so this is done once around many files, not in each thread.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def inspect(content: bytes) -> tuple[tuple[int, int], deep_pixels.Range | None]:
    """Return (H, W) as the image is seen, from its header, and the range of an image of more than 8 bits.

    Raises:
        NotUsable: not an image, or a deep one that is not whole.
    """
    with _opened(content) as image:
        is_deep = deep_pixels.is_deep(image)  # first: to ask a PNG for its orientation loads it
        size = _upright(image)
        if not is_deep:
            return size, None
        return size, deep_pixels.range_of(_deep_values(image, content)[0], image.mode)


def decode(
    content: bytes, *, size: tuple[int, int], channels: int | None, levels: deep_pixels.Levels | None = None
) -> Picture:
    """Decode an image and resize it (bilinear, each output pixel over all input pixels that it covers).

    Args:
        content: the file's bytes.
        size: (H, W) to give; the aspect is not kept.
        channels: 1 or 3, or None for 1 if the image is grey throughout, else 3.
        levels: black and white of images of more than 8 bits; None where no others are known.

    Raises:
        NotUsable: not an image, or not a whole one.
    """
    with _opened(content) as image:
        changes = _changes(image, content)
        if Change.DEEP in changes:
            return _decode_deep(image, content, size, channels, levels, changes)
        try:
            turned = image.size != _upright(image)[::-1]
            width_height = size if turned else size[::-1]
            # a JPEG of a camera decodes at a fraction
            image.draft(None, (2 * width_height[0], 2 * width_height[1]))
            image.load()
            colour, flattened = _eight_bit(_oriented(image))
        except (NotUsable, MemoryError):
            raise
        except Exception as error:
            raise NotUsable(_reason(error)) from error
    if channels is None:
        channels = 1 if _is_grey(colour) else 3
    colour = colour.convert("L" if channels == 1 else "RGB")
    if colour.size != size[::-1]:
        colour = colour.resize(size[::-1], Image.Resampling.BILINEAR)
    array = np.asarray(colour)
    pixels = array[None] if channels == 1 else array.transpose(2, 0, 1)
    return Picture(pixels, changes | ({Change.FLATTENED} if flattened else set()))


def _decode_deep(
    image: Image.Image,
    content: bytes,
    size: tuple[int, int],
    channels: int | None,
    levels: deep_pixels.Levels | None,
    changes: frozenset[Change],
) -> Picture:
    """Decode an image of more than 8 bits to fractions of white."""
    orientation = _orientation(image)
    values, alpha = _deep_values(image, content)
    black, white = levels or deep_pixels.levels(
        [deep_pixels.range_of(values, image.mode)], beside_8_bits=True
    )
    pixels = (values - black) / (white - black)
    if alpha is not None:
        shares = alpha if pixels.ndim == 2 else alpha[:, :, None]
        pixels = pixels * shares + (1 - shares)
        changes = changes | {Change.FLATTENED}
    if pixels.ndim == 3 and (channels == 1 or (channels is None and (pixels == pixels[:, :, :1]).all())):
        pixels = pixels @ _LUMA if channels == 1 else pixels[:, :, 0]
    bands = [pixels] if pixels.ndim == 2 else list(np.moveaxis(pixels, 2, 0))
    # Pillow turns a TIFF upright itself when it loads it, and takes the note away
    turn = _TURNS.get(orientation) if image.format != "TIFF" else None
    done = [_resized(band, size, turn) for band in bands]
    return Picture(np.stack(done * (3 if channels == 3 and len(done) == 1 else 1)), changes)


def _resized(band: np.ndarray, size: tuple[int, int], turn: Image.Transpose | None) -> np.ndarray:
    picture = Image.fromarray(band.astype(np.float32))
    if turn is not None:
        picture = picture.transpose(turn)
    if picture.size != size[::-1]:
        picture = picture.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(picture)


def _deep_values(image: Image.Image, content: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    """Return a deep image's values, see `deep.values`, and its opacity [H, W] of 0..1 where any is below 1."""
    try:
        image.load()
        values = deep_pixels.values(image, content, FORMATS)
        if image.mode == "RGBA":
            alpha = np.asarray(image.getchannel("A")) / 255
        elif (clear := image.info.get("transparency")) is not None:
            # a PNG's one transparent colour, in all its bits, of which Pillow compares eight
            differs = values != np.asarray(clear)
            alpha = (differs if differs.ndim == 2 else differs.any(axis=2)).astype(np.float64)
        else:
            return values, None
        return values, None if alpha.min() == 1 else alpha
    except MemoryError:
        raise
    except Exception as error:
        raise NotUsable(_reason(error)) from error


def _opened(content: bytes) -> Image.Image:
    if not content:
        raise NotUsable("an empty file")
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise NotUsable("too many pixels") from error
    except UnidentifiedImageError as error:
        kind = kinds.named(content)
        raise NotUsable(NO_IMAGE if kind is None else kinds.sentence(kind)) from error
    except MemoryError:
        raise
    except Exception as error:
        raise NotUsable(_reason(error)) from error
    if image.width * image.height > MOST_PIXELS:
        raise NotUsable(f"too many pixels ({image.width}x{image.height})")
    return image


def _changes(image: Image.Image, content: bytes) -> frozenset[Change]:
    """Return what the header of an image that was opened, not loaded, says of it."""
    found = {
        Change.DEEP: deep_pixels.is_deep(image),  # first: to ask a PNG for its orientation loads it
        Change.CUT: deep_pixels.is_cut(image, content),
        Change.ROTATED: _orientation(image) in _TURNS,
        Change.FIRST_FRAME: _is_animated(image),
        Change.COLOURS: image.mode in _OTHER_COLOURS,
    }
    return frozenset(change for change, holds in found.items() if holds)


def _orientation(image: Image.Image) -> int:
    with suppress(Exception):  # what is written there may be anything
        return int(image.getexif().get(_ORIENTATION, 1))
    return 1


def _upright(image: Image.Image) -> tuple[int, int]:
    turned = _orientation(image) in _TURNED and image.format != "TIFF"  # whose size Pillow gives upright
    return (image.width, image.height) if turned else (image.height, image.width)


def _is_animated(image: Image.Image) -> bool:
    if image.format == "MPO":  # the second picture that some cameras put into a JPEG
        return False
    with suppress(Exception):  # a file cut short: decoding says so, later
        return bool(getattr(image, "is_animated", False))
    return False


def _oriented(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001  (a broken note of the camera spoils no picture)
        return image


def _eight_bit(image: Image.Image) -> tuple[Image.Image, bool]:
    """Return the image in mode L or RGB, and whether it was laid on white."""
    if image.mode in _ALPHA or image.has_transparency_data:
        layer = _with_alpha(image)
        seen_through = layer.getchannel("A").getextrema() != (255, 255)
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB"), seen_through
    if image.mode == "LAB":
        return _from_lab(image), False
    return image.convert("L" if image.mode in ("1", "L") else "RGB"), False


def _with_alpha(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # premultiplied, which has no way to RGBA but by LA
        image = image.convert("LA")
    return image.convert("RGBA")


def _from_lab(image: Image.Image) -> Image.Image:
    try:
        from PIL import ImageCms

        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        found = ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "LAB", "RGB"))
    except ImportError as error:
        raise NotUsable("its colours are LAB, and this Pillow was built without littlecms") from error
    assert found is not None
    return found


def _is_grey(image: Image.Image) -> bool:
    if image.mode == "L":
        return True
    red, green, blue = (np.asarray(band) for band in image.split())
    return np.array_equal(red, green) and np.array_equal(green, blue)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:120] or type(error).__name__
