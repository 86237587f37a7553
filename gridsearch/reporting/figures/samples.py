"""Pictures out of the dataset: a sample of each class, and the images that the winner was surest to get wrong.

Images come as [M, C, H, W], uint8 (0..255) or float (0..1), as `gridsearch.plugins.ImageData` holds them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from gridsearch.reporting.figures.fonts import readable_names, text_width
from gridsearch.reporting.figures.mpl_style import ACCENT, drawn, new_figure, plain_text, title_height
from gridsearch.reporting.figures.rendering import INK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gridsearch.reporting.stats.predictions import Mistake

PER_CLASS: Final = 8
MOST_ROWS: Final = 20
"""Of more classes, one image each is drawn."""
MOST_SHOWN: Final = 60
MOST_MISTAKES: Final = 16
MOST_ACROSS: Final = 8
LARGEST_SIDE: Final = 112
"""Larger images are drawn smaller: sixteen photographs would weigh more than the rest of the page."""
_LETTERS: Final = 8.0
_NAME: Final = 18
_MARGIN: Final = 0.15


def sample_of(labels: np.ndarray, *, classes: int) -> list[np.ndarray]:
    """Return positions of a few images of each class, the same ones each time, as `sample_figure` wants them.

    Args:
        labels: int [N].
        classes: Y.

    Returns:
        Y arrays of at most 8 positions each (one each of more than 20 classes); empty for a class without images.
    """
    rng = np.random.default_rng(0)
    shown = PER_CLASS if classes <= MOST_ROWS else 1
    found = []
    for label in range(classes):
        places = np.flatnonzero(labels == label)
        found.append(np.sort(rng.permutation(places)[:shown]))
    return found


@drawn
def sample_figure(
    images: Sequence[np.ndarray], *, class_names: Sequence[str], title: str = "A sample of the images"
) -> Figure:
    """Return a figure of some images of each class: a row a class, or one image a class where there are many.

    Args:
        images: for each class [M, C, H, W], M of 0 to 8.
        class_names: by label; any text.
        title: what it is about.
    """
    names = readable_names(class_names, len(images), limit=_NAME)
    if len(names) > MOST_ROWS:
        note = f"One image each of {min(len(names), MOST_SHOWN)} of {len(names)} classes."
        shown = [(n, i[0]) for n, i in zip(names, images, strict=True) if len(i)][:MOST_SHOWN]
        return _captioned([i for _, i in shown], [(n, "") for n, _ in shown], title=title, note=note)
    side = 0.62
    left = max(text_width(n, 9) for n in names) + 0.25
    width = max(left + PER_CLASS * side + _MARGIN, 4.5)
    head = title_height(title, "", width=width)
    figure, axes = _bare(width, side * len(names) + _MARGIN, title)
    for row, (name, own) in enumerate(zip(names, images, strict=True)):
        top = head + row * side
        plain_text([axes.text(left - 0.1, top + side / 2, name, ha="right", va="center", size=9)])
        for column, image in enumerate(own[:PER_CLASS]):
            _place(axes, image, left=left + column * side, top=top, side=side * 0.95)
        if not len(own):
            axes.text(left, top + side / 2, "no images", va="center", size=8, color="#8b909c")
    return figure


@drawn
def mistakes_figure(
    images: np.ndarray,
    mistakes: Sequence[Mistake],
    *,
    class_names: Sequence[str],
    title: str = "Surest mistakes",
    note: str = "",
) -> Figure:
    """Return a figure of images that were taken for another class, each with both classes and the probability.

    Args:
        images: [M, C, H, W], those of the mistakes in their order.
        mistakes: at most 16 are drawn.
        class_names: by label; any text.
        title: what it is about.
        note: one more line below the title.
    """
    classes = 1 + max((max(m.true, m.predicted) for m in mistakes), default=0)
    names = readable_names(class_names, max(classes, len(class_names)), limit=_NAME)
    captions = [
        (names[m.true], f"{names[m.predicted]}, {_percent(m.probability)}") for m in mistakes[:MOST_MISTAKES]
    ]
    note = f"{note} Below each image its true class, and in red what the winner predicts.".strip()
    return _captioned(list(images[:MOST_MISTAKES]), captions, title=title, note=note)


def _captioned(
    images: Sequence[np.ndarray], captions: Sequence[tuple[str, str]], *, title: str, note: str
) -> Figure:
    """Draw images in rows, two lines below each: what it is, and in red what it was taken for."""
    words = max((text_width(line, _LETTERS) for pair in captions for line in pair), default=0.0)
    lines = 2 if any(second for _, second in captions) else 1
    side = 0.95
    step = max(side, words) + 0.2
    across = max(1, min(len(images), MOST_ACROSS, int((10.4 - 2 * _MARGIN) / step)))
    down = math.ceil(len(images) / across)
    height = side + 0.17 * lines + 0.18
    width = max(across * step + 2 * _MARGIN, 4.5)
    head = title_height(title, note, width=width)
    figure, axes = _bare(width, down * height + _MARGIN, title, note)
    for place, (image, (first, second)) in enumerate(zip(images, captions, strict=True)):
        left, top = _MARGIN + (place % across) * step, head + (place // across) * height
        _place(axes, image, left=left + (step - 0.2 - side) / 2, top=top, side=side)
        centre = left + (step - 0.2) / 2
        below = top + side + 0.04
        plain_text(
            [
                axes.text(centre, below, first, ha="center", va="top", size=_LETTERS, color=INK),
                axes.text(centre, below + 0.17, second, ha="center", va="top", size=_LETTERS, color=ACCENT),
            ]
        )
    return figure


def _bare(width: float, height: float, title: str, note: str = "") -> tuple[Figure, Axes]:
    """Return a figure as of `new_figure` with one axes all over it, in inches from its upper left corner."""
    figure = new_figure(width, height, title, note)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, width), ylim=(figure.get_figheight(), 0))
    axes.set_axis_off()
    return figure, axes


def _place(axes: Axes, image: np.ndarray, *, left: float, top: float, side: float) -> None:
    """Draw an image into a square, its own proportions kept."""
    pixels = viewable(image)
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    tall, wide = height * scale, width * scale
    x, y = left + (side - wide) / 2, top + (side - tall) / 2
    axes.imshow(
        pixels,
        extent=(x, x + wide, y + tall, y),
        interpolation="nearest" if max(height, width) <= 64 else "antialiased",
        aspect="auto",
    )
    axes.set(xlim=(0, axes.figure.get_figwidth()), ylim=(axes.figure.get_figheight(), 0))  # type: ignore[union-attr]


def viewable(image: np.ndarray) -> np.ndarray:
    """Return an image [C, H, W] as uint8 [H, W, 3]: one channel is grey, of more than three the first three.

    An image beyond 112 pixels is made smaller by means of whole blocks.
    """
    pixels = image if image.dtype == np.uint8 else np.clip(np.nan_to_num(image) * 255.0, 0, 255)
    block = math.ceil(max(pixels.shape[1:]) / LARGEST_SIDE)
    if block > 1:
        height, width = (max(1, n // block) for n in pixels.shape[1:])
        cut = pixels[:, : height * block, : width * block].astype(np.float32)
        if min(cut.shape[1:]) >= block:
            pixels = cut.reshape(len(pixels), height, block, width, block).mean(axis=(2, 4))
    colours = pixels[:3] if len(pixels) >= 3 else np.repeat(pixels[:1], 3, axis=0)
    return np.moveaxis(np.rint(colours).astype(np.uint8), 0, -1)


def _percent(probability: float) -> str:
    percent = 100 * probability
    return "> 99.9 %" if percent > 99.9 else f"{percent:.1f} %"
