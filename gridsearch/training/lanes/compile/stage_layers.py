"""What each of torch's layers is as stages.

Stands beside `stage_reader`, which knows where numbers lie; what functions are says `stage_calls`.

Shapes: C/H/W channels, height, width, F features, D channels of a token.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from gridsearch.training.kernels.activation_curves import Activation, Curve
from gridsearch.training.kernels.stages import AvgPool, MaxPool, shape_after
from gridsearch.training.lanes.compile import (
    stage_attention,
    stage_convolutions,
    stage_norms,
    stage_numbers,
    stage_sums,
    stage_windows,
)
from gridsearch.training.lanes.compile.stage_convolutions import is_of_rows, of_rows
from gridsearch.training.lanes.compile.step_graph import NoPlan

if TYPE_CHECKING:
    from collections.abc import Callable

    from gridsearch.training.lanes.compile.stage_reader import StageReader

_MAP, _PLANE = 3, 2  # dimensions of one image's maps, and of a map
_MOST_TAPS = 255  # of a window of max pooling; all others are maxima by a table


def layer(r: StageReader, place: str, m: Any, x: Any, *others: Any) -> Any:
    """Return the codes of what a layer gives.

    Args:
        r: what the network is read by.
        place: of the layer in the model.
        m: the layer.
        x: codes of its input.
        others: of further inputs.

    Raises:
        NoPlan: it is no stage.
    """
    if type(m) is nn.Bilinear:
        return stage_sums.bilinear_layer(r, place, m, x, *others)
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


def knows(m: nn.Module) -> bool:
    """Whether a layer is taken in as it is."""
    return type(m) in _MOVES or type(m) is nn.Bilinear or type(m) in _LAYERS or stage_numbers.acts(m)


def _names(place: str, m: Any, *names: str) -> tuple[str | None, ...]:
    prefix = f"{place}." if place else ""
    return tuple(None if getattr(m, n, None) is None else f"{prefix}{n}" for n in names)


def _conv(r: StageReader, place: str, m: Any, x: Any) -> torch.Tensor:
    return stage_convolutions.convolution(r, m, x, _names(place, m, "weight", "bias"))


def _linear(r: StageReader, place: str, m: nn.Linear, x: Any) -> torch.Tensor:
    return stage_numbers.dense(r, x, m.in_features, m.out_features, _names(place, m, "weight", "bias"))


def _batch_norm(r: StageReader, place: str, m: Any, x: Any) -> torch.Tensor:
    if m.running_mean is None:
        raise NoPlan("a batch norm without running statistics")
    params, buffers = _names(place, m, "weight", "bias"), _names(place, m, "running_mean", "running_var")
    counter = _names(place, m, "num_batches_tracked")[0]
    if m.momentum is None:
        buffers = *buffers, counter
    return stage_norms.batch_norm(r, x, params, buffers, momentum=m.momentum, eps=m.eps, counter=counter)


def _layer_norm(r: StageReader, place: str, m: nn.LayerNorm, x: Any) -> torch.Tensor:
    return stage_norms.layer_norm(r, x, m.normalized_shape, m.eps, _names(place, m, "weight", "bias"))


def _rms_norm(r: StageReader, place: str, m: Any, x: Any) -> torch.Tensor:
    return stage_norms.layer_norm(
        r, x, m.normalized_shape, m.eps, _names(place, m, "weight", "bias"), centers=False
    )


def _group_norm(r: StageReader, place: str, m: nn.GroupNorm, x: Any) -> torch.Tensor:
    return stage_norms.group_norm(r, x, m.num_groups, m.eps, _names(place, m, "weight", "bias"))


def _instance_norm(r: StageReader, place: str, m: nn.InstanceNorm2d, x: Any) -> torch.Tensor:
    if m.track_running_stats:
        raise NoPlan("an instance norm with moving averages")
    return stage_norms.group_norm(r, x, m.num_features, m.eps, _names(place, m, "weight", "bias"))


def _max_pool(r: StageReader, place: str, m: Any, x: Any) -> torch.Tensor:
    del place
    if m.return_indices:
        raise NoPlan("pooling that gives indices")
    maps, flat = _maps_of(m, x)
    kernel, stride, dilation = (of_rows(m, s) for s in (m.kernel_size, _stride(m), m.dilation))
    padding = of_rows(m, m.padding, 0)
    sides = F.max_pool2d(_one_map(maps), kernel, stride, padding, dilation, m.ceil_mode).shape[2:]
    stage = MaxPool(kernel, stride, padding)
    whole = shape_after(stage, tuple(maps.shape[1:]))[1:] == tuple(sides)
    if whole and dilation == (1, 1) and kernel[0] * kernel[1] <= _MOST_TAPS:
        return flat(r.of_maps(r.add(stage, r.maps(maps))))
    return flat(stage_windows.pooled(r, maps, (sides[0], sides[1]), kernel, stride, padding, dilation))


def _one_map(maps: torch.Tensor) -> torch.Tensor:
    """Return one map of a size; one without memory would have torch import sympy, which takes half a second."""
    return torch.zeros(1, 1, *maps.shape[2:])


def _mean_pool(r: StageReader, place: str, m: Any, x: Any) -> torch.Tensor:
    del place
    maps, flat = _maps_of(m, x)
    kernel, stride, padding = (
        *(of_rows(m, s) for s in (m.kernel_size, _stride(m))),
        of_rows(m, m.padding, 0),
    )
    override = getattr(m, "divisor_override", None)

    def layer(maps: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(maps, kernel, stride, padding, m.ceil_mode, m.count_include_pad, override)

    stage = AvgPool(kernel, stride, padding)
    sides = layer(_one_map(maps)).shape[2:]
    plain = override is None and (m.count_include_pad or padding == (0, 0))
    if plain and shape_after(stage, tuple(maps.shape[1:]))[1:] == tuple(sides):
        return flat(r.of_maps(r.add(stage, r.maps(maps))))
    return flat(stage_windows.resampled(r, maps, layer))


def _stride(m: Any) -> Any:
    return m.kernel_size if m.stride in (None, [], ()) else m.stride


def _maps_of(m: Any, x: torch.Tensor) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
    """Return what a layer takes as maps, of one row where it is for rows, and what makes rows of maps again."""
    if not is_of_rows(m):
        return x, lambda maps: maps
    return x.unsqueeze(-2), lambda maps: maps.squeeze(-2)


def _adaptive(r: StageReader, place: str, m: Any, x: Any) -> torch.Tensor:
    del place
    return adaptive_mean(r, x, m.output_size)


def adaptive_mean(r: StageReader, x: torch.Tensor, size: Any) -> torch.Tensor:
    """Return the codes of adaptive mean pooling."""
    wanted = _adapted(x, size)
    if all(side == 1 for side in wanted):
        return stage_numbers.mean(r, x, tuple(range(2, x.dim())), keeps=True)
    if len(wanted) < _PLANE:
        return adaptive_mean(r, x.unsqueeze(-2), (1, *wanted)).squeeze(-2)
    window, rest = zip(
        *(divmod(side, want) for want, side in zip(wanted, x.shape[2:], strict=True)), strict=True
    )
    if not any(rest):
        return x if window == (1, 1) else r.of_maps(r.add(AvgPool(window, window), r.maps(x)))
    return stage_windows.resampled(r, x, lambda maps: F.adaptive_avg_pool2d(maps, (wanted[0], wanted[1])))


def _adaptive_max(r: StageReader, place: str, m: Any, x: Any) -> torch.Tensor:
    del place
    if m.return_indices:
        raise NoPlan("pooling that gives indices")
    maps, flat = _maps_of(m, x)
    return flat(stage_windows.adaptive(r, maps, (1,) * (maps.dim() - x.dim()) + _adapted(x, m.output_size)))


def _adapted(x: torch.Tensor, size: Any) -> tuple[int, ...]:
    sides = tuple(x.shape[2:])
    wanted = (size,) * len(sides) if isinstance(size, int) else tuple(size or ())
    return tuple(side if want is None else want for want, side in zip(wanted, sides, strict=True))


def _moved(r: StageReader, place: str, m: Any, x: Any) -> torch.Tensor:
    """Return the codes of a layer that moves numbers and takes no codes."""
    del r, place
    moved: torch.Tensor = stage_windows.moved(x, m)
    return moved


def _upsample(r: StageReader, place: str, m: nn.Upsample, x: Any) -> torch.Tensor:
    del place
    return interpolate(r, x, m.size, m.scale_factor, m.mode, m.align_corners, m.recompute_scale_factor)


def interpolate(r: StageReader, x: Any, *args: Any, **how: Any) -> torch.Tensor:
    """Return the codes of maps of another size, with torch's further arguments."""

    def layer(maps: torch.Tensor) -> torch.Tensor:
        return F.interpolate(maps, *args, **how)

    mode = args[2] if len(args) > 2 else how.get("mode", "nearest")
    return (
        stage_windows.moved(x, layer) if mode.startswith("nearest") else stage_windows.resampled(r, x, layer)
    )


def _glu(r: StageReader, place: str, m: nn.GLU, x: Any) -> torch.Tensor:
    del place
    return glu(r, x, m.dim)


def glu(r: StageReader, x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """Return the codes of a gated linear unit."""
    own, gate = x.chunk(2, dim)
    return stage_numbers.multiply(r, own, stage_numbers.each(r, gate, Activation(Curve.SIGMOID)))


def _prelu(r: StageReader, place: str, m: nn.PReLU, x: Any) -> torch.Tensor:
    del m
    return prelu(r, x, r.tensor(f"{place}.weight" if place else "weight"))


def prelu(r: StageReader, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the codes of a ReLU with a learned slope below zero, which is that at zero too."""
    above = stage_numbers.each(r, x, Activation(Curve.THRESHOLD))
    below = stage_numbers.each(r, x, Activation(Curve.CLAMP, -math.inf, 0.0))
    slopes = weight.view(-1, *(1,) * (x.dim() - 2))
    return stage_numbers.add(r, above, stage_numbers.multiply(r, below, slopes))


def _dropout(r: StageReader, place: str, m: Any, x: Any) -> torch.Tensor:
    del place
    alpha = isinstance(m, nn.AlphaDropout | nn.FeatureAlphaDropout)
    if not isinstance(m, nn.Dropout | nn.AlphaDropout):
        return channel_dropout(r, x, m.p, from_recipe=True, alpha=alpha)
    return stage_numbers.dropout(r, x, m.p, r.order, from_recipe=True, alpha=alpha)


def channel_dropout(
    r: StageReader, x: Any, rate: float, *, from_recipe: bool, alpha: bool = False
) -> torch.Tensor:
    """Return the codes of maps, or of rows, of which whole channels are dropped."""
    if r.one(x).dim() not in (_MAP, _PLANE):
        raise NoPlan("channels of features dropped")
    return stage_numbers.dropout(r, x, rate, from_recipe=from_recipe, whole=1, alpha=alpha)


def _softmax(r: StageReader, place: str, m: nn.Softmax, x: Any) -> torch.Tensor:
    del place
    return stage_attention.softmax(r, x, m.dim, logarithm=isinstance(m, nn.LogSoftmax))


def _softmax_of_maps(r: StageReader, place: str, m: nn.Softmax2d, x: Any) -> torch.Tensor:
    del place, m
    return stage_attention.softmax(r, x, -_MAP)


_MOVES = {
    nn.Identity,
    nn.Flatten,
    nn.Unflatten,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.ChannelShuffle,
    nn.ZeroPad1d,
    nn.ZeroPad2d,
}
"""Layers that only move numbers: they move codes too."""

_MOVED = (
    *(nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReplicationPad1d, nn.ReplicationPad2d),
    *(nn.CircularPad1d, nn.CircularPad2d, nn.Unfold),
)
"""Layers that only move numbers, and take no codes."""

_LAYERS: dict[Any, Any] = {
    **dict.fromkeys((nn.Conv2d, nn.Conv1d), _conv),
    nn.Linear: _linear,
    nn.modules.linear.NonDynamicallyQuantizableLinear: _linear,
    **dict.fromkeys((nn.BatchNorm2d, nn.BatchNorm1d), _batch_norm),
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _rms_norm,
    nn.GroupNorm: _group_norm,
    nn.InstanceNorm2d: _instance_norm,
    **dict.fromkeys((nn.MaxPool2d, nn.MaxPool1d), _max_pool),
    **dict.fromkeys((nn.AvgPool2d, nn.AvgPool1d), _mean_pool),
    **dict.fromkeys((nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool1d), _adaptive_max),
    **dict.fromkeys(_MOVED, _moved),
    **dict.fromkeys((nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d), _upsample),
    nn.GLU: _glu,
    nn.PReLU: _prelu,
    **dict.fromkeys((nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool1d), _adaptive),
    **dict.fromkeys((nn.Dropout, nn.Dropout1d, nn.Dropout2d), _dropout),
    **dict.fromkeys((nn.AlphaDropout, nn.FeatureAlphaDropout), _dropout),
    **dict.fromkeys((nn.Softmax, nn.LogSoftmax), _softmax),
    nn.Softmax2d: _softmax_of_maps,
}
"""What takes in a layer."""
