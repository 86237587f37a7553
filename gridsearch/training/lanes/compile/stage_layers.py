"""What each of torch's layers is as stages.

Stands beside `stage_reader`, which knows where numbers lie; what functions are says `stage_calls`.

Shapes: C/H/W channels, height, width, F features, D channels of a token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gridsearch.training.kernels.stages import AvgPool, BatchNorm, Conv, ImageNorm, MaxPool
from gridsearch.training.lanes.compile import stage_attention, stage_numbers
from gridsearch.training.lanes.compile.step_graph import NoPlan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.training.kernels.stages import Pair
    from gridsearch.training.lanes.compile.stage_reader import StageReader

_MAP, _PLANE = 3, 2  # dimensions of one image's maps, and of a map


def layer(r: StageReader, place: str, m: Any, x: Any, *others: Any) -> Any:
    """Return the codes of what a layer gives.

    Args:
        r: what the network is read by.
        place: of the layer in the model.
        m: the layer.
        x: codes of its input.
        others: of further inputs, which attention has.

    Raises:
        NoPlan: it is no stage.
    """
    if isinstance(m, nn.MultiheadAttention):
        return stage_attention.multihead(r, place, m, x, *others)
    if others:
        raise NoPlan(f"{type(m).__name__} of several inputs")
    if type(m) in _MOVES:
        return m(x)
    if (activation := stage_numbers.activation(m)) is not None:
        return stage_numbers.each(r, x, activation)
    read = _LAYERS.get(type(m))
    if read is None:
        raise NoPlan(type(m).__name__)
    return read(r, place, m, x)


def _names(place: str, m: Any, *names: str) -> tuple[str | None, ...]:
    prefix = f"{place}." if place else ""
    return tuple(None if getattr(m, n, None) is None else f"{prefix}{n}" for n in names)


def _conv(r: StageReader, place: str, m: nn.Conv2d, x: Any) -> torch.Tensor:
    params = _names(place, m, "weight", "bias")
    first = r.one(x)
    if first.dim() != _MAP:
        raise NoPlan("a convolution of what is no map")
    if tuple(first.shape[1:]) == (1, 1) and len(r.shape(r.whole(x)[0])) == 1:
        if not _is_pointwise(m):
            raise NoPlan("a convolution of one pixel with others")
        codes = stage_numbers.dense(r, x.flatten(1), m.in_channels, m.out_channels, params)
        return codes[..., None, None]
    return r.of_maps(r.add(_convolution(m), r.maps(x), params=params))


def _linear(r: StageReader, place: str, m: nn.Linear, x: Any) -> torch.Tensor:
    return stage_numbers.dense(r, x, m.in_features, m.out_features, _names(place, m, "weight", "bias"))


def _batch_norm(r: StageReader, place: str, m: Any, x: Any) -> torch.Tensor:
    if m.momentum is None or m.running_mean is None:
        raise NoPlan("a batch norm without moving averages")
    first = r.one(x)
    value = r.features(x) if first.dim() == 1 else r.maps(x)
    norm = BatchNorm(m.num_features, m.eps, m.momentum, affine=m.weight is not None)
    buffers = tuple(n for n in _names(place, m, "running_mean", "running_var") if n is not None)
    counter = _names(place, m, "num_batches_tracked")[0]
    found = r.add(norm, value, params=_names(place, m, "weight", "bias"), buffers=buffers, counter=counter)
    return r.of_maps(found).reshape(x.shape)


def layer_norm(
    r: StageReader, x: Any, shape: Sequence[int], eps: float | None, params: Sequence[str | None], **how: bool
) -> torch.Tensor:
    """Return the codes of a norm over the last dimensions, of this shape."""
    if eps is None:
        raise NoPlan("a norm without an eps")
    value, rows = r.rows(x.flatten(-len(shape)))
    channels = r.shape(value)[0]
    if params[0] is None and params[1] is not None:
        raise NoPlan("a norm with a bias alone")
    norm = ImageNorm(channels, 0, float(eps), **how)
    return r.of_rows(r.add(norm, value, params=tuple(params)), rows).reshape(x.shape)


def _layer_norm(r: StageReader, place: str, m: nn.LayerNorm, x: Any) -> torch.Tensor:
    return layer_norm(r, x, m.normalized_shape, m.eps, _names(place, m, "weight", "bias"))


def _rms_norm(r: StageReader, place: str, m: Any, x: Any) -> torch.Tensor:
    return layer_norm(r, x, m.normalized_shape, m.eps, _names(place, m, "weight", "bias"), centers=False)


def group_norm(r: StageReader, x: Any, groups: int, eps: float, params: Sequence[str | None]) -> torch.Tensor:
    """Return the codes of a norm over groups of channels."""
    if params[0] is None and params[1] is not None:
        raise NoPlan("a norm with a bias alone")
    value = r.features(x) if r.one(x).dim() == 1 else r.maps(x)
    norm = ImageNorm(x.shape[1], groups, float(eps))
    return r.of_maps(r.add(norm, value, params=tuple(params))).reshape(x.shape)


def _group_norm(r: StageReader, place: str, m: nn.GroupNorm, x: Any) -> torch.Tensor:
    return group_norm(r, x, m.num_groups, m.eps, _names(place, m, "weight", "bias"))


def _instance_norm(r: StageReader, place: str, m: nn.InstanceNorm2d, x: Any) -> torch.Tensor:
    if m.track_running_stats:
        raise NoPlan("an instance norm with moving averages")
    return group_norm(r, x, m.num_features, m.eps, _names(place, m, "weight", "bias"))


def _pooling(r: StageReader, place: str, m: Any, x: Any) -> torch.Tensor:
    del place
    return r.of_maps(r.add(pool(m), r.maps(x)))


def _adaptive(r: StageReader, place: str, m: Any, x: Any) -> torch.Tensor:
    del place
    return adaptive_mean(r, x, m.output_size)


def adaptive_mean(r: StageReader, x: torch.Tensor, size: Any) -> torch.Tensor:
    """Return the codes of adaptive pooling: the mean over all, or over windows of one size.

    Raises:
        NoPlan: its windows are of several sizes.
    """
    sides = tuple(x.shape[2:])
    wanted = (size,) * len(sides) if isinstance(size, int) else tuple(size or ())
    wanted = tuple(side if want is None else want for want, side in zip(wanted, sides, strict=True))
    if all(side == 1 for side in wanted):
        return stage_numbers.mean(r, x, tuple(range(2, x.dim())), keeps=True)
    if len(wanted) != _PLANE or any(side % want for want, side in zip(wanted, sides, strict=True)):
        raise NoPlan("adaptive pooling to windows of several sizes")
    window = sides[0] // wanted[0], sides[1] // wanted[1]
    return x if window == (1, 1) else r.of_maps(r.add(AvgPool(window, window), r.maps(x)))


def _dropout(r: StageReader, place: str, m: Any, x: Any) -> torch.Tensor:
    del place
    if isinstance(m, nn.Dropout2d):
        return channel_dropout(r, x, m.p, from_recipe=True)
    return stage_numbers.dropout(r, x, m.p, r.order, from_recipe=True)


def channel_dropout(r: StageReader, x: Any, rate: float, *, from_recipe: bool) -> torch.Tensor:
    """Return the codes of maps of which whole channels are dropped."""
    if r.one(x).dim() != _MAP:
        raise NoPlan("channels of features dropped")
    return stage_numbers.dropout(r, x, rate, from_recipe=from_recipe, whole=1)


def _softmax(r: StageReader, place: str, m: nn.Softmax, x: Any) -> torch.Tensor:
    del place
    return stage_attention.softmax(r, x, m.dim)


def _pair(sides: Any) -> Pair:
    return (sides, sides) if isinstance(sides, int) else (int(sides[0]), int(sides[-1]))


def _convolution(m: nn.Conv2d) -> Conv:
    if m.padding_mode != "zeros":
        raise NoPlan("a convolution padded by other than zeros")
    kernel, stride, dilation = (_pair(s) for s in (m.kernel_size, m.stride, m.dilation))
    if m.padding == "same":
        whole = [step * (side - 1) for step, side in zip(dilation, kernel, strict=True)]
        if any(side % 2 for side in whole):
            raise NoPlan("a convolution padded on one side")
        padding = whole[0] // 2, whole[1] // 2
    else:
        padding = (0, 0) if isinstance(m.padding, str) else _pair(m.padding)
    bias = m.bias is not None
    return Conv(m.in_channels, m.out_channels, kernel, stride, padding, dilation, m.groups, bias)


def _is_pointwise(m: nn.Conv2d) -> bool:
    return _pair(m.kernel_size) == (1, 1) and m.groups == 1 and m.padding in (0, (0, 0), "valid")


def pool(m: Any) -> MaxPool | AvgPool:
    """Return a pooling layer as a stage.

    Raises:
        NoPlan: it has options that no stage has.
    """
    # with ceil_mode too: windows that are not whole are more than the stage says, which the shape then shows
    stride = m.kernel_size if m.stride in (None, [], ()) else m.stride
    pairs = _pair(m.kernel_size), _pair(stride), _pair(m.padding)
    if isinstance(m, nn.MaxPool2d):
        if _pair(m.dilation) != (1, 1) or m.return_indices:
            raise NoPlan("pooling with options")
        return MaxPool(*pairs)
    if m.divisor_override is not None or not (m.count_include_pad or pairs[2] == (0, 0)):
        raise NoPlan("pooling with options")
    return AvgPool(*pairs)


_MOVES = {
    nn.Identity,
    nn.Flatten,
    nn.Unflatten,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.ChannelShuffle,
    nn.ZeroPad2d,
}
"""Layers that only move numbers: they move codes too."""

_LAYERS: dict[Any, Any] = {
    nn.Conv2d: _conv,
    nn.Linear: _linear,
    nn.modules.linear.NonDynamicallyQuantizableLinear: _linear,
    **dict.fromkeys((nn.BatchNorm2d, nn.BatchNorm1d), _batch_norm),
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _rms_norm,
    nn.GroupNorm: _group_norm,
    nn.InstanceNorm2d: _instance_norm,
    **dict.fromkeys((nn.MaxPool2d, nn.AvgPool2d), _pooling),
    **dict.fromkeys((nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool1d), _adaptive),
    **dict.fromkeys((nn.Dropout, nn.Dropout2d), _dropout),
    nn.Softmax: _softmax,
    nn.TransformerEncoderLayer: stage_attention.encoder_layer,
    nn.TransformerEncoder: stage_attention.encoder,
}
"""What takes in a layer."""
