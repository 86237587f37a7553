"""The stacked layers without products: what each layer of a model is for all lanes at once; see `products`.

Each takes and gives tensors in the forms of `values`; the rewrite chooses them.  Weights come as [K, ...].

Shapes: K lanes, B batch, C/O channels in and out, I channels of a group, H/W height and width, F/G features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.training.lanes.compile.lane_values import apart
from gridsearch.training.lanes.runtime.products import merge, pair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.training.lanes.compile.lane_values import Width
    from gridsearch.training.lanes.runtime.masks import CounterMasks


class Relu:
    """ReLU.

    Args:
        overwrites: its argument, which nobody else needs.
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

    def backward(
        self, slope: torch.Tensor, saved: Any, wanted: Sequence[bool], into: Sequence[torch.Tensor | None]
    ) -> list[torch.Tensor | None]:
        """Return the slope by x."""
        del wanted, into
        return [torch.ops.aten.threshold_backward(slope, saved, 0)]


class MaxPool:
    """Max pooling of maps; the arguments are torch's.

    On the way back torch needs the place of each largest value, and of the maps nothing but their shape: they are
    not kept.  The slopes are as large as the maps and always go to the same memory.
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
        self._slope: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the pooled maps."""
        return F.max_pool2d(x, *self._how)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Return the pooled maps, and what `backward` needs."""
        y, places = torch.ops.aten.max_pool2d_with_indices(x, *self._how)
        return y, (places, x.shape, x.stride())

    def backward(
        self, slope: torch.Tensor, saved: Any, wanted: Sequence[bool], into: Sequence[torch.Tensor | None]
    ) -> list[torch.Tensor | None]:
        """Return the slope by the maps; the next call overwrites it."""
        del wanted, into
        places, shape, strides = saved
        room = self._slope
        if room is None or (room.shape, room.stride(), room.dtype) != (shape, strides, slope.dtype):
            room = self._slope = torch.empty_strided(shape, strides, dtype=slope.dtype, device=slope.device)
        torch.ops.aten.max_pool2d_with_indices_backward.grad_input(
            slope, room, *self._how, places, grad_input=room
        )
        return [room]


def batch_norm(
    x: torch.Tensor,
    mean: torch.Tensor | None,
    var: torch.Tensor | None,
    w: torch.Tensor | None,
    b: torch.Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> torch.Tensor:
    """Batch norm of [B, K*C, ...] with each lane's own statistics and weights [K, C]."""
    flat_mean = None if mean is None else mean.view(-1)  # views: they are moved in place
    flat_var = None if var is None else var.view(-1)
    return F.batch_norm(x, flat_mean, flat_var, merge(w), merge(b), training, momentum, eps)


class BatchNormFeatures:
    """Batch norm of features [K, B, F] or [K, B, F, L]."""

    def __init__(self, width: Width) -> None:
        self._width = width

    def __call__(self, x: torch.Tensor, *how: Any) -> torch.Tensor:
        """Return the same shape."""
        y = batch_norm(x.transpose(0, 1).flatten(1, 2), *how)
        return apart(y, 1, self._width.lanes, -1).transpose(0, 1)


class GroupNorm:
    """Group norm of [B, K*C, ...]."""

    def __init__(self, width: Width, groups: int, eps: float) -> None:
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


class Draws:
    """Each lane's random numbers of a step, and its dropout rate.

    Attributes:
        generators: one for each lane, set to the step's stream before it.
        counter: draws in their stead, where steps run without the host.
        rates: a rate for all the dropout modules of a lane; None leaves each as the model has it.
        channels_last: the layout of a lone lane's maps, in whose order torch draws a mask.
    """

    def __init__(self) -> None:
        self.channels_last = False
        self.generators: list[torch.Generator] = []
        self.counter: CounterMasks | None = None
        self.rates: list[float | None] = []


class Dropout:
    """Dropout with each lane's own rate, and the mask that torch would draw for that lane alone.

    Torch draws a lane's masks one after the other from its step's stream, in the order of its calls; so does
    this, from a generator for each lane, or else from the lanes' counter, which gives other masks.

    Args:
        draws: where the lanes' streams are.
        rate: the model's own.
        features: whole channels are dropped.
        ruled: a lane's recipe may set the rate.
        packed: the form of what comes.
    """

    def __init__(self, draws: Draws, rate: float, *, features: bool, ruled: bool, packed: bool) -> None:
        self._draws, self._rate = draws, rate
        self._features, self._ruled, self._packed = features, ruled, packed

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the same shape, in training."""
        draws = self._draws
        lanes = len(draws.rates)
        rates = [self._rate if r is None or not self._ruled else r for r in draws.rates]
        if not any(rates):
            return x
        shape = list(apart(x, 1, lanes, -1).transpose(0, 1).shape if self._packed else x.shape)
        if self._features:
            shape[3:] = [1] * (len(shape) - 3)
        noise = (
            self._drawn(x, shape, rates)
            if draws.counter is None
            else draws.counter.noise(shape, self._rate, ruled=self._ruled, dtype=x.dtype)
        )
        if self._packed:
            return (apart(x, 1, lanes, -1) * noise.transpose(0, 1)).flatten(1, 2)
        return x * noise

    def _drawn(self, x: torch.Tensor, shape: Sequence[int], rates: Sequence[float]) -> torch.Tensor:
        """Return the lanes' masks from their generators."""
        draws = self._draws
        if self._packed and draws.channels_last and not self._features:
            lane, batch, channels, height, width = shape
            noise = x.new_empty(lane, batch, height, width, channels).permute(0, 1, 4, 2, 3)
        else:
            noise = x.new_empty(shape)
        for mask, rate, generator in zip(noise.unbind(0), rates, draws.generators, strict=True):
            if rate == 0:
                mask.fill_(1)
            elif rate == 1:
                mask.zero_()
            else:
                mask.bernoulli_(1 - rate, generator=generator).div_(1 - rate)
        return noise


class Flatten:
    """[B, K*C, H, W] to [K, B, C*H*W]: from maps to features."""

    fresh = False

    def __init__(self, width: Width) -> None:
        self._width = width

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features."""
        return apart(x, 1, self._width.lanes, -1).transpose(0, 1).flatten(2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Return the features, and the layout of the maps."""
        return self(x), (x.shape, x.stride())

    def backward(
        self, slope: torch.Tensor, saved: Any, wanted: Sequence[bool], into: Sequence[torch.Tensor | None]
    ) -> list[torch.Tensor | None]:
        """Return the slope by the maps, in their layout."""
        del wanted, into
        shape, strides = saved
        maps = torch.empty_strided(shape, strides, dtype=slope.dtype, device=slope.device)
        by_lane = apart(maps, 1, self._width.lanes, -1).transpose(0, 1)
        by_lane.copy_(slope.reshape(by_lane.shape))
        return [maps]


class PackedMean:
    """Mean (or another reduction) of maps over some of batch, height and width."""

    def __init__(self, width: Width, reduce: Any, dims: tuple[int, ...], *, keepdim: bool) -> None:
        self._width, self._reduce, self._dims, self._keepdim = width, reduce, dims, keepdim

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[B, K*C, H, W] to [B, K*C, 1, 1], or without these dimensions to [K, B, C]."""
        y: torch.Tensor = self._reduce(x, self._dims, keepdim=self._keepdim)
        return y if self._keepdim else apart(y, 1, self._width.lanes, -1).transpose(0, 1)


class PackedCat:
    """Concatenation of maps, lane by lane."""

    def __init__(self, width: Width, dim: int) -> None:
        self._width, self._dim = width, dim

    def __call__(self, *maps: torch.Tensor) -> torch.Tensor:
        """Return [B, K*C, H, W]."""
        if self._dim != 1:
            return torch.cat(maps, self._dim)
        by_lane = [apart(x, 1, self._width.lanes, -1) for x in maps]
        return torch.cat(by_lane, 2).flatten(1, 2)
