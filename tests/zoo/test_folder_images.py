"""One image file after another: every kind of pixels becomes eight bits, upright, on white."""

import io

import numpy as np
import pytest
from PIL import Image

from gridsearch.zoo.datasets import image_decoding
from gridsearch.zoo.datasets.image_decoding import Change, NotUsable

COLOUR = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
GREY = COLOUR[:, :, 0]


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decode(content, *, size=(6, 8), channels=None):
    return image_decoding.decode(content, size=size, channels=channels).pixels


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_formats_without_loss_give_their_pixels(kind):
    assert np.array_equal(decode(encoded(Image.fromarray(COLOUR), kind)), COLOUR.transpose(2, 0, 1))
    assert np.array_equal(decode(encoded(Image.fromarray(GREY), kind)), GREY[None])


@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"lossless": True}), ("JPEG2000", {})]
)
def test_other_formats_give_nearly_their_pixels(kind, options):
    smooth = np.add.outer(np.arange(16) * 6, np.arange(16) * 6).astype(np.uint8)
    pixels = decode(
        encoded(Image.fromarray(np.stack([smooth, smooth // 2, smooth], 2)), kind, **options), size=(16, 16)
    )
    assert np.abs(pixels[0].astype(int) - smooth).max() < 12


def test_a_palette_gives_its_colours():
    flags = np.array([[0, 1], [2, 1]], np.uint8)
    image = Image.fromarray(flags).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    assert decode(encoded(image, "GIF"), size=(2, 2))[:, 0, 0].tolist() == [255, 0, 0]
    assert decode(encoded(image), size=(2, 2))[:, 1, 0].tolist() == [0, 0, 255]


def test_black_and_white_gives_0_and_255():
    image = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert decode(encoded(image), size=(1, 2)).tolist() == [[[0, 255]]]


def test_transparent_pixels_become_white_whatever_colour_hides_below():
    hidden = np.array([[[200, 0, 0, 0], [10, 20, 30, 255]]], np.uint8)
    assert decode(encoded(Image.fromarray(hidden)), size=(1, 2))[:, 0].T.tolist() == [
        [255, 255, 255],
        [10, 20, 30],
    ]
    grey = Image.new("LA", (2, 1))
    grey.putdata([(7, 0), (7, 255)])
    assert decode(encoded(grey), size=(1, 2)).tolist() == [[[255, 7]]]
    palette = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    palette.putpalette([200, 0, 0, 10, 20, 30])
    content = encoded(palette, transparency=0)
    assert decode(content, size=(1, 2))[:, 0].T.tolist() == [[255, 255, 255], [10, 20, 30]]


def test_cmyk_becomes_colour():
    image = Image.new("CMYK", (2, 2), (0, 255, 255, 0))
    pixels = decode(encoded(image, "TIFF"), size=(2, 2))
    assert pixels[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_that_a_camera_noted_is_honoured(orientation):
    upright = Image.fromarray(COLOUR)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that the camera's note takes back
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(stored, exif=exif)
    assert image_decoding.inspect(content)[0] == (6, 8)
    assert np.array_equal(decode(content), COLOUR.transpose(2, 0, 1))


def test_a_large_photograph_keeps_its_orientation_and_shape_when_it_is_shrunk():
    photo = Image.new("RGB", (800, 400), "black")
    photo.paste("white", (0, 0, 800, 200))  # the sky, as it is stored: on top
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter: the sky is on the right
    content = encoded(photo, "JPEG", exif=exif)
    assert image_decoding.inspect(content)[0] == (800, 400)
    pixels = decode(content, size=(16, 8))
    assert pixels.shape == (1, 16, 8)
    assert pixels[0, :, :3].max() < 20
    assert pixels[0, :, 5:].min() > 235


def test_shrinking_takes_every_pixel_into_account():
    stripes = np.tile(np.array([[0, 255]], np.uint8), (64, 32))
    assert np.abs(decode(encoded(Image.fromarray(stripes)), size=(8, 8)).astype(int) - 127).max() < 30


def test_the_first_frame_stands_for_an_animation():
    frames = [Image.new("L", (4, 4), shade) for shade in (10, 200)]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    picture = image_decoding.decode(content, size=(4, 4), channels=None)
    assert picture.changes == {Change.FIRST_FRAME}
    assert np.unique(picture.pixels).tolist() == [10]
    assert image_decoding.decode(encoded(frames[0], "GIF"), size=(4, 4), channels=None).changes == frozenset()


def test_colour_can_be_asked_of_grey_and_grey_of_colour():
    assert decode(encoded(Image.fromarray(GREY)), channels=3).shape == (3, 6, 8)
    assert decode(encoded(Image.fromarray(COLOUR)), channels=1).shape == (1, 6, 8)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (b"hello", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (encoded(Image.fromarray(COLOUR), "JPEG")[:-20], "truncated"),
        (encoded(Image.fromarray(COLOUR))[:60], "truncated|Truncated|broken"),
        (encoded(Image.fromarray(np.full((6, 8), np.nan, np.float32)), "TIFF"), "NaN or infinity"),
        (b"\0\0\0\x18ftypheic" + bytes(40), r"HEIC\); convert it"),
        (encoded(Image.fromarray(COLOUR), "TIFF")[:9], "TIFF|not an image"),
        (encoded(Image.new("1", (8000, 8000))), "too many pixels"),
        (encoded(Image.new("1", (14000, 14000))), "too many pixels"),
    ],
    ids=["empty", "text", "PostScript", "cut JPEG", "cut PNG", "NaN", "HEIC", "cut TIFF", "large", "bomb"],
)
def test_what_is_no_usable_image_says_why(content, reason):
    with image_decoding.quiet(), pytest.raises(NotUsable, match=reason) as refusal:
        decode(content)
    assert str(refusal.value)
