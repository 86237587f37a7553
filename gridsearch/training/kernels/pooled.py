"""Max pooling of a convolution, with ReLU after it, as one compiled operation; see the C source beside this.

Stands between the stacked layers and the machine code: checks shapes, hands over addresses, keeps the room that a
kernel works in.

Shapes: B batch, G groups, C/O channels of a group in and out, H/W height and width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gridsearch.training.kernels.calling import POINTER, REALS, SIZE, address, function, strides
from gridsearch.training.kernels.compiler import load

if TYPE_CHECKING:
    import ctypes

_SOURCE = Path(__file__).with_name("pooled_convolution.c")
_POOLS = (2, 3)

MOST_WEIGHTS = 32768
"""Weights of a group above which torch is faster: they no longer stay in a core's own cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledShape:
    """What a kernel is compiled for.

    Attributes:
        channels: C.
        height: H of the maps that come in.
        width: W.
        kernel: height and width of the convolution's.
        padding: its zeros above and below, left and right.
        pool: side of the pooling's windows, and their step.
        relu: ReLU comes after.
    """

    channels: int
    height: int
    width: int
    kernel: tuple[int, int]
    padding: tuple[int, int]
    pool: int
    relu: bool

    @property
    def pooled(self) -> tuple[int, int]:
        """Height and width of what comes out."""
        sides = zip((self.height, self.width), self.kernel, self.padding, strict=True)
        height, width = ((side + 2 * zeros - taps + 1) // self.pool for side, taps, zeros in sides)
        return height, width

    def pays(self, outputs: int) -> bool:
        """Whether a kernel for so many channels out of a group is to be had, and no slower than torch."""
        weights = outputs * self.channels * math.prod(self.kernel)
        return self.pool in _POOLS and min(self.pooled) > 0 and weights <= MOST_WEIGHTS


class PooledConvolution:
    """A convolution in groups, the largest of each pooling window, and ReLU.

    Its results are torch's up to rounding, what is no number included.  It computes in one thread, in a fixed order.
    """

    def __init__(self, shape: PooledShape, dtype: torch.dtype, library: ctypes.CDLL) -> None:
        self.shape = shape
        self._pooled = shape.pooled
        self._dtype = dtype
        self._forward = function(library.forward, None, *[POINTER] * 6, *[SIZE] * 3, POINTER)
        self._backward = function(library.backward, None, *[POINTER] * 9, *[SIZE] * 3, POINTER)
        self._forward_room = function(library.forward_room, SIZE, SIZE)
        self._backward_room = function(library.backward_room, SIZE, SIZE)
        self._room = torch.empty(0, dtype=dtype)

    @classmethod
    def build(cls, shape: PooledShape, dtype: torch.dtype) -> PooledConvolution | None:
        """Return the kernel for a shape; None where it cannot be compiled."""
        if dtype not in REALS:
            return None
        library = load(
            _SOURCE,
            {
                "DOUBLE": REALS.index(dtype),
                "C": shape.channels,
                "H": shape.height,
                "W": shape.width,
                "KH": shape.kernel[0],
                "KW": shape.kernel[1],
                "PH": shape.padding[0],
                "PW": shape.padding[1],
                "P": shape.pool,
                "RELU": int(shape.relu),
            },
        )
        return None if library is None else cls(shape, dtype, library)

    def forward(
        self, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None, *, groups: int, places: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the pooled maps [B, G*O, H', W'], and where in its window each value was, if wanted.

        Args:
            x: maps [B, G*C, H, W] in any layout.
            w: weights [G*O, C, h, w].
            b: bias [G*O].
            groups: G.
            places: whether `backward` will want them, [B, G*O, H', W'] of bytes.
        """
        self._check(x, w, groups)
        w = w.contiguous()
        b = None if b is None else b.contiguous()
        size = (x.shape[0], *self._pooled, w.shape[0])
        y = x.new_empty(size)
        found = x.new_empty(size, dtype=torch.uint8) if places else None
        outputs = w.shape[0] // groups
        room = self._have(self._forward_room(outputs))
        self._forward(
            *(address(x), strides(x), address(w), address(b), address(y), address(found)),
            *(x.shape[0], groups, outputs, address(room)),
        )
        return y.permute(0, 3, 1, 2), None if found is None else found.permute(0, 3, 1, 2)

    def backward(
        self,
        slope: torch.Tensor,
        y: torch.Tensor,
        places: torch.Tensor,
        x: torch.Tensor,
        w: torch.Tensor,
        *,
        groups: int,
        images: bool,
    ) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
        """Return the slopes by x (if `images`), by w and by b.

        Args:
            slope: by the result, in any layout.
            y: what `forward` gave.
            places: likewise.
            x: what it was given.
            w: likewise.
            groups: G.
            images: whether the slope by x is wanted.
        """
        self._check(x, w, groups)
        w = w.contiguous()
        slope, y, places = (t.permute(0, 2, 3, 1).contiguous() for t in (slope, y, places))
        gx = x.new_empty(x.shape[0], *x.shape[2:], x.shape[1]) if images else None
        gw, gb = torch.empty_like(w), w.new_empty(w.shape[0])
        outputs = w.shape[0] // groups
        room = self._have(self._backward_room(outputs))
        self._backward(
            *(address(slope), address(y), address(places), address(x), strides(x), address(w)),
            *(address(gx), address(gw), address(gb), x.shape[0], groups, outputs, address(room)),
        )
        return None if gx is None else gx.permute(0, 3, 1, 2), gw, gb

    def _check(self, x: torch.Tensor, w: torch.Tensor, groups: int) -> None:
        """What is wrong here would be read from beyond a tensor's end."""
        shape = self.shape
        assert x.shape[1:] == (groups * shape.channels, shape.height, shape.width), x.shape
        assert w.shape[1:] == (shape.channels, *shape.kernel), w.shape
        assert w.shape[0] % groups == 0, w.shape
        assert x.dtype == w.dtype == self._dtype
        assert x.device.type == "cpu"

    def _have(self, numbers: int) -> torch.Tensor:
        if self._room.numel() < numbers:
            self._room = torch.empty(numbers, dtype=self._dtype)
        return self._room


def can_compile() -> bool:
    """Whether a kernel can be compiled here, loaded and run: tries a small one."""
    shape = PooledShape(channels=1, height=4, width=4, kernel=(3, 3), padding=(0, 0), pool=2, relu=True)
    kernel = PooledConvolution.build(shape, torch.float32)
    if kernel is None:
        return False
    y, _ = kernel.forward(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 3, 3), None, groups=1, places=False)
    return y.flatten().tolist() == [9.0]
