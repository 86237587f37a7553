"""How many channels and pixels a product of a convolution sums at a time: what costs the fewest cycles by a formula.

Stands between `batch_inner`, which fills in what the machine code reads, and the tiles that this code has
(convolution.h): sums of so many channels and pixels, and what they are made of, fill a processor's registers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridsearch.training.kernels.convolution_tables import class_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.training.kernels.convolution_tables import Side
    from gridsearch.training.kernels.stages import Conv

MOST_CHANNELS = 12
"""Of a tile, as in convolution.h."""

_MOST_MERGED = 6  # channels of which the gradients of weights are summed with those of the taps beside
_LATENCY = 4  # cycles from a product to the next one that is added to it
_PAIR_BYTES = 256 * 1024  # maps of two blocks, read and written, up to which they are taken together
_PAYS = 0.98  # of the cycles of two blocks one after the other, from which on


@dataclass(frozen=True, slots=True)
class Pass:
    """A product of a convolution.

    Attributes:
        computed: what it gives, as in `minimal_filtering.PASSES`.
        sides: height and width.
        read: channels of the map that is read.
        written: channels of the map that is written.
        size: height and width of that.
    """

    computed: str
    sides: Sequence[Side]
    read: int
    written: int
    size: tuple[int, int]


def sum_tile(
    of: Pass, groups: int, *, pixels_of: Callable[[int], int], vector_bytes: int
) -> tuple[int, bool]:
    """Return how many channels of the result to sum at a time, and whether two blocks are taken together.

    Args:
        of: the product.
        groups: of the convolution.
        pixels_of: how many pixels go with so many channels.
        vector_bytes: of a vector.
    """
    kinds, written = class_sizes(*of.sides), of.written // groups

    def cycles(channels: int, pixels: int) -> float:
        # two products and two loads a cycle; a map's numbers are read again for each tile of channels
        return max(channels * pixels / 2, (channels + pixels) / 2, _LATENCY) + pixels / 4

    def cost(channels: int, blocks: int) -> float:
        beside, found = pixels_of(channels), 0.0
        for taps, members in kinds:
            whole, left = divmod(blocks * members, beside)
            rest = 0.0 if not left else cycles(channels, 1 if left == 1 else beside)
            found += taps * (whole * cycles(channels, beside) + rest)
        return -(-written // channels) * found

    tiles = [n for n in range(MOST_CHANNELS, 0, -1) if pixels_of(n)]
    alone = min(tiles, key=lambda n: cost(n, 1))
    numbers = of.written * math.prod(of.size) + of.read * math.prod(side.size for side in of.sides)
    if 2 * numbers * vector_bytes <= _PAIR_BYTES:
        both = min(tiles, key=lambda n: cost(n, 2))
        if cost(both, 2) < _PAYS * 2 * cost(alone, 1):
            return both, True
    return alone, False


def gradient_tile(inputs_of: Callable[[int], int], conv: Conv) -> tuple[int, bool]:
    """Return how many outputs' gradients to sum at a time, and whether over taps beside each other too.

    Args:
        inputs_of: how many inputs go with so many outputs.
        conv: whose weights' gradients are summed.
    """
    channels, outputs = conv.channels // conv.groups, conv.outputs // conv.groups

    def cost(choice: tuple[int, bool]) -> float:
        own, merged = choice
        beside = inputs_of(own)
        row = -(-conv.kernel[1] * channels // beside) if merged else conv.kernel[1] * -(-channels // beside)
        loads = own + beside  # two products and two loads a cycle, for each pixel
        return -(-outputs // own) * row * (max(own * beside, loads) / 2 + 0.15 * loads + 0.1 * beside)

    # then all channels of some rows lie in the first cache together
    merges = (False, True) if conv.dilation[1] == 1 and channels <= _MOST_MERGED else (False,)
    return min(((n, m) for n in range(MOST_CHANNELS, 0, -1) if inputs_of(n) for m in merges), key=cost)
