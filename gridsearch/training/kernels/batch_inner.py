"""Operations on maps with the images of a batch innermost: convolutions with what follows them; see map_stages.c.

Stands between the plan of a network's step and the machine code: finds how many stages one operation takes, and writes
the tables and sizes that the code reads.  It is compiled once for a machine and a type of numbers, not for each shape.

Shapes: C/O channels in and out, H/W height and width.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gridsearch.training.kernels.activation_curves import Activation
from gridsearch.training.kernels.calling import POINTER, REALS, function
from gridsearch.training.kernels.compiler import load
from gridsearch.training.kernels.convolution_tables import (
    Product,
    Tables,
    backward_side,
    forward_side,
    tables,
)
from gridsearch.training.kernels.map_means import MapMeans
from gridsearch.training.kernels.minimal_filtering import (
    FORWARD,
    INPUT,
    WEIGHTS,
    fits,
    gradient_sizes,
    patch_tables,
    patches_of,
    product_sizes,
)
from gridsearch.training.kernels.op import Layout, vector_numbers
from gridsearch.training.kernels.product_tiles import MOST_CHANNELS, Pass, gradient_tile, sum_tile
from gridsearch.training.kernels.stages import (
    Add,
    AvgPool,
    BatchNorm,
    Conv,
    GlobalMean,
    LeakyRelu,
    MaxPool,
    Relu,
    shape_after,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from gridsearch.training.kernels.stages import Shape, Stage

SOURCE = Path(__file__).with_name("map_stages.c")
_MAP_SIDES = 3  # of a shape [C, H, W]
_MOST_TAPS = 255  # of a pooling window: its argmax is a byte
# Of one number of the result, for as many images and pixels as stay in a core's first cache while weights' gradients
# are summed.
_CHUNK_BYTES = 4096
_FILLED = (
    1.15  # numbers of vectors of channels for each channel, up to which weights' gradients are summed so
)
_FEWEST_COLUMNS = 3  # of which taking two at a time pays

_INT = ctypes.c_int64
_PAIR = _INT * 2


class _Pool(ctypes.Structure):
    _fields_ = (("is_there", _INT), *((n, _PAIR) for n in ("kernel", "step", "padding", "sides")))


class _Shapes(ctypes.Structure):
    """`struct shapes`."""

    _fields_ = (
        *((n, _INT) for n in ("channels", "height", "width")),
        *((n, _INT) for n in ("convolves", "has_bias", "outputs", "rows", "columns")),
        *((n, _PAIR) for n in ("kernel", "step", "padding", "dilation")),
        *((n, _INT) for n in ("groups", "merged", "chunk", "span")),
        *((n, _PAIR) for n in ("whole", "first")),
        *((n, _INT) for n in ("gradient_channels", "narrows", "by_channel", "patches", "point_inputs")),
        *((n, Product) for n in ("sums", "data")),
        ("pool", _Pool * 2),
        *((n, _INT) for n in ("normalizes", "affine")),
        *((n, ctypes.c_double) for n in ("eps", "momentum")),
        *((n, _INT) for n in ("adds", "activates")),
        *((n, ctypes.c_double) for n in ("slope", "most")),
    )


@dataclass(frozen=True, slots=True)
class MapRun:
    """Stages that one operation takes, in this order; None for those that are not there.

    Attributes:
        conv: a convolution.
        first_pool: pooling before batch norm.
        norm: batch norm.
        add: a residual sum.
        activation: ReLU, leaky or not, or one that does not exceed a number, as ReLU6.
        last_pool: pooling after it.
    """

    conv: Conv | None = None
    first_pool: MaxPool | None = None
    norm: BatchNorm | None = None
    add: Add | None = None
    activation: Relu | LeakyRelu | Activation | None = None
    last_pool: MaxPool | None = None

    @classmethod
    def of(cls, stages: Sequence[Stage]) -> tuple[MapRun, int]:
        """Return the longest run at the beginning of some stages, and how many they are."""
        taken: dict[str, Any] = {}
        at = 0
        for stage in stages:
            places = [i for i in range(at, len(_ORDER)) if isinstance(stage, _ORDER[i][1])]
            if not places or not _fits(stage) or (_ORDER[places[0]][0] == "last_pool" and "add" in taken):
                break
            at = places[0] + 1
            taken[_ORDER[places[0]][0]] = stage
        count = len(taken)
        if "first_pool" in taken and not {"norm", "add", "last_pool"} & taken.keys():
            taken["last_pool"] = taken.pop("first_pool")  # what grows with its argument may come before it
        return cls(**taken), count


_ORDER: tuple[tuple[str, Any], ...] = (
    ("conv", Conv),
    ("first_pool", MaxPool),
    ("norm", BatchNorm),
    ("add", Add),
    ("activation", (Relu, LeakyRelu, Activation)),
    ("last_pool", MaxPool),
)


def _fits(stage: Stage) -> bool:
    """Whether the code has this form of a stage."""
    match stage:
        case MaxPool():
            return stage.kernel[0] * stage.kernel[1] <= _MOST_TAPS
        case BatchNorm():
            return stage.tracked
        case LeakyRelu():
            return stage.slope > 0  # the sign of its result is then that of its argument
        case Activation():
            return stage.ceiling > 0
        case _:
            return True


class MapStages:
    """An operation on maps; see `map_stages.c`.

    Attributes:
        inputs: layouts of the inputs.
        output: of the output.
        in_place: whether the output may take the input's place.
        library: the code.
        constants: address of what it reads of the shapes.
    """

    in_place = False
    output = Layout.BATCH_INNER

    def __init__(
        self,
        run: MapRun,
        shape: Shape,
        dtype: torch.dtype,
        library: Any,
        *,
        bf16: bool,
        filtered: Collection[str],
    ) -> None:
        self.library = library
        self._bf16 = bf16
        self._filtered = filtered
        self.inputs = (Layout.BATCH_INNER,) * (1 if run.add is None else 2)
        self._tables: list[Tables] = []
        self._shapes = self._fill(run, shape, vector_numbers(dtype) * dtype.itemsize)
        self.constants = ctypes.addressof(self._shapes)
        self._saved = function(library.saved_bytes, _INT, POINTER, _INT)
        self._workspace = function(library.workspace_bytes, _INT, POINTER)

    def saved_bytes(self, images: int) -> int:
        """Return the size of what `forward` leaves for `backward`."""
        return self._saved(self.constants, images)

    def workspace_bytes(self, images: int) -> int:
        """Return the size of the memory that a call needs besides."""
        del images  # block by block
        return self._workspace(self.constants)

    def _fill(self, run: MapRun, shape: Shape, vector_bytes: int) -> _Shapes:
        channels, height, width = shape
        s = _Shapes(
            channels=channels, height=height, width=width, outputs=channels, rows=height, columns=width
        )
        s.groups = s.gradient_channels = s.chunk = s.span = 1
        if run.conv is not None:
            shape = shape_after(run.conv, shape)
            s.outputs, s.rows, s.columns = shape
            self._fill_conv(s, run.conv, vector_bytes)
        for place, pool in enumerate((run.first_pool, run.last_pool)):
            if pool is not None:
                shape = shape_after(pool, shape)
                how = (_PAIR(*each) for each in (pool.kernel, pool.stride, pool.padding, shape[1:]))
                s.pool[place] = _Pool(1, *how)
        if run.norm is not None:
            s.normalizes, s.affine = 1, int(run.norm.affine)
            s.eps, s.momentum = run.norm.eps, -1.0 if run.norm.momentum is None else run.norm.momentum
        s.adds, s.activates = int(run.add is not None), int(run.activation is not None)
        s.slope = run.activation.slope if isinstance(run.activation, LeakyRelu) else 0.0
        s.most = run.activation.ceiling if isinstance(run.activation, Activation) else 0.0
        return s

    def _fill_conv(self, s: _Shapes, whole: Conv, vector_bytes: int) -> None:
        conv, first = _cropped(whole, (s.height, s.width), (s.rows, s.columns))
        s.whole, s.first = _PAIR(*whole.kernel), _PAIR(*first)
        s.convolves, s.has_bias, s.groups = 1, int(conv.bias), conv.groups
        s.kernel, s.step = _PAIR(*conv.kernel), _PAIR(*conv.stride)
        s.padding, s.dilation = _PAIR(*conv.padding), _PAIR(*conv.dilation)
        pixels = _CHUNK_BYTES // vector_bytes
        s.chunk = min(s.rows, max(1, pixels // s.columns))
        s.span = max(1, pixels // (s.rows * s.columns)) if s.chunk == s.rows else 1
        sizes = (s.height, s.width), (s.rows, s.columns)
        by_channel = 1 < conv.groups == conv.channels == conv.outputs  # depthwise.h, which knows no tiles
        how = list(zip(*sizes, conv.kernel, conv.stride, conv.padding, conv.dilation, strict=True))
        products = {
            "sums": Pass(FORWARD, [forward_side(*side) for side in how], s.channels, s.outputs, sizes[1]),
            "data": Pass(INPUT, [backward_side(*side) for side in how], s.outputs, s.channels, sizes[0]),
        }
        tiles = {
            name: (1, False)
            if by_channel
            else sum_tile(each, conv.groups, pixels_of=self._tile_pixels, vector_bytes=vector_bytes)
            for name, each in products.items()
            if each.computed not in self._filtered
        }
        if any(paired for _, paired in tiles.values()):
            s.span = max(2, s.span // 2 * 2)
        for name, each in products.items():
            own = each.read // conv.groups
            narrows = self._bf16 and own > 1
            read = conv.groups * -(-own // 2) if narrows else each.read
            if name in tiles:
                channels, paired = tiles[name]
                found = tables(
                    *each.sides,
                    read=read,
                    written=each.written,
                    groups=conv.groups,
                    channels=channels,
                    pixels=self._tile_pixels(channels),
                    vector_bytes=vector_bytes,
                    turned=name == "data",
                    paired=paired,
                )
            else:
                found = self._patch_tables(s.span, read, each.written, each.size, vector_bytes)
            self._tables.append(found)
            setattr(s, name, found.product(narrows=narrows))
        if WEIGHTS in self._filtered:
            s.patches, s.point_inputs = gradient_sizes(
                s.span * patches_of(sizes[1]),
                s.channels,
                s.outputs,
                inputs_of=function(self.library.point_inputs, _INT, _INT),
                vector_bytes=vector_bytes,
                narrows=self._bf16,
            )
        s.gradient_channels, s.merged = gradient_tile(self._tile_pixels, conv)
        pairs = s.columns >= _FEWEST_COLUMNS and not by_channel  # of columns; of images in winograd.h
        s.narrows = int(self._bf16 and (pairs or WEIGHTS in self._filtered))
        fills = function(self.library.channels_filled, _INT)()
        filled = -(-conv.channels // fills) * fills <= _FILLED * conv.channels
        s.by_channel = int(filled and conv.groups == 1 and not s.narrows and WEIGHTS not in self._filtered)

    def _patch_tables(
        self, span: int, read: int, written: int, size: tuple[int, int], vector_bytes: int
    ) -> Tables:
        sizes = product_sizes(
            span * patches_of(size),
            read,
            written,
            pixels_of=self._tile_pixels,
            most_channels=MOST_CHANNELS,
            vector_bytes=vector_bytes,
        )
        return patch_tables(sizes, read, written, self._tile_pixels(sizes.channels))

    def _tile_pixels(self, channels: int) -> int:
        return function(self.library.tile_pixels, _INT, _INT)(channels)


def _cropped(conv: Conv, size: tuple[int, int], out: tuple[int, int]) -> tuple[Conv, tuple[int, int]]:
    """Return a convolution without the outer taps that meet nothing but padding, and its first tap."""
    first, kernel, padding = [], [], []
    for side in zip(size, out, conv.kernel, conv.stride, conv.padding, conv.dilation, strict=True):
        used = sorted({tap for places in forward_side(*side).places for tap, _ in places}) or [0]
        first.append(used[0])
        kernel.append(used[-1] - used[0] + 1)
        padding.append(side[4] - used[0] * side[5])
    height, width = kernel
    cropped = replace(conv, kernel=(height, width), padding=(padding[0], padding[1]))
    return cropped, (first[0], first[1])


@functools.cache
def library_of(dtype: torch.dtype) -> ctypes.CDLL | None:
    """Return the compiled code for a type of numbers; None where there is none."""
    return load(SOURCE, {"DOUBLE": REALS.index(dtype)}) if dtype in REALS else None


def cover(
    stages: Sequence[Stage],
    shape: Shape,
    dtype: torch.dtype,
    *,
    bf16: bool = False,
    filtered: Collection[str] = (),
) -> tuple[MapStages | MapMeans, int] | None:
    """Return the operation for the longest run of stages at the beginning, and how many it takes; None for none.

    Args:
        stages: each is the only reader of the one before.
        shape: [C, H, W] of one image that comes in, or [F], which are maps of one pixel.
        dtype: of the weights.
        bf16: convolutions multiply bfloat16 and add in single precision; all else is as without.
        filtered: passes of a convolution that `can_filter` which are computed by minimal filtering.
    """
    shape = shape if len(shape) == _MAP_SIDES else (*shape, 1, 1)
    if stages and isinstance(stages[0], AvgPool | GlobalMean):
        means = MapMeans.build(stages[0], shape, dtype)
        return None if means is None else (means, 1)
    run, count = MapRun.of(stages)
    library = library_of(dtype) if count and multiplies(dtype, bf16=bf16) else None
    if library is None:
        return None
    return MapStages(run, shape, dtype, library, bf16=bf16, filtered=filtered), count


def can_filter(conv: Conv, shape: Shape) -> bool:
    """Whether a convolution of maps [C, H, W] can be computed by minimal filtering."""
    _, height, width = shape
    _, rows, columns = shape_after(conv, shape)
    return fits(conv) and _cropped(conv, (height, width), (rows, columns))[0] == conv


def multiplies(dtype: torch.dtype, *, bf16: bool = False) -> bool:
    """Whether there is compiled code for a type of numbers, which multiplies bfloat16 if asked to."""
    return library_of(dtype) is not None and (not bf16 or multiplies_bfloat16())


@functools.cache
def multiplies_bfloat16() -> bool:
    """Whether this machine's processor multiplies bfloat16, and its compiler knows how."""
    library = library_of(torch.float32)
    return library is not None and bool(function(library.multiplies_narrow, _INT)())
