"""What each function and method of torch is: what only moves numbers, and what becomes stages.

Stands between `stage_calls`, which takes in a node, and the stages of numbers, layers, windows and attention.

Shapes: B batch.
"""
# ruff: noqa: A002, ARG001  (torch's argument names; all of a kind are called alike)

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn
from torch.utils import _pytree as pytree

from gridsearch.training.kernels.activation_curves import Activation, Curve
from gridsearch.training.lanes.compile import (
    stage_attention,
    stage_layers,
    stage_numbers,
    stage_sums,
    stage_windows,
)
from gridsearch.training.lanes.compile.places import Known
from gridsearch.training.lanes.compile.row_drops import row_drop
from gridsearch.training.lanes.compile.stage_arithmetic import ARITHMETIC
from gridsearch.training.lanes.compile.stage_convolutions import CONVOLUTIONS
from gridsearch.training.lanes.compile.stage_masks import CHOICES, codes_of
from gridsearch.training.lanes.compile.stage_norms import PARAMETRIC
from gridsearch.training.lanes.compile.step_graph import NoPlan

if TYPE_CHECKING:
    from collections.abc import Callable

    from gridsearch.training.lanes.compile.stage_reader import StageReader


def of_torchvision(target: Any) -> Callable[..., Any] | None:
    """Return what takes in a function of torchvision, which is not imported here."""
    where = f"{getattr(target, '__module__', '')}.{getattr(target, '__name__', '')}"
    return _stochastic_depth if where == "torchvision.ops.stochastic_depth.stochastic_depth" else None


def _each(stage: Any) -> Callable[..., torch.Tensor]:
    def call(r: StageReader, input: torch.Tensor, inplace: bool = False) -> torch.Tensor:
        return stage_numbers.each(r, input, stage)

    return call


def _as_module(kind: Callable[..., nn.Module]) -> Callable[..., torch.Tensor]:
    """Return the function of a layer without parameters: it takes what the layer does, after the input."""

    def call(r: StageReader, input: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return r.layer("", kind(*args, **kwargs), input)

    return call


def _leaky(r: StageReader, input: torch.Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Any:
    return r.layer("", nn.LeakyReLU(negative_slope), input)


def _elu(r: StageReader, input: torch.Tensor, alpha: float = 1.0, inplace: bool = False) -> Any:
    return r.layer("", nn.ELU(alpha), input)


def _adaptive(r: StageReader, input: torch.Tensor, output_size: Any) -> torch.Tensor:
    return stage_layers.adaptive_mean(r, input, output_size)


def _dropout(*, features: bool = False, alpha: bool = False) -> Callable[..., torch.Tensor]:
    def call(
        r: StageReader, input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> torch.Tensor:
        del inplace
        if training and not r.training:
            raise NoPlan("dropout in evaluation")
        # in evaluation the same layers must be found, for which it must be there too
        if r.training and not training:
            return input
        if features:
            return stage_layers.channel_dropout(r, input, p, from_recipe=False, alpha=alpha)
        return stage_numbers.dropout(r, input, p, r.order, from_recipe=False, alpha=alpha)

    return call


def _max_pool(kind: Callable[..., nn.Module]) -> Callable[..., Any]:
    def call(r: StageReader, input: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        order = "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"
        return r.layer("", kind(**dict(zip(order, args, strict=False)), **kwargs), input)

    return call


def _adaptive_max(kind: Callable[..., nn.Module]) -> Callable[..., Any]:
    def call(r: StageReader, input: torch.Tensor, output_size: Any, return_indices: bool = False) -> Any:
        return r.layer("", kind(output_size, return_indices), input)

    return call


def _avg_pool3d(r: StageReader, input: torch.Tensor, kernel_size: Any, stride: Any = None) -> torch.Tensor:
    """Take in means over channels in a row, of which local response norms are made."""
    if input.dim() != 5 or input.shape[1] != 1 or tuple(kernel_size[1:]) != (1, 1) or stride != 1:
        raise NoPlan("pooling of volumes")
    layer = nn.AvgPool2d((kernel_size[0], 1), 1)
    means: torch.Tensor = r.layer("", layer, input.flatten(3))
    return means.view(*means.shape[:3], *input.shape[3:])


def _log_softmax(r: StageReader, input: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    return _softmax(r, input, *args, **kwargs, logarithm=True)


def _softmax(
    r: StageReader,
    input: torch.Tensor,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: None = None,
    *,
    logarithm: bool = False,
) -> torch.Tensor:
    if dtype is not None:
        raise NoPlan("softmax of another type")
    return stage_attention.softmax(r, input, dim, logarithm=logarithm)


def _attention(
    r: StageReader,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
) -> torch.Tensor:
    if query.dim() < 3:
        raise NoPlan("attention of what is no tokens")
    if is_causal:
        attn_mask = Known(torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril())
    if isinstance(attn_mask, Known) and attn_mask.content.dtype == torch.bool:
        attn_mask = r.constant(torch.where(attn_mask.content, 0.0, -math.inf))
    how = {"mask": attn_mask, "scale": scale, "rate": dropout_p}
    return stage_attention.attention(r, query, key, value, **how)[0]


def _stochastic_depth(
    r: StageReader, input: torch.Tensor, p: float, mode: str, training: bool = True
) -> torch.Tensor:
    if p == 0:
        return input
    if mode != "row":
        raise NoPlan("stochastic depth of batches")
    if training and not r.training:
        raise NoPlan("stochastic depth in evaluation")
    return stage_numbers.dropout(r, input, p, from_recipe=False, whole=-1)


def _pad(
    r: StageReader, input: torch.Tensor, pad: Any, mode: str = "constant", value: Any = None
) -> torch.Tensor:
    return stage_windows.pad(r, input, pad, mode, value)


def _unfold(r: StageReader, input: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    return stage_windows.moved(input, lambda numbers: F.unfold(numbers, *args, **kwargs))


def _fold(
    r: StageReader,
    input: torch.Tensor,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> torch.Tensor:
    sides = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    how = {"kernel_size": kernel_size, "dilation": dilation, "padding": padding, "stride": stride}
    return stage_windows.folded(r, input, sides, **how)


def _detached(r: StageReader, input: torch.Tensor) -> torch.Tensor:
    return stage_numbers.each(r, input, Activation(Curve.DETACHED))


def _interpolate(r: StageReader, input: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    return stage_layers.interpolate(r, input, *args, **kwargs)


# What takes tensors whose content is known


def _item(r: StageReader, input: Any, index: Any) -> Any:
    if any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(index)):
        raise NoPlan("numbers that an activation chooses")
    index = pytree.tree_map(lambda leaf: leaf.content if isinstance(leaf, Known) else leaf, index)
    return Known(input.content[index]) if isinstance(input, Known) else input[index]


def _index_select(r: StageReader, input: Any, dim: int, index: Any) -> torch.Tensor:
    if not isinstance(index, Known):
        raise NoPlan("numbers that an activation chooses")
    return codes_of(r, input).index_select(dim, index.content)


OF_KNOWN: dict[str, Callable[..., Any]] = {
    "getitem": _item,
    "index_select": _index_select,
    "scaled_dot_product_attention": _attention,
    **CHOICES,
}
"""What takes in functions and methods that keep what is known from activations apart, by their names."""


def _row_drop(r: StageReader, input: torch.Tensor, keep: float) -> torch.Tensor:
    return _stochastic_depth(r, input, 1 - keep, "row")


MOVING_METHODS = {
    *("view", "reshape", "flatten", "unflatten", "transpose", "permute", "swapaxes", "swapdims", "movedim"),
    *("t", "mT", "chunk", "split", "unbind", "select", "narrow", "squeeze", "unsqueeze", "expand"),
    *(
        "expand_as",
        "view_as",
        "reshape_as",
        "repeat",
        "tile",
        "roll",
        "flip",
        "contiguous",
        "clone",
        "unfold",
    ),
    *("rot90", "tril", "triu", "diagonal", "fliplr", "flipud", "repeat_interleave"),
}
MOVES = {
    *(getattr, torch.cat, torch.concat, torch.stack, torch.flatten, torch.unflatten),
    *(torch.reshape, torch.transpose, torch.permute, torch.swapaxes, torch.movedim, torch.chunk),
    *(torch.split, torch.unbind, torch.select, torch.narrow, torch.squeeze, torch.unsqueeze, torch.roll),
    *(torch.flip, torch.tile, torch.pixel_shuffle, torch.pixel_unshuffle, torch.channel_shuffle),
    *(F.pixel_shuffle, F.pixel_unshuffle, F.channel_shuffle, torch.broadcast_to, torch.clone),
    *(torch.hstack, torch.vstack, torch.dstack, torch.rot90, torch.tril, torch.triu, torch.diagonal),
    *(torch.fliplr, torch.flipud, torch.swapdims, torch.repeat_interleave),
}
"""What only moves numbers: it moves codes too."""

CALLS: dict[Any, Callable[..., Any]] = {
    **ARITHMETIC,
    **dict.fromkeys((F.relu, torch.relu, "relu", "relu_", F.relu_), _as_module(lambda *_, **__: nn.ReLU())),
    **dict.fromkeys((F.relu6,), _each(Activation(Curve.RELU6))),
    F.hardsigmoid: _each(Activation(Curve.HARDSIGMOID)),
    F.hardswish: _each(Activation(Curve.HARDSWISH)),
    **dict.fromkeys((F.silu,), _each(Activation(Curve.SILU))),
    F.mish: _each(Activation(Curve.MISH)),
    **dict.fromkeys((F.sigmoid, torch.sigmoid, "sigmoid"), _each(Activation(Curve.SIGMOID))),
    **dict.fromkeys((F.tanh, torch.tanh, "tanh"), _each(Activation(Curve.TANH))),
    F.gelu: _as_module(lambda approximate="none": nn.GELU(approximate)),
    F.leaky_relu: _leaky,
    F.elu: _elu,
    F.selu: _as_module(lambda *_, **__: nn.SELU()),
    F.softplus: _as_module(nn.Softplus),
    **dict.fromkeys((F.celu, torch.celu), _as_module(nn.CELU)),
    **dict.fromkeys((F.threshold,), _as_module(nn.Threshold)),
    **dict.fromkeys((F.hardshrink,), _as_module(nn.Hardshrink)),
    **dict.fromkeys((F.softshrink,), _as_module(nn.Softshrink)),
    **dict.fromkeys((F.hardtanh,), _as_module(nn.Hardtanh)),
    F.softsign: _each(Activation(Curve.SOFTSIGN)),
    F.logsigmoid: _each(Activation(Curve.LOG_SIGMOID)),
    F.tanhshrink: _each(Activation(Curve.TANHSHRINK)),
    **dict.fromkeys((torch.abs, "abs"), _each(Activation(Curve.ABSOLUTE))),
    **dict.fromkeys((torch.exp, "exp"), _each(Activation(Curve.EXPONENTIAL))),
    **dict.fromkeys((torch.log, "log"), _each(Activation(Curve.LOGARITHM))),
    **dict.fromkeys((torch.square, "square"), _each(Activation(Curve.SQUARE))),
    **dict.fromkeys((torch.sqrt, "sqrt"), _each(Activation(Curve.ROOT))),
    **dict.fromkeys((torch.reciprocal, "reciprocal"), _each(Activation(Curve.RECIPROCAL))),
    **dict.fromkeys((torch.sin, "sin"), _each(Activation(Curve.SINE))),
    **dict.fromkeys((torch.cos, "cos"), _each(Activation(Curve.COSINE))),
    **dict.fromkeys((torch.sign, torch.sgn, "sign", "sgn"), _each(Activation(Curve.SIGN))),
    **dict.fromkeys((torch.round, "round"), _each(Activation(Curve.ROUND))),
    **dict.fromkeys((torch.floor, "floor"), _each(Activation(Curve.FLOOR))),
    **dict.fromkeys((torch.ceil, "ceil"), _each(Activation(Curve.CEILING))),
    **dict.fromkeys((torch.detach, "detach"), _detached),
    F.glu: stage_layers.glu,
    **dict.fromkeys((F.prelu, torch.prelu), stage_layers.prelu),
    F.pad: _pad,
    F.unfold: _unfold,
    F.fold: _fold,
    **dict.fromkeys((F.interpolate, F.upsample), _interpolate),
    torch.einsum: stage_sums.einsum,
    torch.tensordot: stage_sums.tensordot,
    **dict.fromkeys((F.bilinear, torch.bilinear), stage_sums.bilinear),
    **dict.fromkeys((operator.matmul, torch.matmul, torch.bmm, "matmul", "bmm"), stage_sums.product),
    **dict.fromkeys((F.max_pool2d, torch.max_pool2d), _max_pool(nn.MaxPool2d)),
    **dict.fromkeys((F.max_pool1d, torch.max_pool1d), _max_pool(nn.MaxPool1d)),
    **dict.fromkeys((F.avg_pool2d,), _as_module(nn.AvgPool2d)),
    **dict.fromkeys((F.avg_pool1d, torch.avg_pool1d), _as_module(nn.AvgPool1d)),
    F.avg_pool3d: _avg_pool3d,
    F.adaptive_max_pool2d: _adaptive_max(nn.AdaptiveMaxPool2d),
    F.adaptive_max_pool1d: _adaptive_max(nn.AdaptiveMaxPool1d),
    **dict.fromkeys((F.adaptive_avg_pool2d, F.adaptive_avg_pool1d), _adaptive),
    F.dropout: _dropout(),
    **dict.fromkeys((F.dropout1d, F.dropout2d), _dropout(features=True)),
    F.alpha_dropout: _dropout(alpha=True),
    F.feature_alpha_dropout: _dropout(features=True, alpha=True),
    row_drop: _row_drop,
    **dict.fromkeys((F.softmax, torch.softmax, "softmax"), _softmax),
    **dict.fromkeys((F.log_softmax, torch.log_softmax, "log_softmax"), _log_softmax),
    **CONVOLUTIONS,
    **PARAMETRIC,
}
"""What takes in a function or a method."""

_ARITHMETIC = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "truediv": operator.truediv,
    "pow": operator.pow,
    "matmul": operator.matmul,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
}

OPERATORS: dict[str, tuple[Any, bool]] = {
    **{f"__{name}__": (own, False) for name, own in _ARITHMETIC.items()},
    **{f"__i{name}__": (own, False) for name, own in _ARITHMETIC.items()},
    **{f"__r{name}__": (own, True) for name, own in _ARITHMETIC.items()},
    **{f"__{name}__": (getattr(operator, name), False) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    "__invert__": (operator.invert, False),
    "__neg__": (operator.neg, False),
    "__getitem__": (operator.getitem, False),
}
"""Methods that Python's operators call: the operator, and whether its operands change places."""
