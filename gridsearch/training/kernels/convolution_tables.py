"""Which pixels a convolution sums over, as tables for compiled code: `struct product` of convolution.h.

Forwards, a pixel of the result is a sum over taps of the input; backwards, a pixel of the input is a sum over taps of
the result.  Both are found here in the same way: pixels that have the same taps in the same places are taken together,
so that neither the padding's zeros nor the gaps of a stride are multiplied.

Shapes: C channels of the map that is read, O of the one that is written; places in vectors.
"""

from __future__ import annotations

import ctypes
import itertools
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridsearch.training.kernels.calling import POINTER

if TYPE_CHECKING:
    from collections.abc import Iterable


MOST_PIXELS = 12
"""Of a tile, as in convolution.h."""
_CACHE = 256 * 1024  # bytes of maps that may be read again for each tile of channels


_Places = tuple[tuple[int, int], ...]
_Taps = tuple[_Places, _Places]


class Side(NamedTuple):
    """Height or width.

    Attributes:
        size: of the map that is read.
        taps: of the kernel.
        places: for a pixel that is written, which tap reads which place: (tap, place), in the order of the places.
    """

    size: int
    taps: int
    places: tuple[_Places, ...]


class Product(ctypes.Structure):
    """`struct product`."""

    _fields_ = (
        *((name, POINTER) for name in ("tiles", "strips", "runs")),
        *((name, ctypes.c_int64) for name in ("strip_count", "pairs", "together")),
        *((name, ctypes.c_int64) for name in ("channels", "narrows", "patches")),
    )


@dataclass(frozen=True, slots=True)
class Tables:
    """A product's tables.

    Attributes:
        tiles: int32 [tiles + pairs, 2 + 12 + 12].
        strips: int32 [strips + 1].
        runs: int32 [runs, 3].
        channels: of a tile.
        pairs: how many tiles, the last ones, have the pixels of two blocks; 0 where each block is taken by itself.
        together: blocks whose maps stay in a core's own cache while the weights of some channels are read.
        patches: at a time, for minimal filtering; 0 for sums tap by tap.
    """

    tiles: np.ndarray
    strips: np.ndarray
    runs: np.ndarray
    channels: int
    pairs: int = 0
    together: int = 1
    patches: int = 0

    def product(self, *, narrows: bool) -> Product:
        """Return what C reads; it is valid as long as this is there.

        Args:
            narrows: bfloat16 is multiplied.
        """
        addresses = (table.ctypes.data for table in (self.tiles, self.strips, self.runs))
        counts = len(self.strips) - 1, self.pairs, self.together
        return Product(*addresses, *counts, self.channels, int(narrows), self.patches)


def forward_side(size: int, out: int, taps: int, step: int, padding: int, dilation: int) -> Side:
    """Return which places of the input each pixel of the result reads."""
    return Side(
        size,
        taps,
        tuple(
            tuple((k, at) for k in range(taps) if 0 <= (at := pixel * step - padding + k * dilation) < size)
            for pixel in range(out)
        ),
    )


def backward_side(size: int, out: int, taps: int, step: int, padding: int, dilation: int) -> Side:
    """Return which places of the result each pixel of the input is in."""
    found = []
    for pixel in range(size):
        reach = [(k, pixel + padding - k * dilation) for k in reversed(range(taps))]
        found.append(tuple((k, at // step) for k, at in reach if at % step == 0 and 0 <= at // step < out))
    return Side(out, taps, tuple(found))


def tables(  # noqa: PLR0913  (what a product is made of, each by its name)
    rows: Side,
    columns: Side,
    *,
    read: int,
    written: int,
    groups: int,
    channels: int,
    pixels: int,
    vector_bytes: int,
    turned: bool,
    paired: bool = False,
) -> Tables:
    """Return a product's tables.

    Args:
        rows: of the maps.
        columns: likewise.
        read: channels of the map that is read.
        written: channels of the map that is written.
        groups: of the convolution.
        channels: of a tile.
        pixels: of a tile.
        vector_bytes: of a vector.
        turned: the columns of the packed weights are backwards.
        paired: two blocks are taken at a time, for which their maps must be one strip.
    """
    row_bytes = max(1, columns.size * read * vector_bytes)
    builder = _Tiles(rows, columns, read, written, read // groups, pixels, turned=turned)
    strips = [0]
    for strip in _strips(len(rows.places), max(1, _CACHE // row_bytes)):
        builder.add(1, strip)
        strips.append(len(builder.tiles))
    if paired:
        builder.add(2, range(len(rows.places)))
    return Tables(
        np.array(builder.tiles, np.int32),
        np.array(strips, np.int32),
        np.array(builder.runs or [(0, 0, 0)], np.int32),
        channels,
        pairs=len(builder.tiles) - strips[-1],
        together=max(2 if paired else 1, _CACHE // (rows.size * row_bytes) // 2 * 2),
    )


class _Tiles:
    """Tiles and runs of a product as they are found.

    Args:
        rows: of the maps.
        columns: likewise.
        read: channels of the map that is read.
        written: channels of the map that is written.
        own: channels that are read of a group.
        pixels: of a tile.
        turned: the columns of the packed weights are backwards.
    """

    def __init__(
        self, rows: Side, columns: Side, read: int, written: int, own: int, pixels: int, *, turned: bool
    ) -> None:
        self.tiles: list[list[int]] = []
        self.runs: list[tuple[int, int, int]] = []
        self._known: dict[_Taps, tuple[int, int]] = {}
        self._rows, self._columns = rows, columns
        self._read, self._written, self._own = read, written, own
        self._pixels, self._turned = pixels, turned

    def add(self, blocks: int, strip: range) -> None:
        """Add the tiles of some rows of some blocks."""
        classes: dict[_Taps, list[tuple[int, int, int]]] = {}
        for block, y, x in itertools.product(range(blocks), strip, range(len(self._columns.places))):
            key = _relative(self._rows.places[y]), _relative(self._columns.places[x])
            classes.setdefault(key, []).append((block, y, x))
        for taps, members in classes.items():
            if taps not in self._known:
                new = self._runs_of(taps)
                self._known[taps] = len(self.runs), len(new)
                self.runs += new
            for first in range(0, len(members), self._pixels):
                some = members[first : first + self._pixels]
                some += [some[-1]] * (MOST_PIXELS - len(some))
                begins, ends = ([place(*each) for each in some] for place in (self._begin, self._end))
                self.tiles.append([*self._known[taps], *begins, *ends])

    def _runs_of(self, taps: _Taps) -> list[tuple[int, int, int]]:
        width, across = self._columns.size, self._columns.taps
        return _merged(
            (
                (dy * width + dx) * self._read,
                (ky * across + (across - 1 - kx if self._turned else kx)) * self._own,
                self._own,
            )
            for (ky, dy), (kx, dx) in itertools.product(*taps)
        )

    def _begin(self, block: int, y: int, x: int) -> int:
        line = block * self._rows.size + _first(self._rows.places[y])
        return (line * self._columns.size + _first(self._columns.places[x])) * self._read

    def _end(self, block: int, y: int, x: int) -> int:
        line = block * len(self._rows.places) + y
        return (line * len(self._columns.places) + x) * self._written


def class_sizes(rows: Side, columns: Side) -> list[tuple[int, int]]:
    """Return how many taps pixels have, and how many pixels have the same ones, for each such kind."""
    kinds = [Counter(_relative(places) for places in side.places) for side in (rows, columns)]
    return [
        (len(down) * len(across), there * beside)
        for (down, there), (across, beside) in itertools.product(*(each.items() for each in kinds))
    ]


def _strips(count: int, size: int) -> list[range]:
    return [range(first, min(count, first + size)) for first in range(0, count, size)]


def _first(places: _Places) -> int:
    return places[0][1] if places else 0


def _relative(places: _Places) -> _Places:
    """Return the taps with their places behind that of the first."""
    return tuple((k, at - places[0][1]) for k, at in places)


def _merged(parts: Iterable[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Return runs, with those made one that lie beside each other in the map and in the weights."""
    found: list[tuple[int, int, int]] = []
    for place, weights, count in parts:
        if found and found[-1][0] + found[-1][2] == place and found[-1][1] + found[-1][2] == weights:
            found[-1] = (*found[-1][:2], found[-1][2] + count)
        else:
            found.append((place, weights, count))
    return found
