"""The stacked layers without products: what each layer of a model is for all lanes at once; see `products`.

They compute with tensors in the forms of `lane_values`; the rewrite chooses them.  Weights are [K, ...].

Shapes: K lanes, B batch, C/O channels in and out, I channels of a group, H/W height and width, F/G features.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.training.lanes.compile.lane_values import unflatten
from gridsearch.training.lanes.runtime.products import merge, pair

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gridsearch.training.lanes.compile.compiled_graph import Grads, Needs
    from gridsearch.training.lanes.compile.lane_values import LaneCount, Order
    from gridsearch.training.lanes.runtime.masks import CounterMasks


class Relu:
    """ReLU.

    Args:
        overwrites: the result is written over the argument, which nothing else reads.
    """

    fresh = False

    def __init__(self, *, overwrites: bool = False) -> None:
        self._overwrites = overwrites

    def in_place(self) -> Relu:
        """Return one that overwrites its argument."""
        return Relu(overwrites=True)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the same shape."""
        return torch.relu(x)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Return the result, which `backward` needs."""
        y = torch.relu_(x) if self._overwrites else torch.relu(x)
        return y, y

    def backward(self, grad_output: torch.Tensor, saved: Any, needs_grad: Needs, out: Grads) -> Grads:
        """Return the gradient with respect to x."""
        del needs_grad, out
        return [torch.ops.aten.threshold_backward(grad_output, saved, 0)]


class MaxPool:
    """Max pooling of maps; the arguments are torch's.

    The backward pass needs the argmax indices, and of the maps nothing but their shape: they are not kept.  The
    gradient is as large as the maps and is always written to the same buffer.
    """

    fresh = True

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> None:
        stride = kernel_size if stride in (None, [], ()) else stride
        self._how = pair(kernel_size), pair(stride), pair(padding), pair(dilation), ceil_mode
        self._grad_buffer: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the pooled maps."""
        return F.max_pool2d(x, *self._how)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Return the pooled maps, and what `backward` needs."""
        y, indices = torch.ops.aten.max_pool2d_with_indices(x, *self._how)
        return y, (indices, x.shape, x.stride())

    def backward(self, grad_output: torch.Tensor, saved: Any, needs_grad: Needs, out: Grads) -> Grads:
        """Return the gradient with respect to the maps; the next call overwrites it."""
        del needs_grad, out
        indices, shape, strides = saved
        buffer = self._grad_buffer
        if buffer is None or (buffer.shape, buffer.stride(), buffer.dtype) != (
            shape,
            strides,
            grad_output.dtype,
        ):
            buffer = self._grad_buffer = torch.empty_strided(
                shape, strides, dtype=grad_output.dtype, device=grad_output.device
            )
        torch.ops.aten.max_pool2d_with_indices_backward.grad_input(
            grad_output, buffer, *self._how, indices, grad_input=buffer
        )
        return [buffer]


def batch_norm(
    x: torch.Tensor,
    mean: torch.Tensor | None,
    var: torch.Tensor | None,
    w: torch.Tensor | None,
    b: torch.Tensor | None,
    training: bool,
    momentum: float | torch.Tensor,
    eps: float,
) -> torch.Tensor:
    """Batch norm of [B, K*C, ...] with each lane's own statistics and weights [K, C].

    In place of a momentum there may be how many batches each lane has seen [K], this one included: the running
    statistics are then the means of all batches'.
    """
    if isinstance(momentum, torch.Tensor):
        assert mean is not None
        assert var is not None
        own = torch.zeros_like(mean), torch.zeros_like(var)
        y = batch_norm(x, *own, w, b, training, 1.0, eps)
        share_K1 = momentum.to(mean.dtype).reciprocal().unsqueeze(1)
        for running, batch in zip((mean, var), own, strict=True):
            running.lerp_(batch, share_K1)
        return y
    flat_mean = None if mean is None else mean.view(-1)  # views, which are updated in place
    flat_var = None if var is None else var.view(-1)
    return F.batch_norm(x, flat_mean, flat_var, merge(w), merge(b), training, momentum, eps)


class BatchNormFeatures:
    """Batch norm of features [K, B, F] or [K, B, F, L]."""

    def __init__(self, width: LaneCount) -> None:
        self._width = width

    def __call__(self, x: torch.Tensor, *how: Any) -> torch.Tensor:
        """Return the same shape."""
        y = batch_norm(x.transpose(0, 1).flatten(1, 2), *how)
        return unflatten(y, 1, self._width.lanes, -1).transpose(0, 1)


class GroupNorm:
    """Group norm of [B, K*C, ...]."""

    def __init__(self, width: LaneCount, groups: int, eps: float) -> None:
        self._width, self._groups, self._eps = width, groups, eps

    def __call__(self, x: torch.Tensor, w: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor:
        """Return the same shape."""
        return F.group_norm(x, self._groups * self._width.lanes, merge(w), merge(b), self._eps)


def layer_norm(
    x: torch.Tensor, shape: Sequence[int], w: torch.Tensor | None, b: torch.Tensor | None, eps: float
) -> torch.Tensor:
    """Layer norm of [K, B, ..., *shape] with weights [K, *shape]."""
    y = F.layer_norm(x, tuple(shape), eps=eps)
    between = (slice(None), *(None,) * (x.dim() - 1 - len(shape)))
    if w is not None:
        y = y * w[between]
    return y if b is None else y + b[between]


class DropoutState:
    """Where each lane's dropout masks come from, and its rate.

    Attributes:
        generators: one for each lane, set to the step's stream before each step.
        counter: draws the masks instead, where steps run without the host.
        rates: a rate for all the dropout modules of a lane; None leaves each as the model has it.
        orders: in which order in memory lies what a node of a lone lane's graph reads, and so what is drawn in its
            likeness, by the node's name.
    """

    def __init__(self) -> None:
        self.orders: Mapping[str, tuple[Order, ...]] = {}
        self.generators: list[torch.Generator] = []
        self.counter: CounterMasks | None = None
        self.rates: list[float | None] = []


class Dropout:
    """Dropout with each lane's own rate, and the mask that torch would draw for that lane alone.

    Torch draws a lane's masks one after the other from the stream of its step, in the order of the calls.  So does
    this, from a generator for each lane; the lanes' counter draws other masks.

    Args:
        dropout: has the lanes' generators or their counter.
        name: of its node.
        rate: the model's own.
        features: whole channels are dropped.
        from_recipe: a lane's recipe may set the rate.
        packed: the input is packed, else stacked.
        alpha: what is dropped becomes the least that SELU gives, and all keeps its mean and variance.
    """

    def __init__(
        self,
        dropout: DropoutState,
        name: str,
        rate: float,
        *,
        features: bool,
        from_recipe: bool,
        packed: bool,
        alpha: bool = False,
    ) -> None:
        self._dropout, self._name, self._rate, self._alpha = dropout, name, rate, alpha
        self._features, self._from_recipe, self._packed = features, from_recipe, packed

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the same shape, in training."""
        dropout = self._dropout
        lanes = len(dropout.rates)
        rates = [self._rate if r is None or not self._from_recipe else r for r in dropout.rates]
        if not any(rates):
            return x
        shape = list(unflatten(x, 1, lanes, -1).transpose(0, 1).shape if self._packed else x.shape)
        if self._features:
            shape[3:] = [1] * (len(shape) - 3)
        noise = (
            self._drawn(x, shape, rates)
            if dropout.counter is None
            else dropout.counter.noise(shape, self._rate, from_recipe=self._from_recipe, dtype=x.dtype)
        )
        shift = _alpha_scaled(noise, rates) if self._alpha else None
        if self._packed:
            y = unflatten(x, 1, lanes, -1) * noise.transpose(0, 1)
            return (y if shift is None else y + shift.transpose(0, 1)).flatten(1, 2)
        return x * noise if shift is None else x * noise + shift

    def _drawn(self, x: torch.Tensor, shape: Sequence[int], rates: Sequence[float]) -> torch.Tensor:
        """Return the lanes' masks from their generators."""
        dropout = self._dropout
        if self._features or not dropout.orders:
            noise = x.new_empty(shape)
        else:
            dims = [0, *(d + 1 for d in dropout.orders[self._name][0])]
            drawn = x.new_empty([shape[d] for d in dims])
            noise = drawn.permute([dims.index(d) for d in range(len(dims))])
        for mask, rate, generator in zip(noise.unbind(0), rates, dropout.generators, strict=True):
            if rate == 0:
                mask.fill_(1)
            elif rate == 1:
                mask.zero_()
            else:
                mask.bernoulli_(1 - rate, generator=generator).div_(1 - rate)
        return noise


def _alpha_scaled(noise: torch.Tensor, rates: Sequence[float]) -> torch.Tensor:
    """Scale the lanes' masks as alpha dropout does, in place, and return what is added (arXiv:1706.02515)."""
    shift = torch.zeros_like(noise)
    for mask, added, rate in zip(noise.unbind(0), shift.unbind(0), rates, strict=True):
        if not 0 < rate < 1:
            continue
        scale = 1 / math.sqrt((_LEAST**2 * rate + 1) * (1 - rate))
        added.copy_(mask.gt(0)).sub_(1 - rate).mul_(_LEAST * scale)
        mask.mul_(scale * (1 - rate))
    return shift


_LEAST = 1.7580993408473766
"""SELU gives no less than minus this."""


class Flatten:
    """[B, K*C, H, W] to [K, B, C*H*W]: from maps to features."""

    fresh = False

    def __init__(self, width: LaneCount) -> None:
        self._width = width

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features."""
        return unflatten(x, 1, self._width.lanes, -1).transpose(0, 1).flatten(2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Return the features, and the layout of the maps."""
        return self(x), (x.shape, x.stride())

    def backward(self, grad_output: torch.Tensor, saved: Any, needs_grad: Needs, out: Grads) -> Grads:
        """Return the gradient with respect to the maps, in their layout."""
        del needs_grad, out
        shape, strides = saved
        maps = torch.empty_strided(shape, strides, dtype=grad_output.dtype, device=grad_output.device)
        by_lane = unflatten(maps, 1, self._width.lanes, -1).transpose(0, 1)
        by_lane.copy_(grad_output.reshape(by_lane.shape))
        return [maps]


class PackedMean:
    """Mean (or another reduction) of maps over some of batch, height and width."""

    def __init__(self, width: LaneCount, reduce: Any, dims: tuple[int, ...], *, keepdim: bool) -> None:
        self._width, self._reduce, self._dims, self._keepdim = width, reduce, dims, keepdim

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[B, K*C, H, W] to [B, K*C, 1, 1], or without these dimensions to [K, B, C]."""
        y: torch.Tensor = self._reduce(x, self._dims, keepdim=self._keepdim)
        return y if self._keepdim else unflatten(y, 1, self._width.lanes, -1).transpose(0, 1)


class PackedCat:
    """Concatenation of maps, lane by lane."""

    def __init__(self, width: LaneCount, dim: int) -> None:
        self._width, self._dim = width, dim

    def __call__(self, *maps: torch.Tensor) -> torch.Tensor:
        """Return [B, K*C, H, W]."""
        if self._dim != 1:
            return torch.cat(maps, self._dim)
        by_lane = [unflatten(x, 1, self._width.lanes, -1) for x in maps]
        return torch.cat(by_lane, 2).flatten(1, 2)
