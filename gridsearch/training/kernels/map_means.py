"""Mean pooling of maps with the images of a batch innermost, and the mean of whole maps; see map_means.c.

Shapes: C channels, H/W height and width.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import TYPE_CHECKING

from gridsearch.training.kernels.calling import REALS
from gridsearch.training.kernels.compiler import load
from gridsearch.training.kernels.op import Layout
from gridsearch.training.kernels.stages import AvgPool, GlobalMean, shape_after

if TYPE_CHECKING:
    import torch

    from gridsearch.training.kernels.stages import Shape

_SOURCE = Path(__file__).with_name("map_means.c")
_INT = ctypes.c_int64
_PAIR = _INT * 2


class _Shapes(ctypes.Structure):
    """`struct shapes`."""

    _fields_ = (
        *((n, _INT) for n in ("channels", "height", "width", "rows", "columns")),
        *((n, _PAIR) for n in ("kernel", "step", "padding")),
        ("whole", _INT),
    )


class MapMeans:
    """Means of maps.

    Attributes:
        inputs: layouts of the inputs.
        output: of the output; features where the mean is over the whole map.
        in_place: whether the output may take the input's place.
        library: the code.
        constants: address of what it reads of the shapes.
    """

    in_place = False
    inputs = (Layout.BATCH_INNER,)

    def __init__(self, stage: AvgPool | GlobalMean, shape: Shape, library: ctypes.CDLL) -> None:
        self.library = library
        self.output = Layout.FEATURES if isinstance(stage, GlobalMean) else Layout.BATCH_INNER
        channels, height, width = shape
        pool = AvgPool((height, width), (1, 1)) if isinstance(stage, GlobalMean) else stage
        pairs = (_PAIR(*each) for each in (pool.kernel, pool.stride, pool.padding))
        out = shape_after(pool, shape)[1:]
        self._shapes = _Shapes(channels, height, width, *out, *pairs, int(isinstance(stage, GlobalMean)))
        self.constants = ctypes.addressof(self._shapes)

    @classmethod
    def build(cls, stage: AvgPool | GlobalMean, shape: Shape, dtype: torch.dtype) -> MapMeans | None:
        """Return the operation; None where it cannot be compiled."""
        library = _library(dtype)
        return None if library is None else cls(stage, shape, library)

    def saved_bytes(self, images: int) -> int:
        """Return 0."""
        del images
        return 0

    def workspace_bytes(self, images: int) -> int:
        """Return 0."""
        del images
        return 0


@functools.cache
def _library(dtype: torch.dtype) -> ctypes.CDLL | None:
    return load(_SOURCE, {"DOUBLE": REALS.index(dtype)}) if dtype in REALS else None
