"""The pictures of a report as files and in words: what `gallery` draws, and pages and files are made of."""

from __future__ import annotations

import base64
import io
import string
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gridsearch.reporting.figures.dark import with_dark
from gridsearch.reporting.figures.second_process import SharedTasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from matplotlib.figure import Figure

    from gridsearch.reporting.figures.fonts import Key
    from gridsearch.reporting.stats.predictions import ClassResult, Predictions

STEMS: Final = (
    "heatmap",
    "marginals",
    "parallel",
    "curves",
    "cost",
    "pareto",
    "confusion",
    "reliability",
    "mistakes",
    "samples",
)
PIXELS: Final = frozenset({"mistakes", "samples"})
"""Figures of images, which no script draws."""
LARGEST_SVG: Final = 300_000
"""A larger drawing is shown as PNG, so that the page of 200 trials stays below 2 MB."""


_PLAIN: Final = frozenset(
    string.ascii_letters.encode() + string.digits.encode() + b" !$()*+,-./:;=?@[]^_`{|}~"
)
"""Bytes that stay as they are in the address of a drawing: a quarter shorter than base64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A figure as files and in words.

    Attributes:
        alt: what it shows, for who does not see it.
        key: what numbers stand for that are drawn in place of names which no font here has.
        largest: bytes of a drawing that a page carries as such.
    """

    title: str
    alt: str
    png: bytes
    svg: bytes
    key: tuple[tuple[str, str], ...] = ()
    largest: int = LARGEST_SVG

    @property
    def source(self) -> str:
        """The picture as a data: URI; "" where it is drawn by the page's script alone."""
        if not self.svg:
            return ""
        if len(self.svg) > self.largest:
            return f"data:image/png;base64,{base64.b64encode(_few_colours(self.png)).decode()}"
        return f"data:image/svg+xml;charset=utf-8,{_escaped(with_dark(self.svg))}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """How well the winner recognises each class."""

    results: Sequence[ClassResult]
    balanced_accuracy: float
    macro_f1: float
    pairs: Sequence[str]


def _few_colours(png: bytes) -> bytes:
    """Return a picture in 256 colours, a third of the bytes; what stands in a page until its script has drawn."""
    from PIL import Image

    out = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        few = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(out, "PNG", optimize=True)
    return out.getvalue()


def _escaped(content: bytes) -> str:
    """Return what `urllib.parse.quote` does, without going byte by byte: few kinds of them are escaped."""
    for byte in sorted(set(content) - _PLAIN, key=lambda b: b != ord("%")):  # "%" first: the others bring it
        content = content.replace(bytes([byte]), b"%%%02X" % byte)
    return content.decode("ascii")


@dataclass(frozen=True, slots=True)
class _Added:
    """A figure that is to be drawn."""

    stem: str
    title: str
    alt: str
    figure: Callable[[], Figure | None]

    def draw(self) -> tuple[bytes, bytes, Key] | None:
        """Return the figure as PNG and SVG, and what its numbers stand for; None where there is none."""
        from gridsearch.reporting.figures.mpl_style import key_of
        from gridsearch.reporting.figures.rendering import drawing, png_bytes, svg_bytes

        with drawing():
            made = self.figure()
            return None if made is None else (png_bytes(made), svg_bytes(made), key_of(made))


@dataclass(slots=True)
class Pictures:
    """What is drawn of a study: pictures by their files' stem, and sentences on what could not be.

    Attributes:
        scripted: the figures that the page's script draws and nothing else shall; None where all are drawn here.
        by_stem: what was drawn, in the order in which it was added.
        winner: the predictions of the winner, which `classes` is about.
        pixels: the training images [N, C, H, W] that they point into; None where these are not at hand.
    """

    scripted: frozenset[str] | None = None
    by_stem: dict[str, Picture] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    classes: Classes | None = None
    winner: Predictions | None = None
    pixels: np.ndarray | None = None
    _added: list[_Added] = field(default_factory=list)

    def add(self, stem: str, figure: Callable[[], Figure | None], *, title: str, alt: str) -> None:
        """Have a figure drawn, as PNG and SVG; none is none.  What the script draws is only named where that does.

        Args:
            stem: of its files' names.
            figure: draws it, perhaps in another process.
            title: above it.
            alt: what it shows, in words.
        """
        if self.scripted is None or stem in PIXELS:
            self._added.append(_Added(stem, title, alt, figure))
        elif stem in self.scripted:
            self.by_stem[stem] = Picture(title=title, alt=alt, png=b"", svg=b"")

    @contextmanager
    def drawn_meanwhile(self) -> Iterator[None]:
        """Draw what was added while something else is done, as far as another core is free, and the rest after it."""
        added, self._added = self._added, []
        with closing(SharedTasks([each.draw for each in added])) as tasks:
            yield
            for each, drawn in zip(added, tasks.results(), strict=True):
                if drawn is not None:
                    png, svg, key = drawn
                    self.by_stem[each.stem] = Picture(
                        title=each.title, alt=each.alt, png=png, svg=svg, key=key
                    )

    def draw(self) -> None:
        """Draw what was added."""
        with self.drawn_meanwhile():
            pass
