"""Pictures of one trial, drawn in milliseconds when it ends, for the Optuna dashboard and TensorBoard.

A figure of matplotlib takes a third of a second of processor time, as long as a small trial trains; here what
all trials of a study share (names, axes) is drawn once, and a trial's cells are put into a copy of it.
"""

from __future__ import annotations

import functools
import importlib.util
import io
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gridsearch.reporting.figures.fonts import font_with, readable_names
from gridsearch.reporting.figures.samples import MOST_ROWS, MOST_SHOWN, sample_of, viewable
from gridsearch.reporting.stats.predictions import Predictions, confusion_matrix, most_mistaken, row_shares
from gridsearch.reporting.words.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_CLASSES: Final = 120
"""Of more classes, those with the most mistakes are drawn; the per-class table has them all."""

_COLOURS: Final = ("ffffff", "def5e5", "96ddb5", "49c1ad", "359eaa", "357aa2", "3c5598", "3e3469", "2a1b33")
"""White, then eight of the colours of mako, as the report's figure has them."""
_INK: Final = "#1f2430"
_WRONG: Final = "#d1242f"
_NO_IMAGES: Final = (241, 242, 244)
_PAD: Final = 10
_LETTERS: Final = 12
_NAME: Final = 24
_TILE: Final = 48
_TILES_PER_CLASS: Final = 3
_ACROSS: Final = 8


def quick_confusion_png(predictions: Predictions, *, class_names: Sequence[str], title: str) -> bytes:
    """Return the confusion matrix of a trial's predictions as a small PNG.

    Args:
        predictions: on the validation images.
        class_names: by label; any text.
        title: what it is about; any text.
    """
    matrix = confusion_matrix(predictions)
    kept = most_mistaken(matrix, MOST_CLASSES)
    names = readable_names(class_names, len(matrix), limit=_NAME)
    frame, left, top, cell = _frame(tuple(names[i] for i in kept))
    canvas = frame.copy()
    draw = ImageDraw.Draw(canvas)
    shares = row_shares(matrix)[np.ix_(kept, kept)]
    canvas.paste(Image.fromarray(_cells(shares, cell)), (left, top))
    if cell >= 24:
        _write_counts(draw, matrix[np.ix_(kept, kept)], shares, left=left, top=top, cell=cell)
    right = int(np.trace(matrix))
    of = f"{right} of {int(matrix.sum())} validation images right"
    some = "" if len(kept) == len(matrix) else f"; {len(kept)} of {len(matrix)} classes, most mistakes"
    draw.text((_PAD, _PAD), f"{printable(title, 24)}: {of}{some}", fill=_INK, font=_font(_LETTERS))
    return _png(canvas)


def quick_samples_png(
    predictions: Predictions, images: np.ndarray, *, class_names: Sequence[str]
) -> bytes | None:
    """Return a few validation images of each class with what the trial took them for, as a small PNG.

    The same images for every trial of a split, so that trials can be compared.

    Args:
        predictions: on the validation images, with their places in the training set.
        images: [N, C, H, W], the training set.
        class_names: by label; any text.

    Returns:
        None where the places of the images were not stored.
    """
    places, classes = predictions.indices, predictions.logits.shape[1]
    if places is None or not len(places):
        return None
    names = readable_names(class_names, classes, limit=_NAME)
    guesses = predictions.guesses
    chosen = sample_of(predictions.labels, classes=classes)
    shown = [(label, own[:_TILES_PER_CLASS]) for label, own in enumerate(chosen) if len(own)]
    if classes > MOST_ROWS:
        flat = [(label, int(own[0])) for label, own in shown][:MOST_SHOWN]
        rows = [flat[i : i + _ACROSS] for i in range(0, len(flat), _ACROSS)]
    else:
        rows = [[(label, int(place)) for place in own] for label, own in shown]
    width, height = max(_TILE + 8, 92), _TILE + 2 * (_LETTERS + 2) + 8
    canvas = Image.new(
        "RGB", (2 * _PAD + width * max(map(len, rows)), 2 * _PAD + 20 + height * len(rows)), "white"
    )
    draw = ImageDraw.Draw(canvas)
    caption = "True class; below it the predicted class (red: wrong)"
    draw.text((_PAD, _PAD), caption, fill=_INK, font=_font(_LETTERS))
    for down, row in enumerate(rows):
        for across, (label, place) in enumerate(row):
            x, y = _PAD + across * width, _PAD + 20 + down * height
            canvas.paste(_tile(images[int(places[place])]), (x, y))
            guess = int(guesses[place])
            _write_fitting(draw, (x, y + _TILE + 1), names[label], fill=_INK, width=width - 6)
            colour = _INK if guess == label else _WRONG
            _write_fitting(draw, (x, y + _TILE + _LETTERS + 2), names[guess], fill=colour, width=width - 6)
    return _png(canvas)


@functools.lru_cache(maxsize=4)
def _frame(names: tuple[str, ...]) -> tuple[Image.Image, int, int, int]:
    """Return the canvas without cells, the place of the cells' upper left corner, and a cell's side, in pixels."""
    cell, letters = (42, 12) if len(names) <= 12 else (32, 11) if len(names) <= 25 else (12, 9)
    widths = [_width(name, letters) for name in names]
    level = max(widths, default=0) <= cell - 4
    side = cell * len(names)
    left = _PAD + 20 + max(widths, default=0) + 6
    top = _PAD + 26
    below = letters + 6 if level else max(widths, default=0) + 8
    caption = "predicted class (colour: share of the true class)"
    width = max(left + max(side, _width(caption, _LETTERS)) + _PAD, 470)
    canvas = Image.new("RGB", (width, top + side + below + 20 + _PAD), "white")
    draw = ImageDraw.Draw(canvas)
    for i, name in enumerate(names):
        font, middle = _font(letters, name), i * cell + cell / 2
        draw.text((left - 6, top + middle), name, fill=_INK, font=font, anchor="rm")
        if level:
            draw.text((left + middle, top + side + 5), name, fill=_INK, font=font, anchor="ma")
        else:
            word = _sideways(name, letters)
            canvas.paste(word, (round(left + middle - word.width / 2), top + side + 5))
    draw.text((left, top + side + below + 4), caption, fill=_INK, font=_font(_LETTERS))
    word = _sideways("true class", _LETTERS)
    canvas.paste(word, (_PAD, round(top + side / 2 - word.height / 2)))
    return canvas, left, top, cell


def _cells(shares: np.ndarray, cell: int) -> np.ndarray:
    """Return the coloured cells, uint8 [Y * cell, Y * cell, 3], with white lines between them."""
    scale = np.sqrt(np.nan_to_num(shares))  # a square root shows confusions of a few per cent
    places = np.linspace(0.0, 1.0, len(_COLOURS))
    colours = np.array([[int(c[i : i + 2], 16) for i in (0, 2, 4)] for c in _COLOURS], dtype=np.float64)
    pixels = np.stack([np.interp(scale, places, colours[:, i]) for i in range(3)], axis=-1)
    pixels[np.isnan(shares)] = _NO_IMAGES
    big: np.ndarray = np.rint(pixels).astype(np.uint8).repeat(cell, axis=0).repeat(cell, axis=1)
    if cell >= 24:
        big[cell - 1 :: cell] = 255
        big[:, cell - 1 :: cell] = 255
    return big


def _write_counts(
    draw: ImageDraw.ImageDraw, matrix: np.ndarray, shares: np.ndarray, *, left: int, top: int, cell: int
) -> None:
    for row, column in zip(*np.nonzero(matrix), strict=True):
        text = str(matrix[row, column])
        fill = "white" if shares[row, column] > 0.2 else _INK
        place = (left + column * cell + cell / 2, top + row * cell + cell / 2)
        draw.text(place, text, fill=fill, font=_font(12 if len(text) < 5 else 10), anchor="mm")


def _tile(image: np.ndarray) -> Image.Image:
    """Return an image [C, H, W] in a square, its proportions kept."""
    picture = Image.fromarray(viewable(image))
    scale = _TILE / max(picture.size)
    size = tuple(max(1, round(n * scale)) for n in picture.size)
    how = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BILINEAR
    square = Image.new("RGB", (_TILE, _TILE), "white")
    square.paste(picture.resize((size[0], size[1]), how), ((_TILE - size[0]) // 2, (_TILE - size[1]) // 2))
    return square


def _write_fitting(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, *, fill: str, width: int
) -> None:
    """Write a name, shortened until it fits."""
    limit = len(text)
    while limit > 3 and _width(printable(text, limit), 10) > width:
        limit -= 1
    shown = printable(text, limit)
    draw.text(place, shown, fill=fill, font=_font(10, shown))


def _sideways(text: str, letters: int) -> Image.Image:
    """Return a word that reads upwards."""
    word = Image.new("RGB", (max(1, round(_width(text, letters))), letters + 5), "white")
    ImageDraw.Draw(word).text((0, 0), text, fill=_INK, font=_font(letters, text))
    return word.rotate(90, expand=True)


def _width(text: str, letters: int) -> int:
    return round(_font(letters, text).getlength(text))


def _font(letters: int, text: str = "") -> ImageFont.FreeTypeFont:
    """Return a font that has the letters of a text; DejaVu Sans if none has, as everywhere in the report."""
    return _load(None if text.isascii() else font_with(text), letters)


@functools.lru_cache(maxsize=64)
def _load(file: str | None, letters: int) -> ImageFont.FreeTypeFont:
    engine = ImageFont.Layout.BASIC if file is None else None  # the better one, where it is, joins letters
    return ImageFont.truetype(file or _dejavu(), letters, layout_engine=engine)


@functools.cache
def _dejavu() -> str:
    """Return the file of the font that comes with matplotlib, without importing that."""
    found = importlib.util.find_spec("matplotlib")
    assert found is not None
    assert found.origin is not None
    return str(Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf")


def _png(canvas: Image.Image) -> bytes:
    out = io.BytesIO()
    canvas.save(out, "PNG", compress_level=4)
    return out.getvalue()
