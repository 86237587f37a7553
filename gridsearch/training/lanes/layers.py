"""The stacked layers: what each layer of a model is for all lanes at once.

Each takes and gives tensors in the forms of `values`; the rewrite chooses them.  Weights come as [K, ...].

Shapes: K lanes, B batch, C/O channels in and out, I channels of a group, H/W height and width, F/G features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.training.lanes.values import apart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.training.lanes.masks import CounterMasks
    from gridsearch.training.lanes.values import Width


def _merge(w: torch.Tensor | None) -> torch.Tensor | None:
    """[K, O, ...] to [K*O, ...]."""
    return None if w is None else w.flatten(0, 1)


class InputAffine:
    """Each lane's own normalization of the images, taken into the weights of the layer that reads them.

    A layer without padding gives the same for weights w and images s * x + t as for weights w * s, images x
    and a bias that is larger by the sum of w * t.

    Attributes:
        scale: [K, C], None where all lanes see the same images.
        shift: [K, C].
    """

    def __init__(self) -> None:
        self.scale: torch.Tensor | None = None
        self.shift: torch.Tensor | None = None

    def conv(self, w: torch.Tensor, b: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return weights [K, O, C, h, w] and bias [K, O] for the images as they are."""
        if self.scale is None or self.shift is None:
            return w, b
        more = torch.einsum("koc,kc->ko", w.sum((3, 4)), self.shift)
        return w * self.scale[:, None, :, None, None], more if b is None else b + more

    def linear(self, w: torch.Tensor, b: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return weights [K, G, F] and bias [K, G] for the images as they are, channel by channel in F."""
        if self.scale is None or self.shift is None:
            return w, b
        channels = self.scale.shape[1]
        by_channel = apart(w, 2, channels, -1)
        more = torch.einsum("kgc,kc->kg", by_channel.sum(3), self.shift)
        return (by_channel * self.scale[:, None, :, None]).flatten(2), more if b is None else b + more


class Conv:
    """A convolution: dense over the shared images, else in K groups of the layer's own groups."""

    def __init__(self, width: Width, *, groups: int, affine: InputAffine | None = None, **how: Any) -> None:
        self._width = width
        self._groups = groups
        self._affine = affine
        self._how = how

    def shared(self, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor:
        """[B, C, H, W] to [B, K*O, H', W']; one group only."""
        if self._affine is not None:
            w, b = self._affine.conv(w, b)
        return F.conv2d(x, w.flatten(0, 1), _merge(b), **self._how)

    def packed(self, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor:
        """[B, K*C, H, W] to [B, K*O, H', W']."""
        if self._affine is not None:
            w, b = self._affine.conv(w, b)
        groups = self._groups * self._width.lanes
        return F.conv2d(x, w.flatten(0, 1), _merge(b), groups=groups, **self._how)


class Linear:
    """A dense layer: one batched product."""

    def __init__(self, width: Width, affine: InputAffine | None = None) -> None:
        self._width = width
        self._affine = affine

    def shared(self, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor:
        """[B, ..., F] to [K, B, ..., G]."""
        return self.stacked(x.expand(self._width.lanes, *x.shape), w, b)

    def stacked(self, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor:
        """[K, B, ..., F] to [K, B, ..., G]."""
        if self._affine is not None:
            w, b = self._affine.linear(w, b)
        flat = x if x.dim() == 3 else x.flatten(1, -2) if x.dim() > 3 else x.unsqueeze(1)
        w = w.transpose(1, 2)
        y = torch.bmm(flat, w) if b is None else torch.baddbmm(b.unsqueeze(1), flat, w)
        return y if x.dim() == 3 else apart(y, 1, *x.shape[1:-1]) if x.dim() > 3 else y.squeeze(1)


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
    return F.batch_norm(x, flat_mean, flat_var, _merge(w), _merge(b), training, momentum, eps)


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
        return F.group_norm(x, self._groups * self._width.lanes, _merge(w), _merge(b), self._eps)


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

    def __init__(self, width: Width) -> None:
        self._width = width

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features."""
        return apart(x, 1, self._width.lanes, -1).transpose(0, 1).flatten(2)


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
