"""Max pooling of a convolution, with ReLU after it, as one compiled operation; see the C source beside this.

Stands between the stacked layers and the machine code: checks shapes, hands over addresses, keeps the
workspace of a kernel.

Shapes: K lanes, B batch, C/O channels of a lane in and out, H/W height and width.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from gridsearch.training.kernels.calling import (
    POINTER,
    REALS,
    SIZE,
    address,
    function,
    require,
    require_type,
    strides,
)
from gridsearch.training.kernels.compiler import load

SOURCE = Path(__file__).with_name("pooled_convolution.c")
_POOLS = (2, 3)
_MOST_WEIGHTS = 32768  # above which torch is faster: they no longer stay in a core's own cache


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledShape:
    """What a kernel is compiled for.

    Attributes:
        channels: C.
        outputs: O.
        height: H of the maps that come in.
        width: W.
        kernel: height and width of the convolution's.
        padding: its zeros above and below, left and right.
        pool: side of the pooling's windows, and their step.
        relu: ReLU comes after.
    """

    channels: int
    outputs: int
    height: int
    width: int
    kernel: tuple[int, int]
    padding: tuple[int, int]
    pool: int
    relu: bool

    @property
    def pooled(self) -> tuple[int, int]:
        """Height and width of the result."""
        sides = zip((self.height, self.width), self.kernel, self.padding, strict=True)
        height, width = ((side + 2 * zeros - taps + 1) // self.pool for side, taps, zeros in sides)
        return height, width

    def pays(self) -> bool:
        """Whether a kernel can be compiled and is no slower than torch."""
        weights = self.outputs * self.channels * math.prod(self.kernel)
        return self.pool in _POOLS and min(self.pooled) > 0 and weights <= _MOST_WEIGHTS

    def constants(self, dtype: torch.dtype) -> dict[str, int]:
        """Return the constants of the source."""
        return {
            "DOUBLE": REALS.index(dtype),
            "C": self.channels,
            "OUTPUTS": self.outputs,
            "H": self.height,
            "W": self.width,
            "KH": self.kernel[0],
            "KW": self.kernel[1],
            "PH": self.padding[0],
            "PW": self.padding[1],
            "P": self.pool,
            "RELU": int(self.relu),
        }


class _Weights(ctypes.Structure):
    _fields_ = (("w", POINTER), ("b", POINTER), ("w_step", SIZE), ("b_step", SIZE), ("per", SIZE))


class SavedForBackward(NamedTuple):
    """What a forward pass saves for the backward pass.

    Attributes:
        x: the maps that came in.
        w: the weights.
        y: the pooled maps.
        indices: where in its window each value was, [B, H', W', K*O] of bytes; None where they were not wanted.
    """

    x: torch.Tensor
    w: torch.Tensor
    y: torch.Tensor
    indices: torch.Tensor | None


class PooledConvolution:
    """A convolution of K lanes, the largest of each pooling window, and ReLU.

    Its results are torch's up to rounding, NaN included.  It computes in one thread, in a fixed order.
    """

    def __init__(self, shape: PooledShape, dtype: torch.dtype, library: ctypes.CDLL) -> None:
        self.shape = shape
        self._pooled = shape.pooled
        self._dtype = dtype
        self._forward = function(library.forward, None, *[POINTER] * 5, *[SIZE] * 3, POINTER)
        self._backward = function(library.backward, None, *[POINTER] * 8, *[SIZE] * 3, POINTER, ctypes.c_int)
        self._forward_workspace = function(library.forward_workspace, SIZE, SIZE)
        self._backward_workspace = function(library.backward_workspace, SIZE, SIZE)
        self._workspace = torch.empty(0, dtype=dtype)
        self._checked: tuple[object, ...] = ()
        self._bound: dict[str, tuple[torch.Tensor, torch.Tensor | None, _Weights]] = {}

    @classmethod
    def build(cls, shape: PooledShape, dtype: torch.dtype) -> PooledConvolution | None:
        """Return the kernel for a shape; None where it cannot be compiled."""
        if dtype not in REALS:
            return None
        library = load(SOURCE, shape.constants(dtype))
        return None if library is None else cls(shape, dtype, library)

    def forward(
        self, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None, *, return_indices: bool
    ) -> tuple[torch.Tensor, SavedForBackward]:
        """Return the pooled maps [B, K*O, H', W'], and what `backward` needs.

        Args:
            x: maps [B, C, H, W], the same for all lanes, or [B, K*C, H, W], in any layout.
            w: weights [K, O, C, h, w], each lane's in one block.
            b: bias [K, O], likewise.
            return_indices: whether `backward` will be called.
        """
        images, groups, outputs = self._sizes(x, w)
        size = (images, *self._pooled, groups * outputs)
        y = x.new_empty(size)
        indices = x.new_empty(size, dtype=torch.uint8) if return_indices else None
        self._forward(
            *(
                address(x),
                strides(x),
                ctypes.byref(self._weights("forward", w, b)),
                address(y),
                address(indices),
            ),
            *(images, groups, outputs, self._workspace_address(self._forward_workspace(outputs))),
        )
        y = y.permute(0, 3, 1, 2)
        return y, SavedForBackward(x, w, y, indices)

    def backward(
        self,
        grad_output: torch.Tensor,
        saved: SavedForBackward,
        weight_grad: torch.Tensor,
        bias_grad: torch.Tensor | None,
        *,
        input_grad: bool,
    ) -> torch.Tensor | None:
        """Write the gradients of the weights and the bias, and return that of x if `input_grad`.

        Args:
            grad_output: the gradient of the result, in any layout.
            saved: from `forward`.
            weight_grad: where to write [K, O, C, h, w], each lane's in one block.
            bias_grad: where to write [K, O], if it is wanted.
            input_grad: whether the gradient of x is wanted.
        """
        x, w, y, indices = saved
        if indices is None or weight_grad.shape != w.shape or grad_output.shape != y.shape:
            raise ValueError(
                "a backward pass needs indices, and gradients shaped like the weights and the result"
            )
        require_type("the gradient of the result", grad_output, self._dtype)
        count, groups, outputs = self._sizes(x, w)
        grad_output, y = (t.permute(0, 2, 3, 1).contiguous() for t in (grad_output, y))
        gx = x.new_empty(count, *x.shape[2:], x.shape[1]) if input_grad else None
        self._backward(
            *(address(grad_output), address(y), address(indices), address(x), strides(x)),
            *(ctypes.byref(self._weights("backward", w, None)), address(gx)),
            *(ctypes.byref(self._weights("gradient", weight_grad, bias_grad)), count, groups, outputs),
            self._workspace_address(self._backward_workspace(outputs)),
            0,
        )
        return None if gx is None else gx.permute(0, 3, 1, 2)

    def _sizes(self, x: torch.Tensor, w: torch.Tensor) -> tuple[int, int, int]:
        """Return images, groups and a group's outputs, once the maps are checked."""
        shape = self.shape
        lanes, outputs = w.shape[:2]
        shared = x.shape[1] == shape.channels
        if (x.shape, x.dtype, lanes) != self._checked:
            maps = (len(x), (1 if shared else lanes) * shape.channels, shape.height, shape.width)
            if tuple(x.shape) != maps:
                raise ValueError(
                    f"the maps are {tuple(x.shape)}, where the kernel of {lanes} lanes needs {maps}"
                )
            require_type("the maps", x, self._dtype)
            self._checked = x.shape, x.dtype, lanes
        return (x.shape[0], 1, lanes * outputs) if shared else (x.shape[0], lanes, outputs)

    def _weights(self, use: str, w: torch.Tensor, b: torch.Tensor | None) -> _Weights:
        """Return where the weights and biases (or their gradients) are, once they are checked.

        Mostly they are where they were the last time.
        """
        bound = self._bound.get(use)
        if bound is None or bound[0] is not w or bound[1] is not b:
            shape = self.shape
            require("the weight", w, (len(w), shape.outputs, shape.channels, *shape.kernel), self._dtype)
            if b is not None:
                require("the bias", b, tuple(w.shape[:2]), self._dtype)
            step = 0 if b is None else b.stride(0)
            bound = self._bound[use] = w, b, _Weights(address(w), address(b), w.stride(0), step, w.shape[1])
        return bound[2]

    def _workspace_address(self, numbers: int) -> int:
        if self._workspace.numel() < numbers:
            self._workspace = torch.empty(numbers, dtype=self._dtype)
        return self._workspace.data_ptr()


def can_compile() -> bool:
    """Whether a kernel can be compiled here, loaded and run: tries a small one."""
    shape = PooledShape(
        channels=1, outputs=1, height=4, width=4, kernel=(3, 3), padding=(0, 0), pool=2, relu=True
    )
    kernel = PooledConvolution.build(shape, torch.float32)
    if kernel is None:
        return False
    y, _ = kernel.forward(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 1, 3, 3), None, return_indices=False)
    return y.flatten().tolist() == [9.0]
