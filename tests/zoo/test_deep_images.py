"""Images of more than 8 bits, other colours and turned ones: what a file says is what a network sees."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from gridsearch.zoo import datasets
from gridsearch.zoo.datasets import deep_pixels, image_decoding
from gridsearch.zoo.datasets.deep_pixels import Range
from gridsearch.zoo.datasets.image_decoding import Change

FULL = (0.0, 65535.0)


def png16(pixels, clear=()):
    """Write [H, W] or [H, W, C] of 16 bits as PNG, which Pillow does in grey alone; `clear` is a transparent colour."""
    height, width = pixels.shape[:2]
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[pixels.shape[2] if pixels.ndim == 3 else 1]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(name, content):
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    key = chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear)) if clear else b""
    chunks = chunk(b"IHDR", head) + key + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def tiff16(pixels, *, packed=False, order="<"):
    """Write [H, W, 3] of 16 bits as TIFF, plain or deflated."""
    height, width, channels = pixels.shape
    data = pixels.astype(f"{order}u2").tobytes()
    data = zlib.compress(data) if packed else data
    data += b"\0" * (len(data) % 2)
    bits = 8 + len(data)
    entries = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, channels, bits),
        (259, 3, 1, 8 if packed else 1),
    ]
    entries += [(262, 3, 1, 2), (273, 4, 1, 8), (277, 3, 1, channels), (278, 3, 1, height)]
    entries += [(279, 4, 1, len(data)), (284, 3, 1, 1)]

    def entry(tag, kind, count, value):
        value = (
            struct.pack(f"{order}HH", value, 0)
            if kind == 3 and count == 1
            else struct.pack(f"{order}I", value)
        )
        return struct.pack(f"{order}HHI", tag, kind, count) + value

    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entry(*e) for e in entries) + bytes(4)
    depths = struct.pack(f"{order}{channels}H", *[16] * channels)
    start = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, bits + len(depths))
    return start + data + depths + directory


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def values(content, *, channels=None, levels=FULL, size=None):
    """Return what is decoded in the file's own unit, as [H, W, C]."""
    picture = image_decoding.decode(
        content, size=size or image_decoding.inspect(content)[0], channels=channels, levels=levels
    )
    assert picture.pixels.dtype == np.float32
    assert Change.DEEP in picture.changes
    return picture.pixels.transpose(1, 2, 0).astype(float) * (levels[1] - levels[0]) + levels[0]


sixteen = arrays(np.uint16, st.tuples(st.integers(1, 4), st.integers(1, 5), st.just(3)))


@given(sixteen)
@settings(max_examples=40, deadline=None)
def test_all_sixteen_bits_of_every_channel_are_read_in_every_form_of_file(pixels):
    grey = pixels[:, :, 0]
    colour = [png16(pixels), tiff16(pixels), tiff16(pixels, packed=True), tiff16(pixels, order=">")]
    colour.append(b"P6 %d %d 65535\n" % pixels.shape[1::-1] + pixels.astype(">u2").tobytes())
    for content in colour:
        assert np.abs(values(content, channels=3) - pixels).max() < 0.01
    for content in (png16(grey), encoded(Image.fromarray(grey), "TIFF"), encoded(Image.fromarray(grey))):
        assert np.abs(values(content)[:, :, 0] - grey).max() < 0.01


def test_deep_grey_with_transparency_is_laid_on_white():
    pixels = np.array([[[300, 65535], [300, 0]]], np.uint16)
    picture = image_decoding.decode(png16(pixels), size=(1, 2), channels=None, levels=(0.0, 1023.0))
    assert picture.changes == {Change.DEEP, Change.FLATTENED}
    assert picture.pixels.tolist() == [[[pytest.approx(300 / 1023), 1.0]]]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_colour_that_a_deep_png_calls_transparent_is_laid_on_white_and_no_other(channels):
    shades = [700, 701, 2]  # of which Pillow compares the upper eight bits, or none
    pixels = np.array([shades], np.uint16).reshape(1, 3, 1).repeat(channels, axis=2)
    content = png16(pixels if channels == 3 else pixels[:, :, 0], clear=[700] * channels)
    picture = image_decoding.decode(content, size=(1, 3), channels=channels, levels=FULL)
    assert picture.changes == {Change.DEEP, Change.FLATTENED}
    assert np.allclose(picture.pixels[:, 0] * 65535, [[65535, 701, 2]] * channels)


def test_numbers_of_32_bits_and_floating_point_numbers_are_read_as_they_are():
    for array in (np.array([[0, 70_000, 3]], np.int32), np.array([[0.25, -3.5, 1e5]], np.float32)):
        content = encoded(Image.fromarray(array), "TIFF")
        (low, high, _) = image_decoding.inspect(content)[1]
        assert np.allclose(values(content, levels=(low, high))[0, :, 0], array[0], rtol=1e-5)


def test_sixteen_bits_where_zero_is_white_are_turned_round():
    image = Image.fromarray(np.array([[0, 65535, 100]], np.uint16))
    content = encoded(image, "TIFF", tiffinfo={262: 0})
    assert np.round(values(content)[0, :, 0]).tolist() == [65535, 0, 65435]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_deep_image_is_turned_upright_once(kind, orientation):
    upright = np.arange(12, dtype=np.uint16).reshape(3, 4) * 1000
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = Image.fromarray(upright)
    if orientation != 1:
        floats = Image.fromarray(upright.astype(np.float32)).transpose(Image.Transpose(undo[orientation]))
        stored = Image.fromarray(np.asarray(floats).astype(np.uint16))
    if kind == "PNG":
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = encoded(stored, exif=exif)
    else:
        content = encoded(stored, "TIFF", tiffinfo={274: orientation})
    assert np.round(values(content)[:, :, 0]).tolist() == upright.tolist()


# Levels: of a dataset, never of an image.


@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 65535)), min_size=1))
def test_levels_hold_all_values_and_no_more_bits_than_they_need(pairs):
    ranges = [Range(min(pair), max(pair), floats=False) for pair in pairs]
    black, white = deep_pixels.levels(ranges)
    top = max(found.high for found in ranges)
    assert black == 0
    assert white >= max(top, 255)
    assert white == 255 or top > white // 2


def test_levels_of_fractions_and_of_negative_numbers():
    assert deep_pixels.levels([Range(0.1, 0.9, floats=True), Range(0, 1, floats=True)]) == (0, 1)
    assert deep_pixels.levels([Range(0.0, 255.0, floats=True)]) == (0, 255)
    assert deep_pixels.levels([Range(0, 1, floats=False)]) == (0, 255)
    assert deep_pixels.levels([Range(-1000, 3000, floats=False), Range(0, 1, floats=False)]) == (-1000, 3000)
    assert deep_pixels.levels([Range(-5, -5, floats=True)]) == (-5, -4)
    assert deep_pixels.levels([Range(0, 4000, floats=False)], beside_8_bits=True) == FULL
    assert deep_pixels.levels([Range(0, 220, floats=False)], beside_8_bits=True) == (0, 255)


def load(folder: Path, **options):
    return datasets.load(datasets.open_dataset(f"folder:{folder}"), folder.parent / "root", options)


@pytest.fixture(params=[(45, 195), (30_000, 30_200), (100, 4000)], ids=str)
def scans(request, tmp_path):
    """Two classes of 16-bit greys, which differ in brightness alone."""
    random = np.random.default_rng(1)
    for name, level in zip(("dark", "light"), request.param, strict=True):
        (tmp_path / "scans" / name).mkdir(parents=True)
        for i in range(4):
            pixels = (level + random.integers(-20, 20, (8, 8))).astype(np.uint16)
            Image.fromarray(pixels).save(tmp_path / "scans" / name / f"{i}.png")
    return tmp_path / "scans"


def test_classes_of_sixteen_bits_that_differ_in_brightness_stay_apart_at_any_range(scans):
    data = load(scans)
    dark, light = (data.train_images[data.train_labels == label] for label in (0, 1))
    assert data.train_images.dtype == np.float32
    assert 0 <= dark.min() < dark.max() < light.min() < light.max() <= 1
    for i, path in enumerate(sorted((scans / "dark").iterdir())):
        expected = np.asarray(Image.open(path)) / data.reading.levels[1]
        assert np.allclose(dark[i, 0], expected, atol=1e-6)
    assert data.reading.changes == ("8 of more than 8 bits",)
    assert any("0 is black" in note and "in all of them alike" in note for note in data.notes)


def test_the_fingerprint_of_deep_images_follows_their_levels(scans):
    plugin, root = datasets.open_dataset(f"folder:{scans}"), scans.parent / "root"
    before = datasets.fingerprint(plugin, root, {})
    assert datasets.fingerprint(plugin, root, {}) == before
    Image.fromarray(np.full((8, 8), 60_000, np.uint16)).save(scans / "dark" / "9.png")
    assert datasets.fingerprint(plugin, root, {}) != before


def test_images_of_eight_bits_beside_deep_ones_keep_their_scale_and_that_is_told(tmp_path):
    for name, kind in (("a", np.uint8), ("b", np.uint16)):
        (tmp_path / "im" / name).mkdir(parents=True)
        pixels = np.full((4, 4), 51 if kind == np.uint8 else 51 * 257, kind)
        Image.fromarray(pixels).save(tmp_path / "im" / name / "0.png")
    data = load(tmp_path / "im")
    assert np.allclose(data.train_images, 0.2, atol=1e-6)
    assert any(note.startswith("1 of 2 images has more than 8 bits") for note in data.notes)
    assert not any("nearly black" in words for words in data.reading.warnings)


def test_deep_images_that_are_black_beside_those_of_eight_bits_are_doubted(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "im" / name).mkdir(parents=True)
        for i, pixels in enumerate((np.arange(16, dtype=np.uint8), np.arange(16, dtype=np.uint16) * 60)):
            Image.fromarray(pixels.reshape(4, 4) + (name == "b")).save(tmp_path / "im" / name / f"{i}.png")
    (words,) = (w for w in load(tmp_path / "im").reading.warnings if "nearly black" in w)
    assert words.startswith("2 of 2 images of more than 8 bits are nearly black")
    assert "white, which is 65535" in words


# What was done is told, once for a folder.


def test_what_was_done_to_images_is_counted_in_one_line_and_told_in_the_notes(tmp_path):
    random = np.random.default_rng(0)

    def paint(name, mode="RGB", **options):
        path = tmp_path / "im" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).convert(mode)
        image.save(path, **options)

    turned = Image.Exif()
    turned[0x0112] = 6
    for i in range(3):
        paint(f"cat/{i}.jpg", exif=turned)
        paint(f"dog/{i}.png")
    paint("cat/ink.tif", "CMYK")
    paint("dog/lab.tif", "LAB")
    clear = Image.new("RGBA", (8, 6), (9, 8, 7, 60))
    clear.save(tmp_path / "im" / "dog" / "clear.png")
    Image.new("RGBA", (8, 6), (1, 2, 3, 255)).save(tmp_path / "im" / "dog" / "opaque.png")
    pages = [Image.new("RGB", (8, 6), shade) for shade in ("red", "blue")]
    pages[0].save(tmp_path / "im" / "dog" / "pages.tif", save_all=True, append_images=pages[1:])
    (tmp_path / "im" / "dog" / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    (tmp_path / "im" / "dog" / "Thumbs.db").write_bytes(b"x")
    data = load(tmp_path / "im")
    assert data.reading.changes == (
        "3 rotated",
        "1 flattened",
        "1 taken as first frame",
        "2 of other colours",
        "2 skipped",
    )
    assert datasets.described(data) == (
        "11 images, 2 classes: cat 4, dog 7; 3 rotated, 1 flattened, 1 taken as first frame, 2 of other colours, 2 skipped; "
        "no test set, so a sixth is held out as test"
    )
    notes = " | ".join(data.notes)
    assert "3 images were turned as their camera noted (EXIF)" in notes
    assert "1 image with transparency was laid on white" in notes
    assert "skipped dog/phone.heic: not an image that is read here (HEIC)" in notes
    assert "skipped 1 file or folder of the system (Thumbs.db)" in notes


def test_lab_is_converted_as_its_colours_are_seen():
    red = Image.new("RGB", (2, 2), (200, 30, 40))
    from PIL import ImageCms

    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.applyTransform(red, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    pixels = image_decoding.decode(encoded(lab, "TIFF"), size=(2, 2), channels=3).pixels
    assert np.abs(pixels[:, 0, 0].astype(int) - (200, 30, 40)).max() <= 3


@pytest.mark.skipif("AVIF" not in image_decoding.FORMATS, reason="this Pillow reads no AVIF")
def test_avif_is_taken_where_pillow_reads_it():
    content = encoded(Image.new("RGB", (16, 16), (200, 30, 40)), "AVIF")
    pixels = image_decoding.decode(content, size=(4, 4), channels=3).pixels
    assert np.abs(pixels[:, 0, 0].astype(int) - (200, 30, 40)).max() < 12


@pytest.mark.parametrize("name", ["a.NEF", "b.cr2", "c.dng"])
def test_a_cameras_raw_file_is_refused_by_name_and_its_thumbnail_is_not_taken(tmp_path, name):
    for kind in ("cat", "dog"):
        (tmp_path / "im" / kind).mkdir(parents=True)
        Image.fromarray(np.random.default_rng(len(kind)).integers(0, 255, (4, 4), dtype=np.uint8)).save(
            tmp_path / "im" / kind / "0.png"
        )
    Image.new("RGB", (4, 4)).save(tmp_path / "im" / "cat" / name, "TIFF")
    data = load(tmp_path / "im")
    assert len(data.train_labels) == 2
    assert f"skipped cat/{name}: not an image that is read here (a camera's raw file" in data.notes[0]


@pytest.mark.parametrize(("kind", "top"), [(np.uint8, 1), (np.uint16, 15), (np.uint8, 32)])
def test_images_that_are_all_but_black_are_said_to_be(tmp_path, kind, top):
    for i in range(4):
        path = tmp_path / "im" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, top + 1, (6, 6)).astype(kind)
        Image.fromarray(pixels).save(path)
    reading = datasets.load(datasets.open_dataset(f"folder:{tmp_path}/im"), tmp_path / "root", {}).reading
    warned = [words for words in reading.warnings if "black" in words]
    assert [f"no pixel is above {top} of 255" in words for words in warned] == [True] * (top < 32)
