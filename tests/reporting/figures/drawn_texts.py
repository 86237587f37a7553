"""What a figure's texts cover on the sheet: measured from the drawn figure, for tests of its layout."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from unittest.mock import patch

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

SLACK = 0.5
"""Pixels by which boxes may share: antialiasing, no more."""


@dataclass(frozen=True)
class Box:
    """A text's rectangle, turned as it is drawn; corners [4, 2] in pixels."""

    text: str
    corners: np.ndarray

    def reach(self, direction):
        places = self.corners @ direction
        return places.min(), places.max()


def texts_drawn(figure) -> list[Box]:
    """Draw a figure and return every text that was put on the sheet, those of hidden ticks and empty ones not."""
    seen: dict[int, Text] = {}
    draw = Text.draw

    def recorded(self, renderer, *args, **kwargs):
        if self.get_visible() and self.get_text().strip():
            seen[id(self)] = self
        return draw(self, renderer, *args, **kwargs)

    canvas = FigureCanvasAgg(figure)
    with patch.object(Text, "draw", recorded):
        canvas.draw()
    return [_box(text, canvas.get_renderer()) for text in seen.values()]


def _box(text, renderer) -> Box:
    extent = Text.get_window_extent(text, renderer)  # of an annotation without its arrow
    middle = np.array([(extent.x0 + extent.x1) / 2, (extent.y0 + extent.y1) / 2])
    angle = math.radians(text.get_rotation())
    if text.get_rotation() % 90:
        turned = text.get_rotation()
        text.set_rotation(0)
        flat = Text.get_window_extent(text, renderer)
        text.set_rotation(turned)
        width, height = flat.width, flat.height
    else:
        width, height, angle = extent.width, extent.height, 0.0
    along = np.array([math.cos(angle), math.sin(angle)]) * width / 2
    up = np.array([-math.sin(angle), math.cos(angle)]) * height / 2
    return Box(
        text.get_text(),
        np.array([middle + s * along + t * up for s, t in ((1, 1), (1, -1), (-1, -1), (-1, 1))]),
    )


def overlap(one: Box, other: Box) -> bool:
    """Whether two rectangles share more than the slack (separating axes)."""
    for box in (one, other):
        for edge in (box.corners[1] - box.corners[0], box.corners[2] - box.corners[1]):
            length = float(np.hypot(*edge))
            if length == 0:
                continue
            (a, b), (c, d) = one.reach(edge / length), other.reach(edge / length)
            if min(b, d) - max(a, c) <= SLACK:
                return False
    return True


def collisions(figure) -> list[str]:
    """Return in words which texts of a figure lie over each other, and which reach beyond the sheet."""
    boxes = texts_drawn(figure)
    found = [f"{a.text!r} over {b.text!r}" for a, b in combinations(boxes, 2) if overlap(a, b)]
    width, height = figure.bbox.width, figure.bbox.height
    for box in boxes:
        (x0, y0), (x1, y1) = box.corners.min(axis=0), box.corners.max(axis=0)
        if x0 < -SLACK or y0 < -SLACK or x1 > width + SLACK or y1 > height + SLACK:
            found.append(
                f"{box.text!r} is cut: {x0:.0f}..{x1:.0f} of {width:.0f}, {y0:.0f}..{y1:.0f} of {height:.0f}"
            )
    return found


def text_frames(figure, texts):
    """Return each text's rectangle as it is drawn: centre of the left end, direction, length and height in pixels."""
    renderer = figure.canvas.get_renderer()
    frames = []
    for text in texts:
        corner = text.get_window_extent(renderer)
        turned, angle = text.get_rotation(), math.radians(text.get_rotation())
        text.set_rotation(0)
        flat = text.get_window_extent(renderer)
        text.set_rotation(turned)
        centre = np.array([(corner.x0 + corner.x1) / 2, (corner.y0 + corner.y1) / 2])
        frames.append((centre, angle, flat.width, flat.height))
    return frames


def overlaps(one, other):
    """Whether two equally turned rectangles share more than a quarter of a pixel (separating axes)."""
    (p, angle, width, height), (q, _, other_width, other_height) = one, other
    along, across = (
        np.array([math.cos(angle), math.sin(angle)]),
        np.array([-math.sin(angle), math.cos(angle)]),
    )
    gap = q - p
    return (
        abs(gap @ along) < (width + other_width) / 2 - 0.25
        and abs(gap @ across) < (height + other_height) / 2 - 0.25
    )


def inside(figure, texts):
    sheet = figure.bbox
    boxes = [t.get_window_extent(figure.canvas.get_renderer()) for t in texts]
    return all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= sheet.x1 + 0.5 and b.y1 <= sheet.y1 + 0.5 for b in boxes)
