"""Dense layers that follow each other as one compiled operation; see the C source beside this.

Stands between the stacked layers and the machine code: checks shapes, hands over addresses.

Shapes: K lanes, B batch, C/H/W channels of a lane, height, width, F/G features in and out.
"""

from __future__ import annotations

import ctypes
import operator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from collections.abc import Sequence

SOURCE = Path(__file__).with_name("dense_layers.c")
_FEWEST_INPUTS = 16  # a row of weights must fill a vector of any processor


@dataclass(frozen=True, slots=True)
class DenseShape:
    """Layers that follow each other.

    Attributes:
        sizes: features that go into the first, come out of it, come out of the next, ...
        relu: for each, whether ReLU comes after it.
    """

    sizes: tuple[int, ...]
    relu: tuple[bool, ...]

    def pays(self) -> bool:
        """Whether a kernel can be compiled and is no slower than torch."""
        return min(self.sizes[:-1]) >= _FEWEST_INPUTS


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, SIZE) for name in ("inputs", "outputs", "relu")),
        *((name, POINTER) for name in ("w", "b")),
        *((name, SIZE) for name in ("w_step", "b_step")),
        *((name, POINTER) for name in ("gw", "gb")),
        *((name, SIZE) for name in ("gw_step", "gb_step")),
    )


class _Source(ctypes.Structure):
    _fields_ = (
        ("x", POINTER),
        ("strides", ctypes.POINTER(SIZE)),
        *((name, SIZE) for name in ("channels", "height", "width")),
    )


class DenseLayers:
    """Dense layers of K lanes, one after the other.

    Its results are torch's up to rounding, NaN included.  It computes in one thread, in a fixed order.
    """

    def __init__(self, shape: DenseShape, dtype: torch.dtype, library: ctypes.CDLL) -> None:
        self.shape = shape
        self._dtype = dtype
        self._forward = function(library.forward, None, POINTER, POINTER, *[SIZE] * 3, *[POINTER] * 2)
        self._backward = function(library.backward, None, POINTER, POINTER, *[SIZE] * 3, *[POINTER] * 5, SIZE)
        self._layers = (_Layer * len(shape.relu))()
        for layer, inputs, outputs, relu in zip(
            self._layers, shape.sizes[:-1], shape.sizes[1:], shape.relu, strict=True
        ):
            layer.inputs, layer.outputs, layer.relu = inputs, outputs, relu
        self._workspace = torch.empty(0, dtype=dtype)
        self._bound: dict[str, tuple[torch.Tensor | None, ...]] = {}

    @classmethod
    def build(cls, shape: DenseShape, dtype: torch.dtype) -> DenseLayers | None:
        """Return the kernel for some layers; None where it cannot be compiled."""
        library = load(SOURCE, {"DOUBLE": REALS.index(dtype)}) if dtype in REALS else None
        return None if library is None else cls(shape, dtype, library)

    def forward(
        self, x: torch.Tensor, weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor | None]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the last layer's features [K, B, G], and what `backward` needs.

        Args:
            x: features [K, B, F], each image's in one piece, or maps [B, K*C, H, W] in any layout with C*H*W = F.
            weights: of each layer, [K, G, F].
            biases: likewise, [K, G].
        """
        lanes, images = weights[0].shape[0], x.shape[0 if x.dim() == 4 else 1]
        source = self._source(x, lanes)
        self._bind("w", weights, lanes)
        self._bind("b", biases, lanes)
        inner = self.shape.sizes[0 if x.dim() == 4 else 1 : -1]
        saved = x.new_empty(lanes * images * sum(inner))
        y = x.new_empty(lanes, images, self.shape.sizes[-1])
        self._forward(
            *(ctypes.byref(source), self._layers, len(self._layers), lanes, images),
            *(address(saved), address(y)),
        )
        return y, saved

    def backward(
        self,
        grad_output: torch.Tensor,
        y: torch.Tensor,
        saved: torch.Tensor,
        x: torch.Tensor,
        weights: Sequence[torch.Tensor],
        weight_grads: Sequence[torch.Tensor],
        bias_grads: Sequence[torch.Tensor | None],
        *,
        input_grad: bool,
    ) -> torch.Tensor | None:
        """Write the gradients of the weights and biases, and return that of x, if it is wanted.

        Args:
            grad_output: the gradient of the result.
            y: the result of `forward`.
            saved: likewise.
            x: its argument.
            weights: likewise.
            weight_grads: where to write, shaped like the weights.
            bias_grads: likewise; None where there is no bias.
            input_grad: whether the gradient of x is wanted.
        """
        lanes, images = y.shape[:2]
        grad_output = grad_output.contiguous()
        require_type("the gradient of the result", grad_output, self._dtype)
        if grad_output.shape != y.shape:
            raise ValueError(
                f"the gradient of the result is {tuple(grad_output.shape)}, not {tuple(y.shape)}"
            )
        source = self._source(x, lanes)
        self._bind("w", weights, lanes)
        self._bind("gw", weight_grads, lanes)
        self._bind("gb", bias_grads, lanes)
        gx = None
        if input_grad:  # features may come as a part of something larger, and their gradients do not go there
            gx = torch.empty_like(x) if x.dim() == 4 else x.new_empty(x.shape)
        widest = max(self.shape.sizes)
        if self._workspace.numel() < 2 * images * widest:
            self._workspace = torch.empty(2 * images * widest, dtype=self._dtype)
        into = None if gx is None else self._source(gx, lanes)
        self._backward(
            *(ctypes.byref(source), self._layers, len(self._layers), lanes, images),
            *(address(saved), address(y), address(grad_output)),
            *(None if into is None else ctypes.byref(into), address(self._workspace), widest),
        )
        return gx

    def _source(self, x: torch.Tensor, lanes: int) -> _Source:
        """Return where x is."""
        require_type("the input", x, self._dtype)
        channels = height = width = 0
        if x.dim() == 4:
            channels, height, width = x.shape[1] // lanes, *x.shape[2:]
            fits = (channels * lanes, channels * height * width) == (x.shape[1], self.shape.sizes[0])
        else:
            fits = (x.shape[0], *x.shape[2:]) == (lanes, self.shape.sizes[0]) and x.stride(2) == 1
        if not fits:
            given = f"{tuple(x.shape)} with the strides {x.stride()}"
            raise ValueError(f"the input is {given}, for {lanes} lanes of {self.shape.sizes[0]} features")
        return _Source(address(x), strides(x), channels, height, width)

    def _bind(self, kind: str, tensors: Sequence[torch.Tensor | None], lanes: int) -> None:
        """Give the layers the addresses of their weights (or biases, or gradients) and the steps between lanes.

        Mostly they are where they were the last time.
        """
        if all(map(operator.is_, tensors, self._bound.get(kind, ()))) and kind in self._bound:
            return
        for layer, tensor in zip(self._layers, tensors, strict=True):
            if tensor is not None:
                shape = (layer.outputs, layer.inputs) if kind.endswith("w") else (layer.outputs,)
                require(f"a dense layer's {kind}", tensor, (lanes, *shape), self._dtype)
                setattr(layer, f"{kind}_step", tensor.stride(0))
            setattr(layer, kind, address(tensor))
        self._bound[kind] = tuple(tensors)
