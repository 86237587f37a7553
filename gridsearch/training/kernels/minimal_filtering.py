"""Convolutions of 3x3 taps by minimal filtering: how many patches and channels winograd.h takes at a time.

Stands beside convolution_tables.py, which does the same for sums tap by tap, below `batch_inner`.

Shapes: C channels of the map that is read, O of the one that is written, H/W height and width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridsearch.training.kernels.convolution_tables import MOST_PIXELS, Tables

if TYPE_CHECKING:
    from collections.abc import Callable

    from gridsearch.training.kernels.stages import Conv

FORWARD, INPUT, WEIGHTS = "forward", "input gradient", "weight gradient"
PASSES = FORWARD, INPUT, WEIGHTS
"""What of a convolution may be computed so, each by itself."""

SIDE = 4
"""Of a patch of pixels that is written at once."""

POINTS = (SIDE + 2) ** 2
"""Products of a patch, for each channel read and written."""

_CACHE = 512 * 1024  # bytes of all points that are taken at a time, about
_READ = 448 * 1024  # bytes of the points that a patch may read if two are taken
_FEWEST, _MOST = 4, 12  # patches at a time, where weights come from memory, and at all
_MOST_SUMMED = 4  # patches whose products are summed in a row: with their number the error grows
_STREAMED = 3 * 2**15  # words of the weights at one point, from which on they come from memory for each chunk
_LATENCY = 8  # products that are on their way at once


class Sizes(NamedTuple):
    """What is taken at a time.

    Attributes:
        patches: of a map.
        channels: of a tile.
    """

    patches: int
    channels: int


def fits(conv: Conv) -> bool:
    """Whether a convolution can be computed so."""
    ones = (1, 1)
    return (
        conv.kernel == (3, 3)
        and conv.stride == conv.dilation == ones
        and conv.groups == 1
        and max(conv.padding) < conv.kernel[0]
    )


def patches_of(written: tuple[int, int]) -> int:
    """Return how many patches a map [H, W] is written in."""
    return -(-written[0] // SIDE) * -(-written[1] // SIDE)


def product_sizes(
    count: int,
    read: int,
    written: int,
    *,
    pixels_of: Callable[[int], int],
    most_channels: int,
    vector_bytes: int,
) -> Sizes:
    """Return the sizes that cost the fewest cycles.

    Args:
        count: of the patches that there are.
        read: C, in words.
        written: O.
        pixels_of: how many patches a tile of so many channels has; 0 where there is none.
        most_channels: of a tile.
        vector_bytes: of a vector.
    """
    choices = [
        Sizes(at_a_time, channels)
        for at_a_time in range(1, _most_patches(count, read, read, written, vector_bytes) + 1)
        for channels in range(most_channels, 0, -1)
        if pixels_of(channels)
    ]

    def chunk_cost(patches: int, channels: int) -> float:
        """Return the cycles of a number read and a tile of channels: two products and two loads in each."""
        beside = pixels_of(channels)
        tiles, rest = divmod(patches, beside)
        each = max(channels * beside, channels + beside) / 2 + beside / 4
        alone = max(channels, _LATENCY) + 1 / 4
        weights = channels / 8  # are read again for each chunk
        return weights + tiles * each + (alone if rest == 1 else min(rest, 1) * each)

    def cost(sizes: Sizes) -> float:
        whole, rest = divmod(count, sizes.patches)
        chunks = whole * chunk_cost(sizes.patches, sizes.channels)
        if rest:
            chunks += chunk_cost(rest, sizes.channels)
        return -(-written // sizes.channels) * chunks

    return min(choices, key=cost)


def gradient_sizes(
    count: int,
    read: int,
    written: int,
    *,
    inputs_of: Callable[[int], int],
    vector_bytes: int,
    narrows: bool,
) -> Sizes:
    """Return how many patches and inputs to take at a time for the gradients of the weights.

    Args:
        count: of the patches that there are.
        read: C.
        written: O.
        inputs_of: the most inputs of a tile, not above a number; 0 where there are none.
        vector_bytes: of a vector.
        narrows: two numbers share a word.
    """
    points = -(-(read + written) // 2) if narrows else read + written
    most = min(_MOST_SUMMED, _most_patches(count, points, read, written, vector_bytes))
    choices, inputs = [], inputs_of(read + vector_bytes)
    while inputs:
        choices.append(inputs)
        inputs = inputs_of(inputs - 1)
    return Sizes(-(-count // -(-count // most)), min(choices, key=lambda n: -(-read // n) * (n + 1)))


def _most_patches(count: int, points: int, read: int, written: int, vector_bytes: int) -> int:
    """Return how many patches pay at a time.

    As many as the core's second cache holds, or two where it holds what these read; but weights that its third does not
    hold are read from memory for each chunk, so that the chunks should be few.

    Args:
        count: of the patches that there are.
        points: vectors that are read again and again, for each patch and point.
        read: C, in words.
        written: O.
        vector_bytes: of a vector.
    """
    held = _CACHE // (POINTS * (read + written) * vector_bytes)
    fewest = 2 if POINTS * points * vector_bytes <= _READ else 1
    if read * written >= _STREAMED:
        fewest = _FEWEST
    return min(count, max(held, fewest), _MOST)


def patch_tables(sizes: Sizes, read: int, written: int, pixels: int) -> Tables:
    """Return the tables of a product at one point: tiles of one patch, of two, and so on.

    Args:
        sizes: what is taken at a time.
        read: C.
        written: O.
        pixels: how many patches a tile has.
    """
    tiles, strips = [], [0]
    for count in range(1, sizes.patches + 1):
        for first in range(0, count, pixels):
            some = [min(first + min(i, pixels - 1), count - 1) for i in range(MOST_PIXELS)]
            tiles.append([0, 1, *(i * read for i in some), *(i * written for i in some)])
        strips.append(len(tiles))
    return Tables(
        np.array(tiles, np.int32),
        np.array(strips, np.int32),
        np.array([(0, 0, read)], np.int32),
        sizes.channels,
        patches=sizes.patches,
    )
